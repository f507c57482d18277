"""What is true of Redis only: expiry by its own means, and passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from registrar_plugin.store import Unusable
from registrar_plugin.store.redis import RedisBackend
from tests.peerlib.databases import Redis
from tests.peerlib.fixtures import crew, pytest_runtest_makereport
from tests.peerlib.process import Crew
from tests.registrar_plugin.store.servers import Stores

__all__ = ["crew", "pytest_runtest_makereport"]

AOR = b"bob@example.com"


def test_redis_drops_what_has_expired(crew: Crew, tmp_path: Path) -> None:
    from redis.asyncio import Redis as Client

    server = Redis(crew)
    stores = Stores("redis", server, tmp_path)
    a = stores.a

    async def play() -> None:
        client = Client.from_url(server.url, decode_responses=True)

        async def ttl(aor: str) -> int:
            """Milliseconds until the key goes."""
            keys = [key async for key in client.scan_iter(f"sipedge:location:*:{aor}")]
            assert len(keys) <= 1
            return await client.pttl(keys[0]) if keys else -2

        rows = await a.save(AOR, a.binding(1, lifetime=100), a.binding(2, lifetime=5000))
        assert 4_900_000 < await ttl("bob@example.com") <= 5_000_000, "with its last binding"
        long = [row for row in rows if row.reg_id == 2]
        rows = await a.table.replace(AOR, long, (), 0)
        assert 90_000 < await ttl("bob@example.com") <= 100_000
        # forever is possible, and too much for a double is not reached
        await a.table.replace(AOR, rows, (a.binding(1, lifetime=2**31 - 1),), 0)
        assert await ttl("bob@example.com") > 2_147_483_000_000
        # what has expired goes with the next change, and the key with the last one
        await a.save(b"short", a.binding(1, age_s=601))
        assert await ttl("short") == -2
        await a.table.replace(AOR, await a.fetch(AOR), (), 0)
        assert await ttl("bob@example.com") == -2
        assert [key async for key in client.scan_iter("*")] == ["sipedge:version"]
        await client.aclose()

    stores.run(play)


def test_a_wrong_password_refuses_the_start(crew: Crew, tmp_path: Path) -> None:
    from redis import Redis as Client

    server = Redis(crew)
    client = Client.from_url(server.url)
    client.config_set("requirepass", "secret")
    client.close()
    wrong = Stores("redis", server, tmp_path)

    async def play() -> None:
        for url in (server.url, server.url.replace("redis://", "redis://:wrong@")):
            with pytest.raises(Unusable, match="put user and password into db_url"):
                await RedisBackend(url).prepare()
        backend = RedisBackend(server.url.replace("redis://", "redis://:secret@"))
        await backend.prepare()
        await backend.aclose()
        assert "secret" not in backend.name

    wrong.a.database = wrong.b.database = None
    wrong.run(play)
