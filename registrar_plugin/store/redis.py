"""Bindings in Redis: a hash for each address-of-record, and a script that changes it.

Strategy: Redis runs a script as one step, so a change is compared and made in one round trip,
all or nothing.  A field is ``version updated lifetime JSON``, times in microseconds and seconds by
the clock of Redis.  A hash expires with its last binding; one that expires before that is not
returned any more, and is removed with the next change.  All keys begin with ``sipedge:``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from registrar_plugin.bindings import MICRO
from registrar_plugin.store import Conflict, StoreError, Unusable
from registrar_plugin.store.link import OPERATION_S
from registrar_plugin.store.news import QUIET_S, announcement, read_announcement
from registrar_plugin.store.records import Record

#: the version of the schema that we write
VERSION: Final = 1
_VERSION_KEY: Final = "sipedge:version"
#: where new bindings are announced; the script has the same name
_CHANNEL: Final = "sipedge:changes"

# ARGV: what to announce, perhaps nothing; how many go; key and version of each; key, version, age
# in microseconds, lifetime in seconds and JSON of each new one.  The answer: the time, then key,
# field, key, field...; nil: a conflict.
_REPLACE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function expires(field)
  local updated, lifetime = string.match(field, '^%S+ (%d+) (%d+) ')
  return updated + lifetime * 1000000
end

local gone = {}
local first_new = 2 * ARGV[2] + 3
for i = 3, first_new - 2, 2 do
  local field = redis.call('HGET', KEYS[1], ARGV[i])
  if not field or string.match(field, '^%S+') ~= ARGV[i + 1] then
    return false
  end
  gone[ARGV[i]] = true
end
for i = first_new, #ARGV, 5 do
  local field = not gone[ARGV[i]] and redis.call('HGET', KEYS[1], ARGV[i])
  if field and expires(field) > now then
    return false
  end
end

for key in pairs(gone) do
  redis.call('HDEL', KEYS[1], key)
end
for i = first_new, #ARGV, 5 do
  local updated = string.format('%.0f', now - ARGV[i + 2])
  local field = ARGV[i + 1] .. ' ' .. updated .. ' ' .. ARGV[i + 3] .. ' ' .. ARGV[i + 4]
  redis.call('HSET', KEYS[1], ARGV[i], field)
end

local fields = redis.call('HGETALL', KEYS[1])
local left, last = {string.format('%.0f', now)}, 0
for i = 1, #fields, 2 do
  local at = expires(fields[i + 1])
  if at > now then
    last = math.max(last, at)
    left[#left + 1] = fields[i]
    left[#left + 1] = fields[i + 1]
  else
    redis.call('HDEL', KEYS[1], fields[i])
  end
end
if last > 0 then
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.ceil(last / 1000)))
end
if ARGV[1] ~= '' then
  redis.call('PUBLISH', 'sipedge:changes', ARGV[1])
end
return left
"""


