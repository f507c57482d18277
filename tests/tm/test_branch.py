"""One branch: servers in order, the next one when one fails, big requests over TCP (no sockets)."""

from __future__ import annotations

import pytest

from sipedge.flow import TCP, TLS, UDP, WS, Flow, Listener
from sipedge.lookups import Naptr, Srv
from tests.sim import RELAY_ALL, Peer, Sim, answer, request

NAME = "core.example.com"
TWO = {
    ("SRV", f"_sip._udp.{NAME}"): (Srv(1, 0, 5060, "r1.example"), Srv(2, 0, 5070, "r2.example")),
    ("A", "r1.example"): ("127.0.0.11",),
    ("A", "r2.example"): ("127.0.0.12",),
}
BIG = "x" * 1400


@pytest.fixture
def sim() -> Sim:
    sim = Sim()
    sim.zone = dict(TWO)
    return sim


def before_relay(line: str) -> str:
    """A configuration whose route does this first."""
    return RELAY_ALL.replace("    ksr.tm", f"    {line}\n    ksr.tm")


def reg1(sim: Sim) -> Peer:
    return sim.udp("127.0.0.11")


def reg2(sim: Sim) -> Peer:
    return sim.udp("127.0.0.12", 5070)


def statuses(peer: Peer) -> list[int]:
    return [msg.status for msg in peer.got if msg.status != 100]


def send(sim: Sim, method: str = "REGISTER", n: int = 1, **how: object) -> Peer:
    alice = sim.udp()
    uri = str(how.pop("uri", f"sip:{NAME}"))
    alice.send(
        request(method, uri, branch=f"z9hG4bKn{n}", call_id=f"n{n}", **how)  # type: ignore[arg-type]
    )
    return alice


def refuse(sim: Sim, peer: Peer) -> None:
    sim.core.flow_unreachable(peer.flow, sim.now)
    sim.drain()


# -- the next server ------------------------------------------------------------------------------


@pytest.mark.rfc("DNS-05", "PXF-07")
def test_a_server_that_refuses(sim: Sim) -> None:
    alice = send(sim)
    first = reg1(sim).take()
    refuse(sim, reg1(sim))
    second = reg2(sim).take()
    assert second.via().branch != first.via().branch
    assert second.via().sent_by == first.via().sent_by
    differ = (b"Via: SIP/2.0/UDP 127.0.0.1", b"Max-Breadth:")
    before, after = (
        [line for line in msg.lines if not line.startswith(differ)] for msg in (first, second)
    )
    assert before == after
    reg2(sim).send(answer(second, 200))
    assert statuses(alice) == [200]
    assert sim.core.stats["server_failovers"] == 1
    sim.advance(100.0)
    assert reg1(sim).silent()
    assert reg2(sim).silent()
    assert statuses(alice) == [200]


@pytest.mark.rfc("DNS-05")
def test_a_server_whose_connection_fails(sim: Sim) -> None:
    sim.zone = {("A", NAME): ("127.0.0.11", "127.0.0.12")}
    alice = send(sim, uri=f"sip:{NAME};transport=tcp")
    (first,) = sim.dialed
    assert (first.transport, first.remote) == (TCP, ("127.0.0.11", 5060))
    sim.core.flow_closed(first, "connecting failed", sim.now)
    sim.drain()
    second = sim.dialed[1]
    assert second.remote == ("127.0.0.12", 5060)
    peer = sim.peers[TCP, second.remote]
    peer.send(answer(peer.take(), 200))
    assert statuses(alice) == [200]


@pytest.mark.rfc("DNS-05")
@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "SUBSCRIBE"])
def test_a_server_that_says_nothing(sim: Sim, method: str) -> None:
    alice = send(sim, method)
    sim.advance(3.8)
    assert reg2(sim).silent()
    sim.advance(0.4)
    second = reg2(sim).take()
    assert len(reg1(sim).got) == 4  # it had its retransmissions
    reg2(sim).send(answer(second, 486 if method == "INVITE" else 401))
    assert len(statuses(alice)) == 1, "the answer does not wait for the silent one"
    sim.advance(200.0)
    assert len(reg1(sim).got) == 4
    assert len(statuses(alice)) >= 1


