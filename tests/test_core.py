"""Stop 2: STUN, keep-alive or SIP; answers to what is no SIP; streams; idle time; who we are."""

from __future__ import annotations

import struct

import pytest

from sipedge.flow import Flow
from sipedge.sip.uri import parse_uri
from tests.sim import RELAY_ALL, Sim, answer, request

STUN = struct.pack("!HHI12s", 0x0001, 0, 0x2112A442, b"abcdefghijkl")


@pytest.mark.rfc("KA-07", "KA-11")
def test_stun_on_a_udp_port_is_answered_and_never_parsed_as_sip() -> None:
    sim = Sim()
    phone = sim.udp("127.0.0.2", 40001)
    phone.send(STUN)
    assert phone.raw[0][:2] == b"\x01\x01"
    assert phone.raw[0][8:20] == b"abcdefghijkl"
    phone.send(b"\x00\x01\x00\x00" + b"x" * 16)
    assert len(phone.raw) == 1
    assert sim.core.stats["parse_errors"] == 0


@pytest.mark.rfc("KA-15")
@pytest.mark.parametrize("junk", [b"", b"\r\n", b"\r\n\r\n", b"\0", b"\0\0\0\0", b"keep-alive"])
def test_short_datagrams_are_keepalives(junk: bytes) -> None:
    sim = Sim()
    phone = sim.udp()
    sim.now += 5
    phone.send(junk)
    assert not phone.raw
    assert phone.flow.last_rx == sim.now


@pytest.mark.rfc("KA-01", "KA-02", "KA-06")
def test_pings_between_messages_on_a_stream() -> None:
    sim = Sim()
    phone = sim.tcp()
    phone.send(b"\r\n\r\n")
    assert phone.raw == [b"\r\n"]
    message = request(
        "MESSAGE", max_forwards=0, via="SIP/2.0/TCP 127.0.0.2:40000", body="a\r\n\r\nb"
    )
    for octet in message:
        phone.send(bytes((octet,)))
    phone.send(b"\r\n\r\n")
    assert [raw[:11] for raw in phone.raw] == [b"\r\n", b"SIP/2.0 483", b"\r\n"]


@pytest.mark.rfc("TRN-09", "KA-14", "TRN-13")
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("MESSAGE").replace(b"Content-Length: 0\r\n", b""), 400),
        (request("MESSAGE").replace(b"Length: 0", b"Length: -1"), 400),
        (request("MESSAGE").replace(b"Length: 0", b"Length: 0\r\nContent-Length: 1"), 400),
        (STUN, None),
        (b"\x16\x03\x01\x02\x00", None),
        (b"GARBAGE" * 40000, None),
    ],
)
def test_a_stream_that_cannot_be_framed_is_answered_and_closed(
    data: bytes, status: int | None
) -> None:
    sim = Sim()
    phone = sim.tcp()
    phone.send(data)
    assert [flow for flow, _ in sim.closed] == [phone.flow]
    assert not phone.flow.alive
    assert [m.status for m in phone.got] == ([status] if status else [])


@pytest.mark.rfc("PAR-03", "PXV-06")
def test_malformed_request_is_400_with_received() -> None:
    sim = Sim()
    phone = sim.udp("127.0.0.2", 40001)
    phone.send(request("MESSAGE").replace(b"Forwards: 70", b"Forwards: 7_0"))
    reply = phone.take()
    assert reply.status == 400
    assert reply.call_id == b"c1@127.0.0.2"
    assert b"rport=40001" in reply.values(b"via")[0]
    phone.send(request("ACK").replace(b"CSeq: 1 ACK", b"CSeq: x ACK"))
    phone.send(answer(reply, 200).replace(b"CSeq: 1", b"CSeq: x"))
    assert phone.silent()


@pytest.mark.rfc("TRN-02", "TRN-03", "TRN-04")
def test_where_responses_go_without_rport() -> None:
    plain = request("MESSAGE", max_forwards=0).replace(b";rport", b"")
    sim = Sim()
    phone, port_5060 = sim.udp("127.0.0.2", 40001), sim.udp("127.0.0.2", 5060)
    phone.send(plain)  # force_rport is on by default
    assert phone.take().status == 483
    sim = Sim(RELAY_ALL + "core.force_rport = False\n")
    phone, port_5060 = sim.udp("127.0.0.2", 40001), sim.udp("127.0.0.2", 5060)
    phone.send(plain)
    assert phone.silent()
    assert port_5060.take().status == 483
    phone.send(request("MESSAGE", max_forwards=0, branch="z9hG4bKx"))
    assert b"rport=40001" in phone.take().values(b"via")[0]


