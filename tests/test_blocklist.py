"""Servers that failed lately."""

from __future__ import annotations

import pytest

from sipedge.blocklist import Blocklist
from sipedge.flow import TCP, UDP
from sipedge.forward import Hop


def hop(n: int, transport: int = UDP) -> Hop:
    return transport, f"192.0.2.{n}", 5060, "core.example"


@pytest.mark.rfc("DNS-08")
def test_who_failed_is_tried_last_and_not_for_ever() -> None:
    blocklist = Blocklist()
    hops = [hop(1), hop(2), hop(3)]
    assert blocklist.arrange(hops, 0.0) == hops
    blocklist.failed(hop(1), 60.0)
    assert blocklist.arrange(hops, 59.0) == [hop(2), hop(3), hop(1)]
    assert blocklist.arrange([hop(1)], 59.0) == [hop(1)]
    assert blocklist.arrange(hops, 60.0) == hops
    assert len(blocklist) == 0


@pytest.mark.rfc("DNS-08")
def test_who_wants_to_be_left_alone_is_if_there_is_another_one() -> None:
    blocklist = Blocklist()
    hops = [hop(1), hop(2)]
    blocklist.asked_to_wait(hop(1), 0.0, 20.0)
    assert blocklist.arrange(hops, 19.0) == [hop(2)]
    blocklist.failed(hop(2), 100.0)
    assert blocklist.arrange(hops, 19.0) == [hop(2)]
    blocklist.asked_to_wait(hop(2), 0.0, 20.0)
    assert blocklist.arrange(hops, 19.0) == hops
    blocklist.failed(hop(1), 10.0)  # does not shorten what the server asked for
    assert blocklist.arrange([hop(1), hop(3)], 19.0) == [hop(3)]


def test_the_transport_counts() -> None:
    blocklist = Blocklist()
    blocklist.failed(hop(1, TCP), 60.0)
    assert blocklist.has(hop(1, TCP), 1.0)
    assert not blocklist.has(hop(1), 1.0)


def test_it_is_bounded() -> None:
    blocklist = Blocklist()
    most = blocklist.MAX
    for n in range(most + 15):
        blocklist.failed(hop(n), 60.0)
    blocklist.asked_to_wait(hop(most + 99), 0.0, 1e9)
    assert len(blocklist) == most
    assert not blocklist.has(hop(most + 99), 3601.0)
    assert blocklist.flush() == most - 1
