"""The table in an SQLite file: what survives, when it is written, and what happens if it cannot."""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from registrar_plugin.bindings import MICRO
from registrar_plugin.store import sqlite as sqlite_store
from sipedge.flow import TCP, UDP, Flow
from tests.registrar_plugin.store.disk import WALL, Disk, query_file, wait_for, wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "location.sqlite"


def restarted(disk: Disk, **more: Any) -> Disk:
    """Another process, with a monotonic clock of its own and the wall clock of everybody."""
    more.setdefault("now", 7.5)
    more.setdefault("wall", disk.core.wall())
    return Disk(disk.path, **more)


# what survives


@pytest.mark.rfc("RGO-12")
def test_every_field_survives(path: Path) -> None:
    disk = Disk(path)
    v4, v6, _ = disk.core.flows.listeners
    disk.put(
        b"bob@example.com",
        disk.binding(
            contact=b'<sip:bob@10.0.0.9;transport=tcp;ob>;+sip.instance="<urn:uuid:1>";reg-id=2',
            path=b'<sip:t@192.0.2.1;lr;ob>, "a, b" <sip:192.0.2.2;lr>',
            reg_id=2**31 - 1,
            cseq=2**31 - 1,
            q=500,
            methods=frozenset((b"INVITE", b"MESSAGE")),
            call_id="größe@host".encode(),
            epoch=2**48 - 1,
        ),
        disk.binding(31, flow=(v4, ("198.51.100.7", 40001)), methods=frozenset()),
        disk.binding(2**31 - 1, flow=(v6, ("2001:db8::7", 40001)), reg_id=0, q=0),
    )
    disk.put(b"\xff\xfe'\x00@x", disk.binding(contact=b"<sip:\xff\xfe@x>", call_id=b"\x80"))
    disk.put(b"bob@example.com", disk.binding(contact=b"<sip:other@x>"), domain="aliases")
    before = disk.found(), disk.found("aliases")
    disk.settle()
    disk.die()
    again = restarted(disk)
    assert (again.found(), again.found("aliases")) == before
    assert [len(rows) for rows in before[0].values()] == [3, 1]
    (binding,) = again.table("aliases").fetch(b"bob@example.com", again.now)
    assert 599 < binding.expires - again.now < 600


@pytest.mark.rfc("RGO-12")
def test_expiry_goes_on_while_nobody_runs(path: Path) -> None:
    disk = Disk(path)
    disk.put(b"a", disk.binding(100), disk.binding(400))
    disk.put(b"b", disk.binding(299))
    disk.settle()
    disk.die()
    again = Disk(path, now=50_000.0, wall=WALL + 300)
    (left,) = again.table().fetch(b"a", again.now)
    assert left.remaining(again.now) == 100
    assert list(again.found()) == [b"a"]
    assert again.rows() == ["a"], "the file forgets, too"
    assert again.table().sweep(again.now + 99) == []
    assert again.table().sweep(again.now + 102) == [(b"a", left)]


@pytest.mark.rfc("RGO-12", "RGO-10")
def test_connections_end_with_the_process(path: Path) -> None:
    disk = Disk(path)
    udp, _, tcp = disk.core.flows.listeners
    stream = Flow(tcp, ("192.0.2.9", 40001), conn_id=b"1")
    remote = ("198.51.100.7", 40001)
    disk.put(b"outbound", disk.binding(flow=stream))
    disk.put(b"two", disk.binding(flow=stream), kept := disk.binding(flow=(udp, remote)))
    # without outbound, one names the port that it listens on, the other the one of its connection
    disk.put(b"listens", disk.binding(flow=stream, reg_id=0, contact=b"<sip:b@192.0.2.9:5060>"))
    disk.put(b"hidden", disk.binding(flow=stream, reg_id=0, contact=b"<sip:b@192.0.2.9:40001>"))
    disk.settle()
    assert disk.rows() == ["listens", "two"]
    disk.die()
    again = restarted(disk)
    assert [b.flow for b in again.table().fetch(b"listens", again.now)] == [None]
    (binding,) = again.table().fetch(b"two", again.now)
    assert (binding.flow, binding.cseq) == ((again.core.flows.listeners[0], remote), kept.cseq)


