"""``save`` with a file behind the table: when it answers, and what it does if nothing is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sipedge.sip.message import SipMessage
from tests.registrar_plugin.home import BOTH, outbound_contact
from tests.registrar_plugin.store.disk import WALL, query_file, wait_for
from tests.sim import Peer, Sim, request

SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
alias("example.com")
loadmodule("sl")
loadmodule("registrar")
modparam("registrar", "db_url", "sqlite:///%s")
modparam("registrar", "db_mode", %d)
modparam("registrar", "retry_after", 5)

PLAIN
"""
PLAIN = """
def request_route(ksr, msg):
    ksr.registrar.save(msg, "location")
"""


class Registrar(Sim):
    """A registrar with a file; ``life`` counts its processes."""

    def __init__(self, path: Path, mode: int, route: str = PLAIN) -> None:
        super().__init__(SOURCE.replace("PLAIN", route) % (path, mode))
        self.path = path
        self.core.wall_offset = WALL
        self.edge.child_init(0)
        self.count = 0

    @property
    def database(self) -> Any:
        return self.edge.modules["registrar"]._location._database  # type: ignore[attr-defined]

    def settle(self) -> None:
        while self.database.due:
            self.advance(1.0)
            wait_for(self.core, lambda: self.database._writing is None and not self.core.posted)
        self.drain()

    def commit(self) -> None:
        """Let one transaction end, whatever comes of it."""
        self.core.posted.popleft()()
        assert self.database._writing is not None
        wait_for(self.core, lambda: self.database._writing is None)
        self.drain()

    def register(self, peer: Peer, contact: str | None, *, cseq: int = 0, **more: Any) -> bytes:
        self.count += 1
        headers = BOTH if contact is None else f"Contact: {contact}\r\n{BOTH}"
        data = request(
            "REGISTER", "sip:example.com", headers=headers, cseq=cseq or self.count,
            branch=f"z9hG4bKr{self.count}", via="SIP/2.0/UDP 10.0.0.9", **more,
        )  # fmt: skip
        peer.send(data)
        return data

    def listed(self, peer: Peer) -> list[bytes]:
        self.register(peer, None)
        return peer.take().values(b"contact")

    def rows(self) -> list[Any]:
        return query_file(self.path, "SELECT cseq FROM location ORDER BY cseq")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "location.sqlite"


@pytest.fixture
def sim(path: Path) -> Iterator[Registrar]:
    """In write-through mode."""
    registrar = Registrar(path, 1)
    yield registrar
    registrar.edge.destroy()


@pytest.fixture
def obstacle(sim: Registrar) -> Iterator[sqlite3.Connection]:
    """Somebody holds the file, so that every transaction fails; ``ROLLBACK`` lets go."""
    sim.database._file.connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(sim.path, isolation_level=None)
    yield other
    other.close()


def test_write_through_answers_after_the_commit(sim: Registrar) -> None:
    phone = sim.udp("10.0.0.9", 40001)
    data = sim.register(phone, outbound_contact())
    phone.send(data)
    phone.send(data)
    assert phone.silent(), "it waits, and retransmissions with it"
    assert sim.rows() == []
    sim.commit()
    assert phone.take().status == 200
    assert sim.rows() == [1]
    assert phone.silent(), "one answer"
    phone.send(data)
    assert phone.take().status == 200
    assert sim.core.stats["accepted_regs"] == 1
    sim.register(phone, outbound_contact())  # by the fast path
    assert phone.silent()
    sim.commit()
    assert phone.take().status == 200
    assert sim.rows() == [2]


def test_what_changes_nothing_in_the_file_is_answered_at_once(sim: Registrar) -> None:
    phone = sim.tcp("10.0.0.9", 40001)
    sim.register(phone, outbound_contact())
    assert phone.take().status == 200
    assert len(sim.listed(phone)) == 1
    sim.register(phone, outbound_contact(0))
    assert phone.take().status == 400
    assert not sim.core.posted


def test_write_back_answers_at_once(path: Path) -> None:
    sim = Registrar(path, 2)
    phone = sim.udp("10.0.0.9", 40001)
    sim.register(phone, outbound_contact())
    assert phone.take().status == 200
    assert sim.rows() == []
    sim.settle()
    assert sim.rows() == [1]
    sim.edge.destroy()


def refused(answer: SipMessage) -> bool:
    assert answer.first(b"retry-after") == b"5"
    return answer.status == 500


def test_what_cannot_be_stored_is_refused_and_forgotten(
    sim: Registrar, obstacle: sqlite3.Connection
) -> None:
    phone = sim.udp("10.0.0.9", 40001)
    obstacle.execute("BEGIN IMMEDIATE")
    sim.register(phone, outbound_contact())
    sim.commit()
    assert refused(phone.take())
    assert sim.listed(phone) == []
    assert (sim.core.stats["db_errors"], sim.core.stats["rejected_regs"]) == (1, 1)
    obstacle.execute("ROLLBACK")
    sim.settle()
    assert sim.rows() == []
    sim.register(phone, outbound_contact())
    sim.settle()
    assert phone.take().status == 200
    assert sim.rows() == [3]


