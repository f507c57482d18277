"""WebSocket from the outside: raw frames, raw requests, and clients that we did not write.

``frame`` and ``upgrade_request`` make octets that a client should or should not send; ``ws_peer``
is the ``websockets`` client on a real socket.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from sipedge.flow import TRANSPORT_NAME, WS, Listener
from sipedge.net.layers import Layer
from sipedge.net.websocket import WebSocketLayer
from sipedge.websocket import Settings
from tests.helpers_net import PATIENCE, RunningEdge

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80
#: the example of RFC 6455 §1.2, and its answer
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#: answers every request but ACK with 200
ANSWER_ALL = """
listen("udp:127.0.0.1:0")
listen("ws:127.0.0.1:0")
loadmodule("sl")
loadmodule("websocket")
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, b"OK")
"""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    mask: bytes | None = b"\x11\x22\x33\x44",
    rsv: int = 0,
    wide: bool = False,
) -> bytes:
    """One frame as a client sends it (RFC 6455 §5.2); ``wide``: a longer length than needed."""
    first = (FIN if fin else 0) | rsv << 4 | opcode
    masked = 0x80 if mask is not None else 0
    size = len(payload)
    if size < 126 and not wide:
        head = struct.pack("!BB", first, masked | size)
    elif size < 65536 and not wide:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    if mask is None:
        return head + payload
    return head + mask + bytes(octet ^ mask[i % 4] for i, octet in enumerate(payload))


def upgrade_request(
    target: str = "/",
    *,
    method: str = "GET",
    protocol: str = "HTTP/1.1",
    drop: Iterable[str] = (),
    add: Iterable[str] = (),
) -> bytes:
    """The request of a browser; ``drop`` takes headers away by name, ``add`` adds lines."""
    lines = [
        "Host: edge.example.com",
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: sip",
        "Origin: https://phone.example.com",
    ]
    without = tuple(f"{name.lower()}:" for name in drop)
    lines = [line for line in lines if not line.lower().startswith(without or ("\0",))]
    return "\r\n".join([f"{method} {target} {protocol}", *lines, *add, "", ""]).encode()


def new_layer(settings: Settings | None = None, below: list[Layer] | None = None) -> WebSocketLayer:
    """A connection of 192.0.2.7 that has not said anything."""
    listener = Listener(WS, "127.0.0.1", 8080)
    return WebSocketLayer(settings or Settings(), listener, ("192.0.2.7", 40000), below or [])


def open_layer(settings: Settings | None = None) -> WebSocketLayer:
    """One whose handshake is done."""
    layer = new_layer(settings)
    assert layer.receive(upgrade_request()) == []
    assert layer.outgoing().startswith(b"HTTP/1.1 101 ")
    assert layer.established
    return layer


def sent_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Frames of a server: (opcode, payload) of each; none is masked or fragmented."""
    found = []
    while data:
        first, second = data[:2]
        assert first & 0xF0 == FIN, "a fragment, or reserved bits"
        assert not second & 0x80, "a server does not mask"
        size, at = second, 2
        if second == 126:
            size, at = struct.unpack_from("!H", data, 2)[0], 4
        elif second == 127:
            size, at = struct.unpack_from("!Q", data, 2)[0], 10
        assert len(data) >= at + size
        found.append((first & 0x0F, data[at : at + size]))
        data = data[at + size :]
    return found


def close_code(data: bytes) -> int:
    """The status of the Close frame that ends ``data``."""
    opcode, payload = sent_frames(data)[-1]
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big")


@contextmanager
def ws_peer(
    edge: RunningEdge, transport: int = WS, target: str = "/", **more: Any
) -> Iterator[ClientConnection]:
    """A browser, as far as the edge can see; ``more`` goes to ``websockets``' ``connect``."""
    host, port = edge.address(transport)
    more.setdefault("subprotocols", [Subprotocol("sip")])
    more.setdefault("ping_interval", None)
    url = f"{TRANSPORT_NAME[transport]}://{host}:{port}{target}"
    with connect(url, open_timeout=PATIENCE, **more) as client:
        yield client
