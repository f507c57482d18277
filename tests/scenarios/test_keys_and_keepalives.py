"""S16, S17 and S20: flow tokens that outlive keys and connections, and flows that fall silent.

The single keep-alives of S18 and S19 are in ``tests/rfc/test_ka.py``.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sipedge.keyfile import new_key
from tests.peerlib.process import LOOPBACK, Crew, free_port, wait_for
from tests.peerlib.sipedge import CORE, Sipedge, edge, registrar
from tests.peerlib.ua import Phone

PING, PONG = b"\r\n\r\n", b"\r\n"
FLOW_TIMER = "FLOW_TIMER = 20"
LIFETIME = "core.tcp_connection_lifetime = FLOW_TIMER + 10"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as everybody:
        yield everybody


def token_of(phone: Phone) -> str:
    return phone.register().get("Path")


def call(core: Phone, phone: Phone, path: str, status: str) -> None:
    """A call along ``path`` reaches the phone (486), or is refused by the edge."""
    call_id = f"Call-ID: {core.next_cseq()}-{core.call_id}"
    branch = core.invite(phone.contact, f"Route: {path}", call_id)
    if status == "486":
        phone.respond(phone.expect("INVITE"), 486, "Busy Here")
        phone.expect("ACK")
    core.ack_failure(phone.contact, branch, core.expect(status), f"Route: {path}", call_id)


@pytest.mark.rfc("TOK-06")
def test_s16_a_key_is_replaced(crew: Crew, stack: ExitStack) -> None:
    at = edge(crew, registrar(crew).address)
    keys = at.directory / "flow_token.key"
    old, new = keys.read_text(), new_key() + "\n"
    bob = stack.enter_context(Phone("bob", at.at))
    core = stack.enter_context(Phone("core", at.at, host=CORE))
    with_old = token_of(bob)
    call(core, bob, with_old, "486")
    for text in (new + old, new):
        keys.write_text(text)
        at.kill()
        at.start()
        call(core, bob, with_old, "486" if old in text else "430")
    with_new = token_of(bob)
    assert with_new != with_old
    call(core, bob, with_new, "486")


def hung_up(phone: Phone) -> None:
    """Close with a reset, so that the port is free at once."""
    linger = struct.pack("ii", 1, 0)
    phone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    phone.socket.close()


@pytest.mark.rfc("TOK-02", "INC-04")
def test_s17_another_phone_gets_the_address_of_a_dead_flow(crew: Crew, stack: ExitStack) -> None:
    home = registrar(crew)
    at = edge(crew, home.address)
    port = free_port()
    bob = Phone("bob", at.at, "tcp", port=port)
    path = token_of(bob)
    hung_up(bob)
    carol = stack.enter_context(Phone("carol", at.at, "tcp", port=port))
    assert token_of(carol) != path
    core = stack.enter_context(Phone("core", at.at, host=CORE))
    call(core, bob, path, "430")
    alice = stack.enter_context(Phone("alice", home.at))
    branch = alice.invite(bob.aor)
    alice.ack_failure(bob.aor, branch, alice.expect("480"))
    carol.silence(0.5)


def short_lived(crew: Crew, home: Sipedge) -> Sipedge:
    """An edge that asks for a keep-alive each second and waits for three."""
    return edge(
        crew,
        home.address,
        more={FLOW_TIMER: "FLOW_TIMER = 1", LIFETIME: "core.tcp_connection_lifetime = 3"},
    )


@pytest.mark.rfc("KA-16", "KA-17", "EPR-05")
def test_s20_who_is_silent_for_longer_than_the_flow_timer(crew: Crew, stack: ExitStack) -> None:
    home = registrar(crew)
    at = short_lived(crew, home)
    pings, odd, silent = (
        stack.enter_context(Phone(user, at.at, "tcp")) for user in ("pings", "odd", "silent")
    )
    for phone in (pings, odd, silent):
        assert phone.register().get("Flow-Timer") == "1"
    for _ in range(8):
        pings.socket.sendall(PING)
        assert pings.socket.recv(16) == PONG
        odd.socket.sendall(b"\r\n")
        odd.silence(1.0)
    silent.socket.settimeout(10)
    assert silent.socket.recv(16) == b"", "it was closed"
    alice = stack.enter_context(Phone("alice", home.at))
    for phone in (pings, odd):
        branch = alice.invite(phone.aor, f"Call-ID: {phone.user}")
        phone.respond(phone.expect("INVITE"), 486, "Busy Here")
        alice.ack_failure(phone.aor, branch, alice.expect("486"), f"Call-ID: {phone.user}")
    alice.invite(silent.aor, "Call-ID: silent")
    alice.expect("480")


@pytest.mark.rfc("KA-20")
def test_a_registrar_without_an_edge_keeps_flows_alive_itself(crew: Crew, stack: ExitStack) -> None:
    listen = 'listen("tcp:127.0.0.2:5060")'
    lifetime = f"{listen}\ncore.tcp_connection_lifetime = 3"
    home = Sipedge(crew, "registrar", CORE, 0, {listen: lifetime, "127.0.0.2:5060": "@here@"})
    bob = stack.enter_context(Phone("bob", home.at, "tcp"))
    assert bob.register().get("Require") == "outbound"
    for _ in range(4):
        bob.silence(1.0)
        bob.socket.sendall(PING)
        assert bob.socket.recv(16) == PONG
    udp = stack.enter_context(Phone("udp", home.at))
    udp.register()
    question = struct.pack("!HHI", 1, 0, 0x2112A442) + bytes(range(12))
    udp.socket.sendto(question, home.at)
    answer, source = udp.socket.recvfrom(1000)
    assert source == home.at
    assert answer[:2] == b"\x01\x01"
    assert answer[4:20] == question[4:]
    port = struct.pack("!H", udp.port ^ 0x2112)
    address = bytes(a ^ b for a, b in zip(socket.inet_aton(LOOPBACK), question[4:8], strict=True))
    assert b"\0\x20\0\x08\0\x01" + port + address in answer
    udp.socket.sendto(PING, home.at)
    udp.silence(0.3)
    alice = stack.enter_context(Phone("alice", home.at))
    for phone in (bob, udp):
        branch = alice.invite(phone.aor, f"Call-ID: {phone.user}")
        phone.respond(phone.expect("INVITE"), 486, "Busy Here")
        alice.ack_failure(phone.aor, branch, alice.expect("486"), f"Call-ID: {phone.user}")
        phone.expect("ACK")
    bob.socket.settimeout(10)
    assert bob.socket.recv(16) == b"", "silent for too long"
    asking = stack.enter_context(Phone("bob", home.at))
    wait_for("its binding goes with the connection", lambda: asking.bindings() == [])
