"""Stop 3: the small grammar that all headers share: lists, parameters, quoted strings, numbers.

Strategy: the shape that nearly every message has is tested with one ``in`` or one regular
expression; only the rest is scanned.  In all patterns of this package the alternatives exclude each
other and only runs of single characters are possessive, so the time grows linearly with the input,
whatever the input is (requirement PAR-13).  Possessive *groups* would say so more plainly, but
CPython 3.11 gets some of them wrong (gh-101955, gh-106052).  All functions take values that are
unfolded already, except ``unfold``, and none of them decodes bytes.
"""

from __future__ import annotations

import re
from typing import Final

#: RFC 3261 §25.1: the octets of a token, for use inside a character class
TOKEN: Final = rb"A-Za-z0-9\-.!%*_+`'~"
#: the same as octets, for ``bytes.translate``
TOKEN_OCTETS: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~"
#: ``head.translate(None, NO_LINE_END) == LINE_ENDS[rows]``: its CR and LF are those of CRLFs
NO_LINE_END: Final = bytes(octet for octet in range(256) if octet not in b"\r\n")
LINE_ENDS: Final = tuple(b"\r\n" * rows for rows in range(1025))
#: quoted-string; an unterminated one does not match
QUOTED: Final = rb'"(?:[^"\\]++|\\.)*"'

# The look-behind lets a match begin only where white space begins: no quadratic search.
_FOLD = re.compile(rb"(?<![ \t])[ \t]*+(?:\r\n[ \t]++)+")
# Unterminated quotes and brackets run to the end: never a second scan over the same octets.
_ITEM = re.compile(rb'(?:[^",<]++|"(?:[^"\\]++|\\.)*"?|<[^>]*+>?)+', re.DOTALL)
_PARAM = re.compile(rb'(?:[^";]++|"(?:[^"\\]++|\\.)*"?)+', re.DOTALL)
_ADDRESS = re.compile(rb'(?:[^"<;]++|"(?:[^"\\]++|\\.)*"?)*(?:<[^>]*+>?)?', re.DOTALL)
_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL = re.compile(rb'(["\\])')
_LINE_END = re.compile(rb"[\r\n]+")


def unfold(value: bytes) -> bytes:
    """A folded value on one line: each line break with the white space around it becomes one SP
    (RFC 3261 §7.3.1)."""
    return _FOLD.sub(b" ", value)


def split_list(value: bytes) -> list[bytes]:
    """The items of a comma-separated value, stripped, without empty ones (RFC 3261 §7.3.1).

    Commas inside quoted strings and angle brackets do not separate.
    """
    if b'"' not in value and b"<" not in value:
        items = value.split(b",")
    else:
        items = _ITEM.findall(value)
    return [item for item in map(_strip, items) if item]


def split_first(value: bytes) -> tuple[bytes, bytes]:
    """The first item of a comma-separated value, and what follows its comma; both stripped.

    The first item may be empty; the rest is as it stood, ``b""`` if there is none.
    """
    found = _ITEM.match(value)
    end = found.end() if found else 0
    return value[:end].strip(b" \t"), value[end + 1 :].strip(b" \t")


def parse_params(raw: bytes) -> dict[bytes, bytes | None]:
    """``;name=value;flag`` as a dict: names in lower case, ``None`` for a name without ``=``.

    Values stay as written (quotes included).  The first of several with one name wins.  Empty
    parameters are passed over; whoever must refuse them does so by grammar.
    """
    pieces = _PARAM.findall(raw) if b'"' in raw else raw.split(b";")
    params: dict[bytes, bytes | None] = {}
    for piece in pieces:
        name, equals, value = piece.partition(b"=")
        name = name.strip(b" \t").lower()
        if name and name not in params:
            params[name] = value.strip(b" \t") if equals else None
    return params


def address_end(value: bytes) -> int:
    """Where the header parameters of a From, To or Contact value begin.

    Without angle brackets everything from the first semicolon on is a header parameter (RFC 3261
    §20.10).
    """
    found = _ADDRESS.match(value)
    return found.end() if found else 0


def tag_of(value: bytes) -> bytes:
    """The tag parameter of a From or To value, ``b""`` if it has none (RFC 3261 §19.3)."""
    if b"=" not in value:
        return b""
    return parse_params(value[address_end(value) :]).get(b"tag") or b""


def number(value: bytes, limit: int = 2**32 - 1) -> int | None:
    """``1*DIGIT`` as an int, ``None`` if it is anything else or greater than ``limit``.

    ASCII digits only: no sign, no underscore, no white space (requirement PAR-06).  Leading zeros
    are legal (RFC 4475 §3.1.1.1).
    """
    if not value.isdigit():
        return None
    if len(value) > 10:
        # int() refuses thousands of digits and takes quadratic time for hundreds
        value = value.lstrip(b"0") or b"0"
        if len(value) > 20:
            return None
    result = int(value)
    return result if result <= limit else None


def quote(text: bytes) -> bytes:
    """``text`` as a quoted-string (RFC 3261 §25.1).

    CR and LF cannot stand in one, not even escaped: a run of them becomes one SP.
    """
    return b'"' + _SPECIAL.sub(rb"\\\1", _LINE_END.sub(b" ", text)) + b'"'


def unquote(value: bytes) -> bytes:
    """What a quoted-string says; a value without quotes is returned as it is."""
    if len(value) < 2 or value[:1] != b'"' or value[-1:] != b'"':
        return value
    return _PAIR.sub(rb"\1", value[1:-1])


def _strip(item: bytes) -> bytes:
    return item.strip(b" \t")