def test_what_never_gets_into_the_file_is_not_written_at_all(path: Path) -> None:
    disk = Disk(path)
    udp, _, tcp = disk.core.flows.listeners
    flow = Flow(tcp, ("192.0.2.9", 40001), conn_id=b"1")
    disk.put(b"a", disk.binding(flow=flow))
    disk.put(b"a", disk.binding(flow=flow))
    disk.table().flow_closed(flow)
    assert not disk.database.due
    disk.put(b"a", disk.binding(flow=(udp, ("192.0.2.9", 1))))
    disk.settle()
    assert disk.rows() == ["a"]
    disk.put(b"a", disk.binding(flow=flow))  # it came by UDP, and now by TCP
    disk.settle()
    assert disk.rows() == []


def test_listeners_that_are_gone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(path)
    v4, v6, _ = disk.core.flows.listeners
    disk.put(b"a", disk.binding(flow=(v4, ("192.0.2.9", 1))))
    disk.put(b"b", disk.binding(flow=(v6, ("2001:db8::9", 1))))
    disk.settle()
    disk.die()
    with caplog.at_level(logging.INFO):
        again = restarted(disk, listeners=((UDP, "::1", 5060), (TCP, "127.0.0.1", 5060)))
    assert list(again.found()) == [b"b"]
    assert "1 bindings; 1 more belong to listeners that are gone" in caplog.text
    again.die()
    assert list(restarted(disk).found()) == [b"a", b"b"], "it may come back"


def test_rows_that_somebody_spoilt_are_left_out(path: Path) -> None:
    disk = Disk(path)
    listener = disk.core.flows.listeners[0]
    for aor in (b"a", b"b", b"c", b"d"):
        disk.put(aor, disk.binding(flow=(listener, ("192.0.2.9", 1))))
    disk.settle()
    disk.die()
    query_file(path, "UPDATE location SET contact = 'sip:x' WHERE aor = 'a'")
    query_file(path, "UPDATE location SET received = 'x' WHERE aor = 'b'")
    query_file(path, "UPDATE location SET contact = '<sip:x' WHERE aor = 'c'")
    assert list(restarted(disk).found()) == [b"d"]


@pytest.mark.rfc("RGO-12")
@pytest.mark.parametrize("step", [-86400.0, -0.5, 0.0, 30.0])
def test_stamps_stay_unique_and_in_order_whatever_the_wall_clock_does(
    path: Path, step: float
) -> None:
    disk = Disk(path)
    aors = [b"%d" % n for n in range(20)]
    for aor in aors:
        disk.put(aor, disk.binding(contact=b"<sip:%s-1@x>" % aor), disk.binding())
        disk.settle()
        disk.core.wall_offset += step / 100
    disk.die()
    again = restarted(disk, wall=disk.core.wall() + step, now=1.0)
    entries = [b for _, b in again.table().entries()]
    stamps = [b.stamp for b in entries]
    assert len(stamps) == len(set(stamps)) == 40
    assert max(stamps) < MICRO, "what is registered now is newer"
    for aor in aors:
        rows = again.table().fetch(aor, again.now)
        assert rows[0].contact == b"<sip:%s-1@x>" % aor
        assert rows[0].stamp < rows[1].stamp
    assert all(b.remaining(again.now) <= 600 for b in entries), "nobody gets more than was granted"


def test_equal_times_become_different_stamps(path: Path) -> None:
    disk = Disk(path)
    for n in range(5):
        disk.put(b"%d" % n, disk.binding())
    disk.settle()
    disk.die()
    query_file(path, "UPDATE location SET updated = (SELECT min(updated) FROM location)")
    again = restarted(disk, wall=disk.core.wall() + 100)
    assert len({b.stamp for _, b in again.table().entries()}) == 5