@pytest.mark.rfc("DNS-05")
def test_a_late_answer_of_the_silent_server_is_welcome(sim: Sim) -> None:
    alice = send(sim, "INVITE")
    first = reg1(sim).take()
    sim.advance(4.2)
    second = reg2(sim).take()
    reg1(sim).got.clear()
    reg1(sim).send(answer(first, 180))
    assert reg1(sim).take().method == b"CANCEL"
    assert statuses(alice) == []
    reg1(sim).send(answer(first, 200))
    assert statuses(alice) == [200]
    reg2(sim).send(answer(second, 180))
    assert [msg.method for msg in reg2(sim).got][-1:] == [b"CANCEL"]


@pytest.mark.rfc("DNS-05")
def test_a_message_is_not_sent_twice_for_silence(sim: Sim) -> None:
    send(sim, "MESSAGE")
    sim.advance(100.0)
    assert reg2(sim).silent()


def test_a_server_that_is_busy_with_a_request_is_not_silent(sim: Sim) -> None:
    alice = send(sim)
    reg1(sim).send(answer(reg1(sim).take(), 100))
    sim.advance(10.0)
    assert reg2(sim).silent()
    reg1(sim).send(answer(reg1(sim).take(), 200))
    assert statuses(alice) == [200]


@pytest.mark.rfc("DNS-05", "DNS-06")
def test_a_server_that_says_503(sim: Sim) -> None:
    alice = send(sim, "INVITE")
    first = reg1(sim).take()
    reg1(sim).send(answer(first, 503))
    ack = reg1(sim).take()
    assert (ack.method, ack.via().branch) == (b"ACK", first.via().branch)
    reg2(sim).send(answer(reg2(sim).take(), 486))
    assert statuses(alice) == [486]
    reg1(sim).send(answer(first, 503))  # repeated: the ACK is, too, and that is all
    assert reg1(sim).take().method == b"ACK"
    assert reg2(sim).take().method == b"ACK"
    assert reg2(sim).silent()
    assert statuses(alice) == [486]


def test_the_last_one_decides(sim: Sim) -> None:
    alice = send(sim)
    reg1(sim).send(answer(reg1(sim).take(), 503))
    reg2(sim).send(answer(reg2(sim).take(), 503))
    assert statuses(alice) == [500]  # RFC 3261 §16.7 item 6
    alice = send(sim, "INVITE", 2)
    refuse(sim, reg1(sim))
    refuse(sim, reg2(sim))
    assert statuses(alice) == [500, 500]


@pytest.mark.rfc("PXF-07")
def test_all_of_them_silent(sim: Sim) -> None:
    alice = send(sim, "INVITE")
    sim.advance(31.0)
    assert statuses(alice) == []
    sim.advance(10.0)
    assert set(statuses(alice)) == {408}
    assert not sim.core.tm.clients


def test_who_gave_up_is_not_sent_to_the_next_server(sim: Sim) -> None:
    alice = send(sim, "INVITE")
    first = reg1(sim).take()
    alice.send(request("CANCEL", f"sip:{NAME}", branch="z9hG4bKn1", call_id="n1"))
    refuse(sim, reg1(sim))
    assert reg2(sim).silent()
    assert statuses(alice) == [200, 487]
    del first


def test_failure_route_runs_when_there_is_no_server_left() -> None:
    sim = Sim(
        RELAY_ALL.replace("    ksr.tm.t_relay(msg)", "    ksr.tm.t_on_failure(msg, 'failure_route')"
        "\n    ksr.tm.t_relay(msg)")
        + "def failure_route(ksr, msg):\n    ksr.tm.t_reply(msg, 580, 'Seen')\n"
    )  # fmt: skip
    sim.zone = dict(TWO)
    alice = send(sim, "INVITE")
    refuse(sim, reg1(sim))
    assert statuses(alice) == []
    refuse(sim, reg2(sim))
    assert statuses(alice) == [580]


