"""A server that is away, hangs, or is not what it should be; with real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from registrar_plugin.store import StoreAway, StoreError, Unusable, link
from tests.peerlib.databases import Database, Postgres, Redis
from tests.peerlib.fixtures import crew, pytest_runtest_makereport
from tests.peerlib.process import LOOPBACK, Crew, free_port
from tests.registrar_plugin.store.servers import SHARED, Node, Stores, backend_of

__all__ = ["crew", "pytest_runtest_makereport"]

AOR = b"bob@example.com"


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BACK_OFF_S", (0.01, 0.1))


@pytest.fixture(params=SHARED)
def stores(request: pytest.FixtureRequest, crew: Crew, tmp_path: Path) -> Stores:
    server: Database = Redis(crew) if request.param == "redis" else Postgres(crew)
    return Stores(request.param, server, tmp_path)


async def until_back(node: Node) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await node.fetch(AOR)
                return
            except StoreAway:
                await asyncio.sleep(0.01)


def test_killed_and_started_again(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    a, server = stores.a, stores.server
    assert server is not None

    async def play() -> None:
        kept: list[bytes] = []
        for number in range(50):
            aor = b"user%d" % number
            await a.save(aor, a.binding(1))
            kept.append(aor)
            if number == 25:
                server.kill()
                for _ in range(20):
                    with pytest.raises(StoreAway):
                        await a.fetch(AOR)
                server.start()
                await until_back(a)
        for aor in kept:
            assert len(await a.fetch(aor)) == 1
            assert len(await stores.b.fetch(aor)) == 1, "by the other node, too"

    stores.run(play)
    assert a.core.stats["db_outages"] == 1
    assert a.core.stats["db_errors"] >= 1
    assert caplog.text.count("is away") == 1, "said once"
    assert caplog.text.count("is back") == 1


def test_one_that_hangs_keeps_nobody_waiting(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a, server = stores.a, stores.server
    assert server is not None
    monkeypatch.setattr(link, "OPERATION_S", 0.2)
    monkeypatch.setattr(link, "PREPARE_S", 0.5)

    def tell(number: int) -> None:
        children = Path(f"/proc/{server.program.pid}/task/{server.program.pid}/children")
        for pid in (*children.read_text().split(), server.program.pid):
            os.kill(int(pid), number)

    async def play() -> None:
        await a.save(AOR, a.binding(1))
        tell(signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                together = [a.fetch(AOR) for _ in range(100)]
                results = await asyncio.gather(*together, return_exceptions=True)
        finally:
            tell(signal.SIGCONT)
        assert {type(result) for result in results} == {StoreAway}
        assert a.core.stats["db_outages"] == 1
        assert a.core.stats["db_errors"] > 1, "all that were under way"
        assert caplog.text.count("is away") == 1
        await until_back(a)
        # nothing was lost of the room that those who hung had
        rows = await asyncio.gather(*(a.fetch(AOR) for _ in range(100)))
        assert {len(row) for row in rows} == {1}

    stores.run(play)


def test_a_crowd_waits_for_its_turn(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many at once say nothing about the server."""
    a = stores.a

    async def play() -> None:
        await asyncio.gather(*(a.save(b"%d" % n, a.binding(1)) for n in range(200)))
        monkeypatch.setattr(link, "QUEUE_S", 0.0)
        crowd = [a.fetch(b"%d" % n) for n in range(200)]
        results = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [result for result in results if isinstance(result, StoreAway)]
        assert 0 < len(refused) < 200
        assert all("too many wait" in str(result) for result in refused)
        assert len(await a.fetch(b"7")) == 1, "it is not away"

    stores.run(play)
    assert a.core.stats["db_outages"] == 0


def damaged(stores: Stores, redis: Callable[[Node], list[object]], sql: str) -> None:
    """Do something to a database that nobody should do."""
    url = stores.server.url if stores.server is not None else ""
    if stores.kind == "redis":
        from redis import Redis as Client

        client = Client.from_url(url)
        client.execute_command(*redis(stores.a))
        client.close()
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


