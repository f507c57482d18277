"""``Core.post``: work from other threads is done in the thread of the loop, and its sends leave."""

from __future__ import annotations

import threading

import pytest

from sipedge.core import Core
from tests.helpers_net import running_edge, udp_peer


def test_a_call_from_another_thread() -> None:
    with running_edge() as edge, udp_peer() as peer:
        where: list[str] = []
        left: list[object] = []

        def call() -> None:
            where.append(threading.current_thread().name)
            listener = edge.core.flows.listeners[0]
            edge.core.send(b"hello", edge.core.flows.udp(listener, peer.getsockname()))

        before = edge.core.now
        edge.core.post(call)
        edge.core.post(lambda: left.extend(edge.core.sends()))
        assert peer.recv(100) == b"hello"
        assert (where, left) == (["edge"], [])
        assert edge.core.now >= before


def test_a_call_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with running_edge() as edge:
        done = threading.Event()
        edge.core.post(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        edge.core.post(done.set)
        assert done.wait(10)
        assert edge.core.stats["net_exceptions"] == 1
    assert "ZeroDivisionError" in caplog.text


def test_without_net_whoever_drives_the_core_makes_the_calls() -> None:
    core = Core()
    made: list[int] = []
    core.post(lambda: made.append(1))
    assert made == []
    core.posted.popleft()()
    assert made == [1]
