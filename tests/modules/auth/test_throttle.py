"""Failures by source, in a bounded table."""

from __future__ import annotations

import pytest

from sipedge.modules.auth import throttle
from sipedge.modules.auth.throttle import Throttle


@pytest.mark.rfc("AUT-14")
def test_a_source_is_blocked_until_its_period_is_over() -> None:
    mine = Throttle(3, 60)
    for at in (0.0, 10.0):
        mine.failed("192.0.2.1", at)
        assert not mine.blocked("192.0.2.1", at)
    mine.failed("192.0.2.1", 20.0)
    assert mine.blocked("192.0.2.1", 20.0) == 40.0
    assert not mine.blocked("192.0.2.2", 20.0)
    assert not mine.blocked("192.0.2.1", 60.0)
    mine.failed("192.0.2.1", 61.0)  # a new period
    assert not mine.blocked("192.0.2.1", 61.0)


def test_zero_is_off() -> None:
    mine = Throttle(0, 60)
    for _ in range(100):
        mine.failed("192.0.2.1", 0.0)
    assert not mine.blocked("192.0.2.1", 0.0)


def test_an_ipv6_network_is_one_source() -> None:
    mine = Throttle(1, 60)
    mine.failed("2001:db8::1", 0.0)
    assert mine.blocked("2001:db8::ffff:2", 0.0)
    assert not mine.blocked("2001:db8:0:1::1", 0.0)


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "SOURCES", 3)
    mine = Throttle(1, 60)
    for n in range(5):
        mine.failed(f"192.0.2.{n}", 0.0)
    assert [bool(mine.blocked(f"192.0.2.{n}", 0.0)) for n in range(5)] == [False] * 2 + [True] * 3
