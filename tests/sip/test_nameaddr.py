"""name-addr and addr-spec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipedge.errors import ParseError
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.values import tag_of


@pytest.mark.rfc("PAR-08")
@pytest.mark.parametrize(
    ("value", "display", "uri", "params"),
    [
        (b"<sip:a@h>", b"", b"sip:a@h", b""),
        (b"sip:a@h;p=1", b"", b"sip:a@h", b";p=1"),
        (b"<sip:a@h;p=1>;q=0.5", b"", b"sip:a@h;p=1", b";q=0.5"),
        (b'"a\\",<b>" <sip:x>;p="q;r"', b'"a\\",<b>"', b"sip:x", b';p="q;r"'),
        (b"caller<sip:caller@example.com>;tag=323", b"caller", b"sip:caller@example.com",
         b";tag=323"),
        (b" token1~` token2'+_ token3*%!.- <sip:m@h> ", b"token1~` token2'+_ token3*%!.-",
         b"sip:m@h", b""),
        (b'"\\\x07 NUL:\\\x00 \\\x7f" <sip:x>', b'"\\\x07 NUL:\\\x00 \\\x7f"', b"sip:x", b""),
        ("José <sip:j@h>".encode(), "José".encode(), b"sip:j@h", b""),
        (b"<sip:u@h?Route=%3Csip:x%3E>", b"", b"sip:u@h?Route=%3Csip:x%3E", b""),
        (b"isbn:2983792873", b"", b"isbn:2983792873", b""),
        (b"<sip:a@h> ; x ; y = 1 ", b"", b"sip:a@h", b"; x ; y = 1"),
        (b"sip:[2001:db8::1]:5070;ob", b"", b"sip:[2001:db8::1]:5070", b";ob"),
    ],
)  # fmt: skip
def test_parts(value: bytes, display: bytes, uri: bytes, params: bytes) -> None:
    found = parse_nameaddr(value)
    assert (found.display, found.uri, found.params) == (display, uri, params)


@pytest.mark.rfc("PAR-08")
def test_parameters_are_asked_for_by_name() -> None:
    found = parse_nameaddr(b'<sip:a@h>;Reg-ID=1;+sip.Instance="<urn:uuid:1;2>";ob')
    assert found.get(b"reg-id") == b"1"
    assert found.get(b"+sip.instance") == b'"<urn:uuid:1;2>"'
    assert (found.has(b"ob"), found.get(b"ob")) == (True, None)
    assert (found.has(b"q"), found.get(b"q")) == (False, None)


@pytest.mark.rfc("PAR-04")
def test_a_parameter_belongs_to_the_header_or_to_the_uri() -> None:
    # RFC 4475 §3.3.12, §3.3.13
    outside = parse_nameaddr(b"sip:+19725552222@gw1.example.net;unknownparam")
    inside = parse_nameaddr(b"<sip:+19725552222@gw1.example.net;unknownparam>")
    assert (outside.uri, outside.has(b"unknownparam")) == (
        b"sip:+19725552222@gw1.example.net",
        True,
    )
    assert inside.uri.endswith(b";unknownparam")
    assert not inside.has(b"unknownparam")


@pytest.mark.rfc("PAR-03")
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"<>",
        b"*",
        b"a@h",
        b"<a@h>",
        b'"Mr. J. User <sip:j.user@example.com>',  # RFC 4475 §3.1.2.6
        b"sip:user@example.com?Route=%3Csip:sip.example.com%3E",  # §3.1.2.13
        b'"Watson, Thomas" < sip:t.watson@example.org >',  # §3.1.2.14
        b"Bell, Alexander <sip:a.g.bell@example.com>;tag=43",  # §3.1.2.15
        b'"Joe" <sip:joe@example.org>;;;;',  # §3.1.2.1
        b"<sip:a@h",
        b"<sip:a@h>>",
        b"<sip:a@h><sip:b@h>",
        b"<sip:a@h>, <sip:b@h>",
        b"<sip:a@h>;",
        b"<sip:a@h>;=1",
        b'<sip:a@h>;p="open',
        b"<sip:a@h>x",
        b"<sip:a\x00@h>",
        b'<sip:"@h>',
        b"sip:a@h,sip:b@h",
    ],
)
def test_malformed(value: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse_nameaddr(value)
    assert caught.value.status == 400


@given(st.binary())
def test_any_bytes_are_an_address_or_a_parse_error(value: bytes) -> None:
    try:
        parse_nameaddr(value).all()
    except ParseError:
        pass


_PIECES = st.sampled_from(
    [b'"x;tag=0"', b"Al ", b"<sip:a@h>", b"<sip:a;tag=1>", b"sip:a@h", b";tag=2", b";p", b" ",
     b";TAG=3", b';q="<;tag=4>"', b"; tag = 5"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=5).map(b"".join))
def test_tag_of_says_what_the_full_parser_says(value: bytes) -> None:
    try:
        found = parse_nameaddr(value)
    except ParseError:
        return
    assert tag_of(value) == (found.get(b"tag") or b"")


@pytest.mark.rfc("PAR-13")
@pytest.mark.parametrize("piece", [b'"', b"a ", b" ", b";a", b"<", b"<sip:a>;", b'\\"', b";a="])
def test_hostile_addresses_take_linear_time(piece: bytes) -> None:
    for start in (b"", b'"', b"<sip:a>", b"sip:a"):
        with pytest.raises(ParseError):
            parse_nameaddr(start + piece * 100_000 + b"\x00")
