"""Stop 2 for streams: from chunks to messages, and how long a connection may live.

Strategy: TCP and TLS bring octets, which a ``StreamFramer`` cuts; WebSocket brings whole messages
(RFC 7118 §5).  Whatever comes, one timer a connection looks at what happened since it was set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipedge import websocket
from sipedge.errors import ParseError
from sipedge.flow import WS
from sipedge.sip.stream import PING, StreamFramer
from sipedge.tm.timers import NEVER, NO_TICK, Timed

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.flow import Flow


class StreamTimer(Timed):
    """Closes a stream that is of no use any more: the one timer of a connection.

    * Nothing came in for ``tcp_connection_lifetime``: the peer is gone, or gave up its keep-alives.
      Any octet restarts this one (requirements KA-16, KA-17).
    * A client has not said anything but keep-alives for ``tcp_msg_data_timeout``.  Once it has,
      keep-alives are all that it has to send (RFC 5626 §4.4.1).
    * A message that began ``tcp_msg_read_timeout`` ago is still not complete (requirement TRN-18).
    """

    __slots__ = ("_core", "_flow", "_opened")

    def __init__(self, core: Core, flow: Flow) -> None:
        self.deadline = NEVER
        self.tick = NO_TICK
        self._core = core
        self._flow = flow
        self._opened = core.now

    def fire(self, now: float) -> None:
        core, flow = self._core, self._flow
        if not flow.alive:
            return
        begun = flow.framer.started if flow.framer is not None else flow.begun
        lifetime, first, whole = (
            core.tcp_connection_lifetime, core.tcp_msg_data_timeout, core.tcp_msg_read_timeout
        )  # fmt: skip
        again = NEVER
        if lifetime > 0:
            again = flow.last_rx + lifetime
            if again <= now:
                core.stats["flows_idle"] += 1
                core.close(flow, "idle")
                return
        if first > 0 and not (flow.spoke or flow.dialed):
            if self._opened + first <= now:
                core.close(flow, "no message")
                return
            again = min(again, self._opened + first)
        if whole > 0:
            if begun is not None and begun + whole <= now:
                core.close(flow, "a message that does not end")
                return
            again = min(again, now + whole / 2)  # to see those that begin meanwhile
        if again != NEVER:
            core.tm.wheel.at(self, again)


def opened(core: Core, flow: Flow) -> None:
    """A connection begins."""
    StreamTimer(core, flow).fire(core.now)
    if flow.transport >= WS:
        websocket.opened(core, flow)


def receive(core: Core, data: bytes, flow: Flow) -> None:
    """A chunk of octets came on a stream; on a WebSocket (WS or WSS), a message."""
    if flow.transport >= WS:
        websocket.receive(core, data, flow)
        return
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
            flow.spoke = True
            core.message(event, flow, True)
