"""Stop 3: the shapes that nearly every row has, recognised without reading them.

Strategy: of a request, delete all token characters from a row with an address; what remains is its
*shape*, a dozen octets of punctuation such as ``: "" <:@:>;=``.  There are few of them, so whether
a shape is sound is decided once, by a pattern over shapes, and remembered, like the Request-URIs
that were seen.  Start line, topmost Via, CSeq, Call-ID and Max-Forwards are compared with the way
that nearly all stacks write them.  Whatever is unusual is read by the grammar in ``strict``.  What
passes here passes there too: differential tests and a fuzz harness hold the two together.

A response is read as far as it takes to find its transaction.  The rest of its rows is the business
of the client that it is for.

Groups that repeat are not possessive although they could be: Python before 3.11.5 gets some of
those wrong.  Nothing in them can match in two ways, so time is linear all the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.names import (
    CALL_ID,
    CONTACT,
    CONTENT_LENGTH,
    CSEQ,
    FROM,
    MAX_FORWARDS,
    PATH,
    RECORD_ROUTE,
    ROUTE,
    TO,
    VIA,
)
from sipedge.sip.uri import parse_uri
from sipedge.sip.values import LINE_ENDS, NO_LINE_END, TOKEN_OCTETS
from sipedge.sip.via import parse_via

if TYPE_CHECKING:
    from sipedge.sip.message import Response, SipMessage

_MANDATORY: Final = frozenset((VIA, FROM, TO, CALL_ID, CSEQ))
_ADDRESS_LISTS: Final = frozenset((CONTACT, ROUTE, RECORD_ROUTE, PATH))
_WORD_OCTETS: Final = bytes(sorted(set(range(0x21, 0x100)) - {0x7F}))
_REMEMBERED: Final = 8192  # shapes, and Request-URIs; then they are learned anew

_UNUSUAL: Final = 0  # a shape that says nothing
_NO_PARAMS: Final = 1
_ONE_PARAM: Final = 2  # ... with a value
_PARAMS: Final = 3
_shape = re.compile(
    rb': ?(?:"[^"\\<>]*" ?| *)<:[^\x00-\x20\x7f<>"]+>((?:;(?:=(?:"[^"\\]*")?)?)*)'
).fullmatch
#: quoted strings only where a display name or a value can be
_quotes = re.compile(rb'(?:[^"\\]*+(?<=[ :=])"[^"\\]*+"(?= ?<|;|\Z))*[^"\\]*+').fullmatch
_shapes: dict[bytes, int] = {}
_uris: set[bytes] = set()


def _learn(shape: bytes) -> int:
    found = _shape(shape)
    kind = _UNUSUAL
    if found is not None:
        kind = {b"": _NO_PARAMS, b";=": _ONE_PARAM}.get(found[1], _PARAMS)
    if len(_shapes) >= _REMEMBERED:
        _shapes.clear()
    _shapes[shape] = kind
    return kind


def _kind(row: bytes) -> int:
    """``address_kind``, but a parameter may have no name."""
    shape = row.translate(None, TOKEN_OCTETS)
    kind = _shapes.get(shape)
    if kind is None:
        kind = _learn(shape)
    _, scheme, rest = row.partition(b"<sip")
    # the shape does not show token octets: none may stand between ">" and the parameters, or
    # beside a quoted string
    if (
        not scheme
        or rest[:1] not in (b":", b"s")
        or rest.partition(b">")[2][:1] not in (b"", b";")
        or (b'"' in row and _quotes(row) is None)
    ):
        return _UNUSUAL
    return kind


def address_kind(row: bytes) -> int:
    """What is certain about a row with an address: 0 is nothing, 1 a sound address without
    parameters, 2 with one that has a value, 3 with any."""
    kind = _kind(row)
    if kind >= _ONE_PARAM and (b";=" in row or b";;" in row or row[-1:] == b";"):
        return _UNUSUAL  # a parameter without a name
    return kind


def read(msg: SipMessage) -> bytes | None:
    """Fill in a request whose rows and their names are known; no row is folded.

    Returns the Content-Length as it is written, b"" if there is none; ``None`` if ``strict`` must
    read the message.
    """
    lines, ids = msg.lines, msg.ids
    names = set(ids)
    extra = len(ids) - len(names)  # rows of a name that was there before
    if not _MANDATORY <= names or (
        extra and extra != ids.count(VIA) - 1 and not strict.duplicates_allowed(ids)
    ):
        return None
    words = lines[0].split(b" ")
    if len(words) != 3 or words[2] != b"SIP/2.0":
        return None
    method, uri, _ = words
    if uri not in _uris and not _new_uri(uri):
        return None
    cseq = lines[ids.index(CSEQ)].split(b" ")
    if len(cseq) != 3 or cseq[2] != method or cseq[0] != b"CSeq:" or not _short(cseq[1], 9):
        return None
    if method not in strict.METHODS:
        return None
    if MAX_FORWARDS in names:
        if not _short(lines[ids.index(MAX_FORWARDS)].partition(b": ")[2], 2):
            return None
    try:
        via = msg._via = parse_via(lines[ids.index(VIA)].partition(b": ")[2])
        from_tag, to_tag = _tag(lines[ids.index(FROM)]), _tag(lines[ids.index(TO)])
    except ParseError:
        return None
    call_id = lines[ids.index(CALL_ID)].partition(b": ")[2]
    if len(via.branch) <= 7 or not call_id or call_id.translate(None, _WORD_OCTETS):
        return None
    lists = names & _ADDRESS_LISTS
    if lists and not _lists_sound(lines, ids, lists, extra):
        return None
    msg.method = msg.cseq_method = method
    msg.ruri = uri
    msg._call_id = call_id
    msg._from_tag = from_tag
    msg._to_tag = to_tag
    if CONTENT_LENGTH not in names:
        return b""
    length = lines[ids.index(CONTENT_LENGTH)].partition(b": ")[2]
    return length if _short(length, 9) else None


def _short(digits: bytes, most: int) -> bool:
    return digits.isdigit() and len(digits) <= most


def _new_uri(uri: bytes) -> bool:
    """Is this a Request-URI that needs no second look?  If so, it is remembered."""
    try:
        if len(uri) > strict.MAX_URI or parse_uri(uri).headers:
            return False
    except ParseError:
        return False
    if len(_uris) >= _REMEMBERED:
        _uris.clear()
    _uris.add(uri)
    return True


def _tag(row: bytes) -> bytes:
    """The tag of a From or To, b"" if it has none; ``ParseError`` if it is malformed."""
    kind = _kind(row)
    if kind == _NO_PARAMS:
        return b""
    if kind == _ONE_PARAM:
        tag = row.partition(b">;tag=")[2]
        if tag:
            return tag
    return strict.check_address(row)


def _lists_sound(lines: list[bytes], ids: list[bytes], lists: set[bytes], extra: int) -> bool:
    if extra:
        rows = [row for name, row in zip(ids, lines, strict=True) if name in lists]
    else:
        rows = [lines[ids.index(name)] for name in lists]
    for row in rows:
        if not address_kind(row):
            try:
                strict.check_addresses(row)
            except ParseError:
                return False
    return True


def response(data: bytes, head: bytes, size: int) -> Response | None:
    """A response whose head and body (of ``size`` octets) stand in ``data``; ``None`` if ``strict``
    must read it.

    Such a response begins with status line and our own Via, as we wrote it, perhaps below
    Record-Route.  What routing does not rely on is left to whoever asks for it.
    """
    from sipedge.sip.message import Response

    status = head[8:11]
    at = head.find(b"\r\nVia: SIP/2.0/", 11)
    if at < 0 or not b"100" <= status <= b"699" or not status.isdigit() or head[11:12] != b" ":
        return None
    if head.find(b"\r\n", 11) != at and not _below_record_route(head[:at]):
        return None
    end = head.find(b"\r\n", at + 2)
    sent, _, params = head[at + 7 : end if end > 0 else None].partition(b";branch=")
    branch, _, params = params.partition(b";")
    number, _, method = _row(head, b"\r\nCSeq: ", end).partition(b" ")
    length = _row(head, b"\r\nContent-Length: ", end)
    rows = head.count(b"\r\n")
    if (
        end < 0
        or len(branch) <= 7
        or branch.translate(None, TOKEN_OCTETS)
        or b"," in params  # two Vias in one row
        or b"branch" in params
        or head[end + 2 : end + 3] in (b" ", b"\t")
        or method not in strict.METHODS
        or not _short(number, 9)
        or not _short(length, 9)
        or int(length) > size
        or rows > strict.MAX_ROWS
        or head.translate(None, NO_LINE_END) != LINE_ENDS[rows]
    ):
        return None
    beyond = size - int(length)
    msg = Response(data[:-beyond] if beyond else data, sent, branch, at + 2, end)
    msg.status = int(status)
    msg.reason = head[12 : head.find(b"\r\n", 11)]
    msg.cseq_method = method
    return msg


def _below_record_route(rows: bytes) -> bool:
    """Some proxies and user agents write Record-Route above Via."""
    return all(row.startswith(b"Record-Route: ") for row in rows.split(b"\r\n")[1:])


def _row(head: bytes, name: bytes, start: int) -> bytes:
    """The value of the first row of a name, b"" if there is none or it is folded."""
    at = head.find(name, start)
    if at < 0:
        return b""
    at += len(name)
    end = head.find(b"\r\n", at)
    if end < 0:
        return head[at:]
    return b"" if head[end + 2 : end + 3] in (b" ", b"\t") else head[at:end]
