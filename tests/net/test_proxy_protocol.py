"""PROXY headers, as haproxy and others write them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipedge.net.proxy_protocol import (
    MAX_V1,
    MAX_V2,
    SIGNATURE,
    Header,
    ProxyError,
    ProxyLayer,
    parse,
)
from tests.net.proxied import header_v2

V4 = (("192.0.2.7", 40001), ("198.51.100.1", 5060))
V6 = (("2001:db8::7", 40001), ("2001:db8::1", 5060))


@pytest.mark.rfc("OPS-07")
@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 5060\r\n", V4),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 40001 5060\r\n", V6),
        (b"PROXY TCP6 2001:DB8:0::7 2001:db8::1 40001 5060\r\n", V6),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 40001 5060\r\n", V4),
        (b"PROXY UNKNOWN\r\n", (None, None)),
        (b"PROXY UNKNOWN 192.0.2.7 whatever\r\n", (None, None)),
        (header_v2(*V4), V4),
        (header_v2(*V6), V6),
        (header_v2(*V4, tlvs=b"\x04\x00\x02ab" + b"\xee" * 500), V4),
        (header_v2(*V4, command=0x20), (None, None)),
        (SIGNATURE + b"\x20\x00\x00\x00", (None, None)),
        (SIGNATURE + b"\x21\x00\x00\x04abcd", (None, None)),
        (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), (None, None)),  # Unix sockets
    ],
)
def test_headers(data: bytes, wanted: tuple[object, object]) -> None:
    assert parse(data, True) == Header(len(data), *wanted)
    assert parse(data + b"OPTIONS", True) == Header(len(data), *wanted)
    for end in range(len(data)):
        assert parse(data[:end], True) is None


def test_an_ipv4_client_of_an_ipv6_load_balancer() -> None:
    data = header_v2(("::ffff:192.0.2.7", 1), ("::ffff:198.51.100.1", 2))
    assert parse(data, True) == Header(52, ("192.0.2.7", 1), ("198.51.100.1", 2))


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:x SIP/2.0\r\n\r\n",
        b"\r\n\r\nOPTIONS",
        b"\x16\x03\x01",
        b"PROXY\tUNKNOWN\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 40001 5060\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40001\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 5060 \r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 40001 5060\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 40001 5060\r\n",
        b"PROXY TCP4 192.0.2.777 198.51.100.1 40001 5060\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 5060\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 5060\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY " + b"x" * MAX_V1,
        header_v2(*V4, command=0x11),
        header_v2(*V4, command=0x22),
        header_v2(*V4, kind=0x12),  # a datagram's
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x23" + bytes(35),
        SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_V2),
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(ProxyError):
        parse(data, True)


def test_datagrams_have_version_2_only() -> None:
    with pytest.raises(ProxyError):
        parse(b"PROXY UNKNOWN\r\n", False)
    assert parse(header_v2(*V4, kind=0x12), False) == Header(28, *V4)
    with pytest.raises(ProxyError):
        parse(header_v2(*V4, kind=0x11), False)


ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, PORTS, PORTS, st.binary(max_size=300), st.binary(), st.lists(st.integers(1, 9)))
def test_any_header_in_any_pieces(
    hosts: tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address],
    from_port: int,
    to_port: int,
    tlvs: bytes,
    rest: bytes,
    sizes: list[int],
) -> None:
    source, destination = (str(host) for host in hosts)
    data = header_v2((source, from_port), (destination, to_port), tlvs=tlvs) + rest
    layer = ProxyLayer()
    got = []
    while data:
        size = sizes.pop() if sizes else len(data)
        got += layer.receive(data[:size])
        data = data[size:]
    assert layer.established
    assert b"".join(got) == rest
    host, port = layer.facts["remote"]
    mapped = getattr(hosts[0], "ipv4_mapped", None)
    assert ip_address(host) == (mapped or hosts[0])
    assert port == from_port
    assert layer.facts["local"][1] == to_port


@given(st.binary())
def test_whatever_comes_the_layer_does_not_raise(data: bytes) -> None:
    layer = ProxyLayer()
    got = layer.receive(data)
    assert layer.established or not got
    assert not (layer.established and layer.over)


def test_the_layer_is_transparent() -> None:
    layer = ProxyLayer()
    assert layer.receive(b"PROXY UNKN") == []
    assert not layer.established
    assert layer.receive(b"OWN\r\nabc") == [b"abc"]
    assert layer.established
    assert layer.facts == {}
    assert layer.receive(b"PROXY UNKNOWN\r\n") == [b"PROXY UNKNOWN\r\n"]
    assert layer.send(b"def") == b"def"
    assert layer.outgoing() == layer.close() == b""


def test_the_layer_says_what_is_wrong() -> None:
    layer = ProxyLayer()
    assert layer.receive(b"OPTIONS sip:x SIP/2.0\r\n") == []
    assert layer.over == "no PROXY header"
    assert not layer.established
