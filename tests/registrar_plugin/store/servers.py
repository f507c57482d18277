"""Stores of every kind, each seen by two nodes of which each has a core of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registrar_plugin.bindings import MICRO, Binding
from registrar_plugin.location import outlives
from registrar_plugin.store import AsyncLocationStore
from registrar_plugin.store.embedded import Embedded
from registrar_plugin.store.link import Backend
from registrar_plugin.store.memory import MemoryStore
from registrar_plugin.store.postgres import PostgresBackend
from registrar_plugin.store.redis import RedisBackend
from registrar_plugin.store.shared import SharedDatabase
from registrar_plugin.store.sqlite import Database
from registrar_plugin.store.sqlite_file import SqliteFile
from sipedge.core import Core
from sipedge.flow import TCP, UDP, Flow, Listener
from tests.peerlib.databases import Database as Server

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef

EMBEDDED = ("memory", "sqlite")
SHARED = ("redis", "postgres")
#: each test has a table of its own on the servers, which serve all tests of a run
_numbers = itertools.count(1)

I1 = "urn:uuid:00000000-0000-1000-8000-aabbccddee01"
EDGE = b"<sip:token@192.0.2.1:5060;lr;ob>"


def backend_of(url: str) -> Backend:
    return RedisBackend(url) if url.startswith("redis") else PostgresBackend(url)


class Node:
    """One process: a core whose clock says ``now``, and its table."""

    def __init__(self, now: float) -> None:
        self.core = Core()
        self.core.now = now
        self.udp_listener = self.core.flows.add_listener(Listener(UDP, "127.0.0.1", 5060))
        self.tcp_listener = self.core.flows.add_listener(Listener(TCP, "127.0.0.1", 5060))
        self.table: AsyncLocationStore
        self.database: SharedDatabase | None = None
        self._stamp = 0

    def share(self, url: str, domain: str, node_id: str) -> None:
        self.database = SharedDatabase(self.core, backend_of(url), node_id)
        self.table = self.database.table(domain)

    def tcp(self, port: int = 40001) -> Flow:
        flow = self.core.flows.accept(self.tcp_listener, ("198.51.100.7", port))
        self.core.flow_opened(flow, self.core.now)
        return flow

    def binding(
        self,
        reg_id: int = 1,
        *,
        instance: str = I1,
        uri: str = "sip:bob@10.0.0.9",
        flow: FlowRef | None = None,
        path: bytes = EDGE,
        age_s: float = 0,
        lifetime: int = 600,
        **more: Any,
    ) -> Binding:
        self._stamp = max(self._stamp + 1, int(self.core.now * MICRO))
        params = f';+sip.instance="<{instance}>";reg-id={reg_id}' if reg_id else ""
        fields = {
            "contact": f"<{uri}>{params}".encode(), "reg_id": reg_id, "q": -1, "path": path,
            "flow": flow, "call_id": b"c1", "cseq": 1, "stamp": self._stamp - int(age_s * MICRO),
            "lifetime": lifetime, "methods": None, "epoch": 0,
        }  # fmt: skip
        return Binding(**{**fields, **more})  # type: ignore[arg-type]

    async def save(self, aor: bytes, *new: Binding) -> tuple[Binding, ...]:
        return await self.table.replace(aor, (), new, self.core.now)

    async def fetch(self, aor: bytes) -> tuple[Binding, ...]:
        return await self.table.fetch(aor, self.core.now)


class Stores:
    """Two nodes with one table; with an embedded store there is only ``a``."""

    def __init__(self, kind: str, server: Server | None, path: Path) -> None:
        self.kind = kind
        self.server = server
        self.domain = f"table {next(_numbers)}:*"
        # clocks of two machines have nothing to do with each other
        self.a, self.b = Node(1000.0), Node(5_000_000.0)
        self.sqlite: Database | None = None
        if server is not None:
            self.a.share(server.url, self.domain, "node-a")
            self.b.share(server.url, self.domain, "node-b")
        elif kind == "memory":
            self.a.table = Embedded(MemoryStore())
        else:
            file = SqliteFile(path / "location.sqlite")
            self.sqlite = Database(self.a.core, file, outlives, write_through=False, batch_s=0.1)
            self.sqlite.open()
            self.a.table = Embedded(self.sqlite.table(self.domain))

    def run(self, play: Callable[[], Awaitable[None]]) -> None:
        """Run a test in an event loop."""

        async def all_of_it() -> None:
            databases = [node.database for node in (self.a, self.b) if node.database is not None]
            try:
                for database in databases:
                    await database.backend.prepare()
                await play()
            finally:
                for database in databases:
                    await database.link.aclose()

        asyncio.run(all_of_it())

    def close(self) -> None:
        if self.sqlite is not None:
            self.sqlite.close()


def plain(binding: Binding) -> tuple[Any, ...]:
    """What a store must give back as it got it."""
    return (
        binding.contact, binding.reg_id, binding.q, binding.path, binding.flow, binding.call_id,
        binding.cseq, binding.lifetime, binding.methods, binding.epoch,
    )  # fmt: skip
