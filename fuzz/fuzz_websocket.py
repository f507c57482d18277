"""Whatever comes on a WebSocket connection: the layer never raises, keeps little, and says the same
however the octets are cut into segments."""

from __future__ import annotations

from sipedge.flow import WS, Listener
from sipedge.net.websocket import WebSocketLayer
from sipedge.websocket import Settings

LIMIT = 1024
HEAD = (
    b"GET /sip?x=1 HTTP/1.1\r\nHost: edge.example.com\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_SETTINGS = Settings(max_message_size=LIMIT, max_head_size=2048)
_LISTENER = Listener(WS, "127.0.0.1", 8080)
_MASKED = b"\x01\x02\x03\x04"
SEEDS = [
    HEAD,
    HEAD + b"\x81\x84" + _MASKED + b"\x0c\x08\x0e\x0e",
    HEAD + b"\x01\x81" + _MASKED + b"a\x89\x81" + _MASKED + b"b\x80\x81" + _MASKED + b"c",
    HEAD + b"\x88\x82" + _MASKED + b"\x02\xea",
    HEAD + b"\x82\xfe\x01\x00" + _MASKED + b"x" * 256,
    HEAD + b"\x82\xff" + (64 << 20).to_bytes(8, "big") + _MASKED,
    HEAD + b"\x81\x04SIP/",
    HEAD.replace(b"Upgrade: websocket", b"Cookie: a=1"),
    HEAD.replace(b": 13", b": 8"),
    b"OPTIONS sip:h SIP/2.0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
]


def one_input(data: bytes) -> None:
    whole = _run(data, len(data) or 1)
    assert _run(data, 7) == whole


def _run(data: bytes, step: int) -> tuple[list[bytes], str, bool]:
    """Messages, why it is over, and whether it was ever established."""
    layer = WebSocketLayer(_SETTINGS, _LISTENER, ("192.0.2.1", 1))
    found: list[bytes] = []
    for start in range(0, len(data), step):
        if layer.over:
            break
        for message in layer.receive(data[start : start + step]):
            assert len(message) <= LIMIT
            if type(message) is bytes:
                layer.send(message)
            found.append(message)
        layer.outgoing()
    established = layer.established
    layer.close()
    # a request that is refused is refused for the first thing that is wrong in what has come
    return found, layer.over if established else "", established


if __name__ == "__main__":
    from harness import run

    run(one_input, SEEDS)
