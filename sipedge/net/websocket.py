"""Stops 1 and 8 for WebSocket (RFC 6455, RFC 7118): octets to SIP messages and back, sans IO.

Strategy: ``websockets`` does the protocol; of the sans-IO halves that are well kept it is the
fastest (5 µs for a message in and one out, wsproto takes 14).  Frames are cut here, so that the
usual one, a whole masked message, takes a short cut past the library at a quarter of that; all
others reach it whole.  A test compares the two.  A frame that is too long, or not masked, is
refused on sight of its first octets.  Compression is never agreed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from websockets.frames import BINARY, CONT, PING, PONG, TEXT, CloseCode, Frame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without a compiled one
    from websockets.utils import apply_mask

from sipedge.flow import Address, Listener
from sipedge.net.layers import Layer
from sipedge.net.upgrade import Upgrade, forget
from sipedge.websocket import Close, Ping, Pong, Settings

# First octets of frames: FIN and the opcode.
_WHOLE_TEXT: Final = 0x81
_WHOLE_BINARY: Final = 0x82
#: of the second octet: the payload is masked
_MASKED: Final = 0x80
_MORE: Final = 1  # octets that the header of a frame lacks, at least
_HEADER_16: Final = Struct("!BBH").pack
_HEADER_64: Final = Struct("!BBQ").pack


class WebSocketLayer(Layer):
    """The server's side of one connection.

    What comes out of ``receive`` is a SIP message each, or whatever else a WebSocket message has in
    it, and a ``Ping`` or ``Pong`` for each control frame; ``send`` takes the same, and a ``Close``.
    """

    __slots__ = (
        "_bytes_missing", "_chunks", "_is_text", "_out", "_parts", "_protocol", "_settings",
        "_upgrade",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        remote: Address,
        below: Sequence[Layer] = (),
    ) -> None:
        """``remote``: who TCP says that it is; ``below``: layers that may know more, and better."""
        super().__init__()
        self._settings = settings
        self._upgrade: Upgrade | None = Upgrade(settings, listener, remote, below)
        self._protocol: ServerProtocol | None = None
        #: the beginning of the HTTP request, later of a frame, and how much that one lacks
        self._chunks = bytearray()
        self._bytes_missing = 0
        #: the beginning of a message that comes in fragments
        self._parts: bytearray | None = None
        self._is_text = False
        self._out = b""

    def receive(self, data: bytes) -> list[bytes]:
        if self._upgrade is not None:
            data = self._handshake(self._upgrade, data)
        messages: list[bytes] = []
        if data and not self.over:
            self._cut(data, messages)
            self.unfinished = bool(self._chunks) or self._parts is not None
        return messages

    def send(self, data: bytes) -> bytes:
        protocol = self._protocol
        if protocol is None or protocol.state is not OPEN:
            return b""
        if data.__class__ is not bytes:
            return self._send_control(protocol, data)
        size = len(data)
        # RFC 7118 §4.2: text is UTF-8, anything else is binary
        first = _WHOLE_TEXT if data.isascii() or _is_utf8(data) else _WHOLE_BINARY
        if size < 126:
            return bytes((first, size)) + data
        if size < 65536:
            return _HEADER_16(first, 126, size) + data
        return _HEADER_64(first, 127, size) + data

    def outgoing(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def close(self) -> bytes:
        protocol = self._protocol
        if protocol is None or protocol.state is not OPEN:
            return b""
        protocol.send_close(CloseCode.GOING_AWAY)
        return b"".join(protocol.data_to_send())

    def gone(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            forget(protocol)

    # The handshake.

    def _handshake(self, upgrade: Upgrade, data: bytes) -> bytes:
        """Collect the HTTP request and answer it; what follows it is returned."""
        head = self._chunks
        seen = len(head)
        head += data
        end = head.find(b"\r\n\r\n", max(0, seen - 3)) + 4
        whole = end > 3 and end <= self._settings.max_head_size
        answer = upgrade.problem(head)
        if not answer and not whole:
            return b""
        self._upgrade = None
        self._chunks = bytearray()
        self._out = answer or upgrade.answer(bytes(head[:end]))
        self._protocol = upgrade.protocol
        if upgrade.request is None:
            self.over = upgrade.reason
            return b""
        self.established = True
        self.facts["websocket"] = upgrade.request
        return bytes(head[end:])

    # Frames.

    def _cut(self, data: bytes, messages: list[bytes]) -> None:
        """Cut ``data`` into frames, RFC 6455 §5.2, and keep the rest."""
        if self._chunks:
            self._chunks += data
            if len(data) < self._bytes_missing:
                self._bytes_missing -= len(data)
                return
            data = bytes(self._chunks)
            self._chunks = bytearray()
        at, end, limit = 0, len(data), self._settings.max_message_size
        while at < end and not self.over:
            start, size = _header(data, at)
            if start:
                if size > limit or not data[at + 1] & _MASKED:
                    self._frame(data[at:start], messages)  # it refuses
                    return
                stop = start + size
                missing = stop - end
            else:
                missing = _MORE
            if missing > 0:
                self._chunks += data[at:]
                self._bytes_missing = missing
                return
            first = data[at]
            if self._parts is None and (first == _WHOLE_TEXT or first == _WHOLE_BINARY):
                payload = apply_mask(data[start:stop], data[start - 4 : start])
                self._message(payload, first == _WHOLE_TEXT, messages)
            else:
                self._frame(data[at:stop], messages)
            at = stop

    def _frame(self, frame: bytes, messages: list[bytes]) -> None:
        """Any frame: have the library take it."""
        protocol = self._protocol
        assert protocol is not None  # an invariant of ours: the handshake is done
        protocol.receive_data(frame)
        for event in protocol.events_received():
            assert isinstance(event, Frame)  # the handshake is done
            opcode, data = event.opcode, event.data
            if opcode is PING:
                messages.append(Ping(data))
            elif opcode is PONG:
                messages.append(Pong(data))
            elif opcode is CONT and self._parts is not None:
                self._parts += data
                if event.fin:
                    whole, self._parts = bytes(self._parts), None
                    self._message(whole, self._is_text, messages)
            elif opcode is TEXT or opcode is BINARY:  # the first of several
                self._parts = bytearray(data)
                self._is_text = opcode is TEXT
        self._look(protocol)

    def _message(self, payload: bytes, is_text: bool, messages: list[bytes]) -> None:
        if not is_text or payload.isascii() or _is_utf8(payload):
            messages.append(payload)
            return
        assert self._protocol is not None  # an invariant of ours: the handshake is done
        self._protocol.fail(CloseCode.INVALID_DATA, "text that is no UTF-8")  # RFC 6455 §8.1
        self._look(self._protocol)

    def _look(self, protocol: ServerProtocol) -> None:
        """Has the library something to send, or had it enough?"""
        self._out += b"".join(protocol.data_to_send())
        if protocol.state is OPEN:
            return
        close = protocol.close_rcvd
        if close is not None:
            self.over = f"WebSocket closed by the peer: {close}"
        else:
            self.over = f"WebSocket closed: {protocol.close_sent}"

    def _send_control(self, protocol: ServerProtocol, data: bytes) -> bytes:
        if isinstance(data, Ping):
            protocol.send_ping(data)
        elif isinstance(data, Pong):
            protocol.send_pong(data)
        elif isinstance(data, Close):
            protocol.send_close(int.from_bytes(data[:2], "big"), data[2:].decode())
        return b"".join(protocol.data_to_send())


def _header(data: bytes, at: int) -> tuple[int, int]:
    """Where the payload of the (masked) frame at ``at`` begins, and its size; 0, 0 if the header is
    not all there."""
    there = len(data) - at
    if there < 2:
        return 0, 0
    second = data[at + 1]
    size, start = second & 127, at + 2
    if size == 126:
        start += 2
        size = data[at + 2] << 8 | data[start - 1] if there >= 4 else 0
    elif size == 127:
        start += 8
        size = int.from_bytes(data[at + 2 : start], "big")
    if second & _MASKED:
        start += 4
    return (start, size) if start - at <= there else (0, 0)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
