"""Settings that are each fine and do not go together: warnings at start-up.  No stop of a datagram.

Strategy: values are compared once, after the modules have taken theirs.  Nothing is refused: an
edge may have reasons that are not in its configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sipedge.flow import UDP, WS, WSS
from sipedge.websocket import SEND_PING, SEND_PONG

if TYPE_CHECKING:
    from sipedge.core import Core


def timers(core: Core, params: Iterable[Any]) -> list[str]:
    """Flow-Timer < ``keepalive_timeout`` < ``tcp_connection_lifetime``, where they are known.

    A connection that is closed before the keep-alive that the client was told to send is due, or
    before we look ourselves whether a browser is still there, is closed for nothing (RFC 5626 §5.4;
    the manual of Kamailio's module outbound has these three).  ``params``: those of all modules.
    """
    transports = {listener.transport for listener in core.flows.listeners}
    known: list[tuple[str, float]] = [
        (f"Flow-Timer (flow_timer, {one.flow_timer} s)", one.flow_timer)
        for one in params
        if getattr(one, "flow_timer", 0)
    ]
    socket = core.websocket
    pings = socket is not None and socket.keepalive_mechanism in (SEND_PING, SEND_PONG)
    if socket is not None and pings and transports & {WS, WSS}:
        patience = socket.keepalive_timeout
        known.append((f"keepalive_timeout of websocket ({patience} s)", patience))
    lifetime = core.tcp_connection_lifetime
    if lifetime > 0 and transports - {UDP}:
        known.append((f"core.tcp_connection_lifetime ({lifetime:g} s)", lifetime))
    return [
        f"{shorter} should be less than {longer}: connections are closed that are in use"
        for (shorter, low), (longer, high) in pairwise(known)
        if low >= high
    ]
