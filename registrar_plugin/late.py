"""Stop 6, registrar: phones that register while a call for their user still rings (RFC 3261 §16.5).

Strategy: ``lookup`` notes the INVITEs that it found targets for; when a binding appears, those that
are still pending get one more branch.  ``tm`` says whether they may.  What is over goes with the
next sweep, so that nothing has to be taken away when a call is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sipedge.tm.relay import join

if TYPE_CHECKING:
    from registrar_plugin.bindings import Binding
    from registrar_plugin.gruu import Named
    from registrar_plugin.location import Location
    from registrar_plugin.store import AsyncLocationStore
    from sipedge.forward import Target
    from sipedge.sip.message import SipMessage


class LateBranches:
    """The pending INVITEs by address-of-record."""

    __slots__ = ("_calls", "_core", "_target")

    def __init__(
        self, location: Location, target: Callable[[AsyncLocationStore, bytes, Binding], Target]
    ) -> None:
        self._core = location.core
        self._target = target
        self._calls: dict[bytes, list[tuple[AsyncLocationStore, Named, SipMessage]]] = {}
        location.events.on_event(self._event)

    def __len__(self) -> int:
        """How many addresses-of-record are called, or were a moment ago."""
        return len(self._calls)

    def watch(self, table: AsyncLocationStore, named: Named, msg: SipMessage) -> None:
        """Whoever registers for ``named`` while ``msg`` is pending shall ring, too."""
        if msg.method == b"INVITE" and not msg.to_tag:
            self._calls.setdefault(named.aor, []).append((table, named, msg))

    def sweep(self, now: float) -> None:
        """Forget what is over.  Called about once a second."""
        for aor, calls in list(self._calls.items()):
            left = [call for call in calls if call[2].tx is not None]
            if left:
                self._calls[aor] = left
            else:
                del self._calls[aor]

    def _event(self, name: str, aor: bytes, binding: Binding) -> None:
        for table, named, msg in self._calls.get(aor, ()):
            tx = msg.tx
            if tx is None or not named.select((binding,)):
                continue
            # events are also about bindings that are gone, and do not say which table it is
            store = table.embedded  # there is one: see check_params
            if store is not None and binding in store.fetch(aor, self._core.now):
                join(tx, self._target(table, aor, binding))
