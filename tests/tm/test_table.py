"""Which transaction a request belongs to, and the names that we write ourselves."""

from __future__ import annotations

import pytest

from sipedge.sip.message import parse
from sipedge.tm.table import Transactions
from tests.sim import Sim, request


@pytest.fixture
def table() -> Transactions:
    return Sim().core.tm


@pytest.mark.rfc("TXN-02")
def test_branch_sent_by_and_method_make_the_key(table: Transactions) -> None:
    def key(**changes: str) -> bytes:
        method = changes.pop("method", "INVITE")
        return table.key(parse(request(method, **changes)))  # type: ignore[arg-type]

    first = key()
    assert key() == first
    assert key(method="ACK") == key(method="CANCEL") == first
    assert key(method="BYE") != first
    assert key(branch="z9hG4bKother") != first
    assert key(via="SIP/2.0/UDP 127.0.0.3:5060") != first, "the same branch of somebody else"
    assert key(call_id="other") == first, "the branch says it all"


@pytest.mark.rfc("TXN-03")
def test_without_a_unique_branch_everything_counts(table: Transactions) -> None:
    branch = "1"
    first = table.key(parse(request(branch=branch)))
    assert table.key(parse(request(branch=branch))) == first
    assert table.key(parse(request(branch=branch, call_id="other"))) != first
    assert table.key(parse(request(branch=branch, cseq=2))) != first
    assert table.key(parse(request(branch=branch, from_tag="other"))) != first
    acked = parse(request("ACK", branch=branch, to_tag="t"))
    assert table.key(acked) == first, "the ACK to an error has a To tag, the INVITE had none"


def test_branches_are_unique_and_ours(table: Transactions) -> None:
    branches = [table.new_branch(7) for _ in range(100)]
    assert len(set(branches)) == 100
    assert all(branch.startswith(b"z9hG4bK" + table.magic) for branch in branches)
    assert table.magic != Sim().core.tm.magic, "another edge, other names"


@pytest.mark.rfc("UAS-05")
def test_the_to_tag_is_the_same_for_every_answer(table: Transactions) -> None:
    msg = parse(request())
    assert table.tag(msg) == table.tag(parse(request()))
    assert table.tag(msg) != table.tag(parse(request(branch="z9hG4bKother")))


def test_answers_are_forgotten_after_timer_j() -> None:
    sim = Sim()
    table = sim.core.tm
    for seconds in (0.0, 0.2, 3.0):
        sim.advance(seconds)
        table.host.now = sim.now
        table.answered(b"key %d" % (seconds * 10), b"SIP/2.0 200 OK", False)
    assert len(table.servers) == 3
    table.sweep(sim.now + table.timers.wait - 1.0)
    assert list(table.servers) == [b"key 30"]
    table.sweep(sim.now + table.timers.wait + 2.0)
    assert table.servers == {}
    table.answered(b"stream", b"SIP/2.0 200 OK", True)
    assert table.servers == {}, "nothing is repeated over a stream"


ODD = [
    "SIP/2.0/UDP h;a;b;branch=z9hG4bKx",
    'SIP/2.0/UDP h;a="x;branch=z9hG4bK,";branch=z9hG4bKx;b=',
    'SIP/2.0/UDP h;a="\\"";branch',
    "SIP/2.0/UDP h;branch=",
    "SIP/2.0/UDP h;branch=z9hG4bK",
    "SIP / 2.0 / UDP [::1] ; received=[::2] ;branch = z9hG4bKx.y.z",
    "SIP/3.0/SCTP h;ttl=300;branch=z9hG4bK" + "x" * 300,
]


@pytest.mark.rfc("LOP-05")
@pytest.mark.parametrize("via", ODD)
def test_vias_of_others_do_not_disturb_the_search_for_loops(via: str) -> None:
    sim = Sim()
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request(headers=f"Via: {via}\r\n"))
    sent = bob.raw[-1]
    assert sent.count(b"Via:") == 3
    bob.got.clear()
    again = b"Via: SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bKb\r\nVia: %s\r\nVia:" % via.encode()
    bob.send(sent.replace(b"Via:", again, 1))
    assert [msg.status for msg in bob.got] == [482]
    assert sim.core.stats["exceptions"] == 0
