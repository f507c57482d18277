"""An embedded table where a table is expected that has to be waited for.

Strategy: ``save`` and ``lookup`` are coroutines.  With an embedded store nothing in them waits, so
one ``send`` runs them to their end: that is how plain routes call them, for less than a
microsecond and without an event loop.  Stop 6 of a datagram.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from registrar_plugin.store import Entry, LocationStore

if TYPE_CHECKING:
    from registrar_plugin.bindings import Binding
    from sipedge.flow import Flow

T = TypeVar("T")


class Embedded:
    """See ``AsyncLocationStore``; nothing waits."""

    __slots__ = ("embedded", "table")

    def __init__(self, table: LocationStore) -> None:
        self.embedded: LocationStore | None = table
        self.table = table

    async def fetch(self, aor: bytes, now: float) -> tuple[Binding, ...]:
        return self.table.fetch(aor, now)

    async def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        return self.table.replace(aor, gone, new, now)

    async def flow_closed(self, flow: Flow) -> list[Entry]:
        return self.table.flow_closed(flow)

    async def sweep(self, now: float) -> list[Entry]:
        return self.table.sweep(now)

    async def entries(self) -> AsyncIterator[Entry]:
        for entry in self.table.entries():
            yield entry


def at_once(coro: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coro.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coro.close()
    raise RuntimeError("an embedded store made somebody wait")
