"""Any chunking of a stream yields the same messages and pings, and at most one error, the last.

The first octet of the input says how the rest is cut.
"""

from __future__ import annotations

from sipedge.errors import ParseError
from sipedge.sip.stream import StreamFramer

_MESSAGE = (
    b"OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n"
    b"To: <sip:h>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nl: 4\r\n\r\n\r\n\r\n"
)
SEEDS = [
    b"\x01\r\n\r\n",
    b"\x07" + _MESSAGE,
    b"\x20" + _MESSAGE * 3,
    b"\x05\r\n\r\n" + _MESSAGE + b"\r\n\r\n\r\n" + _MESSAGE,
    b"\x03" + _MESSAGE.replace(b"l: 4", b"Content-Length: -4"),
    b"\x03" + _MESSAGE.replace(b"l: 4", b"Content-Length: 4\r\nl: 4"),
    b"\x00\x16\x03\x01",
]


def one_input(data: bytes) -> None:
    size = data[0] % 64 + 1 if data else 1
    stream = data[1:]
    whole = StreamFramer().feed(stream)
    framer = StreamFramer()
    pieces = []
    for i in range(0, len(stream), size):
        pieces += framer.feed(stream[i : i + size])
    assert [str(event) for event in pieces] == [str(event) for event in whole]
    assert not any(isinstance(event, ParseError) for event in whole[:-1])
    messages = [event for event in whole if isinstance(event, bytes)]
    assert sum(map(len, messages)) <= len(stream)
    for message in messages:
        assert message in stream
        assert StreamFramer().feed(message) == [message]


if __name__ == "__main__":
    from harness import run

    run(one_input, SEEDS)
