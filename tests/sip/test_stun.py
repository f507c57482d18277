"""STUN Binding as a keep-alive (RFC 5626 §4.4.2, RFC 8489)."""

from __future__ import annotations

import struct
import zlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipedge.sip.stun import answer, is_stun

REMOTE = ("198.51.100.7", 49152)
TRANSACTION = bytes(range(1, 13))
COOKIE = 0x2112A442


def message(kind: int = 1, attributes: bytes = b"", cookie: int = COOKIE) -> bytes:
    return struct.pack("!HHI", kind, len(attributes), cookie) + TRANSACTION + attributes


def attribute(name: int, value: bytes = b"") -> bytes:
    return struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4)


def read(reply: bytes) -> tuple[int, dict[int, bytes]]:
    """Type and attributes, after a check of everything that must be right in any reply."""
    kind, length, cookie = struct.unpack_from("!HHI", reply)
    assert cookie == COOKIE
    assert reply[8:20] == TRANSACTION
    assert length == len(reply) - 20
    found = {}
    at = 20
    while at < len(reply):
        name, size = struct.unpack_from("!HH", reply, at)
        found[name] = reply[at + 4 : at + 4 + size]
        at += 4 + (size + 3) // 4 * 4
    return kind, found


def address(reply: bytes) -> tuple[int, str, int]:
    """Family, host and port, decoded as a client does it (RFC 8489 §14.2)."""
    kind, found = read(reply)
    assert kind == 0x0101
    value = found[0x0020]
    zero, family, port = struct.unpack_from("!BBH", value)
    mask = struct.pack("!I", COOKIE) + TRANSACTION
    assert zero == 0
    host = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return family, str(ip_address(host)), port ^ COOKIE >> 16


def fingerprint(before: bytes) -> bytes:
    return attribute(0x8028, struct.pack("!I", zlib.crc32(before) ^ 0x5354554E))


def with_fingerprint(attributes: bytes = b"") -> bytes:
    """The length in the header counts the attribute that is not there yet (RFC 8489 §14.7)."""
    head = struct.pack("!HHI", 1, len(attributes) + 8, COOKIE) + TRANSACTION + attributes
    return head + fingerprint(head)


@pytest.mark.rfc("KA-07")
def test_binding_success_v4() -> None:
    reply = answer(message(), REMOTE)
    assert reply is not None
    assert address(reply) == (1, "198.51.100.7", 49152)
    assert len(reply) == 32


@pytest.mark.rfc("KA-07")
def test_known_vector() -> None:
    # RFC 5769 §2.2: 192.0.2.1:32853 is a147 e112a643 on the wire
    reply = answer(message(), ("192.0.2.1", 32853))
    assert reply is not None
    assert reply.endswith(bytes.fromhex("002000080001a147e112a643"))


@pytest.mark.rfc("KA-09")
@pytest.mark.parametrize("host", ["::1", "2001:db8::7", "fe80::1%eth0"])
def test_binding_success_v6(host: str) -> None:
    reply = answer(message(), (host, 5060))
    assert reply is not None
    assert address(reply) == (2, host.partition("%")[0], 5060)
    assert len(reply) == 44


@pytest.mark.rfc("KA-10")
def test_unknown_required_attribute_is_420() -> None:
    reply = answer(message(attributes=attribute(0x0002, b"abcde") + attribute(0x0003)), REMOTE)
    assert reply is not None
    kind, found = read(reply)
    assert kind == 0x0111
    assert found[0x0009][:4] == b"\0\0\4\x14"
    assert found[0x000A] == b"\0\2\0\3"
    assert 0x0020 not in found


@pytest.mark.rfc("KA-10")
def test_optional_attribute_is_ignored() -> None:
    reply = answer(message(attributes=attribute(0x8022, b"a phone")), REMOTE)
    assert reply is not None
    assert address(reply) == (1, *REMOTE)


def test_attributes_of_authentication_are_understood() -> None:
    reply = answer(
        message(attributes=attribute(0x0006, b"user") + attribute(0x0008, bytes(20))), REMOTE
    )
    assert reply is not None
    assert address(reply) == (1, *REMOTE)


@pytest.mark.rfc("KA-11", "KA-12")
@pytest.mark.parametrize(
    "data",
    [
        message(cookie=0x2112A443),  # bad cookie, or RFC 3489
        message()[:-1],  # too short
        message() + b"\0\0\0\0",  # longer than it says
        message(attributes=b"\0\x06\0\x10ab\0\0"),  # attribute beyond the end
        message(attributes=attribute(0x8028, b"ab")),  # FINGERPRINT of another size
        b"\0\x01\0\x03" + message()[4:] + b"abc",  # length that is no multiple of four
        message(kind=0x0003),  # Allocate
        message(kind=0x0011),  # Binding indication
        message(kind=0x0101),  # stray success
        message(kind=0x0111),  # stray error
        message(kind=0x4001),  # top bits
        message(kind=0x8001),
        bytes(20),
    ],
)
def test_silence(data: bytes) -> None:
    assert answer(data, REMOTE) is None


@pytest.mark.rfc("KA-13")
def test_fingerprint() -> None:
    good = with_fingerprint(attribute(0x8022, b"x"))
    reply = answer(good, REMOTE)
    assert reply is not None
    assert address(reply) == (1, *REMOTE)
    assert reply[-8:] == fingerprint(reply[:-8])
    assert answer(good[:-1] + bytes([good[-1] ^ 1]), REMOTE) is None
    head = struct.pack("!HHI", 1, 12, COOKIE) + TRANSACTION
    assert answer(head + fingerprint(head) + attribute(0x8022), REMOTE) is None  # not the last one


@pytest.mark.rfc("KA-26")
def test_no_amplification() -> None:
    big = message(attributes=b"".join(attribute(n) for n in range(0x100, 0x200)))
    reply = answer(big, REMOTE)
    assert reply is not None
    assert len(reply) <= 72
    longest = answer(with_fingerprint(), ("2001:db8::7", 5060))
    assert longest is not None
    assert len(longest) <= 64


@pytest.mark.rfc("KA-11")
def test_what_goes_to_stun_and_what_to_sip() -> None:
    for data in (
        message(),
        message(cookie=0),
        message(kind=0x0111),
        bytes(4),
        b"\0",
        message(kind=0x3EEF),
    ):
        assert is_stun(data)
    for text in (
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"REGISTER sip:x SIP/2.0\r\n",
        b"!method sip:x SIP/2.0",
        b"\x80" * 20,
    ):
        assert not is_stun(text)


@given(st.binary(max_size=80))
def test_any_bytes_are_answered_or_not(data: bytes) -> None:
    for candidate in (
        data,
        message(attributes=data),
        message(attributes=data + bytes(-len(data) % 4)),
    ):
        reply = answer(candidate, REMOTE)
        if reply is not None:
            read(reply[:8] + TRANSACTION + reply[20:])
            assert reply[8:20] == candidate[8:20]
