"""RFC 3261 §17 with 6026 and 4320, on the wire of a core without sockets."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from sipedge.sip.message import SipMessage
from sipedge.tm.client import ClientTx
from sipedge.tm.server import ServerTx
from tests.sim import Sim, answer, request

START = 1000.0


def times(sim: Sim, step: float, until: float, count: Callable[[], int]) -> list[float]:
    """When ``count`` grew, in seconds since the start, to the tick."""
    seen, at = count(), []
    while sim.now < START + until:
        sim.advance(step)
        if count() > seen:
            at.append(round(sim.now - START, 1))
            seen = count()
    return at


@pytest.mark.rfc("TXN-01", "PXF-02", "PXF-08", "PXF-10")
def test_invite_is_forwarded_and_answered_with_100() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    trying, invite = alice.take(), bob.take()
    assert trying.status == 100
    assert not trying.to_tag
    assert invite.first(b"max-forwards") == b"69"
    vias = invite.values(b"via")
    assert len(vias) == 2
    assert vias[0].startswith(b"SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK")
    assert b"received=127.0.0.2" in vias[1]


@pytest.mark.rfc("PXP-01", "PXP-02", "PXP-05", "PXP-08", "TXN-09", "TXN-10")
def test_call_is_relayed_both_ways() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    invite = bob.take()
    bob.send(answer(invite, 100))
    bob.send(answer(invite, 180, "Ringing"))
    bob.send(answer(invite, 200, "OK", headers="X-Odd:  kept \r\n"))
    assert [m.status for m in alice.got] == [100, 180, 200]
    ok = alice.got[2]
    assert ok.to_tag == b"t1"
    assert len(ok.values(b"via")) == 1
    assert b"X-Odd:  kept " in ok.lines
    alice.got.clear()
    alice.send(request())  # RFC 6026: a repeated INVITE after the 200 is absorbed
    assert alice.silent()
    assert bob.silent()
    bob.send(answer(invite, 200, "OK"))  # and a repeated 200 is passed on
    assert alice.take().status == 200
    alice.send(request("ACK", branch="z9hG4bKack", to_tag="t1"))
    assert bob.take().method == b"ACK"


@pytest.mark.rfc("TXN-04")
def test_invite_client_retransmits_by_timer_a_until_timer_b() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    assert len(bob.raw) == 1
    at = times(sim, 0.1, 40, lambda: len(bob.raw))
    assert at == pytest.approx([0.5, 1.5, 3.5, 7.5, 15.5, 31.5], abs=0.8)
    assert len(set(bob.raw)) == 1
    assert alice.got[-1].status == 408


@pytest.mark.rfc("TXN-05", "PXN-01", "PXN-02")
def test_non_invite_client_retransmits_and_never_answers_408() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request("OPTIONS"))
    at = times(sim, 0.1, 12, lambda: len(bob.raw))
    assert at == pytest.approx([0.5, 1.5, 3.5, 7.5, 11.5], abs=0.8)
    trying = alice.take()
    assert trying.status == 100
    sim.advance(60)
    assert alice.silent()
    bob.send(answer(bob.take(), 200))
    assert alice.silent()  # RFC 4320 §4.2: late


@pytest.mark.rfc("PXN-01")
def test_no_100_to_a_non_invite_before_3_5_seconds() -> None:
    sim = Sim()
    alice, _ = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request("OPTIONS"))
    sim.advance(3.3)
    assert alice.silent()
    sim.advance(0.4)
    assert alice.take().status == 100


@pytest.mark.rfc("TXN-06", "INC-10")
def test_final_error_is_acked_hop_by_hop_and_again_when_repeated() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request(headers="Route: <sip:127.0.0.9;lr>\r\n"))
    invite = bob.take()
    busy = answer(invite, 486, "Busy Here")
    bob.send(busy)
    ack = bob.take()
    assert ack.method == b"ACK"
    assert ack.ruri == invite.ruri
    assert ack.values(b"via") == invite.values(b"via")[:1]
    assert ack.to_tag == b"t1"
    assert ack.values(b"route") == [b"<sip:127.0.0.9;lr>"]
    assert ack.cseq() == (1, b"ACK")
    bob.send(busy)
    assert bob.take().lines == ack.lines
    assert [m.status for m in alice.got] == [100, 486]


@pytest.mark.rfc("TXN-07", "TXN-02")
def test_final_error_is_repeated_until_the_ack() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    bob.send(answer(bob.take(), 486))
    alice.raw.clear()
    at = times(sim, 0.1, 8, lambda: len(alice.raw))
    assert at == pytest.approx([0.5, 1.5, 3.5, 7.5], abs=0.8)
    alice.raw.clear()
    bob.got.clear()
    alice.send(request("ACK", to_tag="t1"))
    sim.advance(20)
    assert not alice.raw
    assert bob.silent()  # the ACK went no further


@pytest.mark.rfc("TXN-08", "TXN-02", "REG-14")
def test_answered_non_invite_is_answered_again_from_memory() -> None:
    sim = Sim()
    alice, bob, carol = sim.udp(), sim.udp("127.0.0.9"), sim.udp("127.0.0.3")
    alice.send(request("MESSAGE"))
    bob.send(answer(bob.take(), 200))
    first = alice.raw[-1]
    alice.send(request("MESSAGE"))
    assert alice.raw[-1] == first
    assert len(alice.raw) == 2
    assert bob.silent()
    # the same branch from another client is another transaction
    carol.send(request("MESSAGE", via="SIP/2.0/UDP 127.0.0.3:5060"))
    assert bob.take().method == b"MESSAGE"
    sim.advance(40)
    alice.send(request("MESSAGE"))
    assert bob.take().method == b"MESSAGE"  # timer J is over


@pytest.mark.rfc("TXN-12", "PXP-07", "TRN-07")
def test_responses_that_match_nothing_are_dropped() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    good = answer(bob.take(), 180)
    alice.got.clear()
    bob.send(good.replace(b"branch=z9hG4bK", b"branch=z9hG4bKx", 1))
    bob.send(good.replace(b"UDP 127.0.0.1:5060", b"UDP 127.0.0.7:5060", 1))
    bob.send(good.replace(b"1 INVITE", b"1 MESSAGE"))
    assert alice.silent()
    assert sim.core.stats["responses_unmatched"] == 3
    bob.send(good)
    assert alice.take().status == 180


@pytest.mark.rfc("TXN-03")
def test_rfc_2543_client_without_a_branch() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    old = request().replace(b";branch=z9hG4bKa1", b"")
    alice.send(old)
    invite = bob.take()
    alice.send(old)
    assert bob.silent()
    bob.send(answer(invite, 404))
    bob.take()
    assert alice.got[-1].status == 404
    alice.send(request("ACK", to_tag="t1").replace(b";branch=z9hG4bKa1", b""))
    assert bob.silent()


@pytest.mark.rfc("PXC-01", "PXC-03")
def test_cancel_waits_for_a_provisional_response() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    invite = bob.take()
    alice.got.clear()
    alice.send(request("CANCEL", headers="Require: foo\r\n"))
    assert alice.take().status == 200
    assert bob.silent()
    bob.send(answer(invite, 180))
    cancel = bob.take()
    assert cancel.method == b"CANCEL"
    assert cancel.ruri == invite.ruri
    assert cancel.values(b"via") == invite.values(b"via")[:1]
    assert cancel.cseq() == (1, b"CANCEL")
    assert not cancel.has(b"require")
    bob.send(answer(cancel, 200))
    bob.send(answer(invite, 487))
    assert bob.take().method == b"ACK"
    assert [m.status for m in alice.got] == [180, 487]
    sim.advance(4)
    assert bob.silent()  # the CANCEL is not repeated once it was answered


@pytest.mark.rfc("PXC-01")
def test_cancelled_call_that_nobody_answers_ends_with_487() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    alice.send(request("CANCEL"))
    sim.advance(40)
    assert {m.method for m in bob.got} == {b"INVITE"}
    assert [m.status for m in alice.got if m.cseq()[1] == b"INVITE"][-1] == 487


@pytest.mark.rfc("TXN-09")
def test_ack_to_a_2xx_is_routed_even_with_the_branch_of_the_invite() -> None:
    """Some user agents write no new branch."""
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    bob.send(answer(bob.take(), 200))
    alice.send(request("ACK", to_tag="t1"))
    assert bob.take().method == b"ACK"


@pytest.mark.rfc("PXC-02")
def test_cancel_without_an_invite_is_481() -> None:
    sim = Sim()
    alice = sim.udp()
    alice.send(request("CANCEL"))
    assert alice.take().status == 481


@pytest.mark.rfc("PXF-10", "PXC-01")
def test_timer_c_cancels_a_call_that_rings_forever() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    invite = bob.take()
    bob.send(answer(invite, 180))
    sim.advance(120)
    bob.send(answer(invite, 183))  # starts timer C again
    sim.advance(120)
    assert bob.silent()
    sim.advance(80)
    assert bob.take().method == b"CANCEL"
    sim.advance(60)
    assert alice.got[-1].status == 408


@pytest.mark.rfc("TXN-11", "PXE-01", "TRN-05")
def test_caller_connection_lost_does_not_end_the_transaction() -> None:
    sim = Sim()
    alice, bob = sim.tcp(), sim.udp("127.0.0.9")
    alice.send(request(via="SIP/2.0/TCP 127.0.0.2:40000"))
    invite = bob.take()
    bob.send(answer(invite, 180))
    alice.close()
    bob.send(answer(invite, 200))
    assert bob.silent()  # not cancelled, and nobody was dialed
    assert not sim.dialed
    assert [m.status for m in alice.got] == [100, 180]


@pytest.mark.rfc("PXV-03", "PXV-04", "PXV-06", "PXV-02")
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("MESSAGE", max_forwards=0), 483),
        (request("MESSAGE", headers="Proxy-Require: foo\r\n"), 420),
        (request("MESSAGE", uri="nobodyKnowsThisScheme:totallyopaquecontent"), 416),
    ],
)
def test_requests_that_are_refused(data: bytes, status: int) -> None:
    sim = Sim()
    alice = sim.udp()
    alice.send(data)
    reply = alice.take()
    assert reply.status == status
    assert reply.to_tag
    assert reply.call_id == b"c1@127.0.0.2"
    assert reply.values(b"via")[0].endswith(b";rport=5060;received=127.0.0.2") or (
        b"received=127.0.0.2" in reply.values(b"via")[0]
    )
    if status == 420:
        assert reply.first(b"unsupported") == b"foo"
    assert sim.core.stats["exceptions"] == 0


@pytest.mark.rfc("PXV-01", "PXV-04")
def test_unknown_methods_and_headers_pass() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request("FOO", headers="Date: no date\r\nRequire: foo\r\nX-\x7e: \xe9\r\n"))
    foo = bob.take()
    assert b"Date: no date" in foo.lines
    assert foo.first(b"require") == b"foo"


@pytest.mark.rfc("LOP-01", "LOP-02")
def test_loop_is_482_and_spiral_is_not() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request())
    sent = bob.raw[-1]
    bob.got.clear()
    again = b"Via: SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bKb%d\r\nVia:"
    bob.send(sent.replace(b"Via:", again % 1, 1))
    assert [m.status for m in bob.got] == [482]
    bob.got.clear()
    bob.send(
        sent.replace(b"Via:", again % 2, 1).replace(b"sip:bob@127.0.0.9", b"sip:bo@127.0.0.9", 1)
    )
    assert [m.status or m.method for m in bob.got] == [100, b"INVITE"]


@pytest.mark.rfc("TXN-13")
def test_nothing_stays_of_ended_transactions() -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    gc.collect()
    for n in range(200):
        alice.send(request(branch=f"z9hG4bKn{n}", call_id=f"n{n}"))
        invite = bob.take()
        if n % 4 == 0:
            bob.send(answer(invite, 180))
            alice.send(request("CANCEL", branch=f"z9hG4bKn{n}", call_id=f"n{n}"))
            bob.send(answer(bob.take(), 200))
            bob.send(answer(invite, 487))
        elif n % 4 == 1:
            bob.send(answer(invite, 200))
        elif n % 4 == 2:
            alice.send(request("MESSAGE", branch=f"z9hG4bKm{n}", call_id=f"m{n}"))
            bob.send(answer(bob.take(), 200))
        bob.got.clear()
    sim.advance(400)
    alice.got.clear()
    bob.got.clear()
    tm = sim.core.tm
    assert not tm.servers
    assert not tm.clients
    assert not tm.cancels
    gc.disable()  # what is left would be kept by a cycle: there must be none
    try:
        left = [o for o in gc.get_objects() if isinstance(o, ClientTx | ServerTx | SipMessage)]
        pending = [tx for peer in (alice, bob) for tx in peer.flow.pending]
        assert all(tx.server is tx.response is tx.flow is None and not tx.data for tx in pending)
        assert not [o for o in left if isinstance(o, ServerTx)]
        assert len([o for o in left if isinstance(o, SipMessage)]) < 10
        assert {id(o) for o in left if isinstance(o, ClientTx)} <= {id(tx) for tx in pending}
    finally:
        gc.enable()
