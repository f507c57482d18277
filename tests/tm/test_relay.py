"""Forking, failover between flows and the best answer: RFC 3261 §16.7, RFC 5626 §7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipedge.forward import Target
from sipedge.tm.relay import group_targets
from tests.sim import RELAY_ALL, Peer, Sim, answer, request

FORKS = RELAY_ALL.replace("def request_route", "def unused")


def forking(*targets: Target, home: bool = False, route: str = "") -> tuple[Sim, Peer]:
    """An edge whose route sends everything to the given targets."""
    body = route or "    ksr.tm.t_relay(msg)\n"
    sim = Sim(FORKS + "def request_route(ksr, msg):\n    TARGETS(msg)\n" + body)

    def give(msg: Any) -> None:
        if home:
            msg.targets = list(targets)
        else:
            msg.branches = list(targets[1:])
            msg.ruri = targets[0].uri
            msg.lines[0] = b"%s %s SIP/2.0" % (msg.method, msg.ruri)

    sim.edge.config.routes["request_route"].__globals__["TARGETS"] = give
    return sim, sim.udp()


def uri(n: int) -> bytes:
    return b"sip:bob@127.0.0.1%d:5060" % n


def ua(sim: Sim, n: int) -> Peer:
    return sim.udp(f"127.0.0.1{n}")


def flow_target(sim: Sim, n: int, instance: bytes = b"I", **more: Any) -> Target:
    return Target(uri(n), flow=ua(sim, n).flow, instance=instance, reg_id=n, **more)


def home_sim(make: Callable[[Sim], list[Target]], route: str = "") -> tuple[Sim, Peer]:
    sim, alice = forking(home=True, route=route)
    targets = make(sim)
    sim.edge.config.routes["request_route"].__globals__["TARGETS"] = lambda msg: setattr(
        msg, "targets", list(targets)
    )
    return sim, alice


@pytest.mark.rfc("PXP-06", "HPX-11", "PXP-02")
def test_parallel_branches_and_cancel_of_the_loser() -> None:
    sim, alice = forking(Target(uri(1)), Target(uri(2)))
    alice.send(request())
    one, two = ua(sim, 1).take(), ua(sim, 2).take()
    assert one.via().branch != two.via().branch
    assert one.ruri == uri(1)
    assert two.ruri == uri(2)
    ua(sim, 1).send(answer(one, 180, tag="a"))
    ua(sim, 2).send(answer(two, 180, tag="b"))
    ua(sim, 2).send(answer(two, 200, tag="b"))
    assert ua(sim, 1).take().method == b"CANCEL"
    ua(sim, 1).send(answer(one, 200, tag="a"))  # crossed the CANCEL: a second 2xx
    assert [(m.status, m.to_tag) for m in alice.got] == [
        (100, b""), (180, b"a"), (180, b"b"), (200, b"b"), (200, b"a"),
    ]  # fmt: skip


@pytest.mark.rfc("PXP-04")
@pytest.mark.parametrize(
    ("statuses", "best"),
    [
        ((486, 404), 486),
        ((404, 401), 401),
        ((302, 404), 302),
        ((500, 404), 404),
        ((603, 404), 603),
        ((430, 404), 404),
        ((430, 500), 500),
        ((430, 430), 430),
        ((503, 503), 500),
        ((503, 404), 404),
        ((480, 484), 484),
    ],
)
def test_best_answer(statuses: tuple[int, int], best: int) -> None:
    sim, alice = forking(Target(uri(1)), Target(uri(2)))
    alice.send(request())
    alice.got.clear()
    for n, status in enumerate(statuses, 1):
        peer = ua(sim, n)
        peer.send(answer(peer.take(), status))
    finals = [m.status for m in alice.got if m.status >= 200]
    assert finals == [best]


@pytest.mark.rfc("PXP-03")
def test_6xx_ends_the_other_branches_first() -> None:
    sim, alice = forking(Target(uri(1)), Target(uri(2)))
    alice.send(request())
    one, two = ua(sim, 1).take(), ua(sim, 2).take()
    ua(sim, 1).send(answer(one, 180))
    ua(sim, 2).send(answer(two, 603))
    assert ua(sim, 1).take().method == b"CANCEL"
    assert 603 not in [m.status for m in alice.got]
    ua(sim, 1).send(answer(one, 487))
    assert [m.status for m in alice.got] == [100, 180, 603]


@pytest.mark.rfc("AUT-12")
def test_challenges_of_all_branches_are_gathered() -> None:
    sim, alice = forking(Target(uri(1)), Target(uri(2)))
    alice.send(request())
    for n in (1, 2):
        peer = ua(sim, n)
        challenge = f'WWW-Authenticate: Digest realm="r{n}"\r\n'
        peer.send(answer(peer.take(), 401, headers=challenge))
    assert alice.got[-1].rows(b"www-authenticate") == [b'Digest realm="r1"', b'Digest realm="r2"']


@pytest.mark.rfc("HPX-01", "HPX-02", "HPX-13", "HPX-04")
@pytest.mark.parametrize("status", [430, 408])
def test_next_flow_of_the_instance_after_430_or_408(status: int) -> None:
    sim, alice = home_sim(lambda sim: [flow_target(sim, 1), flow_target(sim, 2)])
    alice.send(request())
    first = ua(sim, 1).take()
    assert ua(sim, 2).silent()
    ua(sim, 1).send(answer(first, status))
    second = ua(sim, 2).take()
    assert second.first(b"max-forwards") == first.first(b"max-forwards") == b"69"
    assert second.via().branch != first.via().branch
    assert second.ids == first.ids
    ua(sim, 2).send(answer(second, 180))
    ua(sim, 2).send(answer(second, 200))
    assert [m.status for m in alice.got] == [100, 180, 200]


@pytest.mark.rfc("HPX-03")
@pytest.mark.parametrize("status", [404, 486, 500, 503, 603])
def test_other_answers_end_the_instance(status: int) -> None:
    sim, alice = home_sim(lambda sim: [flow_target(sim, 1), flow_target(sim, 2)])
    alice.send(request())
    ua(sim, 1).send(answer(ua(sim, 1).take(), status))
    assert ua(sim, 2).silent()
    assert alice.got[-1].status == (500 if status == 503 else status)


@pytest.mark.rfc("HPX-08", "INC-13", "INC-04")
def test_all_flows_dead_is_480_for_the_caller() -> None:
    sim, alice = home_sim(lambda sim: [flow_target(sim, 1), flow_target(sim, 2)])
    alice.send(request())
    sim.core.flow_unreachable(ua(sim, 1).flow, sim.now)
    sim.drain()
    assert ua(sim, 2).take().method == b"INVITE"
    sim.core.flow_unreachable(ua(sim, 2).flow, sim.now)
    sim.drain()
    assert [m.status for m in alice.got] == [100, 480]


@pytest.mark.rfc("INC-04", "INC-14", "TRN-05")
def test_dead_stream_is_430_before_anything_is_sent_and_at_once_when_lost() -> None:
    sim = Sim(FORKS + "def request_route(ksr, msg):\n    FLOW(msg)\n    ksr.tm.t_relay(msg)\n")
    bob, alice = sim.tcp("127.0.0.9"), sim.udp()
    sim.edge.config.routes["request_route"].__globals__["FLOW"] = lambda msg: setattr(
        msg, "dst_flow", bob.flow
    )
    alice.send(request())
    invite = bob.take()
    bob.send(answer(invite, 180))
    bob.close()
    assert [m.status for m in alice.got] == [100, 180, 430]
    alice.got.clear()
    alice.send(request(branch="z9hG4bKb", cseq=2))
    assert alice.got[-1].status == 430
    alice.send(request("ACK", branch="z9hG4bKc", cseq=1, to_tag="t1"))
    assert bob.silent()
    assert not sim.dialed
    assert len(alice.got) == 2  # requirement INC-11: nothing for the ACK


@pytest.mark.rfc("HPX-09")
def test_owner_of_a_dead_binding_names_the_refreshed_one() -> None:
    calls: list[tuple[int, int]] = []

    def make(sim: Sim) -> list[Target]:
        def failed(target: Target, status: int) -> list[Target]:
            calls.append((target.reg_id, status))
            return [flow_target(sim, 3)]

        return [flow_target(sim, 1, on_failed=failed), flow_target(sim, 2)]

    sim, alice = home_sim(make)
    alice.send(request())
    ua(sim, 1).send(answer(ua(sim, 1).take(), 430))
    assert calls == [(1, 430)]
    assert ua(sim, 3).take().method == b"INVITE"
    assert ua(sim, 2).silent()


@pytest.mark.rfc("HPX-14")
def test_caller_cancel_stops_the_retries() -> None:
    sim, alice = home_sim(lambda sim: [flow_target(sim, 1), flow_target(sim, 2)])
    alice.send(request())
    invite = ua(sim, 1).take()
    alice.send(request("CANCEL"))
    ua(sim, 1).send(answer(invite, 430))
    assert ua(sim, 2).silent()
    assert alice.got[-1].status in (430, 480, 487)
    assert len([m for m in alice.got if m.status > 200]) == 1


@pytest.mark.rfc("HPX-15")
def test_silent_edge_is_given_up_and_its_late_answer_still_counts() -> None:
    sim, alice = home_sim(lambda sim: [flow_target(sim, 1), flow_target(sim, 2)])
    alice.send(request())
    late = ua(sim, 1).take()
    sim.advance(5)
    second = ua(sim, 2).take()
    ua(sim, 2).send(answer(second, 180, tag="b"))
    ua(sim, 1).got.clear()
    ua(sim, 1).send(answer(late, 180, tag="a"))
    assert ua(sim, 1).take().method == b"CANCEL"  # it wakes up too late
    assert [m.to_tag for m in alice.got if m.status == 180] == [b"b"]
    ua(sim, 1).send(answer(late, 200, tag="a"))
    assert alice.got[-1].status == 200
    assert alice.got[-1].to_tag == b"a"
    assert ua(sim, 2).got[-1].method == b"CANCEL"


@pytest.mark.rfc("HPX-15", "HPX-04")
def test_message_is_never_sent_to_a_second_flow_on_silence() -> None:
    sim, alice = home_sim(lambda sim: [flow_target(sim, 1), flow_target(sim, 2)])
    alice.send(request("MESSAGE"))
    sim.advance(60)
    assert ua(sim, 2).silent()


@pytest.mark.rfc("HPX-11")
def test_q_groups_one_after_the_other() -> None:
    def make(sim: Sim) -> list[Target]:
        return [
            flow_target(sim, 3, b"C", q=0.1),
            flow_target(sim, 1, b"A", q=0.9),
            flow_target(sim, 2, b"B", q=0.9),
        ]

    sim, alice = home_sim(make)
    alice.send(request())
    one, two = ua(sim, 1).take(), ua(sim, 2).take()
    assert ua(sim, 3).silent()
    ua(sim, 1).send(answer(one, 486))
    ua(sim, 2).send(answer(two, 404))
    three = ua(sim, 3).take()
    ua(sim, 3).send(answer(three, 200))
    assert [m.status for m in alice.got] == [100, 200]


@pytest.mark.rfc("HPX-21", "HPX-01")
def test_grouping_never_rings_one_instance_twice() -> None:
    targets = [
        Target(b"sip:1", instance=b"A", q=0.5),
        Target(b"sip:2", instance=b"A", q=1.0),
        Target(b"sip:3", q=0.5),
    ]
    groups = group_targets(targets)
    assert [[[t.uri for t in flows] for flows in group] for group in groups] == [
        [[b"sip:2", b"sip:1"]],
        [[b"sip:3"]],
    ]


@pytest.mark.rfc("HPX-05", "HPX-17")
def test_path_becomes_route_and_next_hop() -> None:
    path = [b"<sip:tok@127.0.0.11:5060;lr;ob>", b"<sip:127.0.0.77;lr>"]
    strict = [b"<sip:127.0.0.12:5060>"]
    sim, alice = home_sim(
        lambda sim: [
            Target(b"sip:bob@10.0.0.9", path=path),
            Target(b"sip:b2@10.0.0.9", path=strict),
        ]
    )
    alice.send(request(headers="Route: <sip:127.0.0.99;lr>\r\n"))
    loose = ua(sim, 1).take()
    assert loose.ruri == b"sip:bob@10.0.0.9"
    assert loose.values(b"route") == [*path, b"<sip:127.0.0.99;lr>"]
    rewritten = ua(sim, 2).take()
    assert rewritten.ruri == b"sip:127.0.0.12:5060"
    assert rewritten.values(b"route") == [b"<sip:127.0.0.99;lr>", b"<sip:b2@10.0.0.9>"]


@pytest.mark.rfc("PXF-07", "DNS-05")
def test_next_address_of_a_name_when_the_first_is_refused() -> None:
    sim, alice = Sim(), None
    alice = sim.udp()
    sim.zone = {("A", "core.example.com"): ("127.0.0.11", "127.0.0.12")}
    alice.send(request(uri="sip:bob@core.example.com"))
    first = ua(sim, 1).take()
    sim.core.flow_unreachable(ua(sim, 1).flow, sim.now)
    sim.drain()
    second = ua(sim, 2).take()
    assert second.via().branch != first.via().branch
    ua(sim, 2).send(answer(second, 200))
    assert [m.status for m in alice.got] == [100, 200]


@pytest.mark.rfc("WSK-05", "DNS-09")
def test_invalid_names_are_never_looked_up() -> None:
    sim = Sim()
    alice = sim.udp()
    alice.send(request(uri="sip:bob@abc.invalid"))
    assert not sim.asked
    assert alice.got[-1].status == 500


def test_failure_route_can_answer_or_try_elsewhere() -> None:
    route = (
        "    ksr.tm.t_on_failure(msg, 'failure_route')\n    ksr.tm.t_relay(msg)\n"
        "def failure_route(ksr, msg):\n"
        "    if ksr.tm.t_check_status(msg, '486'):\n"
        "        ksr.tm.append_branch(msg, 'sip:voicemail@127.0.0.12')\n"
        "        ksr.tm.t_relay(msg)\n"
        "    elif ksr.tm.t_branch_timeout(msg) and not ksr.tm.t_branch_replied(msg):\n"
        "        ksr.tm.t_reply(msg, 430, 'Flow Failed')\n"
    )
    sim, alice = forking(Target(uri(1)), route=route)
    alice.send(request())
    ua(sim, 1).send(answer(ua(sim, 1).take(), 486))
    second = ua(sim, 2).take()
    assert second.ruri == b"sip:voicemail@127.0.0.12"
    ua(sim, 2).send(answer(second, 200))
    assert [m.status for m in alice.got] == [100, 200]
    alice.got.clear()
    alice.send(request(branch="z9hG4bKq", cseq=2))
    sim.advance(40)
    assert alice.got[-1].status == 430


def test_branch_route_edits_one_branch_only() -> None:
    route = (
        "    ksr.tm.t_on_branch(msg, mark)\n    ksr.tm.t_relay(msg)\n"
        "def mark(ksr, msg):\n"
        "    if b'127.0.0.11' in msg.ruri:\n        msg.append(b'x-mark', b'1')\n"
    )
    sim, alice = forking(Target(uri(1)), Target(uri(2)), route=route)
    alice.send(request())
    assert ua(sim, 1).take().first(b"x-mark") == b"1"
    assert ua(sim, 2).take().first(b"x-mark") is None


def test_branch_route_sees_the_flow_of_its_branch() -> None:
    route = (
        "    ksr.tm.t_on_branch(msg, mark)\n    ksr.tm.t_relay(msg)\n"
        "def mark(ksr, msg):\n    msg.append(b'x-flow', msg.dst_flow.remote[0].encode())\n"
    )
    sim, alice = home_sim(lambda sim: [flow_target(sim, 1)], route=route)
    alice.send(request())
    assert ua(sim, 1).take().first(b"x-flow") == b"127.0.0.11"


def test_exception_in_a_route_is_500_and_the_next_message_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sim = Sim(FORKS + "def request_route(ksr, msg):\n    1 / 0\n")
    alice = sim.udp()
    alice.send(request())
    alice.send(request("MESSAGE", branch="z9hG4bKm"))
    assert [m.status for m in alice.got] == [500, 500]
    assert sim.core.stats["exceptions"] == 2
    assert "ZeroDivisionError" in caplog.text


def test_async_route_that_does_not_wait_runs_to_its_end() -> None:
    sim = Sim(FORKS + "async def request_route(ksr, msg):\n    ksr.tm.t_relay(msg)\n")
    alice = sim.udp()
    alice.send(request())
    assert sim.udp("127.0.0.9").take().method == b"INVITE"
    assert alice.take().status == 100
