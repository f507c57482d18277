"""The location table of several registrars: on a server, with nothing of it kept in here.

Strategy: every ``fetch`` asks the server, so what one node saved another one finds at once, and a
node that dies takes nothing with it.  The one thing that is remembered here is which
addresses-of-record were seen on which connection: when that closes their bindings go.  The kinds of
servers are ``redis`` and ``postgres``; ``records`` says what a row is, ``link`` what happens while
the server is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from registrar_plugin.bindings import Binding
from registrar_plugin.store import Conflict, Entry, LocationStore, StoreAway, StoreError
from registrar_plugin.store.link import OPERATION_S, Backend, Link
from registrar_plugin.store.news import listen
from registrar_plugin.store.records import (
    Codec,
    Record,
    SharedBinding,
    key_of,
    octets,
    text,
)

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.flow import Flow

log = logging.getLogger("sipedge.registrar")

#: octets of an address-of-record; servers limit what stands in an index
MAX_AOR: Final = 1024
#: how often a change is tried when other nodes are quicker
ATTEMPTS: Final = 3


class SharedDatabase:
    """The tables on one server, for one process that calls itself ``node``."""

    def __init__(self, core: Core, backend: Backend, node: str) -> None:
        self.core = core
        self.backend = backend
        self.link = Link(backend, core.stats)
        self.codec = Codec(core, node)
        #: by name; those that somebody asked for
        self.tables: dict[str, SharedTable] = {}
        self._listener: asyncio.Task[None] | None = None

    def table(self, domain: str) -> SharedTable:
        """The table of that name, made when it is first asked for."""
        table = self.tables.get(domain)
        if table is None:
            table = self.tables[domain] = SharedTable(self, domain)
        return table

    def listen(self, heard: Callable[[SharedTable | None, bytes], None]) -> None:
        """Have ``heard`` called, in the core's thread, when any node stores a new binding.

        ``heard(None, b"")``: one may have been missed.
        """

        def announced(domain: str, aor: str) -> None:
            table = self.tables.get(domain)
            if not aor or table is not None:
                self.core.post(partial(heard, table, octets(aor)))

        loop = asyncio.get_running_loop()
        self._listener = loop.create_task(listen(self.backend, announced))

    async def aclose(self) -> None:
        """Let go of the server."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait((self._listener,), timeout=OPERATION_S)
        await self.link.aclose()


class SharedTable:
    """One table; see ``AsyncLocationStore``.

    ``now`` is of no account: what is old is decided by the clock of the server.
    """

    embedded: LocationStore | None = None

    def __init__(self, database: SharedDatabase, domain: str) -> None:
        self._core = database.core
        self._link = database.link
        self._backend = database.backend
        self._codec = database.codec
        self._domain = domain
        #: live stream -> addresses-of-record that have, or had, a binding on it
        self._flows: dict[Flow, set[bytes]] = {}

    async def fetch(self, aor: bytes, now: float) -> tuple[Binding, ...]:
        if len(aor) > MAX_AOR:
            return ()
        records = await self._link.call(self._backend.fetch, self._domain, text(aor))
        return self._bindings(aor, records)

    async def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        if len(aor) > MAX_AOR:
            raise StoreError(f"an address-of-record has {MAX_AOR} octets at most")
        old = [_identity(binding) for binding in gone]
        records = [self._codec.record(binding) for binding in new]
        changed = await self._link.call(
            self._backend.replace, self._domain, text(aor), old, records
        )
        # whoever finds that a connection has closed meanwhile calls flow_closed once more
        for binding in new:
            self._remember(aor, binding)
        return self._bindings(aor, changed)

    async def flow_closed(self, flow: Flow) -> list[Entry]:
        lost: list[Entry] = []
        for aor in self._flows.pop(flow, ()):
            try:
                lost += [(aor, binding) for binding in await self._take_off(aor, flow)]
            except StoreError as exc:
                # they stay until they expire; nobody can be called over them
                log.warning("bindings of %r on a closed connection were not removed: %s", aor, exc)
        return lost

    async def sweep(self, now: float) -> list[Entry]:
        if not self._link.is_up:
            return []
        expired: list[Entry] = []
        for aor, record in await self._link.call(self._backend.expire, self._domain):
            expired += [(octets(aor), binding) for binding in self._decoded(aor, [record])]
        return expired

    async def entries(self) -> AsyncIterator[Entry]:
        try:
            async for aor, record in self._backend.entries(self._domain):
                for binding in self._decoded(aor, [record]):
                    yield octets(aor), binding
        except self._link.failures as exc:
            raise StoreAway(f"{self._backend.name}: {exc}") from exc

    def knows(self, flow: Flow) -> bool:
        """Whether there was a binding on that connection."""
        return flow in self._flows

    # -- helpers

    async def _take_off(self, aor: bytes, flow: Flow) -> list[Binding]:
        """Remove the bindings of one address-of-record from a flow; returns those that are lost."""
        conn_id = flow.conn_id.hex()
        for attempt in range(1, ATTEMPTS + 1):
            gone = [
                row
                for row in await self.fetch(aor, self._core.now)
                if isinstance(row, SharedBinding)
                and row.home is not None
                and row.home.node == self._codec.node
                and row.home.conn_id == conn_id
            ]
            by_uri = [row for row in gone if row.home is not None and row.home.by_uri]
            try:
                if gone:
                    stay = [row.without_flow() for row in by_uri]
                    await self.replace(aor, gone, stay, self._core.now)
                return [row for row in gone if row not in by_uri]
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
        return []

    def _bindings(self, aor: bytes, records: Sequence[Record]) -> tuple[Binding, ...]:
        rows = self._decoded(text(aor), records)
        for row in rows:
            self._remember(aor, row)
        return tuple(rows)

    def _decoded(self, aor: str, records: Sequence[Record]) -> list[SharedBinding]:
        rows = []
        for record in records:
            try:
                rows.append(self._codec.binding(record))
            except ValueError:
                log.warning("a binding of %s in the store makes no sense: %s", aor, record)
        return rows

    def _remember(self, aor: bytes, binding: Binding) -> None:
        flow = binding.flow
        if flow is not None and not isinstance(flow, tuple):
            self._flows.setdefault(flow, set()).add(aor)


def _identity(binding: Binding) -> tuple[str, str]:
    """Key and version.  What was never fetched has a version that no row has."""
    key = binding.key if isinstance(binding, SharedBinding) else key_of(binding)
    return key, binding.ruid