def test_a_refresh_or_removal_that_cannot_be_stored_leaves_what_was(
    sim: Registrar, obstacle: sqlite3.Connection
) -> None:
    phone = sim.udp("10.0.0.9", 40001)
    sim.register(phone, outbound_contact(more=";expires=300"))
    sim.register(phone, outbound_contact(2, more=";expires=300"))
    sim.commit()
    assert [phone.take().status, phone.take().status] == [200, 200]
    before = sim.listed(phone)
    obstacle.execute("BEGIN IMMEDIATE")
    sim.register(phone, outbound_contact(more=";expires=900"), cseq=10)
    sim.register(phone, outbound_contact(more=";expires=1000"), cseq=11)
    sim.register(phone, "*", cseq=12)
    phone.got.clear()
    sim.register(phone, outbound_contact(2, more=";expires=0"), cseq=12)
    sim.commit()
    assert [refused(msg) for msg in phone.got] == [True] * 3
    phone.got.clear()
    assert sorted(sim.listed(phone)) == sorted(before)
    obstacle.execute("ROLLBACK")
    sim.settle()
    assert sim.rows() == [1, 2], "the file has what memory has"
    sim.register(phone, outbound_contact(more=";expires=1000"), cseq=11)
    sim.settle()
    assert phone.take().status == 200, "its CSeq was never used up"


def test_a_connection_that_closed_meanwhile_is_not_put_back(
    sim: Registrar, obstacle: sqlite3.Connection
) -> None:
    phone = sim.tcp("10.0.0.9", 40001)
    sim.register(phone, outbound_contact())
    assert phone.take().status == 200
    obstacle.execute("BEGIN IMMEDIATE")
    other = sim.udp("10.0.0.9", 40002)
    sim.register(other, outbound_contact())
    phone.close()
    sim.commit()
    assert refused(other.take())
    assert sim.listed(other) == []


ASYNC = """
async def request_route(ksr, msg):
    ksr.registrar.save(msg, "location")
"""
PREPARED = """
def request_route(ksr, msg):
    if ksr.registrar.save(msg, "location", 0x12):
        ksr.registrar.reg_send_reply(msg)
"""


@pytest.mark.parametrize("route", [ASYNC, PREPARED], ids=["async", "prepared"])
@pytest.mark.parametrize("works", [True, False])
def test_other_routes_wait_as_well(path: Path, route: str, works: bool) -> None:
    sim = Registrar(path, 1, route)
    sim.database._file.connection.execute("PRAGMA busy_timeout = 1")
    phone = sim.udp("10.0.0.9", 40001)
    other = sqlite3.connect(path, isolation_level=None)
    if not works:
        other.execute("BEGIN IMMEDIATE")
    data = sim.register(phone, outbound_contact())
    phone.send(data)
    assert phone.silent()
    sim.commit()
    assert phone.take().status == (200 if works else 500)
    assert phone.silent()
    other.close()
    assert len(sim.listed(phone)) == works
    sim.edge.destroy()


def test_a_prepared_answer_that_is_not_true_any_more(path: Path) -> None:
    """The route keeps it until after the transaction failed."""
    later = """
KEPT = []
def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location", 0x12)
        KEPT.append(msg)
    else:
        ksr.registrar.reg_send_reply(KEPT.pop())
"""
    sim = Registrar(path, 1, later)
    sim.database._file.connection.execute("PRAGMA busy_timeout = 1")
    phone = sim.udp("10.0.0.9", 40001)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sim.register(phone, outbound_contact())
    sim.commit()
    other.close()
    assert phone.silent()
    phone.send(request("OPTIONS", "sip:example.com"))
    assert refused(phone.take())
    sim.edge.destroy()


def test_memory_only_is_not_written(path: Path) -> None:
    route = PLAIN.replace('"location"', '"location", 1')
    sim = Registrar(path, 1, route)
    phone = sim.udp("10.0.0.9", 40001)
    sim.register(phone, outbound_contact())
    sim.settle()
    assert phone.take().status == 200
    assert len(sim.listed(phone)) == 1
    assert sim.rows() == []
    sim.edge.destroy()


@pytest.mark.rfc("RGO-12")
def test_the_order_of_requests_is_kept_across_a_restart(path: Path) -> None:
    first = Registrar(path, 2)
    phone = first.udp("10.0.0.9", 40001)
    first.register(phone, outbound_contact(more=";expires=1000"), cseq=7)
    assert phone.take().status == 200
    first.settle()
    first.edge.destroy()
    second = Registrar(path, 2)
    second.core.on_timer(second.now)
    phone = second.udp("10.0.0.9", 40001)
    for cseq, status in ((6, 400), (8, 200)):
        second.register(phone, outbound_contact(), cseq=cseq)
        assert phone.take().status == status, cseq
    second.edge.destroy()


def test_tables_of_the_file_are_swept_before_anybody_asks_for_them(path: Path) -> None:
    first = Registrar(path, 2, PLAIN.replace("location", "aliases"))
    phone = first.udp("10.0.0.9", 40001)
    first.register(phone, outbound_contact(more=";expires=100"))
    assert phone.take().status == 200
    first.edge.destroy()
    second = Registrar(path, 2)
    assert second.rows() == [1]
    second.advance(105)
    second.settle()
    assert second.rows() == []
    assert second.core.stats["contacts_expired"] == 1
    second.edge.destroy()
