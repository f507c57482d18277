"""Bindings in PostgreSQL: a row each, in the table ``sipedge_location``.

Strategy: a change is one transaction: the rows that go are deleted by their version, and the new
ones inserted.  If one is not there, or the primary key is taken, another node was quicker and
nothing has happened; the locks of rows and of the index make the nodes wait for each other, nothing
else does.  All times are made by the clock of the server.  The few connections are opened when they
are needed; each request has one to itself for as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from registrar_plugin.store import Conflict, StoreError, Unusable
from registrar_plugin.store.news import QUIET_S, announcement, read_announcement
from registrar_plugin.store.records import Record

if TYPE_CHECKING:
    from psycopg import AsyncConnection

#: rows that one look for expired ones removes at most
EXPIRE_MOST: Final = 1000
#: rows that ``entries`` reads at a time
PAGE: Final = 500
#: key of the advisory lock under which the schema is made
_SCHEMA_LOCK: Final = 0x73697065646765
#: where new bindings are announced (NOTIFY)
_CHANNEL: Final = "sipedge_changes"

_CREATE: Final = """
CREATE TABLE sipedge_location (
    domain   text NOT NULL,         -- the table that save() names
    aor      text NOT NULL,
    key      text NOT NULL,         -- reg-id and instance, or 0 and the URI
    version  text NOT NULL,         -- another one each time that it is written
    updated  timestamptz NOT NULL,
    expires  timestamptz NOT NULL,
    contact  text NOT NULL,         -- <URI> and parameters as they were sent
    path     text NOT NULL,
    flow     text NOT NULL,         -- '': none; else the node that has it, and which one it is
    call_id  text NOT NULL,
    cseq     bigint NOT NULL,
    reg_id   bigint NOT NULL,       -- 0: without outbound
    q        integer NOT NULL,      -- thousandths; -1: none was given
    methods  text,                  -- NULL: any
    epoch    bigint NOT NULL,       -- of its temporary GRUUs; 0: none were given out
    PRIMARY KEY (domain, aor, key)
);
CREATE INDEX sipedge_location_expires ON sipedge_location (expires);
"""
#: each takes the schema one version on; their number is the version that we write
MIGRATIONS: Final[tuple[str, ...]] = (_CREATE,)

_RECORD: Final = """
    key, version, (extract(epoch FROM statement_timestamp() - updated) * 1000000)::bigint,
    extract(epoch FROM expires - updated)::bigint, contact, path, flow, call_id, cseq, reg_id, q,
    methods, epoch
