"""Stop 3: SIP and SIPS URIs (RFC 3261 §19.1); other schemes are carried as they are.

Strategy: one regular expression takes a SIP URI apart; it is the grammar of §25.1, with three
liberties that phones need: ``#`` in the user part, ``_`` in a host name, and the extra colon that
RFC 5118 §4.10 asks to tolerate.  Nothing is unescaped: escapes matter for comparison only
(requirement PAR-07), what is forwarded stays as it was written.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import unquote_to_bytes

from sipedge.errors import ParseError

_SIP = re.compile(
    rb"([sS][iI][pP][sS]?):"
    rb"(?:([A-Za-z0-9\-_.!~*'()%&=+$,;?/#]++)(?::([A-Za-z0-9\-_.!~*'()%&=+$,]*+))?@)?"
    rb"([A-Za-z0-9._\-]++|\[[0-9A-Fa-f:.]++\])"
    rb"(?::([0-9]{1,5}))?"
    rb"((?:;[A-Za-z0-9\-_.!~*'()%\[\]/:&+$=,]*+)*)"
    rb"(?:\?([A-Za-z0-9\-_.!~*'()%\[\]/?:+$=&;]*+))?"
)
_OPAQUE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*+):([^\x00-\x20\x7f\"<>]++)")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
# RFC 3261 §19.1.4: an escaped reserved character is not the character; "%" itself because
# unescaping is never done twice (RFC 4475 §3.1.1.3).
_RESERVED = frozenset(b";/?:@&=+$,%")
# RFC 3261 §19.1.4: these never match when only one of the URIs has them
_BOTH_OR_NONE = (b"user", b"ttl", b"method", b"maddr", b"transport")


class Uri:
    """A URI taken apart; treat it as immutable.

    ``scheme`` is in lower case.  ``user`` and ``password`` are as written (still escaped), ``None``
    when absent.  ``host`` is in lower case, IPv6 in its canonical form and without brackets,
    ``b""`` for a scheme other than sip and sips.  ``params`` as ``values.parse_params`` has them.
    ``headers`` is what follows the question mark.  ``raw`` is all of it as written.
    """

    __slots__ = ("headers", "host", "params", "password", "port", "raw", "scheme", "user")

    def __init__(
        self,
        scheme: bytes,
        user: bytes | None,
        password: bytes | None,
        host: bytes,
        port: int | None,
        params: dict[bytes, bytes | None],
        headers: bytes,
        raw: bytes,
    ) -> None:
        self.scheme = scheme
        self.user = user
        self.password = password
        self.host = host
        self.port = port
        self.params = params
        self.headers = headers
        self.raw = raw

    @property
    def host_str(self) -> str:
        """The host as text, for look-ups; IPv6 without brackets."""
        return self.host.decode("ascii")

    def __repr__(self) -> str:
        return f"<Uri {self.raw!r}>"


def parse_uri(raw: bytes) -> Uri:
    """``raw`` (without angle brackets) as a ``Uri``; raises ``ParseError`` (400)."""
    found = _SIP.fullmatch(raw)
    if found is None:
        return _opaque(raw)
    scheme, user, password, host, digits, params, headers = found.groups()
    if b"%" in raw and _BAD_ESCAPE.search(raw):
        raise ParseError("URI with % that is no escape")
    port = None
    if digits is not None:
        port = int(digits)
        if not 0 < port < 65536:
            raise ParseError("URI with a port out of range")
    host = canonical_v6(host[1:-1]) if host[0] == 91 else host.lower()  # 91: "["
    return Uri(
        scheme.lower(),
        user,
        password,
        host,
        port,
        _params(params) if params else {},
        headers or b"",
        raw,
    )


@lru_cache(maxsize=4096)
def canonical_v6(text: bytes) -> bytes:
    """An IPv6 address (no brackets) in its one canonical spelling, so that bytes can be compared
    (RFC 5954 §4.2); raises ``ParseError``."""
    try:
        # RFC 5118 §4.10: the grammar of RFC 3261 allowed a third colon before an IPv4 part
        address = IPv6Address(text.replace(b":::", b"::").decode("ascii"))
    except (AddressValueError, UnicodeDecodeError):
        raise ParseError("not an IPv6 address") from None
    mapped = address.ipv4_mapped
    # str() of a mapped address differs between versions of Python
    return b"::ffff:%s" % str(mapped).encode() if mapped else str(address).encode()


def unescape(value: bytes) -> bytes:
    """``%HH`` replaced by its octet (RFC 3261 §19.1.2); for comparison and look-ups only."""
    return unquote_to_bytes(value) if b"%" in value else value


def uri_equal(a: Uri, b: Uri) -> bool:
    """RFC 3261 §19.1.4: do two URIs name the same resource?"""
    if a.scheme != b.scheme or a.host != b.host or a.port != b.port:
        return False
    if not a.host:  # not SIP: only the scheme has no case
        return a.raw[len(a.scheme) :] == b.raw[len(b.scheme) :]
    if _plain(a.user) != _plain(b.user) or _plain(a.password) != _plain(b.password):
        return False
    if a.params or b.params:
        for name in _BOTH_OR_NONE:
            if (name in a.params) != (name in b.params):
                return False
        for name in a.params.keys() & b.params.keys():
            if _plain_lower(a.params[name]) != _plain_lower(b.params[name]):
                return False
    return a.headers == b.headers or _headers(a.headers) == _headers(b.headers)


def _opaque(raw: bytes) -> Uri:
    found = _OPAQUE.fullmatch(raw)
    if found is None or found[1].lower() in (b"sip", b"sips"):
        raise ParseError("malformed URI")
    return Uri(found[1].lower(), None, None, b"", None, {}, b"", raw)


def _params(raw: bytes) -> dict[bytes, bytes | None]:
    params: dict[bytes, bytes | None] = {}
    for piece in raw.split(b";"):
        if piece:
            name, equals, value = piece.partition(b"=")
            params.setdefault(name.lower(), value if equals else None)
    return params


def _plain(value: bytes | None) -> bytes | None:
    """Escapes resolved where RFC 3261 §19.1.4 calls them equivalent."""
    if value is None or b"%" not in value:
        return value
    return _ESCAPE.sub(_resolve, value)


def _plain_lower(value: bytes | None) -> bytes | None:
    plain = _plain(value)
    return None if plain is None else plain.lower()


def _resolve(found: re.Match[bytes]) -> bytes:
    octet = int(found[1], 16)
    return found[0].upper() if octet in _RESERVED else bytes((octet,))


def _headers(raw: bytes) -> list[tuple[bytes, bytes]]:
    """URI headers in a comparable form: their order does not count, their presence does."""
    pairs = [piece.partition(b"=")[::2] for piece in raw.split(b"&") if piece]
    return sorted((unescape(name).lower(), unescape(value)) for name, value in pairs)
