"""Stop 2: a byte stream (TCP, TLS) cut into messages, pings, and the one error that ends it.

Strategy: octets are collected in one buffer; a message is complete when its blank line was found
and as many octets follow as its Content-Length says (RFC 3261 §18.3).  Between messages CRLFs are
counted, not stored: four octets CR LF CR LF are a ping (RFC 5626 §4.4.1).  The search goes on where
it stopped, so that a message that comes octet by octet costs no more than one that comes whole.
What cannot be framed cannot be mended: the framer reports it once and is deaf from then on.
"""

from __future__ import annotations

import re
from typing import Final

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.values import TOKEN, number, unfold


class Ping:
    """The type of ``PING``; there is no other value of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PING"


#: a double CRLF between messages: answer with one CRLF at once (RFC 5626 §5.4)
PING: Final = Ping()

Event = bytes | Ping | ParseError

_LENGTH = re.compile(
    rb"\r\n(?:content-length|l)[ \t]*+:((?:[^\r]++|\r(?!\n)|\r\n(?=[ \t]))*)", re.IGNORECASE
)
_FIRST_OCTET: Final = re.compile(rb"[" + TOKEN + rb"]")
_PING_OCTETS: Final = b"\r\n\r\n"


class StreamFramer:
    """One per connection; ``feed`` it what arrives."""

    #: octets of start line and headers: twice the largest datagram, so that whatever is legal over
    #: UDP is legal here; beyond it 513 (requirement TRN-13)
    MAX_HEAD: Final = 128 * 1024
    #: octets of a body: signalling stays far below; beyond it 413
    MAX_BODY: Final = 256 * 1024
    #: seconds after which a CRLF is forgotten and no longer half of a ping (requirement KA-04)
    RESIDUE_AGE: Final = 1.0

    __slots__ = ("_buffer", "_crlf", "_crlf_at", "_dead", "_need", "_scanned", "started")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._crlf = 0  # octets of a ping seen so far
        self._crlf_at = 0.0
        self._dead = False
        self._need = 0  # size of the message under way, 0 while its head is incomplete
        self._scanned = 0  # where the search for the blank line goes on
        #: when the first octet of an incomplete message came (seconds, monotonic), ``None`` between
        #: messages: the clock of a partial-message timeout
        self.started: float | None = None

    def feed(self, data: bytes, now: float = 0.0) -> list[Event]:
        """What has become complete, in order.

        ``bytes`` is one message, to be given to ``message.parse(..., stream=True)``; ``PING`` wants
        a CRLF back; a ``ParseError`` is the last event ever: answer its ``partial`` if there is
        one, and close.  ``now`` in seconds, monotonic.
        """
        events: list[Event] = []
        if self._dead:
            return events
        buffer = self._buffer
        buffer += data
        try:
            while buffer:
                if self.started is None and not self._message_begins(events, now):
                    break
                if not self._need:
                    self._read_head()
                if not self._need or len(buffer) < self._need:
                    break
                events.append(bytes(buffer[: self._need]))
                del buffer[: self._need]
                self._need = self._scanned = 0
                self.started = None
        except ParseError as error:
            # its traceback leads to this very list, and to the connection: a cycle
            events.append(error.with_traceback(None))
            self._dead = True
            buffer.clear()
        return events

    def _message_begins(self, events: list[Event], now: float) -> bool:
        """Between messages: consume CRLFs; True if something else stands in front now."""
        buffer = self._buffer
        if buffer[0] in _PING_OCTETS:
            run = len(buffer) - len(buffer.lstrip(b"\r\n"))
            self._count(bytes(buffer[:run]), events, now)
            del buffer[:run]
            if not buffer:
                return False
        if _FIRST_OCTET.match(buffer) is None:
            # STUN, TLS or noise (requirement KA-14): no request starts so
            raise ParseError("a stream that is not SIP")
        self._crlf = 0
        self.started = now
        return True

    def _count(self, run: bytes, events: list[Event], now: float) -> None:
        if now - self._crlf_at > self.RESIDUE_AGE:
            self._crlf = 0
        self._crlf_at = now
        for octet in run:
            if octet == _PING_OCTETS[self._crlf]:
                self._crlf += 1
            else:
                self._crlf = 1 if octet == 13 else 0  # odd line ends are passed over
            if self._crlf == 4:
                self._crlf = 0
                events.append(PING)

    def _read_head(self) -> None:
        """Look for the blank line; if it is there, set ``_need``."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", self._scanned, self.MAX_HEAD)
        if end < 0:
            if len(buffer) >= self.MAX_HEAD:
                raise self._fatal("headers too long", 513, b"Message Too Large")
            self._scanned = max(0, len(buffer) - 3)
            return
        rows = _LENGTH.findall(buffer, 0, end)
        length = number(unfold(rows[0]).strip(b" \t")) if len(rows) == 1 else None
        if length is None:
            # RFC 3261 §18.3, RFC 4475 §3.1.2.3 and §3.3.9: where the next message begins is unknown
            raise self._fatal("no Content-Length, or no single number")
        if length > self.MAX_BODY:
            raise self._fatal("body too long", 413, b"Request Entity Too Large")
        self._need = end + 4 + length

    def _fatal(self, why: str, status: int = 400, reason: bytes = b"Bad Request") -> ParseError:
        head = bytes(self._buffer[: self.MAX_HEAD]).partition(b"\r\n\r\n")[0]
        return ParseError(why, status, reason, strict.partial(head))
