"""Stop 6, registrar: a Contact value of a REGISTER, read once (RFC 3261 §20.10, RFC 5626 §4.2).

Strategy: cut the parameters into pieces, look at those that mean something here, and keep the
text of all others as it was, so that the UA finds its Contact in the answer byte for byte.
"""

from __future__ import annotations

from typing import Final

from registrar_plugin.bindings import canonical_instance, param_of, split_params
from sipedge.errors import ParseError
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.uri import Uri, parse_uri
from sipedge.sip.values import number

MAX_EXPIRES: Final = 2**32 - 1
MAX_REG_ID: Final = 2**31 - 1  # RFC 5626 §10
#: expires is ours to grant; GRUUs are the registrar's to give (RFC 5627 §5.1)
_NOT_KEPT: Final = frozenset((b"expires", b"pub-gruu", b"temp-gruu"))
_MEANT: Final = frozenset((b"q", b"reg-id", b"+sip.instance", b"methods"))


class Contact:
    """One Contact value.

    ``kept``: ``<URI>`` and the parameters that are stored.  ``expires``: seconds asked for in the
    Contact itself, None if it does not say.  ``q``: thousandths or -1.  ``reg_id``: as the UA
    sent it, None if there is none, 0 if what it sent is no reg-id.
    """

    __slots__ = ("expires", "instance", "kept", "methods", "q", "reg_id", "uri")

    def __init__(self, value: bytes) -> None:
        """Raises ``ParseError`` (400) for what is no Contact."""
        parsed = parse_nameaddr(value)
        self.uri: Uri = parse_uri(parsed.uri)
        self.expires: int | None = None
        self.q = -1
        self.reg_id: int | None = None
        self.instance = b""
        self.methods: bytes | None = None
        kept = [b"<", parsed.uri, b">"]
        for piece in split_params(parsed.params):
            name, text = param_of(piece)
            if name in _MEANT:
                self._meant(name, text)
            elif name in _NOT_KEPT:
                if name == b"expires" and self.expires is None:
                    self.expires = expires_of(text or b"")
                continue
            kept.append(piece.rstrip(b" \t"))
        self.kept = b"".join(kept)

    def _meant(self, name: bytes, text: bytes | None) -> None:
        if name == b"q":
            self.q = q_of(text or b"")
        elif name == b"reg-id":
            reg_id = number(text or b"", MAX_REG_ID)
            self.reg_id = (reg_id or 0) if self.reg_id is None else 0  # two of them are none
        elif name == b"+sip.instance":
            self.instance = self.instance or canonical_instance(text)
        else:
            self.methods = text


def expires_of(text: bytes) -> int:
    """Seconds; what is no number counts as an hour, a huge one as 2**32-1 (RFC 3261 §20.10)."""
    seconds = number(text, MAX_EXPIRES)
    if seconds is None:
        return MAX_EXPIRES if text.isdigit() else 3600
    return seconds


def q_of(text: bytes) -> int:
    """A q value in thousandths (RFC 3261 §25.1: 0 to 1, up to three decimals); ``ParseError`` if
    not."""
    whole, _, decimals = text.partition(b".")
    fits = whole in (b"0", b"1") and len(decimals) <= 3 and (decimals.isdigit() or not decimals)
    value = int(whole) * 1000 + int(decimals.ljust(3, b"0")) if fits else 1001
    if value > 1000:
        raise ParseError("q is not between 0 and 1")
    return value