def test_bindings_for_this_process_only(path: Path) -> None:
    disk = Disk(path)
    keep, drop = disk.binding(), disk.binding()
    disk.put(b"a", keep, drop)
    disk.table().keep_in_memory((drop,))
    disk.put(b"b", gone := disk.binding(1))
    disk.table().keep_in_memory((gone,))
    disk.settle()
    assert disk.rows("SELECT count(*) FROM location") == [1]
    other_gruus = drop.with_epoch(7)
    disk.table().replace(b"a", (drop,), (other_gruus,), disk.now)
    disk.settle()
    assert disk.rows("SELECT count(*) FROM location") == [1]
    disk.table().replace(b"a", (other_gruus,), (disk.binding(),), disk.now)
    disk.settle()
    assert disk.rows("SELECT count(*) FROM location") == [2]
    disk.advance(5.0)
    disk.table().sweep(disk.now)
    assert disk.table()._transient == set()


# when it is written


def test_what_changes_often_is_written_once(path: Path) -> None:
    disk = Disk(path)
    for n in range(500):
        disk.put(b"a", disk.binding(cseq=n))
        disk.put(b"b", disk.binding(cseq=n))
    disk.put(b"b")
    disk.settle()
    assert len(disk.transactions) == 1
    assert disk.rows("SELECT aor, cseq FROM location") == [("a", 499)]


def test_a_batch_leaves_when_its_time_has_come(path: Path) -> None:
    disk = Disk(path)
    disk.put(b"a", disk.binding())
    disk.advance(0.05)
    assert disk.transactions == []
    assert disk.core.next_timer() == pytest.approx(1000.1)
    disk.put(b"b", disk.binding())
    disk.advance(0.06)  # counted from the first change
    disk.put(b"c", disk.binding())  # while it is being written
    wait_for(disk.core, disk.is_idle)
    assert disk.rows() == ["a", "b"]
    assert disk.core.next_timer() == pytest.approx(1000.3)
    disk.settle()
    assert disk.rows() == ["a", "b", "c"]
    assert disk.core.next_timer() is None or disk.core.next_timer() >= 1001  # type: ignore[operator]


def test_large_changes_are_cut_into_transactions(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "MOST", 40)
    disk = Disk(path)
    for n in range(100):
        disk.put(b"%d" % n, *(disk.binding() for _ in range(20)))  # more than fit one statement
        disk.put(b"x%d" % n, disk.binding(), domain="aliases")
    disk.settle()
    assert [len(rows) for rows in disk.transactions] == [40] * 5
    assert disk.rows("SELECT count(*) FROM location GROUP BY domain") == [100, 2000]


@pytest.mark.parametrize("how", ["sweep", "flow lost", "replace"])
def test_what_goes_leaves_the_file(path: Path, how: str) -> None:
    disk = Disk(path)
    udp = disk.core.flows.listeners[0]
    flow = disk.core.flows.udp(udp, ("192.0.2.9", 1))
    disk.put(b"a", disk.binding(60, flow=(udp, flow.remote)))
    disk.put(b"b", disk.binding(600))
    disk.settle()
    if how == "sweep":
        disk.advance(61)
        disk.table().sweep(disk.now)
    elif how == "flow lost":
        disk.table().flow_closed(flow)
    else:
        disk.put(b"a")
    disk.settle()
    assert disk.rows() == ["b"]


@pytest.mark.parametrize("write_through", [False, True])
def test_the_end_writes_what_is_left(path: Path, write_through: bool) -> None:
    disk = Disk(path, write_through=write_through)
    disk.put(b"a", disk.binding())
    if write_through:
        disk.core.posted.popleft()()  # it is being written
    disk.put(b"b", disk.binding())
    disk.database.close()
    assert disk.rows() == ["a", "b"]
    while disk.core.posted:
        disk.core.posted.popleft()()  # what the thread said comes too late, and harms nobody


def test_a_table_that_is_used_before_it_is_opened(path: Path) -> None:
    disk = Disk(path, write_through=True)
    disk.put(b"stored", disk.binding())
    disk.database.close()
    early = Disk.__new__(Disk)
    vars(early).update(vars(disk))
    early.database = sqlite_store.Database(
        disk.core, disk.file, lambda b: b, write_through=True, batch_s=0.1
    )
    early.put(b"early", disk.binding())
    assert not early.table().when_stored(lambda _: None), "nobody would ever be told"
    early.database.close()
    assert early.rows() == ["stored"]
    early.database.open()
    early.settle()
    assert early.rows() == ["early", "stored"]
    early.database.close()


