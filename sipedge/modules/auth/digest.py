"""Stop 6, auth: the arithmetic and the grammar of digest authentication (RFC 7616, RFC 8760).

Strategy: pure functions on bytes.  ``parse_credentials`` is tolerant where phones are sloppy
(quotes where none belong and the other way round, upper case) and strict where sloppiness is
dangerous: a parameter that stands twice, quotes that never end, a nonce count that is no number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

from sipedge.sip.values import quote, unquote

MD5: Final = b"MD5"
SHA_256: Final = b"SHA-256"
SHA_512_256: Final = b"SHA-512-256"


def _md5(data: bytes) -> bytes:
    # not for security by today's measure, but what most phones speak (RFC 8760 §1)
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def _sha_256(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _sha_512_256(data: bytes) -> bytes:
    return hashlib.new("sha512_256", data).hexdigest().encode()


#: H(data) as lower-case hexadecimal digits, by the name of the algorithm (RFC 7616 §3.3)
ALGORITHMS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    MD5: _md5,
    SHA_256: _sha_256,
    SHA_512_256: _sha_512_256,
}
#: hexadecimal digits of a hash (RFC 8760 §2.1)
HEX_DIGITS: Final = {MD5: 32, SHA_256: 64, SHA_512_256: 64}
#: the largest nonce count: eight hexadecimal digits (RFC 7616 §3.4)
_NC: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_SCHEME: Final = re.compile(rb"digest[ \t]++", re.IGNORECASE)
_PARAM: Final = re.compile(
    rb'[ \t]*+([A-Za-z0-9\-*_.]++)[ \t]*+=[ \t]*+("(?:[^"\\]++|\\.)*"|[^",\s]*+)[ \t]*+(?:,|$)',
    re.DOTALL,
)
_MANDATORY: Final = (b"username", b"realm", b"nonce", b"uri", b"response")


class Credentials:
    """What a client answered to a challenge; values without their quotes.

    ``algorithm`` in upper case, ``MD5`` if the client named none (RFC 3261 §22.4 item 7).  ``qop``
    in lower case; ``b""``: the form of RFC 2069, without ``cnonce`` and ``nc`` (then ``None``).
    ``nc_text`` as it was hashed.  ``userhash``: the user name is a hash (RFC 7616 §3.4.4).
    """

    __slots__ = (
        "algorithm", "cnonce", "nc", "nc_text", "nonce", "qop", "realm", "response", "uri",
        "userhash", "username",
    )  # fmt: skip

    def __init__(self, params: dict[bytes, bytes]) -> None:
        self.username = params[b"username"]
        self.realm = params[b"realm"]
        self.nonce = params[b"nonce"]
        self.uri = params[b"uri"]
        self.response = params[b"response"].lower()
        self.algorithm = params.get(b"algorithm", MD5).upper()
        self.qop = params.get(b"qop", b"").lower()
        self.cnonce = params.get(b"cnonce", b"")
        self.nc_text = params.get(b"nc", b"")
        self.nc = int(self.nc_text, 16) if self.qop else None
        self.userhash = params.get(b"userhash", b"").lower() == b"true"


def parse_credentials(value: bytes) -> Credentials | None:
    """The value of one Authorization or Proxy-Authorization row (RFC 7616 §3.4).

    ``None`` for another scheme, and for what is broken.
    """
    scheme = _SCHEME.match(value)
    if scheme is None:
        return None
    params: dict[bytes, bytes] = {}
    at, end = scheme.end(), len(value.rstrip(b" \t"))
    while at < end:
        found = _PARAM.match(value, at, end)
        if found is None:
            return None
        name = found[1].lower()
        if name in params:
            return None  # RFC 7616 §3.4: each at most once; two could mean different things
        text = found[2]
        params[name] = unquote(text) if b"\\" in text else text.strip(b'"')
        at = found.end()
    if any(name not in params for name in _MANDATORY):
        return None
    if params.get(b"qop") and not (params.get(b"cnonce") and _NC.fullmatch(params.get(b"nc", b""))):
        return None  # RFC 7616 §3.4: both are there if and only if qop is
    return Credentials(params)


def ha1(algorithm: bytes, user: bytes, realm: bytes, password: bytes) -> bytes:
    """H(A1) in hexadecimal digits (RFC 7616 §3.4.2): as good as the password within its realm."""
    return ALGORITHMS[algorithm](b"%s:%s:%s" % (user, realm, password))


def response(credentials: Credentials, ha1_hex: bytes, method: bytes) -> bytes:
    """The response that proves the knowledge of H(A1) (RFC 7616 §3.4.1).

    ``uri`` counts as it was sent, whatever the Request-URI is by now (requirement AUT-08).
    """
    hashed = ALGORITHMS[credentials.algorithm]
    ha2 = hashed(b"%s:%s" % (method, credentials.uri))
    if not credentials.qop:
        return hashed(b"%s:%s:%s" % (ha1_hex, credentials.nonce, ha2))  # RFC 2069 §2.1.2
    return hashed(
        b"%s:%s:%s:%s:%s:%s"
        % (
            ha1_hex, credentials.nonce, credentials.nc_text, credentials.cnonce, credentials.qop,
            ha2,
        )
    )  # fmt: skip


def challenge(realm: bytes, nonce: bytes, algorithm: bytes, stale: bool) -> bytes:
    """The value of a WWW-Authenticate or Proxy-Authenticate row (RFC 7616 §3.3, RFC 8760 §2.6)."""
    text = b'Digest realm=%s, nonce="%s", qop="auth", algorithm=%s' % (
        quote(realm), nonce, algorithm,
    )  # fmt: skip
    return text + b", stale=true" if stale else text
