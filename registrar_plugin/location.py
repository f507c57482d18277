"""What ``save`` and ``lookup`` share: the tables, the clock of updates, the AOR rules, other
modules.

Strategy: one object per registrar, made in ``mod_init``, so that two registrars live in one
process.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm

from outbound_plugin.api import ObBinds, ob_load_api
from registrar_plugin.bindings import MICRO, AorRules, Binding
from registrar_plugin.events import Events
from registrar_plugin.gruu import Gruus, Named
from registrar_plugin.params import MAKE_A_KEY, RegistrarParams, gruu_keys
from registrar_plugin.register import listens_elsewhere
from registrar_plugin.store import AsyncLocationStore, LocationStore, StoreError, Unusable
from registrar_plugin.store.embedded import Embedded
from registrar_plugin.store.memory import MemoryStore
from registrar_plugin.store.postgres import PostgresBackend
from registrar_plugin.store.redis import RedisBackend
from registrar_plugin.store.shared import SharedDatabase
from registrar_plugin.store.sqlite import Database
from registrar_plugin.store.sqlite_file import SqliteFile, path_of
from sipedge.errors import ConfigError
from sipedge.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from registrar_plugin.store.link import Backend
    from sipedge.flow import Flow
    from sipedge.module import Context

log = logging.getLogger("sipedge.registrar")

#: schemes of ``db_url`` for servers that several registrars share
SHARED: Final[dict[str, Callable[[str], Backend]]] = {
    "redis": RedisBackend,
    "rediss": RedisBackend,
    "postgres": PostgresBackend,
    "postgresql": PostgresBackend,
}
#: seconds between two looks for what has expired on a server
SHARED_SWEEP_S: Final = 10.0
#: seconds in Retry-After of a 5xx with such a server, unless ``retry_after`` says so
SHARED_RETRY_S: Final = 10
_MAX_METHOD_SETS = 1024


class Location:
    """The location service of one registrar."""

    def __init__(self, ctx: Context, params: RegistrarParams) -> None:
        """Raises ``ConfigError`` if bindings cannot be kept where ``db_url`` says."""
        self.core = ctx.core
        self.params = params
        self.events = Events(ctx.core)
        self.ob: ObBinds | None = ob_load_api(ctx)
        self.rules = AorRules(
            bool(params.case_sensitive), bool(params.use_domain), params.realm_prefix.encode()
        )
        #: None: the operator wants no GRUUs
        self.gruus = self._make_gruus(ctx) if params.gruu_enabled else None
        self._date: tuple[int, bytes] = (0, b"")
        self.tables: dict[str, LocationStore] = {}
        self._stamp = 0
        self._method_sets: dict[frozenset[bytes], frozenset[bytes]] = {}
        self._db_error: Callable[[str], Exception] = partial(ctx.param_error, "db_url")
        self._database: Database | None = None
        #: a server that has to be waited for; then there are no embedded tables
        self.shared: SharedDatabase | None = None
        self._next_look = 0.0
        if params.db_url and params.db_mode:
            make = SHARED.get(params.db_url.partition(":")[0])
            if make is None:
                self._database = self._choose(ctx)
            else:
                self.shared = self._share(ctx, make)

    def _make_gruus(self, ctx: Context) -> Gruus:
        try:
            return Gruus(self.rules, gruu_keys(self.params, ctx))
        except UnsupportedAlgorithm as exc:
            raise ctx.param_error(
                "gruu_enabled",
                "GRUUs need AES-SIV, which the installed library cryptography was built without: "
                "pip install cryptography, or set gruu_enabled to 0",
            ) from exc

    def _share(self, ctx: Context, make: Callable[[str], Backend]) -> SharedDatabase:
        params = self.params
        if params.gruu_enabled and not params.gruu_key:
            raise ctx.param_error(
                "gruu_key",
                "registrars that share bindings need the same gruu_key: "
                f"{MAKE_A_KEY}; or set gruu_enabled to 0",
            )
        try:
            backend = make(params.db_url)
        except Unusable as exc:
            raise self._db_error(str(exc)) from exc
        backend.announce = bool(params.append_late_branches)
        return SharedDatabase(self.core, backend, params.node_id or secrets.token_hex(8))

    def _choose(self, ctx: Context) -> Database:
        params = self.params
        try:
            file = SqliteFile(path_of(params.db_url, Path(ctx.config.file).absolute().parent))
            file.inspect()
        except Unusable as exc:
            raise self._db_error(str(exc)) from exc
        return Database(
            self.core,
            file,
            outlives,
            write_through=params.db_mode == 1,
            batch_s=params.db_batch_ms / 1000,
        )

    def open(self) -> None:
        """Load what was stored; listeners have their ports, and the core has the time.

        Raises ``ConfigError``.
        """
        try:
            if self.shared is not None:
                self.shared.link.open()
            if self._database is not None:
                self._database.open()
                self.tables.update(self._database.tables)
        except Unusable as exc:
            raise self._db_error(str(exc)) from exc

    def close(self) -> None:
        """Store what is not stored yet."""
        if self._database is not None:
            self._database.close()
        if self.shared is not None:
            self.core.spawn(self.shared.aclose())

    def waiting(self, domain: str) -> AsyncLocationStore:
        """The table of that name for whoever can wait for it."""
        if self.shared is not None:
            return self.shared.table(domain)
        return Embedded(self.table(domain))

    @property
    def retry_after(self) -> int:
        """Seconds in Retry-After of a 5xx, 0 for none."""
        return self.params.retry_after or (SHARED_RETRY_S if self.shared is not None else 0)

    def table(self, domain: str) -> LocationStore:
        """The embedded table of that name, made when it is first asked for."""
        table = self.tables.get(domain)
        if table is None:
            if self.shared is not None:
                raise ConfigError("db_url names a server: its tables have to be waited for")
            database = self._database
            table = MemoryStore() if database is None else database.table(domain)
            self.tables[domain] = table
        return table

    def named(self, uri: Uri) -> Named | None:
        """The address-of-record, or the instance of it, that a URI names; None for a GRUU that is
        none of ours.

        Raises ``ParseError`` (404) for what cannot be an address-of-record.
        """
        if self.gruus is not None and b"gr" in uri.params:
            return self.gruus.read(uri)
        return Named(self.rules.key(uri))

    def date(self) -> bytes:
        """Now, as Date has it (RFC 3261 §20.17); b"" while nobody has told the core the time."""
        if not self.core.wall_offset:
            return b""
        second = int(self.core.wall())
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def stamp(self, now: float) -> int:
        """``now`` in microseconds, moved on as far as needed to be unique."""
        self._stamp = max(int(now * MICRO), self._stamp + 1)
        return self._stamp

    def shared_methods(self, methods: frozenset[bytes]) -> frozenset[bytes]:
        """The same set as one object: phones of a kind allow the same methods."""
        if len(self._method_sets) >= _MAX_METHOD_SETS:
            self._method_sets.clear()
        return self._method_sets.setdefault(methods, methods)

    def flow_closed(self, flow: Flow) -> None:
        """RFC 5626 §7: nothing reaches anybody over this flow any more, whatever the AOR."""
        for table in self.tables.values():
            for aor, binding in table.flow_closed(flow):
                left = _left(binding, flow)
                if left is not None:
                    table.replace(aor, (), (left,), self.core.now)
                else:
                    self.events.lost_with_flow(aor, binding)
        if self.shared is not None and any(t.knows(flow) for t in self.shared.tables.values()):
            self.core.spawn(self.lost(flow))

    async def lost(self, flow: Flow) -> None:
        """Remove what was reached over ``flow`` from the server."""
        shared = self.shared
        for table in () if shared is None else tuple(shared.tables.values()):
            for aor, binding in await table.flow_closed(flow):
                self.events.lost_with_flow(aor, binding)

    def sweep(self, now: float) -> None:
        """Drop what has expired."""
        for table in self.tables.values():
            for aor, binding in table.sweep(now):
                self.events.expired(aor, binding)
        if self.shared is not None and now >= self._next_look:
            self._next_look = now + SHARED_SWEEP_S
            self.core.spawn(self._look(self.shared))

    async def _look(self, shared: SharedDatabase) -> None:
        try:
            for table in tuple(shared.tables.values()):
                for aor, binding in await table.sweep(self.core.now):
                    self.events.expired(aor, binding)
        except StoreError as exc:
            log.debug("expired bindings stay for now: %s", exc)


def outlives(binding: Binding) -> Binding | None:
    """What is left of a binding when the process is gone: a UDP flow stays, a connection does not.

    Called in another thread, it looks at nothing that changes.
    """
    flow = binding.flow
    return binding if flow is None or isinstance(flow, tuple) else _left(binding, flow)


def _left(binding: Binding, flow: Flow) -> Binding | None:
    """What is left of a binding without its flow.

    A phone without outbound may close its connection, or let it idle, and listen for another one
    where its Contact says (RFC 3261 §18): its binding stays, without the flow.
    """
    if not binding.reg_id and listens_elsewhere(parse_uri(binding.uri), flow):
        return binding.without_flow()
    return None