# write-through


def test_who_waits_is_told_after_the_commit(path: Path) -> None:
    disk = Disk(path, write_through=True)
    seen: list[Any] = []
    assert not disk.table().when_stored(seen.append), "nothing changed"
    for n in range(3):
        disk.put(b"%d" % n, disk.binding())
        assert disk.table().when_stored(lambda stored: seen.append((stored, disk.rows())))
    assert (seen, disk.transactions) == ([], [])
    wait_for(disk.core, lambda: len(seen) == 3)
    assert seen == [(True, ["0", "1", "2"])] * 3
    assert len(disk.transactions) == 1, "they came together and share a transaction"
    assert not disk.table().when_stored(seen.append)


def test_who_comes_while_a_batch_is_written_waits_for_the_next(path: Path) -> None:
    disk = Disk(path, write_through=True)
    seen: list[str] = []
    disk.put(b"a", disk.binding())
    disk.table().when_stored(lambda _: seen.append("a"))
    disk.core.posted.popleft()()
    disk.put(b"b", disk.binding())
    disk.table().when_stored(lambda _: seen.append(",".join(disk.rows())))
    wait_for(disk.core, lambda: len(seen) == 2)
    assert seen == ["a", "a,b"]
    # somebody whose own change needs no file waits for the others, and is not forgotten
    disk.put(b"c", disk.binding())
    disk.core.posted.popleft()()
    assert disk.table().when_stored(lambda _: seen.append("c"))
    wait_for(disk.core, lambda: len(seen) == 3)
    assert not disk.database.due


