"""Two processes of ours with one store, and real phones, edges and database servers around them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.peerlib.databases import Database, Postgres, Redis
from tests.peerlib.fixtures import crew, pytest_runtest_makereport
from tests.peerlib.process import LOOPBACK, PATIENCE, Crew, wait_for
from tests.peerlib.sipedge import CORE, Sipedge, edge
from tests.peerlib.ua import Message, Phone

__all__ = ["crew", "pytest_runtest_makereport"]


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest, crew: Crew) -> Database:
    return Redis(crew) if request.param == "redis" else Postgres(crew)


def home(crew: Crew, server: Database, number: int, more: dict[str, str] | None = None) -> Sipedge:
    """``examples/registrar_shared.py``, one of several."""
    changes = {
        "127.0.0.2:5060": "@here@",
        "redis://127.0.0.1:6379/0": server.url,
        "home-1": f"home-{number}",
        'keyfile("gruu.key")': f"b'{'k' * 20}'",
        **(more or {}),
    }
    return Sipedge(crew, "registrar_shared", CORE, 0, changes)


@pytest.fixture
def homes(crew: Crew, server: Database) -> tuple[Sipedge, Sipedge]:
    return home(crew, server, 1), home(crew, server, 2)


def call(caller: Phone, callee: Phone) -> None:
    """A call that rings and is refused."""
    branch = caller.invite(callee.aor)
    invite = callee.expect("INVITE")
    callee.respond(invite, 486, "Busy Here")
    callee.expect("ACK")
    caller.ack_failure(callee.aor, branch, caller.expect("486"))


def refused(caller: Phone, aor: str) -> str:
    """The status of a call that reaches nobody."""
    branch = caller.invite(aor)
    answer = caller.expect("430", "480", "503")
    caller.ack_failure(aor, branch, answer)
    return answer.what


def test_registered_with_one_and_called_through_the_other(
    crew: Crew, homes: tuple[Sipedge, Sipedge]
) -> None:
    edges = [edge(crew, home.address) for home in homes]
    with (
        Phone("bob", edges[0].at, "tcp") as bob,
        Phone("bob", edges[1].at) as other_bob,
        Phone("alice", edges[1].at) as alice,
    ):
        bob.register()
        call(alice, bob)
        assert len(other_bob.bindings()) == 1
        # the other registrar dies, and nobody notices who is called through the second
        homes[0].kill()
        call(alice, bob)
        homes[0].start()
        # the flow ends at the edge: 430 there, and the binding is removed for both
        bob.socket.close()
        assert refused(alice, bob.aor) == "480"
        wait_for("the dead binding is removed", lambda: other_bob.bindings() == [])


def test_a_phone_without_an_edge_is_called_by_the_node_that_has_it(
    homes: tuple[Sipedge, Sipedge],
) -> None:
    first, second = homes
    with (
        Phone("bob", first.at, "tcp") as bob,
        Phone("bob", second.at) as watcher,
        Phone("alice", first.at) as near,
        Phone("alice", second.at) as far,
    ):
        bob.register()
        assert len(watcher.bindings()) == 1, "listed everywhere"
        call(near, bob)
        assert refused(far, bob.aor) == "480", "and never dialed"
        bob.socket.close()
        wait_for("it goes with its connection", lambda: watcher.bindings() == [])


def test_a_registrar_that_stops_takes_its_connections_with_it(
    homes: tuple[Sipedge, Sipedge],
) -> None:
    first, second = homes
    with Phone("bob", first.at, "tcp") as bob, Phone("bob", second.at) as watcher:
        bob.register()
        assert len(watcher.bindings()) == 1
        first.program.stop()
        assert first.program.returncode == 0
        assert watcher.bindings() == []
        assert "Traceback" not in first.program.output


def registered(phone: Phone, users: range) -> dict[str, Message]:
    """Register all ``users`` at once; the answer for each."""
    for number in users:
        phone.request(
            "REGISTER",
            "sip:example.com",
            f"Call-ID: user{number}",
            f"From: <sip:user{number}@example.com>;tag=f",
            f"To: <sip:user{number}@example.com>",
            f"Contact: <sip:user{number}@{phone.address}>;expires=600",
        )
    answers: dict[str, Message] = {}
    while len(answers) < len(users):
        answer = phone.expect("200", "503")
        answers[answer.get("Call-ID")] = answer
    return answers


def found(phone: Phone, user: str) -> bool:
    phone.request(
        "REGISTER",
        "sip:example.com",
        f"From: <sip:{user}@example.com>;tag=f",
        f"To: <sip:{user}@example.com>",
    )
    return f"<sip:{user}@" in phone.expect("200").get("Contact")


def batches(size: int) -> Iterator[range]:
    start = 0
    while True:
        yield range(start, start + size)
        start += size


def test_every_register_that_got_a_200_is_found_after_a_crash(
    server: Database, homes: tuple[Sipedge, Sipedge]
) -> None:
    first, second = homes
    with Phone("load", first.at) as phone, Phone("check", second.at) as checker:
        load = batches(20)
        answers = registered(phone, next(load))
        for _ in range(4):
            answers |= registered(phone, next(load))
        assert {answer.what for answer in answers.values()} == {"200"}
        crash = next(load)
        phone_too = Phone("load", first.at)
        with phone_too:
            for number in crash:  # the server dies while these are under way
                phone.request(
                    "REGISTER",
                    "sip:example.com",
                    f"Call-ID: user{number}",
                    f"From: <sip:user{number}@example.com>;tag=f",
                    f"To: <sip:user{number}@example.com>",
                    f"Contact: <sip:user{number}@{phone.address}>;expires=600",
                )
            server.kill()
            down = registered(phone_too, next(load))
        assert {answer.what for answer in down.values()} == {"503"}
        assert {answer.get("Retry-After") for answer in down.values()} == {"10"}
        for _ in crash:
            answer = phone.expect("200", "503")
            answers[answer.get("Call-ID")] = answer
        server.start()
        until = time.monotonic() + PATIENCE
        while {answer.what for answer in down.values()} != {"200"}:
            assert time.monotonic() < until, "it does not recover"
            down = registered(phone, next(load))
            answers |= down
        accepted = [user for user, answer in answers.items() if answer.what == "200"]
        assert len(accepted) >= 120
        wait_for("the second node is back, too", lambda: back(checker))
        assert [user for user in accepted if not found(checker, user)] == []


def back(phone: Phone) -> bool:
    answer = next(iter(registered(phone, range(1_000_000, 1_000_001)).values()))
    return answer.what == "200"


def test_calls_while_the_store_is_away(server: Database, homes: tuple[Sipedge, Sipedge]) -> None:
    with Phone("bob", homes[0].at) as bob, Phone("alice", homes[0].at) as alice:
        bob.register()
        server.kill()
        assert refused(alice, bob.aor) == "503"
        server.start()
        wait_for("it is back", lambda: back(alice))
        call(alice, bob)
    assert homes[0].at[0] != LOOPBACK


RELAY = """    rc = await ksr.registrar.lookup_async(msg, "location")
    if rc:
        ksr.tm.t_relay(msg)
