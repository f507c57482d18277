"""Where bindings live: one interface, and the stores that implement it.

Strategy: two calls carry all traffic.  ``fetch`` reads the live bindings of one address-of-record,
``replace`` changes them in one step, all or nothing (RFC 3261 §10.3: REGISTER is atomic).  A store
judges nothing: who may register what, and which binding a Contact refreshes, is decided in
``save``.

An embedded store (memory, an SQLite file) implements ``LocationStore`` and returns plain values at
once.  A store that several registrars share is in another process and implements
``AsyncLocationStore``, the same five methods as ``async def``; ``save`` and ``lookup`` are written
once, for that.  ``replace`` names what it takes away by the very bindings that ``fetch`` returned,
so a shared store can refuse (``Conflict``) when another node was quicker; ``Binding.ruid`` is the
version.  A store that outlives the process converts monotonic times to those of another clock at
its own border and leaves connections out (they end with the process); Path values and UDP flows
survive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from registrar_plugin.bindings import Binding
    from sipedge.flow import Flow

#: an address-of-record and one of its bindings
Entry = tuple[bytes, "Binding"]


class StoreError(Exception):
    """The store could not do it, and has changed nothing; answered with 500."""


class Unusable(Exception):
    """The file or server of ``db_url`` cannot be used; says why and what to do about it."""


class Conflict(StoreError):
    """Another node was quicker: what was to be changed is not what ``fetch`` returned.  Fetch again
    and decide anew."""


class StoreAway(StoreError):
    """The server of the store cannot be reached, or does not answer in time; answered with 503.

    Whether a change was made is unknown if it broke off in the middle.
    """


class LocationStore(Protocol):
    """One location table (Kamailio: a ``usrloc`` domain).  Times are monotonic seconds."""

    #: whoever is told that something was stored must be told after ``when_stored``
    write_through: bool

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

    def keep_in_memory(self, new: Sequence[Binding]) -> None:
        """These, which ``replace`` has just put in, need not outlive the process."""

    def when_stored(self, done: Callable[[bool], None]) -> bool:
        """Have ``done`` called when all that ``replace`` did so far outlives the process.

        ``done(False)``: it could not be stored.  Then whoever changed something takes it back; the
        last is told first, so that each finds the table as it left it.  Returns False if there is
        nothing to wait for; ``done`` is not called then.
        """


class AsyncLocationStore(Protocol):
    """One location table that has to be waited for.  Times are monotonic seconds."""

    #: the table itself, if it need not be waited for
    embedded: LocationStore | None

    async def fetch(self, aor: bytes, now: float) -> tuple[Binding, ...]:
        """See ``LocationStore``; raises ``StoreAway``."""

    async def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        """See ``LocationStore``.

        Raises ``Conflict`` if one of ``gone`` is not there any more as ``fetch`` returned it, or if
        there is a binding with the key of a new one (RFC 5626 §6: instance and reg-id; else the
        URI) that is none of ``gone``; ``StoreAway``; ``StoreError`` for whatever else.
        """

    async def flow_closed(self, flow: Flow) -> list[Entry]:
        """See ``LocationStore``; what may be called without the flow stays, and is left out."""

    async def sweep(self, now: float) -> list[Entry]:
        """See ``LocationStore``; what the store drops by its own means is left out."""

    def entries(self) -> AsyncIterator[Entry]:
        """See ``LocationStore``; what other nodes change meanwhile may be there or not."""
