"""An SQLite file of bindings: its schema, and how a binding becomes a row and a row a binding.

Strategy: everything in here blocks, so it runs before the first datagram, or in the thread that
writes.  A batch is a few large statements instead of many small ones: each return from SQLite to
Python waits for the interpreter, which under load belongs to the core.  Times in the file are
microseconds since 1970; they are converted here, at the border, by the offset that the batch
brings.  What is text is stored as text, so that people can look at it with any SQLite tool.

No stop of a datagram.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from registrar_plugin.bindings import MICRO, Binding
from registrar_plugin.store import Unusable

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef
    from sipedge.flow import Listener

#: rows, or addresses-of-record, in one statement
CHUNK: Final = 250
#: seconds to wait for a lock that another program holds on the file
BUSY_S: Final = 5.0

#: name of the table of ``save`` and address-of-record -> all that shall be in the file for it
Rows = Mapping[tuple[str, bytes], Sequence[Binding]]

_COLUMNS: Final = (
    "domain", "aor", "updated", "expires", "contact", "path", "socket", "received", "call_id",
    "cseq", "reg_id", "q", "methods", "epoch",
)  # fmt: skip
_INSERT: Final = f"INSERT INTO location ({', '.join(_COLUMNS)}) VALUES "
_ROW: Final = f"({', '.join('?' * len(_COLUMNS))})"


def _create(connection: sqlite3.Connection) -> None:
    # clustered by address-of-record: its bindings are written and removed together
    connection.execute(
        """
        CREATE TABLE location (
            domain    TEXT NOT NULL,     -- the table that save() names
            aor       TEXT NOT NULL,
            updated   INTEGER NOT NULL,  -- microseconds since 1970
            expires   INTEGER NOT NULL,  -- microseconds since 1970
            contact   TEXT NOT NULL,     -- <URI> and parameters as they were sent
            path      TEXT NOT NULL,
            socket    TEXT,              -- our end of a UDP flow, as listen() takes it
            received  TEXT,              -- the other end
            call_id   TEXT NOT NULL,
            cseq      INTEGER NOT NULL,
            reg_id    INTEGER NOT NULL,  -- 0: without outbound
            q         INTEGER NOT NULL,  -- thousandths; -1: none was given
            methods   TEXT,              -- NULL: any
            epoch     INTEGER NOT NULL,  -- of its temporary GRUUs; 0: none were given out
            PRIMARY KEY (domain, aor, updated)
        ) WITHOUT ROWID
        """
    )


#: each takes the schema one version on; their number is the version that we write
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create,)


def path_of(url: str, base: Path) -> Path:
    """The file that an URL names: ``sqlite:///relative`` to ``base``, ``sqlite:////absolute``."""
    scheme, found, rest = url.partition(":///")
    if scheme != "sqlite" or not found or not rest.strip("/") or rest.endswith("/"):
        raise Unusable(
            f"{url!r} is no database; write 'sqlite:///location.sqlite' for a file beside the "
            "configuration, or 'sqlite:////var/lib/sipedge/location.sqlite'"
        )
    return base / rest


