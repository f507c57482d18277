"""Stop 3: a SIP message as lines of bytes with an index of names.

Strategy: the head is split into lines once; each line gets the canonical id of its name, in a list
beside the lines.  No value is parsed until somebody asks; what was asked is remembered.  An edit
replaces, adds or removes whole lines.  What nobody touched goes out byte for byte, with one join.

``parse`` takes the common shape on a fast path; everything unusual (folding, odd spacing, strange
start lines, duplicates) goes through ``sipedge.sip.strict``, which decides what RFC 3261 and the
torture tests of RFC 4475 and 5118 say about it.

Most responses only pass through: ``read`` reads one as far as routing needs, and ``open`` splits it
into rows for those who look at them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sipedge.errors import ParseError
from sipedge.sip import strict, usual
from sipedge.sip.names import (
    BODY,
    CALL_ID,
    CONTENT_LENGTH,
    CSEQ,
    END,
    FROM,
    TO,
    VIA,
    canonical,
    spelling,
)
from sipedge.sip.values import split_list, tag_of, unfold
from sipedge.sip.via import Via, parse_via

if TYPE_CHECKING:
    from sipedge.flow import Flow, Listener

#: what a message remembers the parsed value of
_REMEMBERED: Final = frozenset((VIA, FROM, TO, CALL_ID))


class HeaderList:
    """The lines of a message, edited as whole rows.

    ``lines`` is start line, header rows without their CRLF, an empty line, body; ``ids`` holds the
    canonical name of each (``START``, ``END``, ``BODY`` for the others).  Keep both in step.
    """

    __slots__ = ("ids", "lines")

    def __init__(self, lines: list[bytes], ids: list[bytes]) -> None:
        self.lines = lines
        self.ids = ids

    def to_bytes(self) -> bytes:
        return b"\r\n".join(self.lines)

    def find(self, name: bytes) -> int:
        """Index of the first row of a canonical name, -1 if there is none."""
        ids = self.ids
        return ids.index(name) if name in ids else -1

    def has(self, name: bytes) -> bool:
        return name in self.ids

    def row_value(self, index: int) -> bytes:
        """The value of one row: unfolded, without white space at its ends."""
        value = self.lines[index].partition(b":")[2].strip(b" \t\r\n")
        return unfold(value) if b"\r\n" in value else value

    def first(self, name: bytes) -> bytes | None:
        """The value of the first row of that name; commas are left alone."""
        ids = self.ids
        return self.row_value(ids.index(name)) if name in ids else None

    def rows(self, name: bytes) -> list[bytes]:
        """The values of all rows of that name, in order."""
        if name not in self.ids:
            return []
        return [self.row_value(i) for i, have in enumerate(self.ids) if have == name]

    def values(self, name: bytes) -> list[bytes]:
        """All values of that name, rows with commas taken apart (RFC 3261 §7.3.1)."""
        rows = self.rows(name)
        if len(rows) == 1 and b"," not in rows[0]:
            return rows if rows[0] else []
        return [value for row in rows for value in split_list(row)]

    def options(self, name: bytes) -> set[bytes]:
        """The option tags of Supported, Require, ...; lower case."""
        return {value.lower() for value in self.values(name)}

    def insert(self, index: int, name: bytes, value: bytes) -> None:
        self.lines.insert(index, spelling(name) + b": " + value)
        self.ids.insert(index, name)
        self.edited(name)

    def prepend(self, name: bytes, value: bytes) -> None:
        """Add a row above the first row of that name, or on top of all rows."""
        at = self.find(name)
        self.insert(1 if at < 0 else at, name, value)

    def append(self, name: bytes, value: bytes) -> None:
        """Add a row below all others."""
        self.insert(self.ids.index(END), name, value)

    def replace(self, index: int, value: bytes) -> None:
        """Give the row at ``index`` another value."""
        name = self.ids[index]
        self.lines[index] = spelling(name) + b": " + value
        self.edited(name)

    def set(self, name: bytes, value: bytes) -> None:
        """Leave exactly one row of that name, where the first one was or at the end."""
        at = self.find(name)
        if at < 0:
            self.append(name, value)
            return
        self.remove(name, keep=at)
        self.replace(at, value)

    def delete(self, index: int) -> None:
        name = self.ids[index]
        del self.lines[index]
        del self.ids[index]
        self.edited(name)

    def remove(self, name: bytes, keep: int = -1) -> int:
        """Remove all rows of that name (but the one at ``keep``); returns how many went."""
        gone = 0
        for i in range(len(self.ids) - 1, 0, -1):
            if self.ids[i] == name and i != keep:
                del self.lines[i]
                del self.ids[i]
                gone += 1
        if gone:
            self.edited(name)
        return gone

    def pop_value(self, name: bytes) -> bytes | None:
        """Take the topmost value of that name away; other values of its row stay as they are."""
        at = self.find(name)
        if at < 0:
            return None
        row = self.row_value(at)
        values = split_list(row) if b"," in row else [row]
        if len(values) <= 1:
            self.delete(at)
            return values[0] if values else b""
        rest = row[row.index(values[0]) + len(values[0]) :].lstrip(b" \t")
        self.replace(at, rest[1:].lstrip(b" \t"))
        return values[0]

    def edited(self, name: bytes | None = None) -> None:
        """Called after each edit, with the name of the row if it was one; a message forgets what
        it had parsed of it."""


class SipMessage(HeaderList):
    """A request or a response that came in, with what the routes decided about it.

    ``flags`` are Kamailio's message flags (0..31).  ``dst_flow`` or ``dst_uri`` say where it goes,
    if not to the top Route or the Request-URI.  ``late`` edits run when the sending flow is known.

    Defaults stand in the class: most messages never set most of these, and making an object is then
    a matter of two attributes.
    """

    is_request = True
    method = b""
    cseq_method = b""  # of a request the same as ``method``
    ruri = b""
    status = 0
    reason = b""
    _via: Via | None = None
    _call_id: bytes | None = None
    _from_tag: bytes | None = None
    _to_tag: bytes | None = None
    #: the flow that it came on, and when (seconds, monotonic); set by Core.receive before any route
    flow: Flow = None  # type: ignore[assignment]
    now = 0.0
    #: what the transaction is found by, and what a loop is; of the request as it came in
    key = b""
    loop_hash = 0
    # what the routes decide
    flags = 0
    dst_uri: bytes | None = None
    dst_flow: Flow | None = None
    listener: Listener | None = None  # force_send_socket
    late: list[LateEdit] | None = None
    branches: list[Any] | None = None  # forward.Target, by append_branch
    targets: Any = None  # list of forward.Target, by registrar.lookup
    on_failure: Any = None
    on_reply: Any = None
    on_branch: Any = None
    drop = False
    answered = False  # a final response has been sent
    max_forwards_done = False
    tx: Any = None  # tm.server.ServerTx
    via_branch: Any = None  # tm.client.ClientTx, of a response or in a failure route
    route_kind = 0  # module.REQUEST_ROUTE, ...
    #: what modules remember about this message, by a key of their own
    memo: dict[Any, Any] | None = None

    @property
    def body(self) -> bytes:
        return self.lines[-1]

    def via(self) -> Via:
        """The topmost Via, parsed once (RFC 3261 §20.42)."""
        via = self._via
        if via is None:
            via = self._via = parse_via(self.row_value(self.ids.index(VIA)))
        return via

    def branch(self) -> bytes:
        """Of the topmost Via."""
        return self.via().branch

    def sent_by(self, listener: Listener) -> bool:
        """Does the topmost Via name this listener, as we write it?"""
        return self.via().sent_by == listener.sent_by.lower()

    def via_count(self) -> int:
        """How many Vias, comma-joined ones included (requirement EPR-17)."""
        count = self.ids.count(VIA)
        if count == 1 and b"," not in self.lines[self.ids.index(VIA)]:
            return 1
        return len(self.values(VIA))

    @property
    def call_id(self) -> bytes:
        if self._call_id is None:
            self._call_id = self.first(CALL_ID) or b""
        return self._call_id

    @property
    def from_tag(self) -> bytes:
        """b"" when there is none."""
        if self._from_tag is None:
            self._from_tag = tag_of(self.first(FROM) or b"")
        return self._from_tag

    @property
    def to_tag(self) -> bytes:
        """b"" when there is none."""
        if self._to_tag is None:
            self._to_tag = tag_of(self.first(TO) or b"")
        return self._to_tag

    def open(self) -> None:
        """Have ``lines`` and ``ids``; only a ``Response`` may be without them."""

    def ensure_length(self) -> None:
        """Have a Content-Length, as streams need it (RFC 3261 §20.14); datagrams may be without."""
        if CONTENT_LENGTH not in self.ids:
            self.append(CONTENT_LENGTH, b"%d" % len(self.lines[-1]))

    def drop_top_via(self) -> bool:
        """Take the topmost Via value away; is there another one?"""
        at = self.ids.index(VIA)
        if b"," in self.lines[at]:
            self.pop_value(VIA)
        else:
            self.delete(at)
        return VIA in self.ids

    def cseq(self) -> tuple[int, bytes]:
        """Number and method of CSeq (RFC 3261 §20.16)."""
        words = (self.first(CSEQ) or b"").split()
        if len(words) != 2 or not words[0].isdigit() or len(words[0]) > 10:
            return 0, self.cseq_method  # of a response whose first CSeq is not the one that counted
        return int(words[0]), words[1]

    def remember(self, key: Any, value: Any) -> None:
        if self.memo is None:
            self.memo = {}
        self.memo[key] = value

    def recall(self, key: Any) -> Any:
        return None if self.memo is None else self.memo.get(key)

    def edited(self, name: bytes | None = None) -> None:
        if name is None or name in _REMEMBERED:
            self._via = None
            self._from_tag = self._to_tag = self._call_id = None

    def __repr__(self) -> str:
        return f"<SipMessage {self.lines[0][:80]!r} {self.call_id[:60]!r}>"


class Response(SipMessage):
    """A response in the usual shape: octets, and its rows once it is opened.

    Only what routing relies on has been checked: start line, topmost Via, CSeq, Content-Length.
    """

    is_request = False

    def __init__(
        self, octets: bytes, sent: bytes, branch: bytes, via_at: int, via_end: int
    ) -> None:
        """``sent``: the topmost Via up to its ``branch``; ``via_at``, ``via_end``: where its row
        begins and ends."""
        # ``lines`` and ``ids`` stay unset: see open
        self._sent = sent
        self._branch = branch
        self._octets = octets
        self._via_at = via_at
        self._via_end = via_end

    def open(self) -> None:
        if not self._octets:
            return
        head, _, body = self._octets.partition(b"\r\n\r\n")
        self.lines, self.ids = strict.rows(head)
        self.lines += (b"", body)
        self.ids += (END, BODY)
        self._octets = b""

    def branch(self) -> bytes:
        return self._branch

    def ensure_length(self) -> None:
        if not self._octets:  # one in the usual shape has it
            SipMessage.ensure_length(self)

    def sent_by(self, listener: Listener) -> bool:
        if self._sent == listener.via_sent:
            return True
        self.open()
        return SipMessage.sent_by(self, listener)

    def to_bytes(self) -> bytes:
        return self._octets or b"\r\n".join(self.lines)

    def drop_top_via(self) -> bool:
        octets, end = self._octets, self._via_end
        # the next one nearly always follows at once
        if not octets.startswith(b"\r\nVia: ", end):
            self.open()
            return SipMessage.drop_top_via(self)
        self._octets = octets[: self._via_at] + octets[end + 2 :]
        self._via = None
        return True


#: (lines of one branch, the request, the flow that it leaves on, whether that is a client's flow)
LateEdit = Callable[["HeaderList", "SipMessage", "Flow", bool], None]


def parse(data: bytes, stream: bool = False) -> SipMessage:
    """One datagram, or one message cut out of a stream, as a ``SipMessage``.

    ``stream`` says that the framer has cut the message by its Content-Length.  Raises
    ``ParseError`` and nothing else, whatever the bytes.  Octets of a datagram beyond Content-Length
    are dropped (RFC 3261 §18.3).
    """
    msg = read(data, stream)
    msg.open()
    return msg


def read(data: bytes, stream: bool) -> SipMessage:
    """``parse``, but a response may not be open yet."""
    msg = read_usual(data, stream)
    return strict.parse(data, stream) if msg is None else msg


def read_usual(data: bytes, stream: bool) -> SipMessage | None:
    """A message in the usual shape; ``None`` if ``strict`` must read it."""
    return _response(data) if data.startswith(b"SIP/2.0 ") else _request(data, stream)


def _request(data: bytes, stream: bool) -> SipMessage | None:
    index = usual.request(data)
    if index is None:
        return None
    lines, ids, at, words = index
    (
        method, uri, v6, raw, transport, sent_by, host, port, params, rest,
        from_tag, to_tag, call_id, cseq_method, length,
    ) = words  # fmt: skip
    if cseq_method != method or len(uri) > strict.MAX_URI or (v6 and not usual.is_v6(v6)):
        return None
    via = usual.top_via(raw, transport, sent_by, host, port, params, rest)
    if via is None:
        return None
    end = len(data)
    if length is not None:
        end = at + int(length)
        if end > len(data):
            return None
    elif stream:
        return None
    lines.append(b"")
    lines.append(data[at:end])
    ids.append(END)
    ids.append(BODY)
    msg = SipMessage(lines, ids)
    msg.method = msg.cseq_method = method
    msg.ruri = uri
    msg._via = via
    msg._call_id = call_id
    msg._from_tag = from_tag or b""
    msg._to_tag = to_tag or b""
    return msg


def _response(data: bytes) -> SipMessage | None:
    index = usual.response(data)
    if index is None:
        return None
    status, reason, method, sent, branch, via_at, via_end, length, at = index
    end = at + length
    if end > len(data) or method not in strict.METHODS:
        return None
    msg = Response(data if end == len(data) else data[:end], sent, branch, via_at, via_end)
    msg.status = status
    msg.reason = reason
    msg.cseq_method = method
    return msg


__all__ = ["HeaderList", "LateEdit", "ParseError", "SipMessage", "canonical", "parse", "read"]
