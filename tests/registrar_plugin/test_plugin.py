"""The module in a whole edge, without sockets: register, be called, lose a flow."""

from __future__ import annotations

import pytest

from sipedge.errors import ConfigError
from tests.registrar_plugin.home import BOTH, EDGE1, EDGE2, I1, outbound_contact
from tests.sim import Peer, Sim, answer, request

SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("registrar")
modparam("registrar", "flow_timer", 30)

def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        if not ksr.registrar.save(msg, "location"):
            ksr.sl.send_reply(msg, 500, "Server Internal Error")
        return
    if not ksr.registrar.lookup(msg, "location"):
        ksr.sl.send_reply(msg, 480, "Temporarily Unavailable")
        return
    ksr.tm.t_relay(msg)
"""


@pytest.fixture
def sim() -> Sim:
    return Sim(SOURCE)


def register(peer: Peer, contact: str, cseq: int, *, path: str = "", status: int = 200) -> None:
    hop = f"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKe{cseq}, " if path else ""
    headers = f"Contact: {contact}\r\n{BOTH}" + (f"Path: {path}\r\n" if path else "")
    peer.send(
        request(
            "REGISTER",
            "sip:example.com",
            headers=headers,
            cseq=cseq,
            branch=f"z9hG4bKr{cseq}",
            via=f"{hop}SIP/2.0/UDP 10.0.0.9",
            call_id=f"reg{cseq}",
        )
    )
    got = peer.take()
    assert got.status == status
    assert peer.silent(), "one answer a request"


def call(sim: Sim) -> Peer:
    alice = sim.udp("127.0.0.9", 5060)
    via = "SIP/2.0/UDP 127.0.0.9:5060"
    alice.send(request("INVITE", "sip:bob@example.com", via=via, branch="z9hG4bKcall"))
    assert alice.take().status == 100
    return alice


def test_a_refused_register_gets_one_answer(sim: Sim) -> None:
    register(sim.udp("127.0.0.2"), outbound_contact(0), 1, status=400)


@pytest.mark.rfc("HPX-01", "HPX-02", "HPX-13")
def test_the_second_flow_after_430_on_the_first(sim: Sim) -> None:
    edge1, edge2 = sim.udp("192.0.2.1"), sim.udp("192.0.2.2")
    register(edge2, outbound_contact(2), 1, path=EDGE2)
    register(edge1, outbound_contact(1), 2, path=EDGE1)
    alice = call(sim)
    first = edge1.take()
    assert edge2.silent()
    assert (first.ruri, first.rows(b"route")) == (b"sip:bob@10.0.0.9", [EDGE1.encode()])
    edge1.send(answer(first, 430, "Flow Failed"))
    assert edge1.take().method == b"ACK"
    second = edge2.take()
    assert second.ruri == b"sip:bob@10.0.0.9"
    assert second.rows(b"route") == [EDGE2.encode()]
    assert second.via().branch != first.via().branch
    assert second.first(b"max-forwards") == first.first(b"max-forwards")
    edge2.send(answer(second, 200, "OK"))
    assert alice.take().status == 200


@pytest.mark.rfc("HPX-08", "HPX-10")
def test_all_flows_dead_is_480_and_then_nobody_is_asked(sim: Sim) -> None:
    edge1, edge2 = sim.udp("192.0.2.1"), sim.udp("192.0.2.2")
    register(edge1, outbound_contact(1), 1, path=EDGE1)
    register(edge2, outbound_contact(2), 2, path=EDGE2)
    alice = call(sim)
    for edge in (edge2, edge1):
        edge.send(answer(edge.take(), 430, "Flow Failed"))
        assert edge.take().method == b"ACK"
    assert alice.take().status == 480
    via = "SIP/2.0/UDP 127.0.0.9:5060"
    alice.send(request("MESSAGE", "sip:bob@example.com", via=via, branch="z9hG4bKm"))
    assert alice.take().status == 480
    assert (edge1.silent(), edge2.silent()) == (True, True)


@pytest.mark.rfc("HPX-03")
def test_486_ends_the_instance(sim: Sim) -> None:
    edge1, edge2 = sim.udp("192.0.2.1"), sim.udp("192.0.2.2")
    register(edge2, outbound_contact(2), 1, path=EDGE2)
    register(edge1, outbound_contact(1), 2, path=EDGE1)
    alice = call(sim)
    edge1.send(answer(edge1.take(), 486, "Busy Here"))
    assert edge1.take().method == b"ACK"
    assert alice.take().status == 486
    assert edge2.silent()


@pytest.mark.rfc("HPX-09")
def test_a_registration_that_overtakes_the_430_is_tried(sim: Sim) -> None:
    edge1, edge2 = sim.udp("192.0.2.1"), sim.udp("192.0.2.2")
    register(edge1, outbound_contact(1), 1, path=EDGE1)
    alice = call(sim)
    register(edge2, outbound_contact(1), 2, path=EDGE2)
    edge1.send(answer(edge1.take(), 430, "Flow Failed"))
    assert edge1.take().method == b"ACK"
    second = edge2.take()
    assert second.rows(b"route") == [EDGE2.encode()]
    edge2.send(answer(second, 200, "OK"))
    assert alice.take().status == 200


@pytest.mark.rfc("RGO-10", "HPX-06", "HPX-07")
def test_directly_connected_over_tcp(sim: Sim) -> None:
    phone = sim.tcp("198.51.100.7", 40001)
    register(phone, outbound_contact(uri="sip:bob@10.0.0.9:5060;transport=tcp"), 1)
    alice = call(sim)
    invite = phone.take()
    assert invite.ruri == b"sip:bob@10.0.0.9:5060;transport=tcp"
    assert not invite.has(b"route")
    phone.send(answer(invite, 486, "Busy Here"))
    assert alice.take().status == 486
    phone.close()
    via = "SIP/2.0/UDP 127.0.0.9:5060"
    alice.send(request("MESSAGE", "sip:bob@example.com", via=via, branch="z9hG4bKm"))
    assert alice.take().status == 480
    assert sim.dialed == []


@pytest.mark.rfc("HPX-11", "HPX-12")
def test_two_phones_ring_once_each(sim: Sim) -> None:
    phones = []
    for n, instance in enumerate((I1, I1.replace("ee01", "ee02"))):
        for reg_id in (1, 2):
            phone = sim.udp(f"198.51.100.{n}", 40000 + reg_id)
            register(phone, outbound_contact(reg_id, instance), 10 * n + reg_id)
            phones.append(phone)
    call(sim)
    assert [len(phone.got) for phone in phones] == [0, 1, 0, 1], "the newest flow of each"


def test_a_start_that_cannot_be_points_at_its_line() -> None:
    with pytest.raises(ConfigError, match="flow_timer needs outbound") as caught:
        Sim(SOURCE + 'modparam("registrar", "outbound_mode", 0)\n')
    assert caught.value.line == SOURCE[: SOURCE.index('"flow_timer"')].count("\n") + 1