class SqliteFile:
    """One file; ``inspect`` it, or ``open``, ``load``, ``write`` any number of times, ``close``."""

    def __init__(self, path: Path, busy_s: float = BUSY_S) -> None:
        self.path = path
        #: for tests that stand in the way of the writer
        self.connection: sqlite3.Connection | None = None
        self._busy_s = busy_s
        self._lock: IO[bytes] | None = None
        self._chunk = CHUNK

    def inspect(self) -> None:
        """Whether ``open`` will do, as far as that can be told without changing anything.

        Raises ``Unusable``.
        """
        path = self.path
        if not path.parent.is_dir():
            raise Unusable(f"there is no directory {path.parent}; make it")
        if not path.exists():
            if not os.access(path.parent, os.W_OK | os.X_OK):
                raise Unusable(f"{path} cannot be made: no permission to write to {path.parent}")
            return
        if not path.is_file():
            raise Unusable(f"{path} is no file")
        # SQLite keeps two more files beside it
        for place in (path, path.parent):
            if not os.access(place, os.R_OK | os.W_OK):
                raise Unusable(f"{path} cannot be written: no permission for {place}")
        with self._explained():
            uri = f"{path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=self._busy_s)
            with contextlib.closing(connection):
                self._version(connection)

    def open(self) -> None:
        """Open the file, make or migrate its schema; nobody else may have it open for bindings.

        Raises ``Unusable``; then nothing is left open.
        """
        try:
            self._take_lock()
            with self._explained():
                # bindings say who is where: for us alone; SQLite gives its other files the same
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
                self.connection = connection = sqlite3.connect(
                    self.path,
                    timeout=self._busy_s,
                    isolation_level=None,  # transactions begin where we say so
                    check_same_thread=False,  # one thread after the other, never two at a time
                )
                connection.text_factory = bytes
                version = self._version(connection)
                connection.execute("PRAGMA journal_mode = WAL")
                # what is committed stays, even if the power fails
                connection.execute("PRAGMA synchronous = FULL")
                limit = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
                self._chunk = min(CHUNK, limit // len(_COLUMNS))
                if version < len(MIGRATIONS):
                    self._migrate(connection, version)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; it need not be open."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(
        self, now_us: int, wall_us: int, listeners: Mapping[str, Listener]
    ) -> Iterator[tuple[str, bytes, Binding | None]]:
        """Name of the table, address-of-record and binding of every row that has not expired.

        The oldest comes first.  ``now_us`` is the monotonic and ``wall_us`` the wall clock, in
        microseconds.  Stamps are before ``now_us``, and no two are the same.  ``None`` stands for
        a row whose listener is gone or which makes no sense.  Removes expired rows.  Raises
        ``Unusable``.
        """
        with self._explained():
            connection = self._open_connection()
            connection.execute("DELETE FROM location WHERE expires <= ?", (wall_us,))
            (left,) = connection.execute("SELECT count(*) FROM location").fetchone()
            stamp = -(2**63)
            offset = now_us - wall_us
            known: dict[bytes, frozenset[bytes]] = {}
            query = f"SELECT {', '.join(_COLUMNS)} FROM location ORDER BY updated"
            for row in connection.execute(query):
                # a wall clock that went back makes nothing younger than now
                stamp = max(stamp + 1, min(row[2] + offset, now_us - left))
                left -= 1
                try:
                    binding = _decoded(row, stamp, listeners, known)
                except ValueError:  # somebody wrote to the file by hand
                    binding = None
                yield row[0].decode(), row[1], binding

    def write(self, rows: Rows, offset_us: int) -> None:
        """Make ``rows`` what the file has for their addresses-of-record, all or nothing.

        ``offset_us``: wall clock minus monotonic clock.  Raises ``sqlite3.Error``.
        """
        connection = self._open_connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            by_domain: dict[str, list[bytes | str]] = {}
            for domain, aor in rows:
                by_domain.setdefault(domain, []).append(_text(aor))
            for domain, aors in by_domain.items():
                for start in range(0, len(aors), self._chunk):
                    some = aors[start : start + self._chunk]
                    connection.execute(
                        "DELETE FROM location WHERE domain = ? AND aor IN "
                        f"({', '.join('?' * len(some))})",
                        (domain, *some),
                    )
            encoded = (
                _encoded(domain, aor, binding, offset_us)
                for (domain, aor), bindings in rows.items()
                for binding in bindings
            )
            while chunk := list(islice(encoded, self._chunk)):
                values = [value for row in chunk for value in row]
                connection.execute(_INSERT + ", ".join([_ROW] * len(chunk)), values)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself rolls back after some errors
                connection.execute("ROLLBACK")
            raise

    # -- opening

    def _open_connection(self) -> sqlite3.Connection:
        assert self.connection is not None, "open() comes first"
        return self.connection

    def _take_lock(self) -> None:
        """Two processes, each with a truth of its own in memory, would undo each other's rows.

        The lock is a file of its own: SQLite's are lost when its file is closed by anybody in this
        process, and other programs may well read, or back up, the database.
        """
        try:
            descriptor = os.open(f"{self.path}-lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as exc:
            raise Unusable(f"{self.path} cannot be opened: {exc.strerror}") from exc
        self._lock = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise Unusable(
                f"{self.path} is in use; is another sipedge running with it? Each needs its own"
            ) from exc

    def _version(self, connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise Unusable(
                f"{self.path} was written by a newer sipedge (version {version} of the schema, "
                f"this one knows {len(MIGRATIONS)}); install that, or name another file"
            )
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and not version:
            raise Unusable(f"{self.path} is the database of another program; name another file")
        return version

    def _migrate(self, connection: sqlite3.Connection, version: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for step in MIGRATIONS[version:]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite says, for the operator."""
        try:
            yield
        except sqlite3.OperationalError as exc:
            raise Unusable(f"{self.path} cannot be used: {exc}") from exc
        except sqlite3.Error as exc:
            raise Unusable(
                f"{self.path} is damaged ({exc}); move it away: phones are back with their next "
                "refresh"
            ) from exc
        except OSError as exc:
            raise Unusable(f"{self.path} cannot be opened: {exc.strerror}") from exc


# -- rows


def _text(value: bytes) -> bytes | str:
    """Text where it is text; other octets as they are.  Both come back as the same octets."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _encoded(domain: str, aor: bytes, binding: Binding, offset_us: int) -> tuple[Any, ...]:
    updated = binding.stamp + offset_us
    socket = received = None
    if isinstance(binding.flow, tuple):
        listener, (host, port) = binding.flow
        socket, received = listener.name, f"{host} {port}"
    methods = binding.methods
    return (
        domain, _text(aor), updated, updated + binding.lifetime * MICRO, _text(binding.contact),
        _text(binding.path), socket, received, _text(binding.call_id), binding.cseq,
        binding.reg_id, binding.q, None if methods is None else _text(b",".join(sorted(methods))),
        binding.epoch,
    )  # fmt: skip


def _decoded(
    row: Sequence[Any],
    stamp: int,
    listeners: Mapping[str, Listener],
    known: dict[bytes, frozenset[bytes]],
) -> Binding | None:
    """``known``: method sets that were made before; phones of a kind allow the same methods."""
    _, _, updated, expires, contact, path, socket, received, call_id, cseq, reg_id, q = row[:12]
    names, epoch = row[12:]
    flow: FlowRef | None = None
    if socket is not None:
        listener = listeners.get(socket.decode())
        if listener is None:
            return None
        host, _, port = received.decode().partition(" ")
        flow = (listener, (host, int(port)))
    methods = None
    if names is not None:
        methods = known.get(names)
        if methods is None:
            methods = known[names] = frozenset(names.split(b",") if names else ())
    if contact[:1] != b"<" or b">" not in contact:
        return None
    lifetime = (expires - updated) // MICRO
    return Binding(contact, reg_id, q, path, flow, call_id, cseq, stamp, lifetime, methods, epoch)
