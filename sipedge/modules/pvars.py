"""Pseudo-variables by name: ``$ru``, ``$hdr(Contact)``, ``$rdir(id)`` (stop 6).

Strategy: a name is taken apart once and remembered, bounded; what is left per use is one dict
look-up and one call.  Who has which variable is in the export tables of the loaded modules
(``Config.pseudo_variables``); this file only finds them, and fills them into texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from sipedge.module import PseudoVariable
from sipedge.modules.args import Text, as_bytes
from sipedge.sip.message import SipMessage

Value = bytes | int | None

_NAME: Final = rb"[A-Za-z_][A-Za-z0-9_]*"
_KEY: Final = rb"\(([^()]*)\)"
#: $name, $name(key), and the same in brackets: $(name), $(name(key))
_REFERENCE: Final = re.compile(rb"\$(?:(%b)(?:%b)?|\((%b)(?:%b)?\))" % (_NAME, _KEY, _NAME, _KEY))
_IN_TEXT: Final = re.compile(rb"\$\$|" + _REFERENCE.pattern)


class PseudoVariables:
    """The variables of all loaded modules."""

    __slots__ = ("_table",)

    def __init__(self, table: Mapping[str, PseudoVariable]) -> None:
        self._table = table

    def get(self, msg: SipMessage, name: Text) -> Value:
        """The value of ``$name``; ``None`` if it has none in this message.

        Raises ``ValueError`` for a name that no loaded module has: a slip in the route.
        """
        variable, key = split(as_bytes(name))
        return self._find(variable).get(msg, key)

    def expand(self, msg: SipMessage, text: Text) -> bytes:
        """``text`` with its variables filled in, ``<null>`` for those without a value, ``$`` for
        ``$$``."""

        def fill(found: re.Match[bytes]) -> bytes:
            if found[0] == b"$$":
                return b"$"
            variable, key = split(found[0])
            value = self._find(variable).get(msg, key)
            return b"<null>" if value is None else octets(value)

        return _IN_TEXT.sub(fill, as_bytes(text))

    def _find(self, variable: str) -> PseudoVariable:
        found = self._table.get(variable)
        if found is None:
            raise ValueError(
                f"no loaded module has a pseudo-variable ${variable}; there are: "
                + (" ".join(f"${name}" for name in sorted(self._table)) or "none (loadmodule 'pv')")
            )
        return found


@lru_cache(maxsize=1024)
def split(name: bytes) -> tuple[str, str | None]:
    """``b"$hdr(Contact)"`` as ``("hdr", "Contact")``; the key is ``None`` without brackets.

    Raises ``ValueError`` if it is no name of a variable.
    """
    found = _REFERENCE.fullmatch(name)
    if found is None:
        raise ValueError(
            f"{name!r} is no pseudo-variable; write $name or $name(key). Indexes and "
            "transformations are Python's business"
        )
    plain, plain_key, braced, braced_key = found.groups()
    key = plain_key if plain else braced_key
    return (plain or braced).decode(), None if key is None else key.decode("utf-8", "replace")


def octets(value: bytes | int) -> bytes:
    """A value as it stands in a text."""
    return value if isinstance(value, bytes) else b"%d" % value