@pytest.mark.rfc("KA-16", "KA-17", "TRN-15")
def test_any_octet_restarts_the_idle_time_of_a_stream() -> None:
    sim = Sim(RELAY_ALL + "core.tcp_connection_lifetime = 30\n")
    phone, silent = sim.tcp(), sim.tcp("127.0.0.3")
    phone.send(request("OPTIONS", max_forwards=0))
    silent.send(request("OPTIONS", max_forwards=0))
    for _ in range(5):
        sim.advance(20)
        if phone.flow.alive:
            phone.send(b"\r\n")
    assert phone.flow.alive
    assert not silent.flow.alive
    assert sim.closed == [(silent.flow, "idle")]
    sim.advance(29)
    assert phone.flow.alive
    sim.advance(2)
    assert not phone.flow.alive


@pytest.mark.rfc("PXR-02", "PAR-11")
def test_who_we_are() -> None:
    sim = Sim(
        'listen("udp:127.0.0.1:5060", advertise="Edge.Example.COM:5090")\n'
        'listen("udp:[::1]:5070")\n'
        'alias("example.com", "example.net:5062")\n'
        "def request_route(ksr, msg):\n    pass\n"
    )
    for uri, mine in {
        "sip:127.0.0.1": True,
        "sip:127.0.0.1:5060;transport=tcp;lr": True,
        "sip:tok@127.0.0.1;lr": True,
        "sip:127.0.0.1:5061": False,
        "sips:127.0.0.1": False,
        "sip:EDGE.example.com:5090": True,
        "sip:edge.example.com": False,
        "sip:[0:0::1]:5070": True,
        "sip:[::1]": False,
        "sip:Example.com:7777": True,
        "sip:example.net:5062": True,
        "sip:example.net": False,
        "sip:alice@example.com;gr=urn:uuid:1": False,
        "sip:10.0.0.1": False,
    }.items():
        assert sim.core.is_myself(parse_uri(uri.encode())) is mine, uri


@pytest.mark.rfc("TRN-16")
def test_a_client_connection_never_carries_traffic_for_others() -> None:
    sim = Sim()
    phone, alice = sim.tcp("127.0.0.9", 5060), sim.udp()
    alice.send(request("MESSAGE", uri="sip:bob@127.0.0.9:5060;transport=tcp"))
    assert phone.silent()
    assert [flow.remote for flow in sim.dialed] == [("127.0.0.9", 5060)]
    assert sim.dialed[0] is not phone.flow


def test_dialed_connection_is_used_again_and_its_failure_is_answered() -> None:
    sim = Sim()
    alice = sim.udp()
    to = "sip:bob@127.0.0.9;transport=tcp"
    alice.send(request(uri=to))
    alice.send(request(uri=to, branch="z9hG4bKb", cseq=2))
    assert len(sim.dialed) == 1
    sim.core.flow_opened(sim.dialed[0], sim.now)
    core = sim.peers[sim.dialed[0].transport, ("127.0.0.9", 5060)]
    assert [m.via().transport for m in core.got] == [b"TCP", b"TCP"]
    sim.core.flow_closed(sim.dialed[0], "reset", sim.now)
    sim.drain()
    assert [m.status for m in alice.got] == [100, 100, 500, 500]
    alice.send(request(uri=to, branch="z9hG4bKc", cseq=3))
    assert len(sim.dialed) == 2


def test_closing_twice_tells_the_modules_once() -> None:
    sim = Sim()
    lost: list[Flow] = []
    sim.core.hooks_flow_closed = (lambda flow, reason: lost.append(flow),)
    phone = sim.tcp()
    phone.close()
    phone.close()
    assert lost == [phone.flow]
    assert phone.flow.conn_id not in sim.core.flows.streams
    sim.core.receive(b"\r\n\r\n", phone.flow, sim.now)
    assert not phone.raw


def test_an_async_route_that_waits_needs_a_loop() -> None:
    source = (
        "import types\nlisten('udp:127.0.0.1:5060')\nloadmodule('tm')\n"
        "@types.coroutine\ndef pause():\n    yield\n"
        "async def request_route(ksr, msg):\n    await pause()\n    ksr.tm.t_relay(msg)\n"
    )
    sim = Sim(source)
    alice = sim.udp()
    alice.send(request())
    assert [m.status for m in alice.got] == [100, 500]


@pytest.mark.rfc("INC-13", "TRN-17")
def test_icmp_counts_only_while_a_request_waits_on_that_flow() -> None:
    sim = Sim()
    lost: list[Flow] = []
    sim.core.hooks_flow_closed = (lambda flow, reason: lost.append(flow),)
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    sim.core.flow_unreachable(bob.flow, sim.now)
    assert not lost
    alice.send(request())
    sim.core.flow_unreachable(bob.flow, sim.now)
    sim.drain()
    assert lost == [bob.flow]
    assert alice.got[-1].status == 500