"""
_LIVE: Final = "expires > statement_timestamp()"
_FETCH: Final = (
    f"SELECT {_RECORD} FROM sipedge_location WHERE domain = %s AND aor = %s AND {_LIVE} "
    "ORDER BY updated"
)
_DELETE: Final = (
    "DELETE FROM sipedge_location WHERE domain = %s AND aor = %s AND (version = ANY(%s) "
    f"OR key = ANY(%s) AND NOT {_LIVE}) RETURNING version"
)
_INSERT: Final = (
    "INSERT INTO sipedge_location (domain, aor, key, version, updated, expires, contact, path, "
    "flow, call_id, cseq, reg_id, q, methods, epoch) VALUES "
)
_UPDATED: Final = "statement_timestamp() - %s * interval '1 microsecond'"
_VALUES: Final = (
    f"(%s, %s, %s, %s, {_UPDATED}, {_UPDATED} + %s * interval '1 second'" + ", %s" * 9 + ")"
)
# several nodes may do this at the same time
_EXPIRE: Final = f"""
DELETE FROM sipedge_location WHERE (domain, aor, key) IN (
    SELECT domain, aor, key FROM sipedge_location WHERE domain = %s AND NOT {_LIVE}
    LIMIT {EXPIRE_MOST} FOR UPDATE SKIP LOCKED
) RETURNING aor, {_RECORD}
"""
_PAGE: Final = f"""
SELECT aor, {_RECORD} FROM sipedge_location
WHERE domain = %s AND (aor, key) > (%s, %s) AND {_LIVE} ORDER BY aor, key LIMIT {PAGE}
"""


class PostgresBackend:
    """See ``Backend``."""

    connections = 8
    announce = False

    def __init__(self, url: str) -> None:
        """``url``: a connection string of libpq, ``postgresql://user:password@host/database``.

        Raises ``Unusable``: the library is missing, or refuses ``url``.
        """
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as exc:
            raise Unusable(
                "PostgreSQL needs a library; run: pip install 'sipedge[postgresql]'"
            ) from exc
        self._library: Any = psycopg
        try:
            where = conninfo_to_dict(url)
        except psycopg.Error as exc:
            raise Unusable(f"{str(exc).strip()}; write postgresql://user@host/database") from exc
        self._url = url
        place = f"{where.get('host', 'localhost')}:{where.get('port', 5432)}"
        self.name = f"PostgreSQL at {place}"
        errors = psycopg.errors
        #: a standby that is not promoted takes no changes (failover)
        self.lost: tuple[type[Exception], ...] = (
            psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction,
        )  # fmt: skip
        self._quicker: tuple[type[Exception], ...] = (
            errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure,
        )  # fmt: skip
        self._idle: list[AsyncConnection[Any]] = []
        #: who uses which
        self._busy: dict[asyncio.Task[Any] | None, AsyncConnection[Any]] = {}
        #: counts outages; a connection does not outlive one
        self._era = 0

    async def prepare(self) -> None:
        connection = await self._connect()
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
                await self._migrate(connection)
        except self.lost:
            raise
        except self._library.Error as exc:
            raise Unusable(f"{self.name} cannot be used: {str(exc).strip()}") from exc
        finally:
            connection.pgconn.finish()

    async def _migrate(self, connection: AsyncConnection[Any]) -> None:
        cursor = await connection.execute("SELECT pg_is_in_recovery()")
        if (await cursor.fetchone() or (True,))[0]:
            raise self._library.OperationalError("it is a standby, which takes no changes")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS sipedge_schema (version integer NOT NULL)"
        )
        cursor = await connection.execute("SELECT max(version) FROM sipedge_schema")
        version = (await cursor.fetchone() or (None,))[0] or 0
        if version > len(MIGRATIONS):
            raise Unusable(
                f"{self.name} was written by a newer sipedge (version {version} of the schema, "
                f"this one knows {len(MIGRATIONS)}); install that, or name another database"
            )
        for number, step in enumerate(MIGRATIONS[version:], version + 1):
            await connection.execute(step)
            await connection.execute("INSERT INTO sipedge_schema VALUES (%s)", (number,))

    async def fetch(self, domain: str, aor: str) -> list[Record]:
        async with self._connection() as connection:
            return await _records(connection, domain, aor)

    async def replace(
        self, domain: str, aor: str, gone: Sequence[tuple[str, str]], new: Sequence[Record]
    ) -> list[Record]:
        versions, keys = [version for _, version in gone], [record.key for record in new]
        values: list[object] = []
        for record in new:
            values += (
                domain, aor, record.key, record.version, record.age_us, record.age_us,
                record.lifetime, *record[4:],
            )  # fmt: skip
        async with self._connection() as connection:
            try:
                async with connection.pipeline(), connection.transaction():
                    cursor = await connection.execute(_DELETE, (domain, aor, versions, keys))
                    deleted = {version for (version,) in await cursor.fetchall()}
                    if not deleted.issuperset(versions):
                        raise Conflict(f"another node has changed {aor}")
                    if new:
                        query = _INSERT + ", ".join([_VALUES] * len(new))
                        await connection.execute(query, values)
                    text = announcement(self, domain, aor, gone, new)
                    if text:
                        await connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, text))
                    return await _records(connection, domain, aor)
            except self._quicker as exc:
                raise Conflict(f"another node has changed {aor}") from exc

    async def expire(self, domain: str) -> list[tuple[str, Record]]:
        async with self._connection() as connection:
            cursor = await connection.execute(_EXPIRE, (domain,))
            return [(row[0], Record(*row[1:])) for row in await cursor.fetchall()]

    async def entries(self, domain: str) -> AsyncIterator[tuple[str, Record]]:
        last = ("", "")
        while True:
            async with self._connection() as connection:
                cursor = await connection.execute(_PAGE, (domain, *last))
                rows = await cursor.fetchall()
            for row in rows:
                yield row[0], Record(*row[1:])
            if len(rows) < PAGE:
                return
            last = (rows[-1][0], rows[-1][1])

    async def changes(self) -> AsyncIterator[tuple[str, str]]:
        # the kernel notices if the server is gone: nothing is ever sent on this connection
        connection = await self._connect(
            keepalives_idle=int(QUIET_S), keepalives_interval=5, keepalives_count=2
        )
        try:
            await connection.execute(f"LISTEN {_CHANNEL}")
            yield "", ""
            async for heard in connection.notifies():
                yield read_announcement(heard.payload)
        finally:
            connection.pgconn.finish()

    def give_up(self, task: asyncio.Task[Any]) -> None:
        connection = self._busy.get(task)
        if connection is None or connection.closed:
            task.cancel()
            return
        # A task that is cancelled would ask the server to cancel the query, and wait for it.  So
        # let it find that the connection is gone.
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as end:
            with contextlib.suppress(OSError):  # it is
                end.shutdown(socket.SHUT_RDWR)

    async def drop(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.pgconn.finish()  # close() would do no more
        self._era += 1

    async def aclose(self) -> None:
        await self.drop()

    # -- connections

    async def _connect(self, **settings: int) -> AsyncConnection[Any]:
        connection: AsyncConnection[Any] = await self._library.AsyncConnection.connect(
            self._url, autocommit=True, client_encoding="UTF8", **settings
        )
        return connection

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """One for the caller alone; it goes back if it is still good."""
        era = self._era
        connection = self._idle.pop() if self._idle else await self._connect()
        task = asyncio.current_task()
        self._busy[task] = connection
        good = False
        try:
            yield connection
            good = True
        except Conflict:
            good = True
            raise
        except self.lost:
            raise
        except self._library.Error as exc:
            good = True
            raise StoreError(f"{self.name}: {str(exc).strip()}") from exc
        finally:
            del self._busy[task]
            if good and not connection.closed and era == self._era:
                self._idle.append(connection)
            else:
                connection.pgconn.finish()


async def _records(connection: AsyncConnection[Any], domain: str, aor: str) -> list[Record]:
    cursor = await connection.execute(_FETCH, (domain, aor))
    return [Record(*row) for row in await cursor.fetchall()]