def test_a_newer_schema_is_refused(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    a, server = stores.a, stores.server
    assert server is not None
    assert a.database is not None

    async def nothing() -> None:
        pass

    stores.run(nothing)
    damaged(
        stores, lambda _: ["SET", "sipedge:version", "99"], "INSERT INTO sipedge_schema VALUES (99)"
    )
    again = Node(1.0)
    again.share(server.url, stores.domain, "node")
    assert again.database is not None
    with pytest.raises(Unusable, match=r"written by a newer sipedge \(version 99 of the schema"):
        again.database.link.open()


def test_the_schema_is_made_once_by_several_nodes(stores: Stores) -> None:
    a, server = stores.a, stores.server
    assert server is not None

    async def play() -> None:
        await asyncio.gather(*(backend_of(server.url).prepare() for _ in range(5)))
        await a.save(AOR, a.binding(1))
        await backend_of(server.url).prepare()
        assert len(await a.fetch(AOR)) == 1

    stores.run(play)


def test_an_error_that_is_not_an_outage(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    a = stores.a

    async def play() -> None:
        damaged(
            stores,
            lambda _: ["SET", f"sipedge:location:{key_part(stores.domain)}:bob@example.com", "x"],
            "ALTER TABLE sipedge_location RENAME COLUMN q TO quality",
        )
        for _ in range(3):
            with pytest.raises(StoreError) as caught:
                await a.fetch(AOR)
            assert not isinstance(caught.value, StoreAway)

    stores.run(play)
    assert a.core.stats["db_outages"] == 0


def test_a_row_that_makes_no_sense_is_passed_over(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    a = stores.a

    async def play() -> None:
        await a.save(AOR, a.binding(1), a.binding(2))
        if stores.kind == "redis":
            assert a.database is not None
            from redis.asyncio import Redis as Client

            client = Client.from_url(stores.server.url if stores.server else "")
            key = f"sipedge:location:{key_part(stores.domain)}:bob@example.com"
            fields = await client.hgetall(key)
            name, field = next((k, v) for k, v in fields.items() if k.startswith(b"1 "))
            await client.hset(key, name, field.replace(b"<sip:", b"sip:"))
            await client.aclose()
        else:
            damaged(
                stores, lambda _: [], "UPDATE sipedge_location SET contact = '' WHERE reg_id = 1"
            )
        assert [row.reg_id for row in await a.fetch(AOR)] == [2]

    stores.run(play)
    assert "makes no sense" in caplog.text


def key_part(domain: str) -> str:
    from urllib.parse import quote

    return quote(domain, safe="")


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_nobody_there_at_the_start(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(1.0)
    node.share(f"{scheme}://sip:secret@{LOOPBACK}:{free_port()}/0", "location", "node")
    database = node.database
    assert database is not None

    async def play() -> None:
        database.link.open()
        with pytest.raises(StoreAway):
            await node.fetch(AOR)
        await database.link.aclose()

    asyncio.run(play())
    assert caplog.text.count("is away") == 1
    assert node.core.stats["db_outages"] == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_one_that_accepts_and_says_nothing(
    scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "PREPARE_S", 0.2)
    with socket.create_server((LOOPBACK, 0)) as silent:
        node = Node(1.0)
        node.share(f"{scheme}://{LOOPBACK}:{silent.getsockname()[1]}/0", "location", "node")
        database = node.database
        assert database is not None

        async def play() -> None:
            database.link.open()
            assert not database.link.is_up
            await database.link.aclose()

        asyncio.run(play())
    assert "is away" in caplog.text


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://host/none", "host:6379/0"),
        ("redis://host:99999999/0", "host:6379/0"),
        ("postgresql://host/db?nonsense=1", "invalid URI query parameter"),
    ],
)
def test_an_url_that_is_none(url: str, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        backend_of(url)


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [("redis://h", "redis.asyncio", "redis"), ("postgresql://h", "psycopg", "postgresql")],
)
def test_a_library_that_is_missing(
    url: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(Unusable, match=rf"pip install 'sipedge\[{extra}\]'"):
        backend_of(url)


def test_a_list_that_breaks_off(stores: Stores) -> None:
    a, server = stores.a, stores.server
    assert server is not None

    async def play() -> None:
        await a.save(AOR, a.binding(1))
        server.kill()
        with pytest.raises(StoreAway):
            [_ async for _ in a.table.entries()]

    stores.run(play)
