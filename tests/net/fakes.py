"""A core that remembers what ``net`` tells it and wants done what a test says."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from sipedge.flow import OPEN, TCP, UDP, Flow, FlowTable, Listener
from sipedge.settings import Settings
from tests.helpers_net import PATIENCE


class FakeCore(Settings):
    """Calls of ``net`` in ``events``; ``on_receive`` is what it does with bytes (default: echo)."""

    def __init__(self, *listeners: Listener) -> None:
        self.flows = FlowTable()
        for listener in listeners or (Listener(UDP, "127.0.0.1", 0), Listener(TCP, "127.0.0.1", 0)):
            self.flows.add_listener(listener)
        self.stats: Counter[str] = Counter()
        self.now = 0.0
        self.tls: Any = None
        self.spawn: Any = None
        self.events: list[tuple[Any, ...]] = []
        self.changed = threading.Condition()
        self.on_receive: Callable[[bytes, Flow], None] = self.send
        self.outbox: list[tuple[bytes, Flow]] = []
        self.to_close: list[tuple[Flow, str]] = []
        self.to_resolve: list[Any] = []
        self.timer: float | None = None

    # what tests use

    def send(self, data: bytes, flow: Flow) -> None:
        self.outbox.append((data, flow))

    def wait_for(self, kind: str, count: int = 1) -> list[tuple[Any, ...]]:
        """The events of one kind, once there are ``count`` of them."""
        found: list[tuple[Any, ...]] = []

        def enough() -> bool:
            found[:] = [event for event in self.events if event[0] == kind]
            return len(found) >= count

        with self.changed:
            assert self.changed.wait_for(enough, PATIENCE), (kind, self.events)
        return found

    def count(self, kind: str) -> int:
        return sum(event[0] == kind for event in self.events)

    def _event(self, *event: Any) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    # what net uses

    wall_offset = 0.0
    tls = None
    websocket = None

    def every(self, interval_s: float, call: Callable[[float], None]) -> None:
        """Nothing here needs to be called again."""

    def learn_own_addresses(self) -> None:
        self._event("learn", [x.port for x in self.flows.listeners])

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        self.now = now
        self._event("receive", data, flow)
        self.on_receive(data, flow)

    def sends(self) -> list[tuple[bytes, Flow]]:
        sends, self.outbox = self.outbox, []
        return sends

    def closes(self) -> list[tuple[Flow, str]]:
        closes, self.to_close = self.to_close, []
        return closes

    def lookups(self) -> list[Any]:
        lookups, self.to_resolve = self.to_resolve, []
        return lookups

    def resolved(self, lookup: Any, addresses: list[str], now: float) -> None:
        self._event("resolved", lookup, addresses)

    def next_timer(self) -> float | None:
        return self.timer

    def on_timer(self, now: float) -> None:
        self.timer = None
        self._event("timer", now)

    def flow_opened(self, flow: Flow, now: float) -> None:
        flow.state = OPEN
        self._event("opened", flow)

    def flow_closed(self, flow: Flow, reason: str, now: float) -> None:
        self.flows.closed(flow)
        self._event("closed", flow, reason)

    def flow_unreachable(self, flow: Flow, now: float) -> None:
        self._event("unreachable", flow)


class FakeEdge:
    """What ``Server`` needs of an ``Edge``."""

    def __init__(self, core: FakeCore) -> None:
        self.core = core

    def child_init(self, rank: int) -> None:
        self.core._event("child_init", rank)

    def destroy(self) -> None:
        self.core._event("destroy")


def eventually(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` is true."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, condition
        time.sleep(0.01)