# -- the same server ------------------------------------------------------------------------------


@pytest.mark.rfc("DNS-06")
def test_everything_of_a_transaction_goes_to_one_server(sim: Sim) -> None:
    """The weights would draw another one for each."""
    sim.zone = {
        ("SRV", f"_sip._udp.{NAME}"): tuple(Srv(1, 10, 5060, f"r{n}.example") for n in range(8)),
    } | {("A", f"r{n}.example"): (f"127.0.1.{n}",) for n in range(8)}
    firsts = set()
    for n in range(20):
        alice = send(sim, "INVITE", n)
        peers = [sim.udp(f"127.0.1.{i}") for i in range(8)]
        (peer,) = (one for one in peers if one.got)
        sim.advance(0.6)  # a retransmission
        first, again = peer.got
        assert first.to_bytes() == again.to_bytes()
        peer.got.clear()
        peer.send(answer(first, 180))
        alice.send(request("CANCEL", f"sip:{NAME}", branch=f"z9hG4bKn{n}", call_id=f"n{n}"))
        cancel = peer.take()
        peer.send(answer(cancel, 200))
        peer.send(answer(first, 487))
        ack = peer.take()
        assert (cancel.method, ack.method) == (b"CANCEL", b"ACK")
        assert cancel.via().branch == ack.via().branch == first.via().branch
        assert not any(one.got for one in peers)
        firsts.add(peer.flow.remote)
    assert len(firsts) > 2


# -- what is remembered of servers ----------------------------------------------------------------


@pytest.mark.rfc("DNS-08")
def test_the_next_request_goes_to_the_other_one_first(sim: Sim) -> None:
    send(sim, n=1)
    refuse(sim, reg1(sim))
    send(sim, n=2)
    assert len(reg2(sim).got) == 2
    assert len(reg1(sim).got) == 1
    refuse(sim, reg2(sim))  # both of what waits there comes back
    assert len(reg1(sim).got) == 2
    sim.advance(100.0)
    reg1(sim).got.clear()
    reg2(sim).got.clear()
    send(sim, n=3)
    assert len(reg1(sim).got) == 1
    assert reg2(sim).silent()


@pytest.mark.rfc("DNS-08")
def test_retry_after(sim: Sim) -> None:
    send(sim)
    reg1(sim).send(answer(reg1(sim).take(), 503, headers="Retry-After: 30 (lunch)\r\n"))
    reg2(sim).send(answer(reg2(sim).take(), 200))
    sim.advance(29.0)
    send(sim, n=2)
    assert reg1(sim).silent()
    refuse(sim, reg2(sim))
    assert reg1(sim).silent(), "it wants nothing, and is not asked although the other one is gone"
    sim.advance(2.0)
    send(sim, n=3)
    assert reg1(sim).take().method == b"REGISTER"


@pytest.mark.rfc("DNS-08")
def test_a_single_server_is_not_left_alone(sim: Sim) -> None:
    sim.zone = {("A", NAME): ("127.0.0.11",)}
    alice = send(sim)
    reg1(sim).send(answer(reg1(sim).take(), 503, headers="Retry-After: 30\r\n"))
    assert statuses(alice) == [500]
    send(sim, n=2)
    assert reg1(sim).take().method == b"REGISTER"


