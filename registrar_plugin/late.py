"""Stop 6, registrar: phones that register while a call for their user still rings (RFC 3261 §16.5).

Strategy: ``lookup`` notes the INVITEs that it found targets for; when a binding appears, those that
are still pending get one more branch.  ``tm`` says whether they may.  An embedded table tells it by
an event; of a shared one the server announces what any node has stored, and then the table is read.
What is over goes with the next sweep, so that nothing has to be taken away when a call is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from registrar_plugin.store import StoreError
from sipedge.tm.contacts import MORE_MAY_JOIN
from sipedge.tm.relay import join

if TYPE_CHECKING:
    from registrar_plugin.bindings import Binding
    from registrar_plugin.gruu import Named
    from registrar_plugin.location import Location
    from registrar_plugin.lookup import Lookup
    from registrar_plugin.store import AsyncLocationStore
    from registrar_plugin.store.shared import SharedTable
    from sipedge.sip.message import SipMessage

log = logging.getLogger("sipedge.registrar")

#: seconds: a table answers ``lookup`` within this time, or not at all
_MEMORY_S: Final = 10.0


class Call:
    """An INVITE that may ring at one more phone.

    ``sips``: at sips Contacts only.  ``known``: ids of the bindings that it was told about.
    ``again``: the table has to be read once more, for something was announced before the call had
    its first branch.
    """

    __slots__ = ("again", "known", "msg", "named", "sips", "table")

    def __init__(
        self, table: AsyncLocationStore, named: Named, msg: SipMessage, sips: bool
    ) -> None:
        self.table = table
        self.named = named
        self.msg = msg
        self.sips = sips
        self.known: set[str] = set()
        self.again = False


class LateBranches:
    """The pending INVITEs by address-of-record."""

    __slots__ = ("_calls", "_core", "_heard", "_lookup")

    def __init__(self, location: Location, lookup: Lookup) -> None:
        self._core = location.core
        self._lookup = lookup
        self._calls: dict[bytes, list[Call]] = {}
        #: address-of-record -> when something of it was announced last
        self._heard: dict[bytes, float] = {}
        if location.shared is None:
            location.events.on_event(self._event)

    def __len__(self) -> int:
        """How many addresses-of-record are called, or were a moment ago."""
        return len(self._calls)

    def watch(self, call: Call, rows: Sequence[Binding], asked_at: float) -> None:
        """Whoever registers while ``call`` is pending shall ring, too.

        ``rows``: what its ``lookup`` found.  ``asked_at``: the time before the table was read.
        """
        if call.msg.method != b"INVITE" or call.msg.to_tag:
            return
        aor = call.named.aor
        call.msg.remember(MORE_MAY_JOIN, True)
        if call.table.embedded is None:
            call.known = {row.ruid for row in rows}
            call.again = self._heard.get(aor, -1.0) >= asked_at
        self._calls.setdefault(aor, []).append(call)

    def sweep(self, now: float) -> None:
        """Forget what is over.  Called about once a second."""
        for aor, calls in list(self._calls.items()):
            left = [call for call in calls if call.msg.tx is not None]
            for call in left:
                if call.again:
                    self._core.spawn(self._look(aor, call))
            if left:
                self._calls[aor] = left
            else:
                del self._calls[aor]
        for aor, at in list(self._heard.items()):
            if at < now - _MEMORY_S:
                del self._heard[aor]

    def announced(self, table: SharedTable | None, aor: bytes) -> None:
        """Some node has stored a new binding; None: perhaps one of any address-of-record."""
        if table is None:
            for each, calls in self._calls.items():
                for call in calls:
                    self._core.spawn(self._look(each, call))
            return
        self._heard[aor] = self._core.now
        for call in self._calls.get(aor, ()):
            if call.table is table:
                self._core.spawn(self._look(aor, call))

    async def _look(self, aor: bytes, call: Call) -> None:
        call.again = False
        if call.msg.tx is None:
            return
        try:
            rows = await call.table.fetch(aor, self._core.now)
        except StoreError as exc:
            log.info("a call for %r rings where it did: %s", aor, exc)
            return
        tx = call.msg.tx
        if tx is not None and not tx.branches:
            call.again = True  # too early: its route has not relayed it yet
            return
        for row in rows:
            if row.ruid not in call.known:
                call.known.add(row.ruid)
                self._join(aor, call, row)

    def _event(self, name: str, aor: bytes, binding: Binding) -> None:
        for call in self._calls.get(aor, ()):
            # events are also about bindings that are gone, and do not say which table it is
            store = call.table.embedded
            if store is not None and binding in store.fetch(aor, self._core.now):
                self._join(aor, call, binding)

    def _join(self, aor: bytes, call: Call, binding: Binding) -> None:
        tx, lookup = call.msg.tx, self._lookup
        if tx is None or not call.named.select((binding,)):
            return
        if lookup.reaches(binding, call.sips) and lookup.takes(binding, call.msg):
            join(tx, lookup.target(call.table, aor, binding, call.sips))
