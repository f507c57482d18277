"""Stop 3, backwards: a response built from the rows of its request (RFC 3261 §8.2.6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sipedge.sip.names import CALL_ID, CSEQ, FROM, SPELLING, TIMESTAMP, TO, VIA
from sipedge.sip.values import tag_of, unfold

if TYPE_CHECKING:
    from sipedge.sip.message import HeaderList

#: the phrases of RFC 3261 §21 and of the extensions that we know
REASONS: Final = {
    100: b"Trying", 180: b"Ringing", 181: b"Call Is Being Forwarded", 182: b"Queued",
    183: b"Session Progress", 199: b"Early Dialog Terminated",
    200: b"OK", 202: b"Accepted", 204: b"No Notification",
    300: b"Multiple Choices", 301: b"Moved Permanently", 302: b"Moved Temporarily",
    305: b"Use Proxy", 380: b"Alternative Service",
    400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required", 403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 406: b"Not Acceptable",
    407: b"Proxy Authentication Required", 408: b"Request Timeout", 410: b"Gone",
    412: b"Conditional Request Failed", 413: b"Request Entity Too Large",
    414: b"Request-URI Too Long", 415: b"Unsupported Media Type", 416: b"Unsupported URI Scheme",
    417: b"Unknown Resource-Priority", 420: b"Bad Extension", 421: b"Extension Required",
    422: b"Session Interval Too Small", 423: b"Interval Too Brief",
    424: b"Bad Location Information", 428: b"Use Identity Header",
    429: b"Provide Referrer Identity", 430: b"Flow Failed",
    433: b"Anonymity Disallowed", 436: b"Bad Identity-Info", 437: b"Unsupported Certificate",
    438: b"Invalid Identity Header", 439: b"First Hop Lacks Outbound Support",
    440: b"Max-Breadth Exceeded", 469: b"Bad Info Package", 470: b"Consent Needed",
    480: b"Temporarily Unavailable", 481: b"Call/Transaction Does Not Exist",
    482: b"Loop Detected", 483: b"Too Many Hops", 484: b"Address Incomplete", 485: b"Ambiguous",
    486: b"Busy Here", 487: b"Request Terminated", 488: b"Not Acceptable Here",
    489: b"Bad Event", 491: b"Request Pending", 493: b"Undecipherable",
    494: b"Security Agreement Required",
    500: b"Server Internal Error", 501: b"Not Implemented", 502: b"Bad Gateway",
    503: b"Service Unavailable", 504: b"Server Time-out", 505: b"Version Not Supported",
    513: b"Message Too Large", 555: b"Push Notification Service Not Supported",
    580: b"Precondition Failure",
    600: b"Busy Everywhere", 603: b"Decline", 604: b"Does Not Exist Anywhere",
    606: b"Not Acceptable", 607: b"Unwanted", 608: b"Rejected",
}  # fmt: skip

_COPIED: Final = frozenset((VIA, FROM, TO, CALL_ID, CSEQ))
_COPIED_100: Final = _COPIED | {TIMESTAMP}


def build_reply(
    request: HeaderList,
    status: int,
    reason: bytes,
    to_tag: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> bytes:
    """The bytes of a response to ``request``.

    All Via rows, From, To, Call-ID and CSeq are copied as they stand, as far as the request has
    them (it may be the ``partial`` of a ``ParseError``); Timestamp into a 100 only.  ``to_tag`` is
    added to a To without tag, never in a 100.  ``headers`` are further rows, names as the ids of
    ``sip.names`` or as they shall be written.
    """
    rows = zip(request.lines, request.ids, strict=True)
    if status == 100:
        lines = [line for line, name in rows if name in _COPIED_100]
    else:
        lines = [
            _with_tag(line, to_tag) if name == TO and to_tag else line
            for line, name in rows
            if name in _COPIED
        ]
    lines.insert(0, b"SIP/2.0 %d %s" % (status, reason))
    lines += [SPELLING.get(name, name) + b": " + value for name, value in headers]
    lines.append(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    return b"\r\n".join(lines)


def _with_tag(row: bytes, tag: bytes) -> bytes:
    if tag_of(unfold(row.partition(b":")[2])):
        return row
    return row.rstrip(b" \t\r\n") + b";tag=" + tag
