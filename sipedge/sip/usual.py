"""Stop 3: the head that nearly all stacks send, read by one regular expression.

Strategy: of a request, the expression matches the whole head or nothing: start line, topmost Via,
then each row by its name, without white space where hardly anybody puts it.  What routing relies
on is checked by the match, and what every request is asked for (topmost Via, tags, Call-ID) is
captured by it.  Any other head is read by ``strict``, row by row.  What passes here passes there
too: differential tests and a fuzz harness hold the two together.

A response is read as far as it takes to find its transaction: our own Via, mostly as we wrote it.
The rest of its rows is the business of the client that it is for.

Groups that repeat are not possessive although they could be: Python before 3.11.5 gets some of
those wrong.  Nothing in them can match in two ways, so time is linear all the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.names import CALL_ID, CSEQ, FROM, TO, VIA
from sipedge.sip.uri import canonical_v6
from sipedge.sip.values import LINE_ENDS, NO_LINE_END, TOKEN, TOKEN_OCTETS
from sipedge.sip.via import Via

if TYPE_CHECKING:
    from sipedge.sip.message import Response, SipMessage

_MANDATORY: Final = frozenset((VIA, FROM, TO, CALL_ID, CSEQ))

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


def read(msg: SipMessage, head: bytes) -> bytes | None:
    """Fill in ``msg``, whose rows and their names are known, from its head.

    Returns the Content-Length as it is written, b"" if there is none; ``None`` if ``strict`` must
    read the message.
    """
    found = _head(head)
    if found is None:
        return None
    (
        method, uri, v6,
        via, transport, sent_by, host, port, params, rest,
        from_tag, to_tag, call_id, cseq_method, length,
    ) = found.groups()  # fmt: skip
    ids = msg.ids
    names = set(ids)
    extra = len(ids) - len(names)  # rows of a name that was there before
    if not _MANDATORY <= names or (
        extra and extra != ids.count(VIA) - 1 and not strict.duplicates_allowed(ids)
    ):
        return None
    top = _via(via, transport, sent_by, host, port, params, rest)
    if top is None or (v6 is not None and not _is_v6(v6)):
        return None
    if len(top.branch) <= 7 or cseq_method != method or len(uri) > strict.MAX_URI:
        return None
    msg.method = msg.cseq_method = method
    msg.ruri = uri
    msg._via = top
    msg._call_id = call_id
    msg._from_tag = from_tag or b""
    msg._to_tag = to_tag or b""
    return length or b""


def _via(
    raw: bytes, transport: bytes, sent_by: bytes, host: bytes, port: bytes | None, params: bytes,
    rest: bytes | None,
) -> Via | None:  # fmt: skip
    branch = b""
    has_rport = False
    if params:
        if params.count(b";branch") > 1 or params.count(b";rport") > 1:
            return None  # the first of several counts
        branch = params.partition(b";branch=")[2].partition(b";")[0]
        has_rport = b";rport;" in params or params[-6:] == b";rport"
    if host[0] == 91:  # "["
        if not _is_v6(host[1:-1]):
            return None
        host = canonical_v6(host[1:-1])
    else:
        host = host.lower()
    return Via(
        transport, host, None if port is None else int(port), sent_by.lower(), branch, has_rport,
        raw, rest.strip(b" \t") if rest else b"",
    )  # fmt: skip


def _is_v6(text: bytes) -> bool:
    try:
        canonical_v6(text)
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
