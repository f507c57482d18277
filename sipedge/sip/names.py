"""Header names: every spelling to one canonical id (RFC 3261 §7.3.1, §7.3.3, §20).

The canonical id is the long form in lower case, as bytes.  The constants below are the very
objects that ``SipMessage.ids`` holds, so comparing them is cheap.
"""

from __future__ import annotations

from typing import Final

# not header names (a colon cannot stand in one): the other lines of a message
START: Final = b":start"
END: Final = b":end"
BODY: Final = b":body"
NO_NAME: Final = b":none"

ALLOW: Final = b"allow"
AUTHORIZATION: Final = b"authorization"
CALL_ID: Final = b"call-id"
CONTACT: Final = b"contact"
CONTENT_LENGTH: Final = b"content-length"
CONTENT_TYPE: Final = b"content-type"
CSEQ: Final = b"cseq"
DATE: Final = b"date"
EXPIRES: Final = b"expires"
FLOW_TIMER: Final = b"flow-timer"
FROM: Final = b"from"
MAX_BREADTH: Final = b"max-breadth"
MAX_FORWARDS: Final = b"max-forwards"
MIN_EXPIRES: Final = b"min-expires"
PATH: Final = b"path"
PROXY_AUTHENTICATE: Final = b"proxy-authenticate"
PROXY_AUTHORIZATION: Final = b"proxy-authorization"
PROXY_REQUIRE: Final = b"proxy-require"
RECORD_ROUTE: Final = b"record-route"
REQUIRE: Final = b"require"
RETRY_AFTER: Final = b"retry-after"
ROUTE: Final = b"route"
SERVICE_ROUTE: Final = b"service-route"
SUPPORTED: Final = b"supported"
TIMESTAMP: Final = b"timestamp"
TO: Final = b"to"
UNSUPPORTED: Final = b"unsupported"
USER_AGENT: Final = b"user-agent"
VIA: Final = b"via"
WWW_AUTHENTICATE: Final = b"www-authenticate"

#: RFC 3261 §7.3.3 and the IANA registry of compact forms
COMPACT: Final = {
    b"a": b"accept-contact", b"b": b"referred-by", b"c": CONTENT_TYPE, b"d": b"request-disposition",
    b"e": b"content-encoding", b"f": FROM, b"i": CALL_ID, b"j": b"reject-contact",
    b"k": SUPPORTED, b"l": CONTENT_LENGTH, b"m": CONTACT, b"n": b"identity-info",
    b"o": b"event", b"r": b"refer-to", b"s": b"subject", b"t": TO, b"u": b"allow-events",
    b"v": VIA, b"x": b"session-expires", b"y": b"identity",
}  # fmt: skip

#: how we write a header that we add ourselves
SPELLING: Final = {
    CALL_ID: b"Call-ID", CSEQ: b"CSeq", MAX_FORWARDS: b"Max-Forwards", b"sip-etag": b"SIP-ETag",
    WWW_AUTHENTICATE: b"WWW-Authenticate", b"mime-version": b"MIME-Version",
}  # fmt: skip

_COMMON: Final = (
    "Accept", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow", "Allow-Events",
    "Authorization", "Call-ID", "Call-Info", "Contact", "Content-Disposition", "Content-Encoding",
    "Content-Language", "Content-Length", "Content-Type", "CSeq", "Date", "Event", "Expires",
    "Flow-Timer", "From", "In-Reply-To", "Max-Breadth", "Max-Forwards", "MIME-Version",
    "Min-Expires", "Min-SE", "Organization", "Path", "Priority", "Privacy",
    "P-Asserted-Identity", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Require", "RAck",
    "Reason", "Record-Route", "Refer-To", "Referred-By", "Reply-To", "Require", "Retry-After",
    "Route", "RSeq", "Server", "Service-Route", "Session-Expires", "SIP-ETag", "SIP-If-Match",
    "Subject", "Subscription-State", "Supported", "Timestamp", "To", "Unsupported", "User-Agent",
    "Via", "Warning", "WWW-Authenticate", "X-Call-ID",
)  # fmt: skip

#: spelling as it stood on the wire -> canonical id; grows, but never beyond MAX_SPELLINGS
CANONICAL: dict[bytes, bytes] = {}
#: the same for the fast path, keys with their colon: of the names that ``usual`` reads, only the
#: spellings that it knows
USUAL: dict[bytes, bytes] = {}
MAX_SPELLINGS: Final = 4096

#: the names that ``usual`` reads, and as what
_READ: Final = frozenset((
    CALL_ID, CONTACT, CONTENT_LENGTH, CSEQ, FROM, MAX_FORWARDS, PATH, RECORD_ROUTE, ROUTE, TO,
))  # fmt: skip
_READ_AS: Final = frozenset((
    b"Call-ID", b"i", b"Contact", b"m", b"Content-Length", b"l", b"CSeq", b"From", b"f",
    b"Max-Forwards", b"Path", b"Record-Route", b"Route", b"To", b"t",
))  # fmt: skip

_TOKEN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~")


def _fill() -> None:
    by_lower: dict[bytes, bytes] = {value: value for value in COMPACT.values()}
    constants = [value for value in globals().values() if isinstance(value, bytes)]
    by_lower.update((value, value) for value in constants if not value.startswith(b":"))
    for name in _COMMON:
        wire = name.encode()
        canonical = by_lower.setdefault(wire.lower(), wire.lower())
        SPELLING.setdefault(canonical, wire)
        for spelling in (wire, wire.lower(), wire.upper(), wire.title()):
            CANONICAL[spelling] = canonical
    for short, canonical in COMPACT.items():
        CANONICAL[short] = CANONICAL[short.upper()] = canonical
        SPELLING.setdefault(canonical, canonical.title())
    for spelling, canonical in CANONICAL.items():
        _usual(spelling, canonical)


def _usual(spelling: bytes, canonical: bytes) -> None:
    if canonical not in _READ or spelling in _READ_AS:
        USUAL[spelling + b":"] = canonical


_fill()


def canonical(spelling: bytes) -> bytes | None:
    """The canonical id of a header name as it stood before the colon, ``None`` if it is no token.

    White space between name and colon is legal (RFC 3261 §7.3.1).
    """
    known = CANONICAL.get(spelling)
    if known is not None:
        return known
    name = spelling.rstrip(b" \t")
    if not name or not _TOKEN.issuperset(name):
        return None
    lower = name.lower()
    known = CANONICAL.get(lower, lower)
    if len(CANONICAL) < MAX_SPELLINGS and len(spelling) <= 64:
        CANONICAL[spelling] = known
        _usual(spelling, known)
    return known


def spelling(name: bytes) -> bytes:
    """How a canonical id is written in a header that we add."""
    known = SPELLING.get(name)
    return known if known is not None else name.title()
