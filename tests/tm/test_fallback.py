"""Responses to a server whose connection is gone (RFC 3263 §5), without sockets."""

from __future__ import annotations

import pytest

from sipedge.flow import TCP, Flow
from sipedge.lookups import Srv
from tests.sim import Peer, Sim, answer, request

BELOW = "Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKua\r\n"


def called(
    sim: Sim, sent_by: str = "127.0.0.5:5070", below: str = BELOW, transport: str = "TCP"
) -> tuple[Peer, bytes]:
    """A peer at 127.0.0.5 calls over TCP; its connection breaks; what the callee answers."""
    peer = sim.tcp("127.0.0.5", 40000)
    via = f"SIP/2.0/{transport} {sent_by}"
    data = request(uri="sip:bob@127.0.0.11", via=via)
    head, rest = data.split(b"\r\nMax-Forwards", 1)
    peer.send(head + b"\r\n" + below.encode() + b"Max-Forwards" + rest)
    callee = sim.udp("127.0.0.11")
    response = answer(callee.take(), 486)
    peer.got.clear()
    peer.close()
    return callee, response


def refuse(sim: Sim, flow: Flow) -> None:
    sim.core.flow_closed(flow, "refused", sim.now)
    sim.drain()


@pytest.mark.rfc("DNS-07")
def test_a_server_gets_its_answer_over_a_new_connection() -> None:
    sim = Sim()
    callee, response = called(sim)
    callee.send(response)
    (flow,) = sim.dialed
    assert (flow.transport, flow.remote) == (TCP, ("127.0.0.5", 5070))
    (msg,) = sim.peers[TCP, flow.remote].got
    assert msg.status == 486
    assert msg.values(b"via")[1].startswith(b"SIP/2.0/UDP 10.0.0.9")
    refuse(sim, flow)
    assert len(sim.dialed) == 1


@pytest.mark.rfc("DNS-07")
@pytest.mark.parametrize(
    ("sent_by", "below", "transport"),
    [
        ("127.0.0.5:5070", "", "TCP"),  # a UA: nothing below its Via
        ("127.0.0.6:5070", BELOW, "TCP"),  # says that it is somebody else
        ("a1b2.invalid", BELOW, "TCP"),
        ("127.0.0.5", BELOW, "WS"),
        ("elsewhere.example", BELOW, "TCP"),  # leads to others only
    ],
)
def test_nobody_else_is_dialed(sent_by: str, below: str, transport: str) -> None:
    sim = Sim()
    sim.zone = {("A", "elsewhere.example"): ("127.0.0.66",)}
    callee, response = called(sim, sent_by, below, transport)
    callee.send(response)
    assert sim.dialed == []


@pytest.mark.rfc("DNS-07")
def test_a_name_with_a_port_leads_to_addresses() -> None:
    sim = Sim()
    sim.zone = {("A", "core.example"): ("127.0.0.7", "127.0.0.5")}
    callee, response = called(sim, "core.example:5080")
    callee.send(response)
    assert [flow.remote for flow in sim.dialed] == [("127.0.0.7", 5080)]
    refuse(sim, sim.dialed[0])
    assert [flow.remote for flow in sim.dialed[1:]] == [("127.0.0.5", 5080)]
    assert sim.peers[TCP, ("127.0.0.5", 5080)].take().status == 486


@pytest.mark.rfc("DNS-07")
def test_a_name_without_a_port_leads_to_srv() -> None:
    sim = Sim()
    sim.zone = {
        ("SRV", "_sip._tcp.core.example"): (
            Srv(2, 0, 5062, "b.example"), Srv(1, 0, 5061, "a.example"),
        ),
        ("A", "a.example"): ("127.0.0.5",),
        ("A", "b.example"): ("127.0.0.6",),
    }  # fmt: skip
    callee, response = called(sim, "core.example")
    callee.send(response)
    assert sim.dialed[0].remote == ("127.0.0.5", 5061)
    sim.core.flow_opened(sim.dialed[0], sim.now)
    assert sim.dialed[0].pending[0].flow is None, "it has arrived, as far as we can know"
    callee.send(response)
    assert len(sim.dialed) == 1