class RedisBackend:
    """See ``Backend``."""

    connections = 16
    announce = False

    def __init__(self, url: str) -> None:
        """``url``: ``redis://user:password@host:port/db``, or ``rediss://`` for TLS.

        Raises ``Unusable``: the library is missing, or refuses ``url``.
        """
        try:
            import redis.asyncio as library
        except ImportError as exc:
            raise Unusable("Redis needs a library; run: pip install 'sipedge[redis]'") from exc
        self._library: Any = library
        self._url = url
        errors: Any = library.RedisError
        self._error: type[Exception] = errors
        #: a replica that was made of the server takes no changes (failover)
        self.lost: tuple[type[Exception], ...] = (
            library.ConnectionError, library.TimeoutError, library.ReadOnlyError,
        )  # fmt: skip
        try:
            number = urlsplit(url).path.strip("/")
            if number and not number.isdigit():
                raise ValueError(f"{number!r} is no number of a database")
            self._client = self._new_client()
        except ValueError as exc:
            raise Unusable(f"{exc}; write redis://host:6379/0") from exc
        self._replace = self._client.register_script(_REPLACE)
        pool = self._client.connection_pool.connection_kwargs
        self.name = f"Redis at {pool.get('host', 'localhost')}:{pool.get('port', 6379)}"

    def _new_client(self) -> Any:
        """A client; it connects when it is used."""
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        pool = self._library.ConnectionPool.from_url(
            self._url,
            socket_connect_timeout=OPERATION_S,
            socket_timeout=OPERATION_S,
            decode_responses=True,
            # a change whose answer was lost must not be made twice
            retry=Retry(NoBackoff(), 0),
        )
        return self._library.Redis.from_pool(pool)

    async def prepare(self) -> None:
        client = self._new_client()
        try:
            # a write, even if it changes nothing: a replica refuses it
            await client.set(_VERSION_KEY, VERSION, nx=True)
            version = await client.get(_VERSION_KEY)
        except self._library.AuthenticationError as exc:
            raise Unusable(f"{self.name}: {exc}; put user and password into db_url") from exc
        except self.lost:
            raise
        except self._error as exc:
            raise Unusable(f"{self.name} cannot be used: {exc}") from exc
        finally:
            await client.aclose()
        if not str(version).isdigit() or int(version) > VERSION:
            raise Unusable(
                f"{self.name} was written by a newer sipedge (version {version} of the schema, "
                f"this one knows {VERSION}); install that, or name another database"
            )

    async def fetch(self, domain: str, aor: str) -> list[Record]:
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(_key(domain, aor))
        try:
            (seconds, micro), fields = await pipe.execute()
        except self.lost:
            raise
        except self._error as exc:
            raise StoreError(f"{self.name}: {exc}") from exc
        return _records(seconds * MICRO + micro, fields)

    async def replace(
        self, domain: str, aor: str, gone: Sequence[tuple[str, str]], new: Sequence[Record]
    ) -> list[Record]:
        arguments: list[object] = [announcement(self, domain, aor, gone, new), len(gone)]
        for pair in gone:
            arguments += pair
        for record in new:
            rest = json.dumps(record[4:], separators=(",", ":"))
            arguments += (record.key, record.version, record.age_us, record.lifetime, rest)
        try:
            answer = await self._replace(keys=[_key(domain, aor)], args=arguments)
        except self.lost:
            raise
        except self._error as exc:
            raise StoreError(f"{self.name}: {exc}") from exc
        if answer is None:
            raise Conflict(f"another node has changed {aor}")
        now, *fields = answer
        return _records(int(now), dict(zip(fields[::2], fields[1::2], strict=True)))

    async def expire(self, domain: str) -> list[tuple[str, Record]]:
        """Redis does it, and tells nobody."""
        return []

    async def entries(self, domain: str) -> AsyncIterator[tuple[str, Record]]:
        prefix = _key(domain, "")
        pattern = "".join(f"[{c}]" if c in "*?[" else c for c in prefix) + "*"
        async for key in self._client.scan_iter(pattern, count=500):
            aor = key.removeprefix(prefix)
            for record in await self.fetch(domain, aor):
                yield aor, record

    async def changes(self) -> AsyncIterator[tuple[str, str]]:
        client = self._new_client()
        try:
            async with client.pubsub() as listener:
                await listener.subscribe(_CHANNEL)
                while True:
                    heard = await listener.get_message(timeout=QUIET_S)
                    if heard is None:  # nothing for a while: is the server still there?
                        await listener.ping()
                        heard = await listener.get_message(timeout=OPERATION_S)
                        if heard is None:
                            raise TimeoutError(f"no answer within {OPERATION_S:g} s")
                    if heard["type"] == "subscribe":
                        yield "", ""
                    elif heard["type"] == "message":
                        yield read_announcement(heard["data"])
        finally:
            await client.aclose()

    def give_up(self, task: asyncio.Task[Any]) -> None:
        task.cancel()

    async def drop(self) -> None:
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        await self._client.aclose()


def _key(domain: str, aor: str) -> str:
    return f"sipedge:location:{quote(domain, safe='')}:{aor}"


def _records(now_us: int, fields: dict[str, str]) -> list[Record]:
    """Fields of a hash, without those that have expired."""
    records = []
    for key, field in fields.items():
        version, updated, lifetime, rest = field.split(" ", 3)
        age_us = now_us - int(updated)
        if age_us < int(lifetime) * MICRO:
            records.append(Record(key, version, age_us, int(lifetime), *json.loads(rest)))
    return records
