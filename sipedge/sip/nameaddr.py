"""Stop 3: name-addr and addr-spec with header parameters: From, To, Contact, Route, Path, ...

Strategy: two regular expressions, one for each form of RFC 3261 §20.10, and no repair: a display
name with a comma outside quotes, a space inside the brackets, a bare URI with a question mark are
refused as RFC 4475 §3.1.2 says one may.  Non-ASCII octets in an unquoted display name are let
through, because phones send them.
"""

from __future__ import annotations

import re

from sipedge.errors import ParseError
from sipedge.sip.values import QUOTED, TOKEN, parse_params

_W = rb"[ \t]*+"
_PARAMS = (
    rb"(?:" + _W + rb";" + _W + rb"[" + TOKEN + rb"]++"
    rb"(?:" + _W + rb"=" + _W + rb"(?:" + QUOTED + rb"|[^\x00-\x20\x7f\";,<>]*+))?)*"
)
_DISPLAY = rb"(?:" + QUOTED + rb"|[" + TOKEN + rb" \t\x80-\xff]*+)"
_ADDRESS = rb"[A-Za-z][A-Za-z0-9+.\-]*+:[^\x00-\x20\x7f\"<>]++"
_BRACKETS = re.compile(
    _W + rb"(" + _DISPLAY + rb")" + _W + rb"<(" + _ADDRESS + rb")>(" + _PARAMS + rb")" + _W,
    re.DOTALL,
)
# RFC 3261 §20: a bare URI has no comma, no question mark, and no parameters of its own
_BARE = re.compile(
    _W + rb"([A-Za-z][A-Za-z0-9+.\-]*+:[^\x00-\x20\x7f\"<>,;?]++)(" + _PARAMS + rb")" + _W,
    re.DOTALL,
)


class NameAddr:
    """``display`` (as written, quotes included), ``uri`` (as written, without brackets) and
    ``params`` (header parameters as written, from their first semicolon on)."""

    __slots__ = ("_params", "display", "params", "uri")

    def __init__(self, display: bytes, uri: bytes, params: bytes) -> None:
        self.display = display
        self.uri = uri
        self.params = params
        self._params: dict[bytes, bytes | None] | None = None

    def get(self, name: bytes) -> bytes | None:
        """The value of a header parameter (name in lower case, value as written); ``None`` if it is
        absent or has no value."""
        return self.all().get(name)

    def has(self, name: bytes) -> bool:
        """Is the header parameter (name in lower case) there, with or without a value?"""
        return name in self.all()

    def all(self) -> dict[bytes, bytes | None]:
        """All header parameters, as ``values.parse_params`` has them."""
        params = self._params
        if params is None:
            params = self._params = parse_params(self.params)
        return params

    def __repr__(self) -> str:
        return f"<NameAddr {self.display!r} {self.uri!r} {self.params!r}>"


def parse_nameaddr(value: bytes) -> NameAddr:
    """One value (no list, no ``*``) of From, To, Contact, Route, ...; raises ``ParseError``."""
    found = _BRACKETS.fullmatch(value)
    if found is not None:
        return NameAddr(found[1].strip(b" \t"), found[2], found[3].strip(b" \t"))
    found = _BARE.fullmatch(value)
    if found is None:
        raise ParseError("malformed address")
    return NameAddr(b"", found[1], found[2].strip(b" \t"))
