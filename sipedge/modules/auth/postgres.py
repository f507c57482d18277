"""Stop 6, auth: the table of subscribers in PostgreSQL, for ``async def`` routes.

Strategy: one connection, made when it is first needed and again after it broke; psycopg lets the
queries of concurrent routes wait for each other.  While the database is away, requests are answered
503 at once and a new attempt is made only now and then.  This is the one file of the module that
knows the event loop: a database that hangs must not keep requests waiting for ever.  So a query has
a task of its own.  Nobody waits for that longer than ``PATIENCE_S``; then its connection is shut
down under it.  To cancel it would not do: psycopg would ask the server to cancel the query, and a
server that hangs does not answer that either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from sipedge.errors import ConfigError
from sipedge.modules.auth.credentials import Secret, SourceDown, dummy_hashes
from sipedge.modules.auth.subscribers import query, secret_of

Row = tuple[str | None, ...]

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[Row]

log = logging.getLogger("sipedge.auth")

#: seconds for one look-up, a new connection included; timer F of the client is 32
PATIENCE_S: Final = 4.0
#: seconds between two attempts to connect: doubled from the first to the second
BACK_OFF_S: Final = (0.25, 8.0)


class PostgresSource:
    """``url``: a connection string of libpq, ``postgresql://user:password@host/database``."""

    def __init__(self, url: str, table: str, algorithms: tuple[bytes, ...]) -> None:
        """Raises ``ConfigError`` (without a place): psycopg is missing, or refuses ``url``."""
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as exc:
            raise ConfigError(
                "credentials in PostgreSQL need psycopg; run: pip install 'sipedge[postgresql]'"
            ) from exc
        try:
            conninfo_to_dict(url)
        except psycopg.Error as exc:
            raise ConfigError(f"credentials: {str(exc).strip()}") from exc
        self.dummy: Secret = dummy_hashes()
        self._url = url
        self._algorithms = algorithms
        self._query = query(table, algorithms, "%s")
        self._failure: type[Exception] = psycopg.Error
        self._connection: Connection | None = None
        #: who waits for an answer on which
        self._busy: dict[asyncio.Task[Row | None], Connection] = {}
        self._connecting = asyncio.Lock()
        self._back_off_s = BACK_OFF_S[0]
        self._not_before = 0.0  # seconds of the loop's clock

    async def find_async(self, user: bytes, realm: bytes) -> Secret | None:
        try:
            values = user.decode(), realm.decode()
        except UnicodeDecodeError:
            return None
        if b"\0" in user + realm:
            return None  # PostgreSQL has no text with a NUL
        task = asyncio.get_running_loop().create_task(self._row(values))
        task.add_done_callback(_forget)
        try:
            finished, _ = await asyncio.wait((task,), timeout=PATIENCE_S)
            if finished:
                return secret_of(task.result(), self._algorithms)
            raise TimeoutError(f"no answer within {PATIENCE_S:g} s")
        except (self._failure, OSError) as exc:
            self._failed(self._busy.get(task), exc)
            raise SourceDown from exc
        finally:
            if not task.done():
                self._give_up(task)

    async def _row(self, values: tuple[str, str]) -> Row | None:
        """The one row of a user; raises ``SourceDown``, or what connecting raised."""
        connection = await self._connected()
        task = asyncio.current_task()
        assert task is not None  # find_async has made one
        self._busy[task] = connection
        try:
            cursor = await connection.execute(self._query, values)
            return await cursor.fetchone()
        except (self._failure, OSError) as exc:
            self._failed(connection, exc)
            connection.pgconn.finish()
            raise SourceDown from exc
        finally:
            del self._busy[task]

    def _give_up(self, task: asyncio.Task[Row | None]) -> None:
        """Make the task end soon, and with it all that use the same connection."""
        connection = self._busy.get(task)
        if connection is None or connection.closed:
            task.cancel()  # it waits for a connection
            return
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as end:
            with contextlib.suppress(OSError):  # it has been
                end.shutdown(socket.SHUT_RDWR)

    async def _connected(self) -> Connection:
        import psycopg

        async with self._connecting:  # those who come meanwhile get the same connection
            if self._connection is not None and not self._connection.closed:
                return self._connection
            if asyncio.get_running_loop().time() < self._not_before:
                raise psycopg.OperationalError("not connected, and it is too early to try again")
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
            self._back_off_s = BACK_OFF_S[0]
            log.info("credentials: connected to PostgreSQL")
            return self._connection

    def _failed(self, used: Connection | None, exc: Exception) -> None:
        """Let go of a connection that is no good; after a failed attempt, wait longer."""
        if used is not None:
            if used is self._connection:  # else somebody else has found out before
                log.error("credentials: PostgreSQL: %s", str(exc).strip() or type(exc).__name__)
                self._connection = None
            return
        now = asyncio.get_running_loop().time()
        if now >= self._not_before:
            log.error(
                "credentials: no connection to PostgreSQL, next attempt in %g s: %s",
                self._back_off_s, str(exc).strip() or type(exc).__name__,
            )  # fmt: skip
            self._not_before = now + self._back_off_s
            self._back_off_s = min(2 * self._back_off_s, BACK_OFF_S[1])

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()


def _forget(task: asyncio.Task[Row | None]) -> None:
    """Whoever waited knows what it raised; if nobody did any more, nobody cares."""
    if not task.cancelled():
        task.exception()
