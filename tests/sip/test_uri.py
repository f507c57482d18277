"""SIP URIs: taken apart, and compared (RFC 3261 §19.1)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipedge.errors import ParseError
from sipedge.sip.uri import canonical_v6, parse_uri, unescape, uri_equal


def test_all_parts() -> None:
    uri = parse_uri(b"SIPS:al%20ice;x=1:pa$$@Edge.Example.COM:5061;TRANSPORT=tcp;lr?Subject=a&b=c")
    assert (uri.scheme, uri.user, uri.password) == (b"sips", b"al%20ice;x=1", b"pa$$")
    assert (uri.host, uri.port, uri.host_str) == (b"edge.example.com", 5061, "edge.example.com")
    assert uri.params == {b"transport": b"tcp", b"lr": None}
    assert uri.headers == b"Subject=a&b=c"
    assert uri.raw.startswith(b"SIPS:al%20ice")


def test_the_least_that_is_a_uri() -> None:
    uri = parse_uri(b"sip:h")
    assert (uri.user, uri.password, uri.host, uri.port) == (None, None, b"h", None)
    assert (uri.params, uri.headers) == ({}, b"")


@pytest.mark.rfc("PAR-02")
@pytest.mark.parametrize(
    ("raw", "user"),
    [
        # RFC 4475 §3.1.1.9, §3.1.1.2, §3.1.1.3, §3.1.1.4
        (b"sip:user;par=u%40example.net@example.com", b"user;par=u%40example.net"),
        (
            b"sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
            b":&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
            b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*",
        ),
        (b"sip:sips%3Auser%40example.com@example.net", b"sips%3Auser%40example.com"),
        (b"sip:%00%00@host5.example.com", b"%00%00"),
        (b"sip:*21*123#@h", b"*21*123#"),  # phones send the hash unescaped
    ],
)
def test_unusual_users(raw: bytes, user: bytes) -> None:
    assert parse_uri(raw).user == user


@pytest.mark.rfc("PAR-09", "PAR-10", "PAR-11")
@pytest.mark.parametrize(
    ("raw", "host", "port"),
    [
        (b"sip:[2001:DB8::10]", b"2001:db8::10", None),
        (b"sip:a@[2001:db8::10]:5070;lr", b"2001:db8::10", 5070),
        (b"sip:[2001:db8::10:5070]", b"2001:db8::10:5070", None),
        (b"sip:[2001:db8:0:0:0::1]", b"2001:db8::1", None),
        (b"sip:[2001:db8::192.0.2.1]", b"2001:db8::c000:201", None),
        (b"sip:[2001:db8:::192.0.2.1]", b"2001:db8::c000:201", None),
        (b"sip:ted@[::ffff:192.0.2.2]", b"::ffff:192.0.2.2", None),
        (b"sip:ted@[::FFFF:c000:0202]", b"::ffff:192.0.2.2", None),
    ],
)
def test_ipv6(raw: bytes, host: bytes, port: int | None) -> None:
    uri = parse_uri(raw)
    assert (uri.host, uri.port) == (host, port)


@pytest.mark.rfc("PAR-09")
@pytest.mark.parametrize(
    "raw",
    [
        b"sip:2001:db8::10",
        b"sip:[2001:db8::10",
        b"sip:[2001:db8::10]5070",
        b"sip:[fe80::1%25eth0]",
        b"sip:[1.2.3.4]",
        b"sip:[]",
    ],
)
def test_ipv6_malformed(raw: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse_uri(raw)
    assert caught.value.status == 400


@pytest.mark.rfc("PAR-06")
@pytest.mark.parametrize(
    "raw",
    [
        b"sip:h:65536",
        b"sip:h:0",
        b"sip:h:",
        b"sip:h:+5",
        b"sip:h:5_0",
        b"sip:h:000005060",
        "sip:h:٣".encode(),
    ],
)
def test_ports_are_ports(raw: bytes) -> None:
    with pytest.raises(ParseError):
        parse_uri(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"sip:",
        b"sip:@h",
        b"sip:a@",
        b"sip:a@b@c",
        b"sip:a b@h",
        b"sip:a@h; lr",
        b"<sip:a@h>",
        b"sip:a@h>",
        b"sip:a%4@h",
        b"sip:a@h;p=%zz",
        b"sip:a@h\r\nVia: x",
        b"sip:a@h\x00",
        b"noscheme",
        b":a",
        b"1x:a",
        b"tel:",
    ],
)
def test_malformed(raw: bytes) -> None:
    with pytest.raises(ParseError):
        parse_uri(raw)


@pytest.mark.rfc("PAR-04")
@pytest.mark.parametrize(
    ("raw", "scheme"),
    [
        (b"tel:+19725552222;phone-context=x", b"tel"),
        (b"soap.beep://192.0.2.103:3002", b"soap.beep"),
        (b"NobodyKnows:opaque", b"nobodyknows"),
    ],
)
def test_other_schemes_are_carried(raw: bytes, scheme: bytes) -> None:
    uri = parse_uri(raw)
    assert (uri.scheme, uri.host, uri.user, uri.raw) == (scheme, b"", None, raw)


@pytest.mark.rfc("PAR-07")
def test_unescape_once_and_with_nulls() -> None:
    assert unescape(b"null-%00-null") == b"null-\0-null"
    assert unescape(b"v%61lue%25%34%31") == b"value%41"
    assert parse_uri(b"sip:null-%00-null@h").user == b"null-%00-null"


# RFC 3261 §19.1.4, the examples
EQUAL = [
    (b"sip:%61lice@atlanta.com;transport=TCP", b"sip:alice@AtLanTa.CoM;Transport=tcp"),
    (b"sip:carol@chicago.com", b"sip:carol@chicago.com;newparam=5"),
    (b"sip:carol@chicago.com", b"sip:carol@chicago.com;security=on"),
    (
        b"sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
        b"sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
    ),
    (
        b"sip:alice@atlanta.com?subject=project%20x&priority=urgent",
        b"sip:alice@atlanta.com?priority=urgent&subject=project%20x",
    ),
    (b"sip:a@[2001:DB8::1]", b"sip:a@[2001:db8:0::1]"),
    (b"sip:h;lr", b"sip:h;LR"),
    (b"TEL:+1", b"tel:+1"),
]
DIFFERENT = [
    (b"SIP:ALICE@AtLanTa.CoM;Transport=udp", b"sip:alice@AtLanTa.CoM;Transport=UDP"),
    (b"sip:bob@biloxi.com", b"sip:bob@biloxi.com:5060"),
    (b"sip:bob@biloxi.com", b"sip:bob@biloxi.com;transport=udp"),
    (b"sip:bob@biloxi.com", b"sip:bob@biloxi.com:6000;transport=tcp"),
    (b"sip:carol@chicago.com", b"sip:carol@chicago.com?Subject=next%20meeting"),
    (b"sip:bob@phone21.boxesbybob.com", b"sip:bob@192.0.2.4"),
    (b"sip:carol@chicago.com;security=on", b"sip:carol@chicago.com;security=off"),
    (b"sip:a@h", b"sips:a@h"),
    (b"sip:a@h", b"sip:h"),
    (b"sip:a:p@h", b"sip:a@h"),
    (b"sip:a@h;maddr=x", b"sip:a@h"),
    (b"sip:a@h;user=phone", b"sip:a@h"),
    (b"sip:a%3Bb@h", b"sip:a;b@h"),  # reserved: the escape is not the character
    (b"sip:a%2541@h", b"sip:aA@h"),  # never unescaped twice
    (b"tel:+1", b"tel:+2"),
    (b"tel:1", b"sip:1"),
]


@pytest.mark.rfc("PAR-07", "PAR-11")
@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal(a: bytes, b: bytes) -> None:
    assert uri_equal(parse_uri(a), parse_uri(b))
    assert uri_equal(parse_uri(b), parse_uri(a))


@pytest.mark.rfc("PAR-07", "PAR-11")
@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different(a: bytes, b: bytes) -> None:
    assert not uri_equal(parse_uri(a), parse_uri(b))
    assert not uri_equal(parse_uri(b), parse_uri(a))


def test_equality_is_symmetric() -> None:
    uris = [parse_uri(x) for pair in EQUAL + DIFFERENT for x in pair]
    for a, b in itertools.product(uris, uris):
        assert uri_equal(a, b) == uri_equal(b, a)


@pytest.mark.rfc("PAR-13")
@given(st.one_of(st.binary(), st.binary().map(lambda tail: b"sip:a@" + tail)))
def test_any_bytes_are_a_uri_or_a_parse_error(raw: bytes) -> None:
    try:
        uri = parse_uri(raw)
    except ParseError:
        return
    assert uri.raw == raw
    assert uri_equal(uri, parse_uri(raw))


@given(st.ip_addresses(v=6))
def test_every_ipv6_address_has_one_spelling(address: object) -> None:
    text = str(address).encode()
    once = canonical_v6(text)
    assert canonical_v6(once) == once
    assert canonical_v6(text.upper()) == once


@pytest.mark.rfc("PAR-13")
@pytest.mark.parametrize("piece", [b"a", b";", b":", b"@", b"?", b"%", b"[", b"a@"])
def test_hostile_uris_take_linear_time(piece: bytes) -> None:
    with pytest.raises(ParseError):
        parse_uri(b"sip:" + piece * 200_000 + b'"')
