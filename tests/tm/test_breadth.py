"""Max-Breadth (RFC 5393 §5.3): no more branches at a time than the request may have."""

from __future__ import annotations

import pytest

from sipedge.forward import Target, breadth_of
from sipedge.sip.message import SipMessage, parse
from tests.sim import RELAY_ALL, Peer, Sim, answer, request

FORK = RELAY_ALL.replace(
    "    ksr.tm.t_relay(msg)",
    "    for n in (2, 3):\n        ksr.tm.append_branch(msg, 'sip:b%d@127.0.0.1%d' % (n, n))\n"
    "    ksr.tm.t_relay(msg)",
)
#: after ``t_relay``
MORE = """
    for n in (2, 3):
        ksr.tm.append_branch(msg, 'sip:b%d@127.0.0.1%d' % (n, n))
    msg.ruri = b'sip:b2@127.0.0.12'
    ksr.tm.t_relay(msg)
"""


def ua(sim: Sim, n: int) -> Peer:
    return sim.udp(f"127.0.0.1{n}")


def call(sim: Sim, *values: str, method: str = "INVITE") -> Peer:
    alice = sim.udp()
    headers = "".join(f"Max-Breadth: {value}\r\n" for value in values)
    alice.send(request(method, "sip:b1@127.0.0.11", headers=headers))
    return alice


def breadths(msg: SipMessage) -> list[bytes]:
    return msg.rows(b"max-breadth")


@pytest.mark.rfc("LOP-03")
@pytest.mark.parametrize(
    ("came", "goes"),
    [
        ((), b"60"), (("60",), b"60"), (("1000",), b"60"), (("99999999999999",), b"60"),
        (("7",), b"7"), (("1",), b"1"), (("x",), b"60"), ((" 3 ",), b"3"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "ACK"])
def test_exactly_one_in_every_request(method: str, came: tuple[str, ...], goes: bytes) -> None:
    sim = Sim()
    call(sim, *came, method=method)
    msg = ua(sim, 1).take()
    assert breadths(msg) == [goes]
    assert b"\r\n\r\n" in msg.to_bytes()


@pytest.mark.rfc("LOP-03")
def test_it_is_not_lowered_from_hop_to_hop() -> None:
    sim = Sim()
    sim.udp().send(request("INVITE", "sip:b1@127.0.0.11", headers="MAX-BREADTH: 17\r\n"))
    assert breadths(ua(sim, 1).take()) == [b"17"]


@pytest.mark.rfc("LOP-04")
def test_none_at_all_is_440() -> None:
    for source in (RELAY_ALL, FORK):
        sim = Sim(source)
        alice = call(sim, "0")
        assert alice.got[-1].status == 440
        assert all(ua(sim, n).silent() for n in (1, 2, 3))


@pytest.mark.rfc("LOP-04")
@pytest.mark.parametrize(("came", "shares"), [(None, [20] * 3), (10, [4, 3, 3]), (3, [1] * 3)])
def test_parallel_branches_share_it(came: int | None, shares: list[int]) -> None:
    sim = Sim(FORK)
    call(sim, *([str(came)] if came else []))
    got = [int(breadths(ua(sim, n).take())[0]) for n in (1, 2, 3)]
    assert got == shares
    assert sum(got) <= (came or 60)


@pytest.mark.rfc("LOP-04")
def test_one_at_a_time_if_there_is_no_more() -> None:
    sim = Sim(FORK)
    alice = call(sim, "1")
    for n in (1, 2, 3):
        ringing = [i for i in (1, 2, 3) if ua(sim, i).got]
        assert ringing == [n]
        msg = ua(sim, n).take()
        assert breadths(msg) == [b"1"]
        ua(sim, n).send(answer(msg, 486))
        assert ua(sim, n).take().method == b"ACK"
    assert alice.got[-1].status == 486


@pytest.mark.rfc("LOP-04")
def test_what_is_free_again_is_used() -> None:
    sim = Sim(FORK)
    alice = call(sim, "2")
    first, second = ua(sim, 1).take(), ua(sim, 2).take()
    assert ua(sim, 3).silent()
    ua(sim, 1).send(answer(first, 486))
    ua(sim, 2).send(answer(second, 486))
    third = ua(sim, 3).take()
    assert breadths(third) == [b"2"]
    ua(sim, 3).send(answer(third, 200))
    assert alice.got[-1].status == 200


@pytest.mark.rfc("LOP-04")
def test_more_targets_while_nothing_is_free_have_to_wait() -> None:
    sim = Sim(RELAY_ALL.replace("    ksr.tm.t_relay(msg)", "    ksr.tm.t_relay(msg)\n" + MORE))
    alice = call(sim, "1")
    assert sim.core.stats["exceptions"] == 0
    first = ua(sim, 1).take()
    assert ua(sim, 2).silent()
    ua(sim, 1).send(answer(first, 486))
    ua(sim, 2).send(answer(ua(sim, 2).take(), 200))
    assert alice.got[-1].status == 200


@pytest.mark.rfc("LOP-04")
def test_a_2xx_ends_what_has_not_begun() -> None:
    sim = Sim(FORK)
    call(sim, "1")
    ua(sim, 1).send(answer(ua(sim, 1).take(), 200))
    sim.advance(40.0)
    assert ua(sim, 2).silent()


@pytest.mark.rfc("LOP-04", "HPX-15")
@pytest.mark.parametrize(("came", "after_s"), [("60", 4.0), ("2", 4.0), ("1", 32.0)])
def test_silence_starts_a_second_branch_only_if_it_may_be(came: str, after_s: float) -> None:
    sim = Sim()
    sim.zone = {("A", "core.example"): ("127.0.0.11", "127.0.0.12")}
    alice = sim.udp()
    alice.send(request(uri="sip:core.example", headers=f"Max-Breadth: {came}\r\n"))
    first = int(breadths(ua(sim, 1).take())[0])
    sim.advance(after_s - 0.2)
    assert ua(sim, 2).silent()
    sim.advance(0.5)
    second = ua(sim, 2).take()
    live = first if after_s < 30 else 0
    assert live + int(breadths(second)[0]) <= int(came)
    ua(sim, 2).send(answer(second, 200))
    assert alice.got[-1].status == 200


@pytest.mark.rfc("LOP-04")
def test_flows_of_one_instance_leave_room_for_the_next() -> None:
    source = RELAY_ALL.replace("    ksr.tm", "    msg.targets = TARGETS\n    ksr.tm")
    sim = Sim(source + "TARGETS = []\n")
    targets = sim.core.request_route.__globals__["TARGETS"]  # type: ignore[union-attr]
    targets += [Target(b"sip:b@127.0.0.1%d" % n, instance=b"<urn:x:1>") for n in (1, 2, 3)]
    call(sim)
    shares = []
    for n in (1, 2, 3):
        shares.append(int(breadths(ua(sim, n).take())[0]))
        sim.advance(4.2)
    assert shares == [30, 15, 15]


def test_the_value_of_a_request() -> None:
    for lines, value in (("", 60), ("Max-Breadth: 5\r\n", 5), ("Max-Breadth: 5;x\r\n", 60)):
        msg = parse(request(headers=lines))
        assert breadth_of(msg) == value
