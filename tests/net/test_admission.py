"""How many connections clients may have."""

from __future__ import annotations

import logging

import pytest

from sipedge.core import Core
from sipedge.net.admission import QUIET, Admission, source_of

A, B = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def core() -> Core:
    core = Core()
    core.tcp_max_connections = 5
    core.tcp_accept_iplimit = 3
    return core


def test_each_address_has_so_many_and_all_together_too(core: Core) -> None:
    admission = Admission(core)
    assert [admission.enter(A, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [admission.enter(B, 0.0) for _ in range(3)] == [True, True, False]
    assert core.stats["connections_refused"] == 2
    admission.leave(A)
    assert admission.enter(B, 0.0)
    assert not admission.enter(A, 0.0)


def test_zero_is_no_limit(core: Core) -> None:
    core.tcp_max_connections = core.tcp_accept_iplimit = 0
    admission = Admission(core)
    assert all(admission.enter(A, 0.0) for _ in range(100_000))


def test_a_refused_one_does_not_count(core: Core) -> None:
    admission = Admission(core)
    for _ in range(10):
        admission.enter(A, 0.0)
    for _ in range(3):
        admission.leave(A)
    assert admission.enter(A, 0.0)
    assert admission.enter(B, 0.0)


def test_behind_a_load_balancer_the_address_comes_later(core: Core) -> None:
    admission = Admission(core)
    assert all(admission.enter(None, 0.0) for _ in range(5))
    assert not admission.enter(None, 0.0)
    assert [admission.enter_from(A, 0.0) for _ in range(4)] == [True, True, True, False]
    for host in (A, A, A, None, None):
        admission.leave(host)
    assert [admission.enter(A, 0.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", A, True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::1", True),
    ],
)
def test_whom_an_address_stands_for(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


@pytest.mark.rfc("OPS-04")
def test_a_burst_is_one_line(core: Core, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    admission = Admission(core)
    for _ in range(1003):
        admission.enter(A, 5.0)
    assert len(caplog.records) == 1
    assert A in caplog.text
    admission.enter(A, 5.0 + QUIET)
    assert len(caplog.records) == 2
    assert "1000 connections refused" in caplog.records[1].getMessage()
    assert core.stats["connections_refused"] == 1001
