"""A ``Database`` on a core whose clocks the test sets; its thread is a real one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from registrar_plugin.bindings import MICRO, Binding
from registrar_plugin.location import outlives
from registrar_plugin.store.sqlite import Database, SqliteStore
from registrar_plugin.store.sqlite_file import SqliteFile
from sipedge.core import Core
from sipedge.flow import TCP, UDP, Listener

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef

PATIENCE = 20.0
WALL = 1_700_000_000.0  # seconds since 1970 when ``now`` is 0


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "the thread did not come back"
        time.sleep(0.0005)


def wait_for(core: Core, condition: Callable[[], bool]) -> None:
    """Make the calls that the thread posts until ``condition()``."""

    def called() -> bool:
        while core.posted:
            core.posted.popleft()()
        return condition()

    wait_until(called)


class Disk:
    """One life of a process that keeps its bindings at ``path``.

    ``now`` and ``wall`` are its clocks when it starts, in seconds.
    """

    #: those that were opened; ``conftest`` closes them
    alive: ClassVar[list[Disk]] = []

    def __init__(
        self,
        path: Path,
        *,
        now: float = 1000.0,
        wall: float = WALL,
        write_through: bool = False,
        busy_s: float = 5.0,
        listeners: tuple[tuple[int, str, int], ...] = (
            (UDP, "127.0.0.1", 5060), (UDP, "::1", 5060), (TCP, "127.0.0.1", 5060),
        ),
    ) -> None:  # fmt: skip
        self.path = path
        self.core = Core()
        self.core.now = now
        self.core.wall_offset = wall - now
        for listener in listeners:
            self.core.flows.add_listener(Listener(*listener))
        self.file = SqliteFile(path, busy_s)
        self.database = Database(
            self.core, self.file, outlives, write_through=write_through, batch_s=0.1
        )
        #: what was given to the file, and what it then should have
        self.transactions: list[Any] = []
        self.committed: dict[tuple[str, bytes], list[tuple[Any, ...]]] = {}
        write = self.file.write

        def noted(rows: Any, offset_us: int) -> None:
            self.transactions.append(rows)
            write(rows, offset_us)
            for key, bindings in rows.items():
                self.committed[key] = [plain(binding, offset_us) for binding in bindings]

        self.file.write = noted  # type: ignore[method-assign]
        self.database.open()
        Disk.alive.append(self)
        self._stamp = int(now * MICRO)

    @property
    def now(self) -> float:
        return self.core.now

    def table(self, domain: str = "location") -> SqliteStore:
        return self.database.table(domain)

    def binding(
        self,
        lifetime: int = 600,
        *,
        flow: FlowRef | None = None,
        contact: bytes = b"<sip:bob@192.0.2.9>",
        path: bytes = b"",
        reg_id: int = 1,
        cseq: int = 1,
        q: int = -1,
        methods: frozenset[bytes] | None = None,
        call_id: bytes = b"c1",
        epoch: int = 0,
    ) -> Binding:
        """One that was registered now."""
        self._stamp = max(self._stamp + 1, int(self.now * MICRO))
        return Binding(
            contact, reg_id, q, path, flow, call_id, cseq, self._stamp, lifetime, methods, epoch
        )

    def put(self, aor: bytes, *bindings: Binding, domain: str = "location") -> None:
        """Make ``bindings`` all that an address-of-record has."""
        table = self.table(domain)
        table.replace(aor, table.fetch(aor, self.now), bindings, self.now)

    def advance(self, seconds: float) -> None:
        self.core.on_timer(self.now + seconds)

    def settle(self) -> None:
        """Wait until everything is in the file."""
        while self.database.due:
            self.advance(0.25)
            wait_for(self.core, self.is_idle)

    def is_idle(self) -> bool:
        return self.database._writing is None and not self.core.posted

    def die(self) -> None:
        """``kill -9``, as far as the file sees it: nothing is written any more.

        Only between two transactions; a test with a real process kills in the middle of them.
        """
        wait_for(self.core, self.is_idle)
        self.database._queue.put(None)
        self.database._thread.join()
        self.database._is_open = False
        self.file.close()

    def found(self, domain: str = "location") -> dict[bytes, list[tuple[Any, ...]]]:
        """What the table has in memory, times as wall-clock times, flows by name."""
        rows: dict[bytes, list[tuple[Any, ...]]] = {}
        for aor, binding in self.table(domain).entries():
            rows.setdefault(aor, []).append(plain(binding, int(self.core.wall_offset * MICRO)))
        return rows

    def rows(self, query: str = "SELECT aor FROM location ORDER BY aor") -> list[Any]:
        """Asks the file as any other program would."""
        return query_file(self.path, query)


def query_file(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path, timeout=PATIENCE)
    try:
        with connection:
            rows = connection.execute(query).fetchall()
    finally:
        connection.close()
    return [row[0] if len(row) == 1 else row for row in rows]


def plain(b: Binding, offset_us: int) -> tuple[Any, ...]:
    """A binding as values that mean the same in another process."""
    flow = (b.flow[0].name, b.flow[1]) if isinstance(b.flow, tuple) else b.flow
    return (
        b.contact, b.reg_id, b.q, b.path, flow, b.call_id, b.cseq, b.stamp + offset_us, b.lifetime,
        b.methods, b.epoch,
    )  # fmt: skip
