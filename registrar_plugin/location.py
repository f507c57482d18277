"""What ``save`` and ``lookup`` share: the tables, the clock of updates, the AOR rules, other
modules.

Strategy: one object per registrar, made in ``mod_init``, so that two registrars live in one
process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbound_plugin.api import ObBinds
from registrar_plugin.bindings import MICRO, AorRules
from registrar_plugin.params import RegistrarParams
from registrar_plugin.register import listens_elsewhere
from registrar_plugin.store import LocationStore
from registrar_plugin.store.memory import MemoryStore
from sipedge.sip.uri import parse_uri

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.flow import Flow

_MAX_METHOD_SETS = 1024


class Location:
    """The location service of one registrar."""

    def __init__(self, core: Core, params: RegistrarParams, ob: ObBinds | None) -> None:
        self.core = core
        self.params = params
        self.ob = ob
        self.rules = AorRules(
            bool(params.case_sensitive), bool(params.use_domain), params.realm_prefix.encode()
        )
        self.tables: dict[str, LocationStore] = {}
        self._stamp = 0
        self._method_sets: dict[frozenset[bytes], frozenset[bytes]] = {}

    def table(self, domain: str) -> LocationStore:
        """The table of that name, made when it is first asked for."""
        table = self.tables.get(domain)
        if table is None:
            table = self.tables[domain] = MemoryStore()
        return table

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
        """RFC 5626 §7: nothing reaches anybody over this flow any more, whatever the AOR.

        A phone without outbound may close its connection, or let it idle, and listen for another
        one where its Contact says (RFC 3261 §18): its binding stays, without the flow.
        """
        for table in self.tables.values():
            for aor, binding in table.flow_closed(flow):
                if not binding.reg_id and listens_elsewhere(parse_uri(binding.uri), flow):
                    table.replace(aor, (), (binding.without_flow(),), self.core.now)
                else:
                    self.core.stats["contacts_lost_with_flow"] += 1

    def sweep(self, now: float) -> None:
        """Drop what has expired."""
        for table in self.tables.values():
            self.core.stats["contacts_expired"] += len(table.sweep(now))