"""


@pytest.mark.rfc("HPX-19")
def test_a_phone_that_registers_with_another_node_while_it_rings(
    crew: Crew, server: Database
) -> None:
    outbound = 'modparam("registrar", "outbound_mode", 1)'
    late = f'{outbound}\nmodparam("registrar", "append_late_branches", 1)'
    first, second = (home(crew, server, number, {outbound: late}) for number in (1, 2))
    edges = edge(crew, first.address), edge(crew, second.address)
    with (
        Phone("bob", edges[0].at) as desk,
        Phone("bob", edges[1].at, "tcp") as mobile,
        Phone("alice", edges[0].at) as alice,
    ):
        desk.register()
        branch = alice.invite(desk.aor)
        at_desk = desk.expect("INVITE")
        desk.respond(at_desk, 180, "Ringing")
        alice.expect("180")
        mobile.send_register()
        # the first node may be quicker to call it than the second one to answer it
        heard = {message.what: message for message in (mobile.receive(), mobile.receive())}
        assert heard.keys() == {"200", "INVITE"}
        at_mobile = heard["INVITE"]
        assert at_mobile.uri == mobile.contact
        mobile.respond(at_mobile, 486, "Busy Here")
        mobile.expect("ACK")
        desk.respond(at_desk, 486, "Busy Here")
        desk.expect("ACK")
        alice.ack_failure(desk.aor, branch, alice.expect("486"))


def test_a_failure_route_looks_a_mailbox_up(crew: Crew, server: Database) -> None:
    failure_route = RELAY.replace(
        "        ksr", '        ksr.tm.t_on_failure(msg, "busy")\n        ksr'
    )
    busy = """

async def busy(ksr, msg):
    if await ksr.registrar.lookup_async(msg, "location", "sip:mailbox@example.com"):
        ksr.tm.t_relay(msg)


async def to_user("""
    changes = {RELAY: failure_route, "\n\nasync def to_user(": busy}
    first = home(crew, server, 1, changes)
    with (
        Phone("bob", first.at) as bob,
        Phone("mailbox", first.at) as mailbox,
        Phone("alice", first.at) as alice,
    ):
        bob.register()
        branch = alice.invite(bob.aor)
        bob.respond(bob.expect("INVITE"), 486, "Busy Here")
        alice.ack_failure(bob.aor, branch, alice.expect("486"))
        bob.expect("ACK")
        mailbox.register()
        alice.invite(bob.aor, f"Call-ID: again-{branch}")
        bob.respond(bob.expect("INVITE"), 486, "Busy Here")
        bob.expect("ACK")
        mailbox.respond(mailbox.expect("INVITE"), 200, "OK")
        assert "mailbox" in alice.expect("200").get("Contact")
