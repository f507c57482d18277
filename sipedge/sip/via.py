"""Stop 3: Via (RFC 3261 §20.42), and what the receiving side writes into it (§18.2.1, RFC 3581).

Strategy: one regular expression for the value that all stacks send, a second one for white space
and letters of any case wherever the grammar allows them.  Parameters other than ``branch`` and
``rport`` are taken apart when somebody asks.  A value that several Vias were joined into (SIPp does
that) gives the first one, and the others as ``rest``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipedge.errors import ParseError
from sipedge.sip.uri import canonical_v6
from sipedge.sip.values import QUOTED, TOKEN, parse_params

if TYPE_CHECKING:
    from sipedge.flow import Flow

_PARAM = rb"(?!branch=|rport(?:;|\Z))[a-z][a-z\-]*+(?:=[" + TOKEN + rb"]++)?"
#: the usual shape; without duplicates, since a group keeps the last of them and the first counts
_usual = re.compile(
    rb"SIP/2\.0/([A-Z]++) (([A-Za-z0-9._\-]++)(?::([1-9][0-9]{0,4}))?)"
    rb"(?:;(?:branch=([" + TOKEN + rb"]++)|(rport)(?=;|\Z)|" + _PARAM + rb"))*"
).fullmatch
_W = rb"[ \t]*+"
_SPACED = re.compile(
    rb"[" + TOKEN + rb"]++" + _W + rb"/" + _W + rb"[" + TOKEN + rb"]++" + _W + rb"/" + _W
    + rb"([" + TOKEN + rb"]++)[ \t]++"
    + rb"([A-Za-z0-9._\-]++|\[[0-9A-Fa-f:.]++\])(?:" + _W + rb":" + _W + rb"([0-9]{1,5})(?![0-9]))?"
    + rb"((?:" + _W + rb";" + _W + rb"[" + TOKEN + rb"]++"
    + rb"(?:" + _W + rb"=" + _W + rb"(?:" + QUOTED + rb"|[^\x00-\x20\x7f\";,]*+))?)*)",
    re.DOTALL,
)  # fmt: skip
_VALUE = _W + rb"(?:=" + _W + rb"(?:" + QUOTED + rb"|[^\x00-\x20\x7f\";,]*+))?" + _W + rb"(?=;|\Z)"
_RECEIVED = re.compile(rb";" + _W + rb"received" + _VALUE, re.IGNORECASE | re.DOTALL)
_RPORT = re.compile(rb";" + _W + rb"rport" + _VALUE, re.IGNORECASE | re.DOTALL)


class Via:
    """One Via value.

    ``transport`` in upper case; ``host`` in lower case, without brackets; ``port`` ``None`` when
    not written; ``sent_by`` is ``host[:port]`` as written, in lower case and without white space.
    ``branch`` is ``b""`` when there is none.  ``has_rport``: ``rport`` stands there and waits for a
    value (RFC 3581 §3).  ``raw`` is this value alone, ``rest`` what follows its comma.
    """

    __slots__ = (
        "_params", "branch", "has_rport", "host", "port", "raw", "rest", "sent_by", "transport",
    )  # fmt: skip

    def __init__(
        self,
        transport: bytes,
        host: bytes,
        port: int | None,
        sent_by: bytes,
        branch: bytes,
        has_rport: bool,
        raw: bytes,
        rest: bytes,
    ) -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.sent_by = sent_by
        self.branch = branch
        self.has_rport = has_rport
        self.raw = raw
        self.rest = rest
        self._params: dict[bytes, bytes | None] | None = None

    @property
    def raw_params(self) -> bytes:
        """The parameters as written, from their first semicolon on."""
        at = self.raw.find(b";")
        return self.raw[at:] if at >= 0 else b""

    @property
    def params(self) -> dict[bytes, bytes | None]:
        """All parameters, as ``values.parse_params`` has them."""
        params = self._params
        if params is None:
            params = self._params = parse_params(self.raw_params)
        return params

    def get(self, name: bytes) -> bytes | None:
        """The value of a parameter (name in lower case); ``None`` if absent or without value."""
        return self.params.get(name)

    def has(self, name: bytes) -> bool:
        """Is the parameter (name in lower case) there, with or without a value?"""
        return name in self.params

    def __repr__(self) -> str:
        return f"<Via {self.raw!r}>"


def parse_via(value: bytes) -> Via:
    """The first Via of an unfolded value; raises ``ParseError`` (400)."""
    found = _usual(value)
    if found is None or value.count(b"branch") > 1 or value.count(b"rport") > 1:
        return _spaced(value)
    transport, sent_by, host, digits, branch, rport = found.groups()
    port = None
    if digits is not None:
        port = int(digits)
        if port > 65535:
            raise ParseError("Via with a port out of range")
    return Via(
        transport,
        host.lower(),
        port,
        sent_by.lower(),
        branch or b"",
        rport is not None,
        value,
        b"",
    )


def salvage(value: bytes) -> bytes | None:
    """The leading part of a malformed value that is a Via, ``None`` if there is none.

    Enough to answer the request (RFC 4475 §3.1.2.1) without sending the damage back.
    """
    found = _SPACED.match(value)
    return found[0] if found else None


def with_received(value: bytes, via: Via, flow: Flow, force_rport: bool) -> bytes | None:
    """``value`` with received and rport of its first Via filled in; ``None`` if nothing changes.

    ``value`` is what ``via`` was parsed from, ``flow`` where the request came from.  RFC 3581 §4:
    with ``rport`` both are always written; ``force_rport`` treats every client so.  RFC 3261
    §18.2.1: else ``received`` if the sent-by host is not the source address.  What a client wrote
    there itself is overwritten: it would decide where our response goes.
    """
    raw = via.raw
    lower = raw.lower()
    if b"received" not in lower and b'"' not in raw and not via.rest:  # as clients write it
        if b"rport" not in lower:
            if force_rport:
                return b"%b;rport=%b%b" % (raw, flow.rport, flow.received)
            return None if via.host == flow.received[10:] else raw + flow.received
        before, _, after = raw.partition(b";rport")
        if via.has_rport and after[:1] in (b"", b";"):
            return b"%b;rport=%b%b%b" % (before, flow.rport, after, flow.received)
    params = via.raw_params
    claimed = b"received" in params.lower() and via.has(b"received")
    wants_rport = via.has_rport or force_rport or via.has(b"rport")
    if not wants_rport and not claimed and via.host == flow.received[10:]:
        return None
    if claimed:
        params = _RECEIVED.sub(b"", params)
    if wants_rport:
        if via.has(b"rport"):
            params = _RPORT.sub(b";rport=" + flow.rport, params, count=1)
        else:
            params += b";rport=" + flow.rport
    head = raw[: len(raw) - len(via.raw_params)]
    filled = head + params + flow.received
    return filled + b", " + via.rest if via.rest else filled


def _spaced(value: bytes) -> Via:
    """Any legal spelling: white space, IPv6, quoted values, several Vias on one line."""
    found = _SPACED.match(value)
    if found is None:
        raise ParseError("malformed Via")
    end = found.end()
    rest = value[end:].strip(b" \t")
    if rest and rest[:1] != b",":
        raise ParseError("malformed Via")
    transport, host, digits, params = found.groups()
    port = None
    if digits is not None:
        port = int(digits)
        if not 0 < port < 65536:
            raise ParseError("Via with a port out of range")
    host = host.lower()
    sent_by = host if digits is None else host + b":" + digits
    if host[:1] == b"[":
        host = canonical_v6(host[1:-1])
    known = parse_params(params)
    return Via(
        transport.upper(),
        host,
        port,
        sent_by,
        known.get(b"branch") or b"",
        b"rport" in known and known[b"rport"] is None,
        value[:end],
        rest[1:].lstrip(b" \t"),
    )
