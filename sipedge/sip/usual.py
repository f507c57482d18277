"""Stop 3: the head that nearly all stacks send, read by one regular expression.

Strategy: of a request, the expression matches the whole head or nothing: start line, topmost Via,
then each row by its name, without white space where hardly anybody puts it.  What routing relies
on is checked by the match, and what every request is asked for (topmost Via, tags, Call-ID) is
captured by it.  Any other head is read by ``strict``, row by row.  What passes here passes there
too: differential tests and a fuzz harness hold the two together.

A response is read as far as it takes to find its transaction: our own Via, mostly as we wrote it.
The rest of its rows is the business of the client that it is for.

A compiled build has both in C (``_usual.c``).  It accepts the same heads and returns the same.

Groups that repeat are not possessive although they could be: Python before 3.11.5 gets some of
those wrong.  Nothing in them can match in two ways, so time is linear all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.names import (
    CALL_ID,
    CONTACT,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CSEQ,
    EXPIRES,
    FROM,
    MAX_BREADTH,
    MAX_FORWARDS,
    MIN_EXPIRES,
    PATH,
    RECORD_ROUTE,
    ROUTE,
    START,
    TIMESTAMP,
    TO,
    USUAL,
    VIA,
)
from sipedge.sip.uri import canonical_v6
from sipedge.sip.values import LINE_ENDS, NO_LINE_END, TOKEN, TOKEN_OCTETS
from sipedge.sip.via import Via

try:
    from sipedge.sip import _usual
except ImportError:
    _usual = None  # type: ignore[assignment]

_MANDATORY: Final = frozenset((VIA, FROM, TO, CALL_ID, CSEQ))

#: the numbers that ``_usual.c`` has for the rows that it looks into, or wants once
_KINDS: Final = {
    VIA: 1, FROM: 2, TO: 3, CALL_ID: 4, CSEQ: 5, MAX_FORWARDS: 6, CONTENT_LENGTH: 7,
    CONTACT: 8, ROUTE: 8, PATH: 8, RECORD_ROUTE: 9,
    CONTENT_TYPE: 10, EXPIRES: 11, MAX_BREADTH: 12, MIN_EXPIRES: 13, TIMESTAMP: 14,
}  # fmt: skip

_PORT = rb"(?:[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_QUOTED = rb"\"[^\"\\\r\n]*+\""
_REQUEST_URI = (
    rb"sips?:(?:[A-Za-z0-9\-_.!~*'()&=+$,;/#]++@)?(?:[A-Za-z0-9.\-]++|\[([0-9A-Fa-f:.]++)\])"
    rb"(?::" + _PORT + rb")?(?:;[A-Za-z0-9\-_.!~*'()\[\]/:&+$=]*+)*"
)
_START = rb"([" + TOKEN + rb"]++) (" + _REQUEST_URI + rb") SIP/2\.0\r\n"
_TOP_VIA = (
    rb"(?:Via|v): (SIP/2\.0/([A-Z]++) "
    rb"(([A-Za-z0-9._\-]++|\[[0-9A-Fa-f:.]++\])(?::(" + _PORT + rb"))?)"
    rb"((?:;[a-z][a-z0-9\-]*+(?:=[^\x00-\x20\x7f\";,]*+)?)*))"
)
_ADDRESS = (
    rb"(?:" + _QUOTED + rb" ?|[" + TOKEN + rb" ]*+)"  # display name: a plain quoted one, or tokens
    rb"<[A-Za-z][A-Za-z0-9+.\-]*+:[^\x00-\x20\x7f\"<>]++>"
)
_PARAM = rb"[" + TOKEN + rb"]++(?:=(?:" + _QUOTED + rb"|[" + TOKEN + rb"]*+))?"
_TAGGED = (
    rb"(?:" + _ADDRESS + rb"|sips?:[^\x00-\x20\x7f\"<>,;?]++)"
    rb"(?:;tag=([" + TOKEN + rb"]++))?(?:;(?![tT][aA][gG])" + _PARAM + rb")*"
)
_ONE = _ADDRESS + rb"(?:;" + _PARAM + rb")*"
_LISTED = _ONE + rb"(?:, ?" + _ONE + rb")*"
_ROWS = (
    rb"(?:From|f): " + _TAGGED,
    rb"(?:To|t): " + _TAGGED,
    rb"(?:Call-ID|i): ([^\x00-\x20\x7f]++)",
    rb"CSeq: [0-9]{1,9} ([" + TOKEN + rb"]++)",
    rb"Max-Forwards: [0-9]{1,2}",
    rb"(?:Content-Length|l): ([0-9]{1,9})",
    rb"(?:Contact|m|Route|Record-Route|Path): (?:\*|" + _LISTED + rb")",
    rb"(?!(?:From|f|To|t|Call-ID|i|CSeq|Max-Forwards|Content-Length|l|Contact|m|Route|Record-Route"
    rb"|Path):)[^:\r\n]++:[^\r\n]*+",
)
_head = re.compile(
    _START
    + rb"(?:Record-Route: " + _LISTED + rb"\r\n)*"  # some proxies write theirs above their Via
    + _TOP_VIA + rb"(?:, ?([^\x00-\x20][^\r\n]*+))?(?:\r\n(?:" + b"|".join(_ROWS) + rb"))*"
).fullmatch  # fmt: skip


#: what the head of a request says, ``None`` for what is not there: method, Request-URI, IPv6
#: address in it; of the topmost Via: its value, transport, sent-by, host, port, parameters, other
#: Vias of that row; From tag, To tag, Call-ID, method in CSeq, Content-Length
RequestWords = tuple[
    bytes, bytes, bytes | None,
    bytes, bytes, bytes, bytes, bytes | None, bytes, bytes | None,
    bytes | None, bytes | None, bytes, bytes, bytes | None,
]  # fmt: skip
#: lines and names of the head, where the body begins, the words
RequestIndex = tuple[list[bytes], list[bytes], int, RequestWords]
#: status, reason, method in CSeq; the topmost Via up to its branch, the branch, where that row
#: begins and ends; Content-Length, where the body begins
ResponseIndex = tuple[int, bytes, bytes, bytes, bytes, int, int, int, int]


def index_request(data: bytes) -> RequestIndex | None:
    """What stands where in a request; ``None`` if ``strict`` must read it."""
    end = data.find(b"\r\n\r\n")
    head = data[: max(end, 0)]
    lines = head.split(b"\r\n")
    get = USUAL.get
    ids = [get(line[: line.find(b":") + 1]) for line in lines]
    ids[0] = START
    if None in ids or len(ids) - 1 > strict.MAX_ROWS:
        return None  # a name not seen before, spelled oddly or missing, or a folded row
    found = _head(head)
    if found is None:
        return None
    known: list[bytes] = ids  # type: ignore[assignment]  # no None left
    names = set(known)
    extra = len(known) - len(names)  # rows of a name that was there before
    if not _MANDATORY <= names or (
        extra and extra != known.count(VIA) - 1 and not strict.duplicates_allowed(known)
    ):
        return None
    return lines, known, end + 4, found.groups()  # type: ignore[return-value]


def top_via(
    raw: bytes, transport: bytes, sent_by: bytes, host: bytes, port: bytes | None, params: bytes,
    rest: bytes | None,
) -> Via | None:  # fmt: skip
    """The topmost Via of a request, after the checks that no expression makes; ``None`` if
    ``strict`` must read it."""
    branch = b""
    has_rport = False
    if params:
        if params.count(b";branch") > 1 or params.count(b";rport") > 1:
            return None  # the first of several counts
        branch = params.partition(b";branch=")[2].partition(b";")[0]
        has_rport = b";rport;" in params or params[-6:] == b";rport"
    if len(branch) <= 7:
        return None
    if host[0] == 91:  # "["
        if not is_v6(host[1:-1]):
            return None
        host = canonical_v6(host[1:-1])
    else:
        host = host.lower()
    return Via(
        transport, host, None if port is None else int(port), sent_by.lower(), branch, has_rport,
        raw, rest.strip(b" \t") if rest else b"",
    )  # fmt: skip


def is_v6(text: bytes) -> bool:
    """What stands between brackets: is it an IPv6 address?"""
    try:
        canonical_v6(text)
    except ParseError:
        return False
    return True


def index_response(data: bytes) -> ResponseIndex | None:
    """What stands where in a response; ``None`` if ``strict`` must read it.

    Such a response begins with status line and our own Via, as we wrote it, perhaps below
    Record-Route.  What routing does not rely on is left to whoever asks for it.
    """
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = data[:head_end]
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
        or not method
        or not _short(number, 9)
        or not _short(length, 9)
        or rows > strict.MAX_ROWS
        or head.translate(None, NO_LINE_END) != LINE_ENDS[rows]
    ):
        return None
    reason = head[12 : head.find(b"\r\n", 11)]
    return (
        int(status), reason, method, sent, branch, at + 2, end, int(length), head_end + 4,
    )  # fmt: skip


def _short(digits: bytes, most: int) -> bool:
    return digits.isdigit() and len(digits) <= most


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


#: the same two, in C if this is a compiled build
request: Callable[[bytes], RequestIndex | None] = index_request
response: Callable[[bytes], ResponseIndex | None] = index_response
if _usual is not None:
    _usual.setup(USUAL, _KINDS, START)
    request = _usual.request
    response = _usual.response