@pytest.mark.rfc("OPS-03")
def test_a_503_that_came_over_a_path_or_from_a_number_says_nothing_about_a_server() -> None:
    sim = Sim(
        RELAY_ALL.replace(
            "    ksr.tm.t_relay(msg)",
            "    from sipedge.forward import Target\n"
            f"    msg.targets = [Target(msg.ruri, path=[b'<sip:{NAME};lr>'])]\n"
            "    ksr.tm.t_relay(msg)",
        )
    )
    sim.zone = dict(TWO)
    send(sim, "INVITE")
    reg1(sim).send(answer(reg1(sim).take(), 503, headers="Retry-After: 30\r\n"))
    assert len(sim.core.blocklist) == 0
    sim = Sim()
    send(sim, uri="sip:127.0.0.11")
    reg1(sim).send(answer(reg1(sim).take(), 503, headers="Retry-After: 30\r\n"))
    send(sim, n=2, uri="sip:127.0.0.11")
    refuse(sim, reg1(sim))
    assert len(sim.core.blocklist) == 0


# -- flows stay flows -----------------------------------------------------------------------------


@pytest.mark.rfc("HPX-06", "DNS-05")
def test_a_flow_is_never_replaced_by_a_server() -> None:
    """The phone's URI could be located, and is not: its flow is dead, so 430."""
    sim = Sim(before_relay("msg.dst_flow = FLOW[0]") + "FLOW = []\n")
    sim.zone = dict(TWO)
    phone = sim.tcp("127.0.0.50")
    flows: list[Flow] = sim.core.request_route.__globals__["FLOW"]  # type: ignore[union-attr]
    flows.append(phone.flow)
    alice = send(sim, "INVITE")
    phone.send(answer(phone.take(), 503, headers="Retry-After: 30\r\n"))
    assert statuses(alice) == [500]
    assert len(sim.core.blocklist) == 0
    phone.close()
    send(sim, "INVITE", 2)
    assert statuses(alice) == [500, 430]
    assert sim.asked == []
    assert sim.dialed == []


def test_nobody_dials_a_websocket() -> None:
    sim = Sim()
    sim.core.flows.add_listener(Listener(WS, "127.0.0.1", 8080))
    sim.zone = {("A", NAME): ("127.0.0.11",)}
    alice = send(sim, uri="sip:bob@127.0.0.11;transport=ws")
    send(sim, n=2, uri=f"sip:bob@{NAME};transport=ws")
    assert statuses(alice) == [500, 500]
    assert sim.dialed == []


# -- RFC 3261 §16.6 item 7 ------------------------------------------------------------------------


@pytest.mark.rfc("PXF-06")
def test_the_first_route_decides_and_a_sips_uri_wants_tls_whoever_decides() -> None:
    sim = Sim()
    sim.core.flows.add_listener(Listener(TLS, "127.0.0.1", 5061))
    sim.zone = {
        ("NAPTR", NAME): (
            Naptr(1, 1, "s", "SIP+D2U", "", f"_sip._udp.{NAME}"),
            Naptr(9, 1, "s", "SIPS+D2T", "", f"_sips._tcp.{NAME}"),
        ),
        ("SRV", f"_sips._tcp.{NAME}"): (Srv(1, 1, 5099, "r1.example"),),
        ("SRV", f"_sip._udp.{NAME}"): (Srv(1, 1, 5060, "r1.example"),),
        ("A", "r1.example"): ("127.0.0.11",),
    }
    send(sim, "INVITE", uri="sip:bob@127.0.0.99", headers=f"Route: <sip:{NAME};lr>\r\n")
    assert reg1(sim).take().ruri == b"sip:bob@127.0.0.99"
    route = f"Route: <sip:{NAME};lr>\r\n"
    send(sim, "INVITE", 2, uri="sips:bob@127.0.0.99", headers=route)
    send(sim, "INVITE", 3, uri="sips:bob@127.0.0.99", headers="Route: <sip:127.0.0.12;lr>\r\n")
    assert [(flow.transport, flow.remote, flow.server_name) for flow in sim.dialed] == [
        (TLS, ("127.0.0.11", 5099), NAME), (TLS, ("127.0.0.12", 5061), "127.0.0.12"),
    ]  # fmt: skip


def test_maddr_is_where_it_goes() -> None:
    sim = Sim()
    send(sim, "INVITE", uri="sip:bob@nowhere.example;maddr=127.0.0.11")
    assert reg1(sim).take().ruri == b"sip:bob@nowhere.example;maddr=127.0.0.11"


