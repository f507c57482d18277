"""Flow-Timer and keep at an edge (RFC 5626 §5.4, RFC 6223)."""

from __future__ import annotations

import pytest

from outbound_plugin.keep import with_keep
from sipedge.sip.message import SipMessage
from tests.sim import Peer, Sim, answer, request

EDGE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("rr")
modparam("outbound", "flow_token_key", b"johndoessecretphrase")
modparam("outbound", "flow_timer", 120)
def request_route(ksr, msg):
    if msg.has(b"subject"):
        ksr.sl.send_reply(msg, 403, "Forbidden")
        return
    if msg.has(b"x-record"):
        ksr.rr.record_route(msg)
    ksr.setdsturi(msg, "sip:127.0.0.9:5060")
    ksr.tm.t_relay(msg)
"""
VIA = "SIP/2.0/UDP 127.0.0.2:5060"
KEEP = VIA + ";keep"
OUTBOUND = "Require: outbound\r\n"


@pytest.fixture
def sim() -> Sim:
    return Sim(EDGE)


def core(sim: Sim) -> Peer:
    return sim.udp("127.0.0.9")


def asked(sim: Sim, method: str, via: str = KEEP, headers: str = "") -> SipMessage:
    """The request of a phone as it reaches the core."""
    sim.udp().send(request(method, via=via, headers=headers))
    return core(sim).take()


def answered(
    sim: Sim, arrived: SipMessage, headers: str = "", status: int = 200, echo: bytes = b""
) -> SipMessage:
    """What the phone gets; ``echo``: what the core makes of ``;keep``."""
    data = answer(arrived, status, headers=headers)
    core(sim).send(data.replace(b";keep", echo) if echo else data)
    got = sim.udp().take()
    while got.status == 100:
        got = sim.udp().take()
    assert got.status == status
    return got


def keep(msg: SipMessage) -> bytes | None:
    """The value in the topmost Via, None: it stands there without one."""
    assert msg.via().has(b"keep")
    return msg.via().get(b"keep")


@pytest.mark.rfc("KA-18", "KA-19")
def test_flow_timer_is_for_registrations_with_outbound(sim: Sim) -> None:
    got = answered(sim, asked(sim, "REGISTER"), OUTBOUND + "Flow-Timer: 7\r\nFlow-Timer: 8\r\n")
    assert got.rows(b"flow-timer") == [b"120"]


@pytest.mark.rfc("KA-18")
@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("REGISTER", "", 200), ("REGISTER", OUTBOUND, 403), ("OPTIONS", OUTBOUND, 200)],
)
def test_and_for_nothing_else(sim: Sim, method: str, headers: str, status: int) -> None:
    got = answered(sim, asked(sim, method), headers, status)
    assert not got.has(b"flow-timer")


@pytest.mark.rfc("KA-18")
def test_a_timer_without_outbound_is_not_passed_on(sim: Sim) -> None:
    assert not answered(sim, asked(sim, "REGISTER"), "Flow-Timer: 7\r\n").has(b"flow-timer")


@pytest.mark.rfc("KA-18")
def test_it_is_only_for_the_phone_itself(sim: Sim) -> None:
    """Behind another proxy it is that proxy's business."""
    phone_via = "Via: SIP/2.0/UDP 10.1.1.1:5060;branch=z9hG4bKp;keep\r\n"
    arrived = asked(sim, "REGISTER", VIA, phone_via)
    got = answered(sim, arrived, OUTBOUND + "Flow-Timer: 7\r\n")
    assert got.rows(b"flow-timer") == [b"7"]
    assert got.rows(b"via")[-1].endswith(b";keep")


@pytest.mark.rfc("KA-21", "KA-22")
def test_keep_of_a_registration(sim: Sim) -> None:
    arrived = asked(sim, "REGISTER")
    assert all(b";keep=" not in row for row in arrived.rows(b"via"))
    assert b";keep;" in arrived.rows(b"via")[1]
    assert b"keep" not in arrived.rows(b"via")[0]
    got = answered(sim, arrived, OUTBOUND)
    assert keep(got) == got.first(b"flow-timer") == b"120"


@pytest.mark.rfc("KA-21")
def test_the_same_value_in_every_answer(sim: Sim) -> None:
    got = answered(sim, asked(sim, "REGISTER"), status=401)
    assert keep(got) == b"120"
    sim.udp().send(request("REGISTER", via=KEEP, headers="Subject: x\r\n", branch="z9hG4bKown"))
    own = sim.udp().take()
    assert (own.status, keep(own)) == (403, b"120")


@pytest.mark.rfc("KA-22")
def test_what_the_core_writes_there_is_not_passed_on(sim: Sim) -> None:
    assert keep(answered(sim, asked(sim, "REGISTER"), echo=b";keep=5")) == b"120"
    arrived = asked(sim, "INVITE")
    assert keep(answered(sim, arrived, echo=b";keep=5")) is None


@pytest.mark.rfc("KA-21", "KA-23")
def test_keep_of_a_dialog(sim: Sim) -> None:
    """Only if we stay on its path."""
    got = answered(sim, asked(sim, "INVITE", headers="X-Record: 1\r\n"), status=180)
    assert got.has(b"record-route")
    assert keep(got) == b"120"
    other = Sim(EDGE)
    got = answered(other, asked(other, "INVITE"), status=180)
    assert keep(got) is None


@pytest.mark.rfc("KA-23")
def test_an_ack_means_nothing(sim: Sim) -> None:
    arrived = asked(sim, "ACK")
    assert b";keep;" in arrived.rows(b"via")[1]
    assert sim.udp().silent()


def test_a_phone_that_does_not_ask_gets_no_value(sim: Sim) -> None:
    got = answered(sim, asked(sim, "REGISTER", VIA), OUTBOUND)
    assert not got.via().has(b"keep")
    assert got.first(b"flow-timer") == b"120"


def test_a_value_of_the_phone_itself_is_no_question(sim: Sim) -> None:
    sim.udp().send(request("REGISTER", via=VIA + ";keep=3", headers="Subject: x\r\n"))
    assert keep(sim.udp().take()) == b"3"


def test_without_flow_timer_messages_are_left_alone() -> None:
    sim = Sim(EDGE.replace('modparam("outbound", "flow_timer", 120)', ""))
    assert not sim.core.hooks_reply_in
    got = answered(sim, asked(sim, "REGISTER"), OUTBOUND + "Flow-Timer: 7\r\n")
    assert got.rows(b"flow-timer") == [b"7"]
    assert keep(got) is None


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (b"Via: SIP/2.0/UDP h;keep", b"Via: SIP/2.0/UDP h;keep=9"),
        (b"Via: SIP/2.0/UDP h;keep;branch=x", b"Via: SIP/2.0/UDP h;keep=9;branch=x"),
        (b"Via: SIP/2.0/UDP h; KEEP = 3 ;branch=x", b"Via: SIP/2.0/UDP h;keep=9 ;branch=x"),
        (b"Via: SIP/2.0/UDP h;keeper=1;x-keep", b"Via: SIP/2.0/UDP h;keeper=1;x-keep"),
        (b'Via: SIP/2.0/UDP h;a=";keep";keep', b'Via: SIP/2.0/UDP h;a=";keep";keep=9'),
    ],
)
def test_rows(row: bytes, wanted: bytes) -> None:
    assert with_keep(row, b";keep=9") == wanted
