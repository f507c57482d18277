"""The location table in an SQLite file: bindings survive the process, and a power failure.

Strategy: the truth is in memory, where ``fetch`` and ``replace`` work as they do without a file.
The file is its journal: each table notes which addresses-of-record changed, and from time to time
the core hands what they have *then* to a thread, which writes it in one transaction.  What changes
several times between two transactions is written once.  A failed transaction is given back and
tried again: nothing is lost while the disk is full, but for what a crash takes then.

This is the one place outside of ``net`` with a thread, because SQLite blocks.  It never sees what
may change: it is given immutable bindings and reports through ``Core.post``.  Stop 6 of a datagram
ends with a name put into a dict.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from registrar_plugin.bindings import MICRO, Binding
from registrar_plugin.store import Entry
from registrar_plugin.store.memory import MemoryStore
from registrar_plugin.store.sqlite_file import SqliteFile
from sipedge.tm.timers import NEVER, Alarm

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.flow import Flow

log = logging.getLogger("sipedge.registrar")

#: addresses-of-record in one transaction: the core spends about a millisecond on handing them over
MOST: Final = 2000
#: seconds from a transaction that failed to the next
RETRY_S: Final = 1.0

#: what is left of a binding when the process is gone, and its connections with it
Outlives = Callable[[Binding], Binding | None]


class Batch:
    """What one transaction writes, and who waits for it."""

    __slots__ = ("error", "offset_us", "rows", "waiting")

    def __init__(self, offset_us: int) -> None:
        self.offset_us = offset_us
        self.rows: dict[tuple[str, bytes], tuple[Binding, ...]] = {}
        self.waiting: list[Callable[[bool], None]] = []
        self.error: str | None = None


class SqliteStore(MemoryStore):
    """One table of a ``Database``; see ``LocationStore``."""

    def __init__(self, database: Database, domain: str) -> None:
        super().__init__()
        self.write_through = database.write_through
        self._database = database
        self._domain = domain
        #: addresses-of-record whose rows in the file are old, as an ordered set
        self._dirty: dict[bytes, None] = {}
        #: stamps of bindings that shall not be written
        self._transient: set[int] = set()

    def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        rows = super().replace(aor, gone, new, now)
        if _in_file(new) or _in_file(gone):
            self._dirty[aor] = None
            if not self._database.due:
                self._database.changed()
        if self._transient:
            stay = {binding.stamp for binding in new}
            self._transient.difference_update(b.stamp for b in gone if b.stamp not in stay)
        return rows

    def flow_closed(self, flow: Flow) -> list[Entry]:
        return self._removed(super().flow_closed(flow))

    def sweep(self, now: float) -> list[Entry]:
        return self._removed(super().sweep(now))

    def keep_in_memory(self, new: Sequence[Binding]) -> None:
        self._transient.update(binding.stamp for binding in new)

    def when_stored(self, done: Callable[[bool], None]) -> bool:
        return self._database.when_stored(done)

    def _removed(self, entries: list[Entry]) -> list[Entry]:
        for aor, binding in entries:
            self._transient.discard(binding.stamp)
            if _in_file((binding,)):
                self._dirty[aor] = None
        if self._dirty and not self._database.due:
            self._database.changed()
        return entries

    # -- for the database

    def loaded(self, aor: bytes, rows: Sequence[Binding], now: float) -> None:
        """Take what was in the file."""
        super().replace(aor, (), rows, now)

    def is_dirty(self) -> bool:
        """Whether anything is to be written."""
        return bool(self._dirty)

    def give(self, batch: Batch, room: int) -> int:
        """Put at most ``room`` changed addresses-of-record into a batch; returns how many."""
        dirty = self._dirty
        if len(dirty) <= room:
            self._dirty = {}
        else:
            dirty = dict.fromkeys(islice(dirty, room))
            for aor in dirty:
                del self._dirty[aor]
        for aor in dirty:
            batch.rows[self._domain, aor] = self._row(aor)
        if self._transient:
            for aor in dirty:
                rows = [row for row in self._row(aor) if row.stamp not in self._transient]
                batch.rows[self._domain, aor] = tuple(rows)
        return len(dirty)

    def take_back(self, aor: bytes) -> None:
        """It was not written."""
        self._dirty[aor] = None


class Database:
    """The tables of one file, and the thread that writes it."""

    __slots__ = (
        "_alarm", "_batch_s", "_core", "_file", "_is_open", "_outage", "_outlives", "_queue",
        "_taken_at", "_thread", "_waiting", "_writing", "due", "tables", "write_through",
    )  # fmt: skip

    def __init__(
        self,
        core: Core,
        file: SqliteFile,
        outlives: Outlives,
        *,
        write_through: bool,
        batch_s: float,
    ) -> None:
        """``write_through``: somebody may wait for each change, so write as soon as possible; else
        ``batch_s`` seconds after it."""
        self._alarm = Alarm(self._fire)
        self.write_through = write_through
        #: a transaction is planned or under way, so there is no need to plan one
        self.due = True
        self._core = core
        self._file = file
        self._outlives = outlives
        self._batch_s = batch_s
        #: by name; those that are in the file, from ``open`` on
        self.tables: dict[str, SqliteStore] = {}
        self._is_open = False
        self._outage = False
        self._queue: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="location", daemon=True)
        self._writing: Batch | None = None
        self._taken_at = 0.0
        self._waiting: list[Callable[[bool], None]] = []

    def table(self, domain: str) -> SqliteStore:
        """The table of that name, made when it is first asked for."""
        table = self.tables.get(domain)
        if table is None:
            table = self.tables[domain] = SqliteStore(self, domain)
        return table

    def open(self) -> None:
        """Load all bindings and begin to write; blocks.  Raises ``Unusable``."""
        self._file.open()
        try:
            count, left_out = self._load()
        except BaseException:
            self._file.close()
            raise
        rest = f"; {left_out} more belong to listeners that are gone, or cannot be read"
        log.info("%s: %d bindings%s", self._file.path, count, rest if left_out else "")
        self._is_open = True
        self._thread.start()
        self._flush()

    def _load(self) -> tuple[int, int]:
        """How many bindings were found, and how many left out."""
        now = self._core.now
        now_us, wall_us = int(now * MICRO), int(self._core.wall() * MICRO)
        listeners = {listener.name: listener for listener in self._core.flows.listeners}
        found: dict[tuple[str, bytes], list[Binding]] = {}
        count = left_out = 0
        for domain, aor, binding in self._file.load(now_us, wall_us, listeners):
            if binding is None:
                left_out += 1
            else:
                count += 1
                found.setdefault((domain, aor), []).append(binding)
        for (domain, aor), rows in found.items():
            self.table(domain).loaded(aor, rows, now)
        return count, left_out

    def close(self) -> None:
        """Write what is left and close the file; blocks."""
        if not self._is_open:
            return
        self._is_open = False
        self.due = True
        self._alarm.deadline = NEVER
        self._queue.put(None)
        self._thread.join()
        if self._writing is not None and self._writing.error is not None:
            self._give_back(self._writing)
        while (batch := self._take()).rows:
            self._try(batch)
            if batch.error is not None:
                log.error(
                    "%s: %s; the last changes of at least %d addresses-of-record are lost",
                    self._file.path, batch.error, len(batch.rows),
                )  # fmt: skip
                break
        self._file.close()

    def when_stored(self, done: Callable[[bool], None]) -> bool:
        """See ``LocationStore``."""
        if not self._is_open or not self.due:
            return False
        self._waiting.append(done)
        return True

    # -- planning, in the thread of the core

    def changed(self) -> None:
        """A table has something to write, and nothing is planned."""
        self.due = True
        if self.write_through:
            # soon, and not now: the requests that came together share a transaction
            self._core.post(self._flush)
        else:
            self._core.tm.wheel.at(self._alarm, self._core.now + self._batch_s)

    def _fire(self, now: float) -> None:
        self._flush()

    def _flush(self) -> None:
        if not self._is_open or self._writing is not None:
            return
        batch = self._take()
        self._taken_at = self._core.now
        if batch.rows:
            self._writing = batch
            self._queue.put(batch)
        else:
            self.due = False
            _tell(batch.waiting, True)

    def _take(self) -> Batch:
        batch = Batch(int(self._core.wall_offset * MICRO))
        room = MOST
        for table in self.tables.values():
            room -= table.give(batch, room)
        if room:  # it has everything that anybody waits for
            batch.waiting, self._waiting = self._waiting, []
        return batch

    def _written(self, batch: Batch) -> None:
        """The thread is done with a batch."""
        if batch is not self._writing or not self._is_open:
            return
        self._writing = None
        if batch.error is None:
            if self._outage:
                self._outage = False
                log.warning("%s: written again", self._file.path)
            _tell(batch.waiting, True)
            self._plan_next(self.write_through or len(batch.rows) >= MOST)
            return
        self._core.stats["db_errors"] += 1
        if not self._outage:
            self._outage = True
            log.error("%s: %s; bindings are in memory only", self._file.path, batch.error)
        self._give_back(batch)
        # whoever came later built on what is now taken back
        waiting, self._waiting = batch.waiting + self._waiting, []
        _tell(waiting[::-1], False)
        self._core.tm.wheel.at(self._alarm, self._core.now + RETRY_S)

    def _plan_next(self, at_once: bool) -> None:
        """What came in while a batch was written."""
        if at_once or not any(table.is_dirty() for table in self.tables.values()):
            self._flush()
        else:
            self._core.tm.wheel.at(self._alarm, self._taken_at + self._batch_s)

    def _give_back(self, batch: Batch) -> None:
        for domain, aor in batch.rows:
            self.tables[domain].take_back(aor)

    # -- writing, in the thread

    def _write(self) -> None:
        while (batch := self._queue.get()) is not None:
            self._try(batch)
            self._core.post(partial(self._written, batch))

    def _try(self, batch: Batch) -> None:
        try:
            rows = {
                key: [left for row in bindings if (left := self._outlives(row)) is not None]
                for key, bindings in batch.rows.items()
            }
            self._file.write(rows, batch.offset_us)
        except sqlite3.Error as exc:
            batch.error = str(exc)
        except Exception as exc:  # ours; the thread must go on, and the core must know
            log.exception("%s: cannot be written", self._file.path)
            batch.error = f"{type(exc).__name__}: {exc}"


def _in_file(bindings: Iterable[Binding]) -> bool:
    """Whether any of them may have a row: a stream ends with us, and with it what needs it."""
    for binding in bindings:
        if binding.flow is None or isinstance(binding.flow, tuple) or not binding.reg_id:
            return True
    return False


def _tell(waiting: Sequence[Callable[[bool], None]], stored: bool) -> None:
    for done in waiting:
        try:
            done(stored)
        except Exception:
            log.exception("an answer to a REGISTER was lost")
