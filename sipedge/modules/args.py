"""What the small modules share: arguments of their functions, from a route (stop 6).

Strategy: a route may say ``"INVITE"`` or ``b"INVITE"``; inside everything is bytes.  What an
operator wrote wrongly (a header without a colon, a name that is none) is a ``ValueError`` with a
sentence, so that the route's log record says it; it is never a broken message on the wire.
"""

from __future__ import annotations

from sipedge.sip.names import canonical

Text = str | bytes


def as_bytes(value: Text) -> bytes:
    """The octets of an argument; text is UTF-8."""
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def as_text(value: bytes) -> str:
    """Octets for people: UTF-8, other octets as backslash escapes."""
    return value.decode("utf-8", "backslashreplace")


def header_id(name: Text) -> bytes:
    """The canonical id of a header name in any spelling; raises ``ValueError`` if it is none."""
    found = canonical(as_bytes(name))
    if found is None:
        raise ValueError(f"{name!r} is no header name")
    return found