# -- RFC 3261 §18.1.1 -----------------------------------------------------------------------------


@pytest.mark.rfc("TRN-11")
def test_a_big_request_leaves_over_tcp() -> None:
    sim = Sim()
    alice = send(sim, "MESSAGE", uri="sip:bob@127.0.0.11", body=BIG)
    (flow,) = sim.dialed
    assert (flow.transport, flow.remote) == (TCP, ("127.0.0.11", 5060))
    peer = sim.peers[TCP, flow.remote]
    msg = peer.take()
    assert msg.via().transport == b"TCP"
    assert reg1(sim).silent()
    peer.send(answer(msg, 200))
    assert statuses(alice) == [200]
    send(sim, "MESSAGE", 2, uri="sip:bob@127.0.0.11", body="small")
    assert reg1(sim).take().via().transport == b"UDP"


@pytest.mark.rfc("TRN-11")
def test_back_to_udp_where_nobody_listens_on_tcp() -> None:
    sim = Sim()
    alice = send(sim, "MESSAGE", uri="sip:bob@127.0.0.11", body=BIG)
    (flow,) = sim.dialed
    sim.core.flow_closed(flow, "connecting failed: connection refused", sim.now)
    sim.drain()
    msg = reg1(sim).take()
    assert msg.via().transport == b"UDP"
    reg1(sim).send(answer(msg, 200))
    assert statuses(alice) == [200]
    send(sim, "MESSAGE", 2, uri="sip:bob@127.0.0.11", body=BIG)
    assert reg1(sim).take().via().transport == b"UDP", "that is remembered"
    assert len(sim.dialed) == 1
    sim.advance(61.0)
    send(sim, "MESSAGE", 3, uri="sip:bob@127.0.0.11", body=BIG)
    assert len(sim.dialed) == 2


@pytest.mark.rfc("TRN-11", "DNS-05")
def test_a_big_request_and_two_servers(sim: Sim) -> None:
    alice = send(sim, "MESSAGE", body=BIG)
    sim.core.flow_closed(sim.dialed[0], "refused", sim.now)
    sim.drain()
    refuse(sim, reg1(sim))
    msg = reg2(sim).take()
    reg2(sim).send(answer(msg, 200))
    assert statuses(alice) == [200]


@pytest.mark.rfc("TRN-11")
@pytest.mark.parametrize(
    "source",
    [
        RELAY_ALL.replace('listen("tcp:127.0.0.1:5060")', ""),
        RELAY_ALL.replace('listen("tcp:127.0.0.1:5060")', 'listen("tcp:[::1]:5060")'),
        "core.udp_mtu = 0\n" + RELAY_ALL,
        "core.udp_mtu = 9000\n" + RELAY_ALL,
    ],
)
def test_no_tcp_of_ours_or_none_wanted(source: str) -> None:
    sim = Sim(source)
    send(sim, "MESSAGE", uri="sip:bob@127.0.0.11", body=BIG)
    assert reg1(sim).take().via().transport == b"UDP"
    assert sim.dialed == []


@pytest.mark.rfc("TRN-11")
def test_a_flow_keeps_its_transport() -> None:
    sim = Sim(before_relay("msg.dst_flow = msg.flow"))
    alice = send(sim, "MESSAGE", body=BIG)
    assert alice.got[0].via().transport == b"UDP"
    assert alice.flow.transport == UDP
    assert sim.dialed == []


# -- an ACK to a 2xx ------------------------------------------------------------------------------


def test_an_ack_goes_to_the_first_server(sim: Sim) -> None:
    alice = sim.udp()
    alice.send(request("ACK", f"sip:{NAME}", to_tag="t1"))
    assert reg1(sim).take().method == b"ACK"
    alice.send(request("ACK", "sip:x.invalid", to_tag="t1", branch="z9hG4bK2"))
    assert sim.core.stats["exceptions"] == 0
