"""``use_received``: the address in our own Path value, read again when it comes back as a Route.

Nothing signs that address: whoever can send us a Route chooses where the request goes.  With
``outbound`` there is a flow token, which wins.  Part of stop 6 of a datagram.
"""

from __future__ import annotations

from sipedge.errors import ParseError, SipError
from sipedge.flow import (
    CLOSED,
    TRANSPORT_NAME,
    UDP,
    Flow,
    FlowTable,
    Listener,
    host_bytes,
)
from sipedge.forward import hop_of, is_numeric
from sipedge.sip.message import SipMessage
from sipedge.sip.uri import Uri, parse_uri, unescape
from sipedge.sip.values import number


class ReceivedRouter:
    """The callback that ``rr`` calls with each own Route."""

    def __init__(self, flows: FlowTable, name: bytes, numbers: bool) -> None:
        """``name`` of the URI parameter; ``numbers``: ``ip~port~transport`` instead of a URI."""
        self._flows = flows
        self._name = name
        self._numbers = numbers

    def __call__(self, msg: SipMessage, uri: Uri) -> None:
        """Send the request to the received address, unless a flow is chosen already."""
        value = uri.params.get(self._name)
        if value is None or msg.dst_flow is not None:
            return
        hop = _numbered(value) if self._numbers else _escaped(value)
        if hop is None:
            return
        transport, host, port = hop
        if transport == UDP:
            msg.dst_uri = b"sip:%b:%d" % (host_bytes(host), port)
        else:
            msg.dst_flow = self._stream(transport, host, port)

    def _stream(self, transport: int, host: str, port: int) -> Flow:
        """The connection from that address; a closed flow if there is none: a client that left is
        never called back (RFC 5626 §5.3.1), the host answers 430."""
        for flow in self._flows.streams.values():
            if flow.transport == transport and flow.remote == (host, port) and not flow.dialed:
                return flow
        gone = Flow(Listener(transport, "0.0.0.0", 0), (host, port))
        gone.state = CLOSED
        return gone


def _escaped(value: bytes) -> tuple[int, str, int] | None:
    try:
        hop = hop_of(parse_uri(unescape(value)))
    except (ParseError, SipError):
        return None
    return hop if is_numeric(hop[1]) else None


def _numbered(value: bytes) -> tuple[int, str, int] | None:
    parts = value.split(b"~")
    if len(parts) != 3:
        return None
    host = parts[0].decode("ascii", "replace").strip("[]")
    port, transport = number(parts[1], 65535), number(parts[2], 9)
    if not port or transport not in TRANSPORT_NAME or not is_numeric(host):
        return None
    return transport, host, port
