"""Stops 1 and 8 for streams: what may stand between a TCP connection and SIP.

Strategy, sans IO: a PROXY header, TLS, WebSocket are each a ``Layer``: octets from below go in,
octets for above come out, and what the layer itself has to say (a handshake, an alert, a pong) is
drained afterwards.  A layer knows no socket, no clock and no other layer; ``Connection`` stacks
them, lowest first, and plain TCP is the empty stack.
"""

from __future__ import annotations

from typing import Any


class Layer:
    """One layer of a connection.  Subclasses override what they need.

    It gives nothing to the layer above, and is given nothing by it, before it is established.  It
    never raises for what a peer sends.  When it can carry nothing more, because of an error
    or because the peer said goodbye, it sets ``over`` to the reason and has its last words, if any,
    in ``outgoing``; what it had received before is still delivered.
    """

    __slots__ = ("established", "facts", "over", "unfinished")

    def __init__(self) -> None:
        #: the handshake is done: the layer above may begin
        self.established = False
        #: why this layer has ended; "" while it works
        self.over = ""
        #: for a layer that keeps the bounds of messages: one has begun and is not complete
        self.unfinished = False
        #: what was learned about the peer: goes to ``Flow.facts``; ``remote`` and ``local``, each a
        #: host and a port, replace the addresses of the TCP connection
        self.facts: dict[str, Any] = {}

    def start(self) -> None:
        """All layers below are established.  A client says its first words now."""

    def receive(self, data: bytes) -> list[bytes]:
        """What ``data``, octets from below, means for the layer above: chunks of octets, or whole
        messages if the layer keeps their bounds."""
        raise NotImplementedError

    def send(self, data: bytes) -> bytes:
        """The octets for below that carry ``data``, a chunk or a message from above.

        What came before the end of the layer is still answered: b"" if that cannot be carried."""
        raise NotImplementedError

    def outgoing(self) -> bytes:
        """Drain the octets for below that the layer itself has to say."""
        return b""

    def close(self) -> bytes:
        """Last words for below (close_notify, a Close frame), once; nothing is sent after them."""
        return b""

    def gone(self) -> None:
        """The connection is no more: let go of whatever refers to itself."""
