"""Stop 3: the careful parser, and the checks that every message must pass.

Strategy: ``message.parse`` takes the usual shape apart with a few C calls, has its values checked
by ``usual``, and hands everything else to ``parse`` here, which reads row by row, knows folding and
odd spacing, and says what RFC 3261, RFC 4475 and RFC 5118 say about the message.  So a message is
refused in one place only: here, with as much of it as could be read in ``ParseError.partial``, so
that the request can be answered.

What is checked is what routing relies on: start line, topmost Via, CSeq, Call-ID, Max-Forwards, the
addresses of From, To, Contact, Route, Record-Route and Path, and the body's length.  All other
headers are the business of whoever asks for them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sipedge.errors import ParseError
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import (
    BODY,
    CALL_ID,
    CONTACT,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CSEQ,
    END,
    EXPIRES,
    FROM,
    MAX_BREADTH,
    MAX_FORWARDS,
    MIN_EXPIRES,
    NO_NAME,
    PATH,
    RECORD_ROUTE,
    ROUTE,
    START,
    TIMESTAMP,
    TO,
    VIA,
    canonical,
)
from sipedge.sip.uri import parse_uri
from sipedge.sip.values import TOKEN, number, split_list, tag_of, unfold
from sipedge.sip.via import parse_via, salvage

if TYPE_CHECKING:
    from sipedge.sip.message import SipMessage

#: header rows in one message: five times what the longest of RFC 4475 has, with room for a long
#: Via and Route list (requirement TRN-13)
MAX_ROWS: Final = 1024
#: octets of a Request-URI: flow tokens, GRUUs and escaped users stay far below
MAX_URI: Final = 4096

#: the methods that we know (IANA registry)
METHODS: Final = frozenset((
    b"ACK", b"BYE", b"CANCEL", b"INFO", b"INVITE", b"MESSAGE", b"NOTIFY", b"OPTIONS", b"PRACK",
    b"PUBLISH", b"REFER", b"REGISTER", b"SUBSCRIBE", b"UPDATE",
))  # fmt: skip
#: RFC 3261 §7.3.1, §20: these stand once; a second one is answered with 400 (RFC 4475 §3.3.8)
_SINGLE: Final = frozenset((
    CALL_ID, CONTENT_LENGTH, CONTENT_TYPE, CSEQ, EXPIRES, FROM, MAX_BREADTH, MAX_FORWARDS,
    MIN_EXPIRES, TIMESTAMP, TO,
))  # fmt: skip
_MANDATORY: Final = (VIA, FROM, TO, CALL_ID, CSEQ)
_ADDRESS_LISTS: Final = frozenset((CONTACT, ROUTE, RECORD_ROUTE, PATH))
_ANSWERED: Final = frozenset((FROM, TO, CALL_ID, CSEQ, TIMESTAMP))

_FOLDED_LINE = re.compile(rb"\r\n(?![ \t])")
_TOKEN = re.compile(rb"[" + TOKEN + rb"]+")
_REQUEST = re.compile(rb"([" + TOKEN + rb"]++) ([^ \r\n]++) (SIP/[0-9]++\.[0-9]++)", re.IGNORECASE)
_RESPONSE = re.compile(rb"SIP/2\.0 ([1-6][0-9]{2})(?: ([^\r\n]*+))?", re.IGNORECASE)
_METHOD_GUESS = re.compile(rb"([" + TOKEN + rb"]++)[ \t][^\r\n]*SIP/[0-9]", re.IGNORECASE)
_CSEQ = re.compile(rb"([0-9]++)[ \t]++([" + TOKEN + rb"]++)")
_CALL_ID = re.compile(rb"[^\x00-\x20\x7f]++")


def duplicates_allowed(ids: list[bytes]) -> bool:
    """Does no header that must stand once stand twice? (requirement PAR-12)"""
    seen = set()
    for name in ids:
        if name in _SINGLE:
            if name in seen:
                return False
            seen.add(name)
    return True


def check_values(msg: SipMessage, where: dict[bytes, bytes]) -> None:
    """The checks that every message must pass; raises ``ParseError``.

    ``where`` maps each canonical name to its row (to the last one, of a repeated header).  Leaves
    topmost Via, Call-ID and tags in ``msg``, since all of them are needed on every message.
    """
    for name in _MANDATORY:
        if name not in where:
            raise ParseError(f"no {name.decode()}")
    msg._via = parse_via(msg.row_value(msg.ids.index(VIA)))
    check_branch(msg)
    check_cseq(msg, where[CSEQ])
    msg._call_id = check_call_id(where[CALL_ID])
    msg._from_tag = check_address(where[FROM])
    msg._to_tag = check_address(where[TO])
    if MAX_FORWARDS in where:
        check_max_forwards(where[MAX_FORWARDS])
    for name, row in zip(msg.ids, msg.lines, strict=True):
        if name in _ADDRESS_LISTS:
            check_addresses(row)


def check_branch(msg: SipMessage) -> None:
    """RFC 4475 §3.2.1: the cookie alone identifies nothing; clients would share a transaction."""
    if msg.is_request and msg.via().branch.lower() == b"z9hg4bk":
        raise ParseError("branch without an identifier")


def check_cseq(msg: SipMessage, row: bytes) -> None:
    """RFC 3261 §20.16: a 32-bit number, and the method of the request."""
    found = _CSEQ.fullmatch(_value(row))
    if found is None or number(found[1]) is None:  # RFC 4475 §3.1.2.4
        raise ParseError("malformed CSeq")
    msg.cseq_method = found[2]
    if msg.is_request and found[2] != msg.method:
        if msg.method not in METHODS:
            # RFC 4475 §3.1.2.18: a method that we do not know may have rules that we do not know
            raise ParseError("CSeq of another method", 501, b"Not Implemented")
        raise ParseError("CSeq of another method")


def check_call_id(row: bytes) -> bytes:
    """RFC 3261 §20.8, with any printable octet; returns the Call-ID."""
    value = _value(row)
    if _CALL_ID.fullmatch(value) is None:
        raise ParseError("malformed Call-ID")
    return value


def check_max_forwards(row: bytes) -> None:
    """RFC 3261 §20.22: a number from 0 to 255."""
    if number(_value(row), 255) is None:
        raise ParseError("Max-Forwards is no number from 0 to 255")


def check_address(row: bytes) -> bytes:
    """From or To: exactly one address; returns its tag, ``b""`` if there is none."""
    value = _value(row)
    parse_nameaddr(value)
    return tag_of(value)


def check_addresses(row: bytes) -> None:
    """Contact, Route, ...: a list of addresses, or the ``*`` of a Contact."""
    value = _value(row)
    if value != b"*":
        for item in split_list(value):
            parse_nameaddr(item)


def parse(data: bytes, stream: bool = False) -> SipMessage:
    """One datagram or one message cut out of a stream; see ``message.parse``.

    Raises ``ParseError``, with ``partial`` if the request can be answered.
    """
    from sipedge.sip.message import SipMessage

    head, blank, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")  # RFC 3261 §7.5
    rows = _FOLDED_LINE.split(head)
    msg = SipMessage(rows, [START] * len(rows))
    try:
        _start_line(msg, rows[0])
        if not blank:
            raise ParseError("no empty line after the headers")
        where = _name_rows(msg)
        check_values(msg, where)
        body = _cut_body(where, body, stream)
    except ParseError as error:
        error.partial = partial(head)
        raise
    rows += (b"", body)
    msg.ids += (END, BODY)
    return msg


def rows(head: bytes) -> tuple[list[bytes], list[bytes]]:
    """Start line and rows of a head with their names; ``NO_NAME`` for a row that has none."""
    lines = _FOLDED_LINE.split(head)
    ids = [canonical(line.partition(b":")[0]) or NO_NAME for line in lines]
    ids[0] = START
    return lines, ids


def partial(head: bytes) -> SipMessage | None:
    """What can be read of a request that is refused, enough for ``reply.build_reply``.

    ``head`` is start line and rows, complete or not.  All Vias; From, To, Call-ID, CSeq and
    Timestamp once each.  A topmost Via that is malformed is cut down to its sound beginning.
    ``None`` when there must be no answer: not a request, an ACK, no usable Via.
    """
    from sipedge.sip.message import SipMessage

    rows = _FOLDED_LINE.split(head)
    guess = _METHOD_GUESS.match(rows[0])
    if guess is None or guess[1] == b"ACK":
        return None
    msg = SipMessage([rows[0]], [START])
    msg.method = guess[1]
    for row in rows[1 : MAX_ROWS + 1]:
        name = canonical(row.partition(b":")[0]) if b":" in row else None
        bare = b"\n" in row.replace(b"\r\n", b"") or b"\r" in row.replace(b"\r\n", b"")
        if name is None or bare:
            continue
        if name == VIA or (name in _ANSWERED and name not in msg.ids):
            msg.lines.append(row)
            msg.ids.append(name)
    msg.lines += (b"", b"")
    msg.ids += (END, BODY)
    if VIA not in msg.ids:
        return None
    try:
        msg.via()
    except ParseError:
        readable = salvage(msg.row_value(msg.ids.index(VIA)))
        if readable is None:
            return None
        msg.replace(msg.ids.index(VIA), readable)
        msg.via()
    return msg


def _start_line(msg: SipMessage, line: bytes) -> None:
    found = _RESPONSE.fullmatch(line)
    if found is not None:
        msg.is_request = False
        msg.status = int(found[1])
        msg.reason = found[2] or b""
        return
    found = _REQUEST.fullmatch(line)
    if found is None:
        if len(line) > MAX_URI + 256 and _METHOD_GUESS.match(line):
            raise ParseError("Request-URI too long", 414, b"Request-URI Too Long")
        raise ParseError("malformed start line")
    method, uri, version = found.groups()
    if version.upper() != b"SIP/2.0":
        raise ParseError("unknown SIP version", 505, b"Version Not Supported")
    if len(uri) > MAX_URI:
        raise ParseError("Request-URI too long", 414, b"Request-URI Too Long")
    if parse_uri(uri).headers:
        # RFC 4475 §3.1.2.11: they must not travel in a Request-URI
        raise ParseError("Request-URI with headers")
    msg.method = method
    msg.ruri = uri


def _name_rows(msg: SipMessage) -> dict[bytes, bytes]:
    """Fill ``msg.ids``; returns each canonical name with its last row."""
    rows = msg.lines
    if len(rows) - 1 > MAX_ROWS:
        raise ParseError("too many header rows", 513, b"Message Too Large")
    for i in range(1, len(rows)):
        row = rows[i]
        spelling, colon, value = row.partition(b":")
        name = canonical(spelling) if colon else None
        if name is None:
            raise ParseError("a row that is no header")
        if b"\n" in value or b"\r" in value:
            rest = value.replace(b"\r\n", b"")
            if b"\n" in rest or b"\r" in rest:
                # some would read it as the end of a row: header injection (requirement PAR-05)
                raise ParseError("CR or LF inside a header")
        msg.ids[i] = name
    if not duplicates_allowed(msg.ids):
        raise ParseError("a header that must stand once stands twice")
    return dict(zip(msg.ids, rows, strict=True))


def _cut_body(where: dict[bytes, bytes], body: bytes, stream: bool) -> bytes:
    """The body by Content-Length; octets beyond it are none of the message (RFC 3261 §18.3)."""
    row = where.get(CONTENT_LENGTH)
    if row is None:
        if stream:
            raise ParseError("no Content-Length on a stream")
        return body
    length = number(_value(row))
    if length is None:
        raise ParseError("Content-Length is no number")
    if length > len(body):
        raise ParseError("Content-Length beyond the end of the message")
    return body[:length]


def _value(row: bytes) -> bytes:
    return unfold(row.partition(b":")[2]).strip(b" \t")
