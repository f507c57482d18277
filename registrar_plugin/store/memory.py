"""The location table in memory: gone with the process, and the fastest there is.

Strategy: a dict from AOR to its binding, or to a tuple of them if it has several: an AOR with one
phone pays for no container.  Expiry is an index by second: each AOR stands in a list for the second
of its earliest expiry, or for an earlier one.  A refresh does not touch the index; when the second
comes, the AOR moves to the second that is then right.  So a refresh costs nothing and a sweep
looks only at what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from registrar_plugin.bindings import Binding, flow_ref
from registrar_plugin.store import Entry

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef
    from sipedge.flow import Flow

#: entries of the expiry index that may be out of date before it is built anew
_SLACK: Final = 4096


class MemoryStore:
    """See ``LocationStore``."""

    write_through = False

    def __init__(self) -> None:
        self._rows: dict[bytes, Binding | tuple[Binding, ...]] = {}
        #: second -> AORs to look at; an AOR that has a row stands at its earliest expiry or before
        self._due: dict[int, list[bytes]] = {}
        self._due_size = 0
        self._swept: int | None = None
        #: flow -> its AOR, or the AORs if there are several (RFC 5626 §7: "regardless of AOR")
        self._flows: dict[FlowRef, bytes | set[bytes]] = {}

    def __len__(self) -> int:
        """How many AORs have a row."""
        return len(self._rows)

    def fetch(self, aor: bytes, now: float) -> tuple[Binding, ...]:
        row = self._rows.get(aor)
        if row is None:
            return ()
        if isinstance(row, tuple):
            return tuple(binding for binding in row if binding.expires > now)
        return (row,) if row.expires > now else ()

    def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        if len(new) == 1 == len(gone) and self._rows.get(aor) is gone[0]:
            was, binding = gone[0], new[0]
            if was.flow == binding.flow and binding.expires >= was.expires:
                self._rows[aor] = binding  # the usual refresh: no index moves
                return (binding,)
        old = self._row(aor)
        row = (*(binding for binding in old if binding not in gone), *new)
        if new:
            first = min(binding.expires for binding in new)
            if not old or first < min(binding.expires for binding in old):
                self._mark(aor, first)
        self._put(aor, row)
        self._index_flows(aor, gone, row)
        if self._due_size > 2 * len(self._rows) + _SLACK:
            self._build_index()
        return tuple(binding for binding in row if binding.expires > now)

    def flow_closed(self, flow: Flow) -> list[Entry]:
        ref = flow_ref(flow)
        aors = self._flows.pop(ref, None)
        if aors is None:
            return []
        lost: list[Entry] = []
        for aor in (aors,) if isinstance(aors, bytes) else aors:
            row = self._row(aor)
            lost += [(aor, binding) for binding in row if binding.flow == ref]
            self._put(aor, tuple(binding for binding in row if binding.flow != ref))
        return lost

    def sweep(self, now: float) -> list[Entry]:
        if self._swept is None:
            return []
        expired: list[Entry] = []
        until = int(now)
        for second in range(self._swept + 1, until + 1):
            due = self._due.pop(second, None)
            if due is not None:
                self._due_size -= len(due)
                for aor in set(due):
                    self._expire(aor, now, expired)
        self._swept = max(self._swept, until)
        return expired

    def entries(self) -> Iterator[Entry]:
        for aor in list(self._rows):
            for binding in self._row(aor):
                yield aor, binding

    def keep_in_memory(self, new: Sequence[Binding]) -> None:
        """All are."""

    def when_stored(self, done: Callable[[bool], None]) -> bool:
        return False

    # -- rows

    def _row(self, aor: bytes) -> tuple[Binding, ...]:
        row = self._rows.get(aor)
        if row is None:
            return ()
        return row if isinstance(row, tuple) else (row,)

    def _put(self, aor: bytes, row: tuple[Binding, ...]) -> None:
        if len(row) == 1:
            self._rows[aor] = row[0]
        elif row:
            self._rows[aor] = row
        else:
            self._rows.pop(aor, None)

    # -- expiry

    def _mark(self, aor: bytes, expires: float) -> None:
        second = int(expires) + 1  # by then it is over, whatever the fraction
        if self._swept is None:
            self._swept = second - 1
        self._swept = min(self._swept, second - 1)
        self._due.setdefault(second, []).append(aor)
        self._due_size += 1

    def _build_index(self) -> None:
        """Somebody registers and unregisters all the time: leave the entries that count."""
        self._due.clear()
        for aor in self._rows:
            second = int(min(binding.expires for binding in self._row(aor))) + 1
            self._due.setdefault(second, []).append(aor)
        self._due_size = len(self._rows)

    def _expire(self, aor: bytes, now: float, expired: list[Entry]) -> None:
        row = self._row(aor)
        over = [binding for binding in row if binding.expires <= now]
        if over:
            expired.extend((aor, binding) for binding in over)
            row = tuple(binding for binding in row if binding.expires > now)
            self._put(aor, row)
            self._index_flows(aor, over, row)
        if row:
            self._mark(aor, min(binding.expires for binding in row))

    # -- flows

    def _index_flows(self, aor: bytes, gone: Sequence[Binding], row: tuple[Binding, ...]) -> None:
        """Keep the index of flows in step with a row that lost ``gone``."""
        here = {binding.flow for binding in row if binding.flow is not None}
        for ref in here:
            have = self._flows.get(ref)
            if have is None:
                self._flows[ref] = aor
            elif isinstance(have, set):
                have.add(aor)
            elif have != aor:
                self._flows[ref] = {have, aor}
        for binding in gone:
            if binding.flow is not None and binding.flow not in here:
                self._forget_flow(aor, binding.flow)

    def _forget_flow(self, aor: bytes, ref: FlowRef) -> None:
        have = self._flows.get(ref)
        if isinstance(have, set):
            have.discard(aor)
            if have:
                return
        elif have != aor:
            return
        self._flows.pop(ref, None)
