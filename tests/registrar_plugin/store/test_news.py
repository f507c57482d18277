"""What servers announce, with real ones: each new binding, at once, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from registrar_plugin.store import StoreAway, link, news
from registrar_plugin.store.shared import SharedTable
from tests.peerlib.databases import Database, Postgres, Redis
from tests.peerlib.fixtures import crew, pytest_runtest_makereport
from tests.peerlib.process import Crew
from tests.registrar_plugin.store.servers import SHARED, Stores

__all__ = ["crew", "pytest_runtest_makereport"]

AOR = b"b\xc3\xb6b b\\ob@example.com"
#: (name of the table, address-of-record); two empty ones: anything may have changed
Heard = tuple[str, bytes]


@pytest.fixture(params=SHARED)
def stores(request: pytest.FixtureRequest, crew: Crew, tmp_path: Path) -> Stores:
    server: Database = Redis(crew) if request.param == "redis" else Postgres(crew)
    return Stores(request.param, server, tmp_path)


def listening(
    stores: Stores, play: Callable[[list[Heard]], Awaitable[None]], announce: bool = True
) -> None:
    """Run ``play`` while node b listens to what node a does."""
    a, b = stores.a, stores.b
    assert a.database is not None
    assert b.database is not None
    a.database.backend.announce = announce
    heard: list[Heard] = []

    def note(table: SharedTable | None, aor: bytes) -> None:
        assert table is None or table is b.table
        heard.append((stores.domain if table else "", aor))

    async def all_of_it() -> None:
        assert b.database is not None
        b.core.post = lambda call: call()
        b.database.listen(note)
        await until(lambda: heard == [("", b"")])
        heard.clear()
        try:
            await play(heard)
        finally:
            await b.database.aclose()

    stores.run(all_of_it)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_new_binding_is_announced_and_a_refresh_is_not(stores: Stores) -> None:
    a = stores.a

    async def play(heard: list[Heard]) -> None:
        (first,) = await a.save(AOR, a.binding(1))
        await until(lambda: len(heard) == 1)
        await a.table.replace(AOR, (first,), (a.binding(1),), a.core.now)
        await a.table.replace(AOR, (await a.fetch(AOR))[:1], (), a.core.now)
        await a.save(AOR, a.binding(1), a.binding(2))
        await a.save(b"last", a.binding(1))
        await until(lambda: heard[-1] == (stores.domain, b"last"))
        assert heard[:-1] == [(stores.domain, AOR)] * 2

    listening(stores, play)


def test_only_of_tables_that_this_node_has(stores: Stores) -> None:
    a = stores.a
    assert a.database is not None
    other = a.database.table("of others")

    async def play(heard: list[Heard]) -> None:
        await other.replace(b"carol@example.com", (), (a.binding(1),), a.core.now)
        await a.save(AOR, a.binding(1))
        await until(lambda: len(heard) == 1)
        assert heard == [(stores.domain, AOR)]

    listening(stores, play)


def test_nothing_is_announced_unless_the_operator_wants_late_branches(stores: Stores) -> None:
    a, b = stores.a, stores.b
    assert b.database is not None
    b.database.backend.announce = True

    async def play(heard: list[Heard]) -> None:
        await a.save(AOR, a.binding(1))
        await b.save(b"last", b.binding(1))
        await until(lambda: bool(heard))
        assert heard == [(stores.domain, b"last")]

    listening(stores, play, announce=False)


def test_after_an_outage_anything_may_have_been_missed(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, server = stores.a, stores.server
    assert server is not None
    monkeypatch.setattr(link, "BACK_OFF_S", (0.01, 0.1))
    monkeypatch.setattr(news, "BACK_OFF_S", (0.01, 0.1))

    async def saved() -> bool:
        try:
            await a.save(AOR, a.binding(1))
        except StoreAway:
            return False
        return True

    async def play(heard: list[Heard]) -> None:
        server.kill()
        server.start()
        await until(lambda: heard == [("", b"")])
        async with asyncio.timeout(60):
            while not await saved():
                await asyncio.sleep(0.01)
        await until(lambda: heard[-1] == (stores.domain, AOR))

    listening(stores, play)


def test_silence_is_no_end(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is asked now and then whether it is there; the listener goes on."""
    import registrar_plugin.store.redis as redis_store

    a = stores.a
    monkeypatch.setattr(redis_store, "QUIET_S", 0.05)

    async def play(heard: list[Heard]) -> None:
        await asyncio.sleep(0.5)
        assert heard == [], "it was not subscribed anew"
        await a.save(AOR, a.binding(1))
        await until(lambda: heard == [(stores.domain, AOR)])

    listening(stores, play)
