"""Stop 2: STUN Binding, the keep-alive of UDP flows (RFC 5626 §4.4.2 and §8, RFC 8489).

Strategy: one function from request to answer.  No authentication, no state, nothing that is larger
than what came in by more than the address; whatever is not an answerable request is met with
silence, and never reaches the SIP parser (requirement KA-11).
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final
from zlib import crc32

HEADER: Final = 20  # octets
COOKIE: Final = 0x2112A442
_COOKIE_OCTETS: Final = COOKIE.to_bytes(4, "big")

_BINDING_REQUEST: Final = 0x0001
_BINDING_SUCCESS: Final = 0x0101
_BINDING_ERROR: Final = 0x0111

_ERROR_CODE: Final = 0x0009
_UNKNOWN_ATTRIBUTES: Final = 0x000A
_XOR_MAPPED_ADDRESS: Final = 0x0020
_FINGERPRINT: Final = 0x8028
_FINGERPRINT_XOR: Final = 0x5354554E
#: comprehension-required attributes that RFC 8489 §18.3 defines; those of authentication say
#: nothing to a server that asks for none
_KNOWN: Final = frozenset((
    0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E, 0x0020,
))  # fmt: skip
_MAX_LISTED: Final = 8  # unknown attributes that an error names


def is_stun(data: bytes) -> bool:
    """Does this datagram go to STUN rather than to SIP?

    STUN begins with two zero bits and carries the magic cookie; no SIP message and no CRLF begins
    with an octet below 4, so a broken Binding request counts too (RFC 7983 §7).
    """
    if not data or data[0] > 0x3F:
        return False
    return data[0] < 4 or (len(data) >= HEADER and data[4:8] == _COOKIE_OCTETS)


def answer(data: bytes, remote: tuple[str, int]) -> bytes | None:
    """The answer to one datagram from ``remote`` (numeric host, port), ``None`` for silence.

    A Binding request gets its source address (RFC 8489 §14.2), or 420 if it demands something that
    we do not know (§6.3.1).  An answer carries FINGERPRINT if the request did.
    """
    if len(data) < HEADER:
        return None
    kind, length, cookie = struct.unpack_from("!HHI", data)
    if kind != _BINDING_REQUEST or cookie != COOKIE or length & 3 or length != len(data) - HEADER:
        return None
    attributes = _attributes(data)
    if attributes is None:
        return None
    fingerprint = False
    unknown = []
    for name, at in attributes:
        if fingerprint:
            return None  # RFC 8489 §14.7: it is the last one
        if name == _FINGERPRINT:
            if data[at : at + 4] != _fingerprint(data[: at - 4]):
                return None
            fingerprint = True
        elif name < 0x8000 and name not in _KNOWN and name not in unknown:
            unknown.append(name)
    transaction = data[8:HEADER]
    if unknown:
        names = struct.pack(f"!{len(unknown[:_MAX_LISTED])}H", *unknown[:_MAX_LISTED])
        body = _attribute(_ERROR_CODE, b"\0\0\4\x14Unknown Attribute")  # class 4, number 20
        body += _attribute(_UNKNOWN_ATTRIBUTES, names)
        return _message(_BINDING_ERROR, transaction, body, fingerprint)
    body = _attribute(_XOR_MAPPED_ADDRESS, _xor_address(remote, transaction))
    return _message(_BINDING_SUCCESS, transaction, body, fingerprint)


def _attributes(data: bytes) -> list[tuple[int, int]] | None:
    """Type and position of the value of each attribute, ``None`` if they do not fit exactly."""
    found = []
    at = HEADER
    while at < len(data):
        name, length = struct.unpack_from("!HH", data, at)
        at += 4
        if at + length > len(data) or (name == _FINGERPRINT and length != 4):
            return None
        found.append((name, at))
        at += (length + 3) & ~3
    return found


def _xor_address(remote: tuple[str, int], transaction: bytes) -> bytes:
    """RFC 8489 §14.2; the scope of a link-local address is no part of it."""
    packed = ip_address(remote[0].partition("%")[0]).packed
    mask = _COOKIE_OCTETS + transaction
    hidden = bytes(a ^ b for a, b in zip(packed, mask, strict=False))
    return struct.pack("!BBH", 0, 1 if len(packed) == 4 else 2, remote[1] ^ COOKIE >> 16) + hidden


def _attribute(name: int, value: bytes) -> bytes:
    return struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4)


def _message(kind: int, transaction: bytes, body: bytes, fingerprint: bool) -> bytes:
    length = len(body) + (8 if fingerprint else 0)
    message = struct.pack("!HHI", kind, length, COOKIE) + transaction + body
    if fingerprint:
        message += _attribute(_FINGERPRINT, _fingerprint(message))
    return message


def _fingerprint(before: bytes) -> bytes:
    """Of everything before the attribute; the length in the header counts it (RFC 8489 §14.7)."""
    return (crc32(before) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
