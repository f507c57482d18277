"""Stop 2 for streams: from chunks to messages, and how long a connection may live.

Strategy: TCP and TLS bring octets, which a ``StreamFramer`` cuts; WebSocket brings whole messages
(RFC 7118 §5).  Whatever comes, one timer a connection looks at what happened since it was set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipedge.errors import ParseError
from sipedge.sip.stream import PING, StreamFramer
from sipedge.tm.timers import NEVER, NO_TICK, Timed

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.flow import Flow


class IdleTimer(Timed):
    """Closes a stream on which nothing came in for ``tcp_connection_lifetime`` (KA-16, KA-17)."""

    __slots__ = ("_core", "_flow")

    def __init__(self, core: Core, flow: Flow) -> None:
        self.deadline = NEVER
        self.tick = NO_TICK
        self._core = core
        self._flow = flow

    def fire(self, now: float) -> None:
        core, flow = self._core, self._flow
        if not flow.alive:
            return
        until = flow.last_rx + core.tcp_connection_lifetime
        if until > now:
            core.tm.wheel.at(self, until)
        else:
            core.close(flow, "idle")


def opened(core: Core, flow: Flow) -> None:
    """A connection begins."""
    if core.tcp_connection_lifetime > 0:
        core.tm.wheel.at(IdleTimer(core, flow), core.now + core.tcp_connection_lifetime)


def receive(core: Core, data: bytes, flow: Flow) -> None:
    """A chunk of octets came on a stream."""
    framer = flow.framer
    if framer is None:
        if not flow.alive:
            return
        framer = flow.framer = StreamFramer()
    for event in framer.feed(data, core.now):
        if not flow.alive:
            return
        if event is PING:
            core.stats["pings_answered"] += 1
            core.send(b"\r\n", flow)
        elif isinstance(event, ParseError):
            core.unparsable(event, flow)
            core.close(flow, event.why)
        else:
            core.message(event, flow, True)
