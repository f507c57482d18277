"""Module sanity: is this request worth any work (stop 6)?

Strategy: one small check a bit, in the order of the bits; the first that fails answers the
request by itself and names what is wrong.  The parser has refused what cannot be a message before
any route runs, so most checks here cost a comparison; they exist for requests that are readable
but wrong, and for routes that were written for Kamailio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sipedge.core import Core
from sipedge.errors import ParseError
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    FAIL,
    OK,
    REQUEST_ROUTE,
    STOP,
    Context,
    Function,
    ModuleExports,
    Param,
    Rc,
)
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import (
    CALL_ID,
    CONTACT,
    CONTENT_LENGTH,
    CSEQ,
    EXPIRES,
    FROM,
    TO,
    VIA,
)
from sipedge.sip.uri import parse_uri
from sipedge.sip.values import number

#: status, reason phrase and headers of the answer
Verdict = tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]

RURI, FROM_URI, TO_URI, CONTACT_URI = 1, 2, 4, 8
ALL_URIS: Final = 15
#: 8 and 16 check nothing, as in Kamailio.  Nor do 512 and 16384: the host answers an unknown
#: Proxy-Require (RFC 3261 §16.3 item 5) and refuses a bad first Via before any route runs.  2048,
#: 4096 and 8192 do not exist here.
ALL_CHECKS: Final = 1 | 2 | 4 | 8 | 16 | 32 | 64 | 128 | 256 | 512 | 1024 | 16384
_CSEQ_LIMIT: Final = 2**31 - 1  # RFC 3261 §8.1.1.5


@dataclass(slots=True)
class SanityParams:
    default_checks: int = 1511
    uri_checks: int = 7
    noreply: int = 0


class SanityModule:
    """Kamailio's module sanity."""

    _core: Core

    def __init__(self) -> None:
        self.params = SanityParams()
        self.exports = ModuleExports(
            "sanity",
            functions=(
                Function("sanity_check", self.sanity_check, REQUEST_ROUTE),
                Function("sanity_check_defaults", self.sanity_check_defaults, REQUEST_ROUTE),
                Function("sanity_reply", self.sanity_reply, REQUEST_ROUTE),
            ),
            params=(
                Param("default_checks", int, "checks when none are named: a sum of bits", 0),
                Param("uri_checks", int, "1 Request-URI, 2 From, 4 To, 8 Contact", 0, ALL_URIS),
                Param("noreply", int, "1: do not answer; sanity_reply does", 0, 1),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        if self.params.default_checks & ~ALL_CHECKS:
            raise ctx.param_error("default_checks", _unknown(self.params.default_checks))
        self._core = ctx.core

    def sanity_check(
        self, msg: SipMessage, msg_checks: int | None = None, uri_checks: int | None = None
    ) -> Rc:
        """Check the request; the arguments are sums of bits, by default those of the parameters.

        Returns 1 in order; 0 not, and it was answered (400, 416 or 505): leave the route; -1 not,
        and ``noreply`` is set.

        ``msg_checks``: 1 version in the Request-URI, 2 its scheme, 4 required headers, 32 method
        and 64 number of CSeq, 128 Content-Length, 256 Expires, 1024 URIs.
        ``uri_checks``: 1 Request-URI, 2 From, 4 To, 8 Contact.
        """
        bits = self.params.default_checks if msg_checks is None else msg_checks
        if bits & ~ALL_CHECKS:
            raise ValueError(f"sanity_check: {_unknown(bits)}")
        uris = self.params.uri_checks if uri_checks is None else uri_checks
        verdict = _judge(msg, bits, uris)
        if verdict is None:
            return OK
        if self.params.noreply:
            msg.remember(self, verdict)
            return FAIL
        self._core.reply(msg, *verdict)
        return STOP

    def sanity_check_defaults(self, msg: SipMessage) -> Rc:
        """``sanity_check`` with the checks of the parameters."""
        return self.sanity_check(msg)

    def sanity_reply(self, msg: SipMessage) -> Rc:
        """Send the answer that ``sanity_check`` kept because of ``noreply``: 1 sent, -1 there is
        none."""
        verdict: Verdict | None = msg.recall(self)
        if verdict is None:
            return FAIL
        self._core.reply(msg, *verdict)
        return OK


def _judge(msg: SipMessage, bits: int, uris: int) -> Verdict | None:
    for bit, check in CHECKS:
        if bits & bit:
            verdict = check(msg)
            if verdict is not None:
                return verdict
    return _uris(msg, uris) if bits & 1024 else None


def _bad(reason: bytes) -> Verdict:
    return 400, reason, ()


def _ruri_version(msg: SipMessage) -> Verdict | None:
    if msg.lines[0].endswith(b" SIP/2.0"):
        return None
    return 505, b"Version Not Supported", ()


def _ruri_scheme(msg: SipMessage) -> Verdict | None:
    if msg.ruri.partition(b":")[0].lower() in (b"sip", b"sips", b"tel", b"tels", b"urn"):
        return None
    return 416, b"Unsupported URI Scheme", ()


def _required_headers(msg: SipMessage) -> Verdict | None:
    for name in (VIA, FROM, TO, CALL_ID, CSEQ):
        if name not in msg.ids:
            return _bad(b"Missing " + name.title())
    return None


def _cseq_method(msg: SipMessage) -> Verdict | None:
    method = (msg.first(CSEQ) or b"").partition(b" ")[2].strip(b" \t")
    return None if method == msg.method else _bad(b"Wrong Method in CSeq")


def _cseq_number(msg: SipMessage) -> Verdict | None:
    value = number((msg.first(CSEQ) or b"").partition(b" ")[0], _CSEQ_LIMIT)
    return _bad(b"Bad Number in CSeq") if value is None else None


def _content_length(msg: SipMessage) -> Verdict | None:
    value = msg.first(CONTENT_LENGTH)
    if value is None or number(value) == len(msg.body):
        return None
    return _bad(b"Wrong Content-Length")


def _expires(msg: SipMessage) -> Verdict | None:
    value = msg.first(EXPIRES)
    return None if value is None or number(value) is not None else _bad(b"Bad Expires")


def _uris(msg: SipMessage, uris: int) -> Verdict | None:
    """Check 1024: the URIs that ``uris`` names can be parsed."""
    wanted = ((RURI, None, b"Request-URI"), (FROM_URI, FROM, b"From"), (TO_URI, TO, b"To"),
              (CONTACT_URI, CONTACT, b"Contact"))  # fmt: skip
    for bit, header, name in wanted:
        if not uris & bit:
            continue
        try:
            if header is None:
                parse_uri(msg.ruri)
                continue
            for value in msg.values(header) if header is CONTACT else msg.rows(header)[:1]:
                if value != b"*":
                    parse_uri(parse_nameaddr(value).uri)
        except ParseError:
            return _bad(b"Bad " + name)
    return None


#: in the order in which they are made
CHECKS: Final[tuple[tuple[int, Callable[[SipMessage], Verdict | None]], ...]] = (
    (1, _ruri_version),
    (2, _ruri_scheme),
    (4, _required_headers),
    (32, _cseq_method),
    (64, _cseq_number),
    (128, _content_length),
    (256, _expires),
)


def _unknown(bits: int) -> str:
    return f"there is no check {bits & ~ALL_CHECKS}; the bits that exist sum up to {ALL_CHECKS}"