def test_an_answer_that_fails_does_not_take_others_with_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(path, write_through=True)
    seen: list[bool] = []
    disk.put(b"a", disk.binding())
    disk.table().when_stored(lambda _: 1 // 0)  # type: ignore[arg-type]
    disk.table().when_stored(seen.append)
    wait_for(disk.core, lambda: bool(seen))
    assert "ZeroDivisionError" in caplog.text


# trouble


def fill_up(disk: Disk) -> None:
    """No page more; pages that are free would still do."""
    assert disk.file.connection is not None
    disk.file.connection.execute("PRAGMA max_page_count = 1")


def make_room(disk: Disk) -> None:
    assert disk.file.connection is not None
    disk.file.connection.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_and_room_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(path)
    long = b"<sip:" + b"x" * 6000 + b"@y>"
    disk.put(b"before", disk.binding())
    disk.settle()
    fill_up(disk)
    for n in range(3):
        disk.put(b"%d" % n, disk.binding(contact=long))
        disk.advance(1.5)
        wait_for(disk.core, disk.is_idle)
        assert disk.core.stats["db_errors"] == n + 1
    assert len(disk.table().fetch(b"1", disk.now)) == 1, "served from memory"
    assert disk.rows() == ["before"], "all or nothing"
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "full; bindings are in memory only" in errors[0]
    make_room(disk)
    disk.settle()
    assert disk.rows() == ["0", "1", "2", "before"]
    assert "written again" in caplog.text
    fill_up(disk)
    disk.put(b"3", disk.binding(contact=long))
    disk.database.close()
    assert "the last changes of at least 1 addresses-of-record are lost" in caplog.text


def test_the_end_tries_again_what_has_just_failed(path: Path) -> None:
    disk = Disk(path, busy_s=0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    disk.put(b"a", disk.binding())
    disk.advance(0.2)
    wait_until(lambda: bool(disk.core.posted))  # it failed, and the core does not know yet
    other.close()
    disk.database.close()
    assert disk.rows() == ["a"]


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    disk = Disk(path)
    disk.put(b"a", disk.binding(cseq=1))
    disk.settle()
    twice = disk.binding(cseq=2)
    with pytest.raises(sqlite3.IntegrityError):
        disk.file.write({("location", b"a"): [twice, twice]}, 0)
    assert disk.rows("SELECT aor, cseq FROM location") == [("a", 1)]
    disk.put(b"a", disk.binding(cseq=3))
    disk.settle()
    assert disk.rows("SELECT aor, cseq FROM location") == [("a", 3)]


def test_a_lock_of_somebody_else(path: Path) -> None:
    disk = Disk(path, busy_s=0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    disk.put(b"a", disk.binding())
    disk.advance(0.2)
    wait_for(disk.core, disk.is_idle)
    assert disk.core.stats["db_errors"] == 1
    disk.put(b"b", disk.binding())
    other.execute("ROLLBACK")
    other.close()
    disk.settle()
    assert disk.rows() == ["a", "b"]


def test_in_trouble_the_last_is_told_first(path: Path) -> None:
    disk = Disk(path, write_through=True, busy_s=0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    told: list[tuple[int, bool]] = []

    def change(n: int) -> None:
        disk.put(b"a", disk.binding(cseq=n))
        assert disk.table().when_stored(lambda stored: told.append((n, stored)))

    change(1)
    change(2)
    disk.core.posted.popleft()()
    change(3)  # builds on what is being written
    wait_for(disk.core, lambda: bool(told))
    assert told == [(3, False), (2, False), (1, False)]
    change(4)
    assert len(disk.transactions) == 1, "not tried again before its time"
    other.execute("ROLLBACK")
    other.close()
    disk.settle()
    assert told[3:] == [(4, True)]
    assert disk.rows("SELECT cseq FROM location") == [4]


def test_an_error_of_ours_is_tried_again_like_any_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(path)
    disk.database._outlives = lambda b: 1 // 0  # type: ignore[assignment, return-value]
    disk.put(b"a", disk.binding())
    disk.advance(0.2)
    wait_for(disk.core, disk.is_idle)
    assert "ZeroDivisionError" in caplog.text
    assert disk.core.stats["db_errors"] == 1
    disk.database._outlives = lambda b: b
    disk.settle()
    assert disk.rows() == ["a"]


# crashes


@pytest.mark.rfc("RGO-12")
@pytest.mark.parametrize("seed", range(6))
def test_after_a_crash_there_is_what_the_last_transaction_left(tmp_path: Path, seed: int) -> None:
    """Lives that end between any two transactions, each going on where the last one ended."""
    rng = random.Random(seed)
    disk = Disk(tmp_path / "location.sqlite")
    for life in range(8):
        for _ in range(rng.randrange(80)):
            change_something(rng, disk)
        if rng.random() < 0.3:
            disk.settle()
            for domain in disk.database.tables:
                in_file = {a: r for (d, a), r in disk.committed.items() if d == domain and r}
                assert disk.found(domain) == in_file
        wait_for(disk.core, disk.is_idle)
        copy = tmp_path / f"life{life}.sqlite"
        for suffix in ("", "-wal"):
            if Path(f"{disk.path}{suffix}").exists():
                shutil.copyfile(f"{disk.path}{suffix}", f"{copy}{suffix}")
        committed, wall = disk.committed, ceil(disk.core.wall())
        disk.die()
        disk = Disk(copy, now=rng.randrange(1, 10**6), wall=wall)
        for key, rows in committed.items():
            disk.committed[key] = [r for r in rows if r[7] + r[8] * MICRO > wall * MICRO]
        for domain in {domain for domain, _ in committed}:
            expected = {a: r for (d, a), r in disk.committed.items() if d == domain and r}
            assert disk.found(domain) == expected


def change_something(rng: random.Random, disk: Disk) -> None:
    table = disk.table(rng.choice(["location", "aliases"]))
    aor = b"%d" % rng.randrange(15)
    have = table.fetch(aor, disk.now)
    gone = rng.sample(have, rng.randint(0, len(have)))
    udp = disk.core.flows.listeners[rng.randrange(2)]
    flow = rng.choice([None, (udp, ("192.0.2.1", rng.randrange(1, 5)))])
    new = [disk.binding(rng.randint(1, 40), flow=flow) for _ in range(rng.randrange(3))]
    table.replace(aor, gone, new, disk.now)
    if rng.random() < 0.1:
        disk.advance(rng.random() * 3)
        if rng.random() < 0.5:
            wait_for(disk.core, disk.is_idle)
    if rng.random() < 0.1:
        table.sweep(disk.now)
