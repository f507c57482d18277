"""Where bindings live: one interface, and the stores that implement it.

Strategy: two calls carry all traffic.  ``fetch`` reads the live bindings of one address-of-record,
``replace`` changes them in one step, all or nothing (RFC 3261 §10.3: REGISTER is atomic).  A store
judges nothing: who may register what, and which binding a Contact refreshes, is decided in
``save``.

An embedded store (memory, an SQLite file) implements ``LocationStore`` and returns plain values at
once.  A store in another process implements the same five methods as ``async def``: an ``async``
route awaits them between the steps of ``save`` and ``lookup``, which keep their state in
arguments for that reason.  ``replace`` names what it takes away by the very bindings that
``fetch`` returned, so a shared store can refuse (``StoreError``) when another node was quicker;
``Binding.ruid`` is the version.  A store that outlives the process converts monotonic times to
wall-clock times at its own border and leaves direct flows out (they end with the process); Path
values survive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from registrar_plugin.bindings import Binding
    from sipedge.flow import Flow

#: an address-of-record and one of its bindings
Entry = tuple[bytes, "Binding"]


class StoreError(Exception):
    """The store could not do it, and has changed nothing; answered with 500."""


class LocationStore(Protocol):
    """One location table (Kamailio: a ``usrloc`` domain).  Times are monotonic seconds."""

    def fetch(self, aor: bytes, now: float) -> tuple[Binding, ...]:
        """The bindings of ``aor`` that have not expired at ``now``; empty if there are none."""

    def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        """Take ``gone`` away and put ``new`` in, both or neither; returns what ``fetch`` then
        would.

        Raises ``StoreError`` when nothing was changed.
        """

    def flow_closed(self, flow: Flow) -> list[Entry]:
        """Remove every binding that is reached over ``flow``, whatever its AOR (RFC 5626 §7)."""

    def sweep(self, now: float) -> list[Entry]:
        """Remove what has expired; returns it.  Called about once a second."""

    def entries(self) -> Iterator[Entry]:
        """Everything that is stored, for people and tools; expired ones may be among it."""
