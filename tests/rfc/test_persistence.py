"""RGO-12 and scenario S21: real processes, ``kill -9``, and the call rings."""

from __future__ import annotations

import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peerlib.fixtures import crew, pytest_runtest_makereport
from tests.peerlib.process import Crew, free_port, wait_for
from tests.peerlib.sipedge import CORE, Sipedge, all_in_one, edge
from tests.peerlib.ua import Phone

__all__ = ["crew", "pytest_runtest_makereport"]

LOAD = 'loadmodule("registrar")'
DB_URL = 'modparam("registrar", "db_url", "sqlite:///location.sqlite")'
GRUU_KEY = f'modparam("registrar", "gruu_key", {"k" * 32!r})'


def home_of(crew: Crew, mode: int) -> Sipedge:
    """The registrar of the examples, with a file."""
    port = free_port(CORE)
    changes = {
        "127.0.0.2:5060": f"{CORE}:{port}",
        LOAD: f'{LOAD}\n{DB_URL}\nmodparam("registrar", "db_mode", {mode})\n{GRUU_KEY}',
        'ksr.sl.send_reply(msg, 404, "Not Found")': 'ksr.sl.send_reply(msg, 480, "Not Here")',
    }
    return Sipedge(crew, "registrar", CORE, port, changes)


def ask(home: Sipedge, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(home.directory / "location.sqlite", timeout=30)
    try:
        with connection:
            return connection.execute(query).fetchall()
    finally:
        connection.close()


def count(home: Sipedge) -> int:
    (row,) = ask(home, "SELECT count(*) FROM location")
    assert isinstance(row[0], int)
    return row[0]


def restart(home: Sipedge, meanwhile: Callable[[], None] = lambda: None) -> None:
    home.kill()
    meanwhile()
    home.start()


def parameter(contact: str, name: str) -> str:
    found = re.search(rf';{name}=(?:"([^"]*)"|([^;"]*))', contact.partition(">")[2])
    assert found, contact
    return found[1] or found[2]


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.rfc("RGO-12")
def test_s21_a_restart_of_the_registrar_keeps_bindings(crew: Crew, closing: ExitStack) -> None:
    """Two phones with two flows each behind two edges, one phone connected to the registrar."""
    home = home_of(crew, 2)
    edges = [edge(crew, home.address), edge(crew, home.address)]

    def phone(user: str, at: Sipedge, transport: str, reg_id: int = 1) -> Phone:
        return closing.enter_context(Phone(user, at.at, transport, reg_id=reg_id))

    flows = {
        (user, reg_id): phone(user, edges[reg_id - 1], transport, reg_id)
        for user, transport in (("alice", "udp"), ("bob", "tcp"))
        for reg_id in (1, 2)
    }
    for (user, reg_id), flow in flows.items():
        flow.instance = flows[user, 1].instance
        flow.register(expires=1000 * reg_id)
    direct = Phone("carol", home.at, "tcp")
    direct.register()
    wait_for("all four bindings are in the file", lambda: count(home) == 4)
    before = ask(home, "SELECT aor, contact, path, call_id, cseq, reg_id, q FROM location")
    assert all(b.count(b"reg-id") + b.count(b"sip.instance") == 2 for b in map(contact_of, before))

    def five_minutes_pass() -> None:
        direct.socket.close()
        age = 300 * 10**6
        ask(home, f"UPDATE location SET updated = updated - {age}, expires = expires - {age}")

    restart(home, five_minutes_pass)
    # a direct connection is gone: 480, and nobody is dialed
    nobody = closing.enter_context(socket.create_server((direct.host, direct.port)))
    caller = closing.enter_context(Phone("dave", home.at))
    caller.invite("sip:carol@example.com")
    caller.expect("480")
    nobody.setblocking(False)
    with pytest.raises(BlockingIOError):
        nobody.accept()
    # those behind edges ring, over the flow that registered last
    for user in ("alice", "bob"):
        caller.invite(f"sip:{user}@example.com")
        second = flows[user, 2]
        invite = second.expect("INVITE")
        assert invite.uri == second.contact
        second.respond(invite, 486, "Busy Here")
        second.expect("ACK")
        caller.expect("486")
    # expiry went on while nobody ran
    alice = flows["alice", 1]
    left = sorted(int(parameter(contact, "expires")) for contact in alice.bindings())
    assert 600 <= left[0] <= 700
    assert 1600 <= left[1] <= 1700
    # and the next refresh is just the next one
    for flow in flows.values():
        flow.register()
    wait_for(
        "the refreshes are in the file",
        lambda: (
            ask(home, "SELECT DISTINCT reg_id FROM location WHERE cseq > 1") == [(1,), (2,)]
            and count(home) == 4
        ),
    )
    after = ask(home, "SELECT aor, contact, path, call_id, cseq, reg_id, q FROM location")
    assert {row[:4] for row in after} == {row[:4] for row in before}


def contact_of(row: tuple[object, ...]) -> bytes:
    return str(row[1]).encode()


@pytest.mark.rfc("RGO-12")
def test_s21_a_temporary_gruu_outlives_a_restart(crew: Crew, closing: ExitStack) -> None:
    home = home_of(crew, 2)
    at = edge(crew, home.address)
    bob = closing.enter_context(Phone("bob", at.at, "tcp"))
    bob.request(
        "REGISTER",
        "sip:example.com",
        f"From: <{bob.aor}>;tag={bob.tag}",
        f"To: <{bob.aor}>",
        f'Contact: <{bob.contact}>;+sip.instance="<{bob.instance}>";reg-id=1;expires=600',
        "Supported: path, outbound, gruu",
    )
    gruu = parameter(bob.expect("200").get("Contact"), "temp-gruu")
    assert gruu.startswith("sip:tgruu.")
    wait_for("the binding is in the file", lambda: count(home) == 1)
    restart(home)
    caller = closing.enter_context(Phone("dave", home.at))
    caller.invite(gruu)
    assert bob.expect("INVITE").uri == bob.contact


@pytest.mark.rfc("RGO-12")
def test_a_udp_phone_rings_after_make_run_was_killed(crew: Crew, closing: ExitStack) -> None:
    """The example as it stands, edge and registrar in one: there is no Path, but a flow."""
    both = all_in_one(crew)
    bob = closing.enter_context(Phone("bob", both.at, "udp"))
    bob.contact = "sip:bob@10.0.0.9:5060;ob"  # behind a NAT: only his flow leads to him
    bob.register()
    wait_for("the binding is in the file", lambda: count(both) == 1)
    restart(both)
    alice = closing.enter_context(Phone("alice", both.at, "tcp"))
    alice.invite("sip:bob@example.com")
    invite = bob.expect("INVITE")
    bob.respond(invite, 200, "OK")
    assert alice.expect("200").get("Contact") == f"<{bob.contact}>"


@pytest.mark.rfc("RGO-12")
def test_write_through_loses_nothing_that_was_answered(crew: Crew) -> None:
    """A storm of REGISTERs and ``kill -9`` in the middle of it."""
    home = home_of(crew, 1)
    users = [f"user{n}" for n in range(400)]
    with Phone("storm", home.at) as phone:
        phone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        acked: set[str] = set()
        sent = iter(users)
        for _ in range(60):  # so many at a time
            send(phone, next(sent))
        while len(acked) < 150:
            acked.add(acknowledged(phone))
            send(phone, next(sent))
        home.kill()
        phone.socket.setblocking(False)
        while True:  # what the kernel still has for us was sent before the kill
            try:
                acked.add(user_of(phone.socket.recv(65536)))
            except BlockingIOError:
                break
        assert 150 <= len(acked) < len(users), "it was killed in the middle"
    home.start()
    with Phone("reader", home.at) as reader:
        lost = []
        for user in sorted(acked):
            reader.aor = f"sip:{user}@example.com"
            if not reader.bindings():
                lost.append(user)
    assert lost == []


def send(phone: Phone, user: str) -> None:
    phone.request(
        "REGISTER",
        "sip:example.com",
        f"From: <sip:{user}@example.com>;tag=f",
        f"To: <sip:{user}@example.com>",
        f"Contact: <sip:{user}@192.0.2.9>;expires=600",
        f"Call-ID: {user}",
    )


def acknowledged(phone: Phone) -> str:
    phone.socket.settimeout(30)
    return user_of(phone.socket.recv(65536))


def user_of(answer: bytes) -> str:
    assert answer.startswith(b"SIP/2.0 200"), answer
    found = re.search(rb"To: <sip:(\w+)@", answer)
    assert found
    return found[1].decode()


def test_write_back_loses_no_more_than_a_moment(crew: Crew) -> None:
    """What was answered longer ago than ``db_batch_ms`` and a transaction is there."""
    home = home_of(crew, 2)
    with Phone("storm", home.at) as phone:
        for n in range(100):
            send(phone, f"user{n}")
            acknowledged(phone)
        wait_for("they are in the file", lambda: count(home) == 100)
        for n in range(100, 150):
            send(phone, f"user{n}")
            acknowledged(phone)
    restart(home)
    assert 100 <= count(home) <= 150


def test_a_stop_writes_everything(crew: Crew) -> None:
    home = home_of(crew, 2)
    with Phone("storm", home.at) as phone:
        for n in range(50):
            send(phone, f"user{n}")
            acknowledged(phone)
    home.program.stop()
    assert home.program.returncode == 0
    assert count(home) == 50


def test_a_file_that_is_in_use_is_said_with_its_line(crew: Crew) -> None:
    home = home_of(crew, 2)
    text = home.config.read_text().replace(home.address, f"{CORE}:{free_port(CORE)}")
    second = home.directory / "second.py"
    second.write_text(text)
    line = text[: text.index(DB_URL)].count("\n") + 1
    program = crew.start(crew.place("second"), [*home.program.argv[:2], str(second)])
    assert program.wait() == 2
    assert f"{second}:{line}: registrar: db_url: " in program.output
    assert "is another sipedge running with it" in program.output


def test_reading_is_left_to_others(crew: Crew, tmp_path: Path) -> None:
    """A backup of the running registrar, by SQLite's own means."""
    home = home_of(crew, 1)
    copy = tmp_path / "copy.sqlite"
    with Phone("bob", home.at) as bob:
        bob.register()
        source = sqlite3.connect(home.directory / "location.sqlite", timeout=30)
        target = sqlite3.connect(copy)
        source.backup(target)
        assert target.execute("SELECT aor FROM location").fetchall() == [("bob@example.com",)]
        source.close()
        target.close()
        bob.register()
    assert time.time() - 60 < float(str(ask(home, "SELECT max(updated) FROM location")[0][0])) / 1e6
