"""What every store promises, and what those promise that several nodes share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from registrar_plugin.bindings import flow_ref
from registrar_plugin.store import Conflict, StoreError
from registrar_plugin.store.records import can_be_called
from sipedge.flow import CLOSED
from tests.peerlib.databases import Database, Postgres, Redis
from tests.peerlib.fixtures import module_crew, pytest_runtest_makereport
from tests.peerlib.process import Crew
from tests.registrar_plugin.store.servers import EDGE, EMBEDDED, I1, SHARED, Stores, plain

__all__ = ["module_crew", "pytest_runtest_makereport"]

I2 = "urn:uuid:00000000-0000-1000-8000-aabbccddee02"
AOR = b"bob@example.com"
every_store = pytest.mark.parametrize("stores", EMBEDDED + SHARED, indirect=True)
shared_store = pytest.mark.parametrize("stores", SHARED, indirect=True)

_servers: dict[Crew, dict[str, Database]] = {}


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    kind, server = request.param, None
    if kind in SHARED:
        crew = request.getfixturevalue("module_crew")
        started = _servers.setdefault(crew, {})
        if kind not in started:
            started[kind] = Redis(crew) if kind == "redis" else Postgres(crew, sync=False)
        server = started[kind]
    both = Stores(kind, server, tmp_path)
    yield both
    both.close()


@every_store
def test_what_was_put_in_comes_out_as_it_was(stores: Stores) -> None:
    a = stores.a
    strange = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"")
    bindings = (
        a.binding(1, cseq=2**31 - 1, epoch=2**48 - 1, call_id=strange),
        a.binding(2, path=EDGE + b", <sip:second.example.com;lr>", q=700, lifetime=2**31 - 1),
        a.binding(0, uri="sip:plain@10.0.0.9", path=b"", methods=frozenset((b"INVITE", b"BYE"))),
        a.binding(0, uri="sip:quoted@h", path=b"", contact=rb'<sip:q@h>;x="a\"b\\c\x41"'),
        a.binding(
            0, uri="sip:none@10.0.0.9", methods=frozenset(), flow=(a.udp_listener, ("1.2.3.4", 9))
        ),
    )

    async def play() -> None:
        rows = await a.save(strange, *bindings)
        assert sorted(map(plain, rows), key=str) == sorted(map(plain, bindings), key=str)
        again = await a.fetch(strange)
        assert sorted(map(plain, again), key=str) == sorted(map(plain, bindings), key=str)
        assert {row.ruid for row in again} == {row.ruid for row in rows}
        assert len({row.ruid for row in again}) == len(bindings)
        assert all(row.remaining(a.core.now) >= 599 for row in again)
        assert await a.fetch(AOR) == ()

    stores.run(play)


@every_store
def test_a_change_is_visible_as_a_whole(stores: Stores) -> None:
    a = stores.a

    async def play() -> None:
        one, two = await a.save(AOR, a.binding(1), a.binding(2))
        rows = await a.table.replace(AOR, (one, two), (a.binding(3, cseq=7),), a.core.now)
        assert [(row.reg_id, row.cseq) for row in rows] == [(3, 7)]
        assert [(row.reg_id, row.cseq) for row in await a.fetch(AOR)] == [(3, 7)]
        assert await a.table.replace(AOR, rows, (), a.core.now) == ()
        assert await a.fetch(AOR) == ()

    stores.run(play)


@every_store
def test_what_has_expired_is_not_there_and_in_nobody_s_way(stores: Stores) -> None:
    a = stores.a

    async def play() -> None:
        await a.save(AOR, a.binding(1, age_s=600), a.binding(2))
        assert [row.reg_id for row in await a.fetch(AOR)] == [2]
        rows = await a.save(AOR, a.binding(1, cseq=9))
        assert sorted((row.reg_id, row.cseq) for row in rows) == [(1, 9), (2, 1)]
        await a.save(b"gone", a.binding(1, age_s=601))
        assert await a.fetch(b"gone") == ()
        rows = await a.save(b"gone", a.binding(1, cseq=3))
        assert [row.cseq for row in rows] == [3]

    stores.run(play)


@pytest.mark.parametrize("stores", [*EMBEDDED, "postgres"], indirect=True)
def test_a_sweep_tells_what_expired_once(stores: Stores) -> None:
    a = stores.a

    async def play() -> None:
        await a.save(AOR, a.binding(1), a.binding(2, age_s=602))
        await a.save(b"other", a.binding(1, age_s=700))
        swept = await a.table.sweep(a.core.now)
        assert sorted((aor, row.reg_id) for aor, row in swept) == [(AOR, 2), (b"other", 1)]
        assert await a.table.sweep(a.core.now) == []
        assert [row.reg_id for row in await a.fetch(AOR)] == [1]

    stores.run(play)


@every_store
def test_a_closed_connection_takes_its_bindings_of_every_user(stores: Stores) -> None:
    a = stores.a
    flow, other = a.tcp(1), a.tcp(2)

    async def play() -> None:
        for aor in (AOR, b"alice"):
            await a.save(aor, a.binding(1, flow=flow_ref(flow), path=b""), a.binding(2))
        await a.save(b"carol", a.binding(1, flow=flow_ref(other), path=b""))
        a.core.flow_closed(flow, "test", a.core.now)
        lost = await a.table.flow_closed(flow)
        assert sorted((aor, row.reg_id) for aor, row in lost) == [(b"alice", 1), (AOR, 1)]
        for aor in (AOR, b"alice"):
            assert [row.reg_id for row in await a.fetch(aor)] == [2]
        assert len(await a.fetch(b"carol")) == 1
        assert await a.table.flow_closed(flow) == []

    stores.run(play)


@every_store
def test_everything_can_be_listed(stores: Stores) -> None:
    a = stores.a
    users = {b"user%d@example.com" % n for n in range(1100)}

    async def play() -> None:
        for aor in users:
            await a.save(aor, a.binding(1))
        await a.save(b"two", a.binding(1), a.binding(2))
        found = [aor async for aor, _ in a.table.entries()]
        assert sorted(found) == sorted([*users, b"two", b"two"])

    stores.run(play)


# shared


@shared_store
def test_what_expires_is_gone_at_once(stores: Stores) -> None:
    a = stores.a

    async def play() -> None:
        await a.save(AOR, a.binding(1, age_s=599.5), a.binding(2))
        async with asyncio.timeout(60):
            while [row.reg_id for row in await stores.b.fetch(AOR)] != [2]:
                await asyncio.sleep(0.05)

    stores.run(play)


@shared_store
def test_what_one_node_saves_the_other_finds_and_changes(stores: Stores) -> None:
    a, b = stores.a, stores.b

    async def play() -> None:
        await a.save(AOR, a.binding(1), a.binding(2, q=500))
        rows = await b.fetch(AOR)
        assert sorted((row.reg_id, row.q, row.path) for row in rows) == [
            (1, -1, EDGE),
            (2, 500, EDGE),
        ]
        assert all(599 <= row.remaining(b.core.now) <= 600 for row in rows), "its own clock"
        await b.table.replace(AOR, rows, (b.binding(1, cseq=2),), b.core.now)
        assert [row.cseq for row in await a.fetch(AOR)] == [2]

    stores.run(play)


@shared_store
def test_who_comes_second_changes_nothing(stores: Stores) -> None:
    a, b = stores.a, stores.b

    async def play() -> None:
        await a.save(AOR, a.binding(1), a.binding(2))
        seen_by_a, seen_by_b = await a.fetch(AOR), await b.fetch(AOR)
        one = [row for row in seen_by_a if row.reg_id == 1]
        await a.table.replace(AOR, one, (a.binding(1, cseq=2),), a.core.now)
        with pytest.raises(Conflict):  # 1 is not the one that it saw
            await b.table.replace(AOR, seen_by_b, (b.binding(3),), b.core.now)
        with pytest.raises(Conflict):  # it was removed
            await b.table.replace(AOR, one, (), b.core.now)
        with pytest.raises(Conflict):  # there is one with this key, and nobody said so
            await b.save(AOR, b.binding(4), b.binding(2, cseq=99))
        left = sorted((row.reg_id, row.cseq) for row in await b.fetch(AOR))
        assert left == [(1, 2), (2, 1)]
        # other bindings of the same user are in nobody's way
        await b.save(AOR, b.binding(1, instance=I2), b.binding(0, uri="sip:plain@10.0.0.9"))
        assert len(await a.fetch(AOR)) == 4

    stores.run(play)


@shared_store
def test_of_many_at_once_one_wins_each_time(stores: Stores) -> None:
    a, b = stores.a, stores.b
    tries, won = 0, 0

    async def refresh() -> None:
        nonlocal tries, won
        node = (a, b)[tries % 2]
        tries += 1
        while True:
            rows = await node.fetch(AOR)
            cseq = rows[0].cseq + 1 if rows else 1
            try:
                await node.table.replace(AOR, rows, (node.binding(1, cseq=cseq),), node.core.now)
            except Conflict:
                continue
            won += 1
            return

    async def play() -> None:
        await asyncio.gather(*(refresh() for _ in range(12)))
        assert won == 12
        assert [row.cseq for row in await b.fetch(AOR)] == [12], "no change was lost"

    stores.run(play)


@shared_store
def test_a_flow_belongs_to_one_node(stores: Stores) -> None:
    a, b = stores.a, stores.b
    flow = a.tcp()
    udp = (a.udp_listener, ("198.51.100.7", 40002))
    bindings = (
        a.binding(1, flow=flow, path=b""),
        a.binding(2, flow=udp, path=b""),
        a.binding(3, flow=flow),  # the edge in the process of a wrote its Path
        a.binding(0, flow=udp, path=b"", uri="sip:bob@198.51.100.7:40002"),
        a.binding(0, flow=flow, path=b"", uri="sip:bob@198.51.100.7:40003;transport=tcp"),
        a.binding(0, flow=flow, path=b"", uri="sip:bob@198.51.100.7:40001;transport=tcp"),
        a.binding(0, flow=udp, path=b"", uri="sip:bob@10.0.0.9"),
    )

    async def play() -> None:
        rows = await a.save(AOR, *bindings)
        assert sorted((r.uri, r.reg_id, str(r.flow)) for r in rows) == sorted(
            (r.uri, r.reg_id, str(r.flow)) for r in bindings
        )
        assert all(map(can_be_called, rows))
        seen = await b.fetch(AOR)
        assert len(seen) == 7, "listed everywhere"
        assert [row.flow for row in seen] == [None] * 7
        called = {(row.reg_id, row.uri, row.path) for row in seen if can_be_called(row)}
        assert called == {
            (3, b"sip:bob@10.0.0.9", EDGE),
            (0, b"sip:bob@198.51.100.7:40002", b""),
            (0, b"sip:bob@198.51.100.7:40003;transport=tcp", b""),
        }
        # the other node writes one anew, say because its GRUUs have changed: the flow stays
        rewritten = [row.with_epoch(5) for row in seen]
        await b.table.replace(AOR, seen, rewritten, b.core.now)
        rows = await a.fetch(AOR)
        assert {row.epoch for row in rows} == {5}
        assert sorted(str(row.flow) for row in rows) == sorted(str(r.flow) for r in bindings)
        a.core.flow_closed(flow, "test", a.core.now)
        lost = await a.table.flow_closed(flow)
        assert sorted(row.uri for _, row in lost if not row.reg_id) == [
            b"sip:bob@198.51.100.7:40001;transport=tcp"
        ]
        left = {row.uri for row in await b.fetch(AOR) if not row.reg_id}
        assert left == {
            b"sip:bob@198.51.100.7:40002", b"sip:bob@198.51.100.7:40003;transport=tcp",
            b"sip:bob@10.0.0.9",
        }  # fmt: skip

    stores.run(play)


@shared_store
def test_a_node_that_starts_again_has_its_udp_flows(stores: Stores) -> None:
    a, b = stores.a, stores.b
    remote = ("2001:db8::7", 40002)
    assert stores.server is not None
    b.share(stores.server.url, stores.domain, "node-a")  # what was a is now b, on another clock

    async def play() -> None:
        flow = a.tcp()
        await a.save(
            AOR,
            a.binding(1, flow=(a.udp_listener, remote), path=b""),
            a.binding(2, flow=flow, path=b""),
        )
        rows = await b.fetch(AOR)
        assert {row.reg_id: row.flow for row in rows} == {1: (b.udp_listener, remote), 2: None}
        assert [row.reg_id for row in rows if can_be_called(row)] == [1]

    stores.run(play)


@shared_store
def test_a_connection_that_closes_while_the_server_writes(stores: Stores) -> None:
    a = stores.a
    flow = a.tcp()
    binding = a.binding(1, flow=flow, path=b"")

    async def play() -> None:
        writing = asyncio.ensure_future(a.save(AOR, binding))
        await asyncio.sleep(0)
        a.core.flow_closed(flow, "test", a.core.now)
        assert flow.state == CLOSED
        await a.table.flow_closed(flow)
        await writing
        await a.table.flow_closed(flow)
        assert await a.fetch(AOR) == ()

    stores.run(play)


@shared_store
def test_names_that_are_too_long(stores: Stores) -> None:
    a = stores.a
    long = "x" * 60_000

    async def play() -> None:
        (row,) = await a.save(AOR, a.binding(1, instance=f"urn:{long}"))
        await a.table.replace(AOR, (row,), (a.binding(1, instance=f"urn:{long}", cseq=2),), 0)
        await a.save(AOR, a.binding(1, instance=f"urn:{long}y"))
        assert sorted(row.cseq for row in await a.fetch(AOR)) == [1, 2]
        with pytest.raises(StoreError, match="1024 octets at most"):
            await a.save(long.encode(), a.binding(1))
        assert await a.fetch(long.encode()) == ()

    stores.run(play)
    assert a.core.stats["db_outages"] == 0


@shared_store
def test_tables_do_not_mix(stores: Stores) -> None:
    a, b = stores.a, stores.b
    assert stores.server is not None

    async def play() -> None:
        await a.save(AOR, a.binding(1))
        assert b.database is not None
        for name in (f"{stores.domain}:{AOR.decode()}", "table", ""):
            other = b.database.table(name)
            assert await other.fetch(AOR, 0) == ()
            await other.replace(AOR, (), (b.binding(2),), 0)
        assert [row.reg_id async for _, row in a.table.entries()] == [1]
        assert I1 in (await a.fetch(AOR))[0].instance.decode()

    stores.run(play)
