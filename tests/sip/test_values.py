"""Lists, parameters, quoted strings and numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipedge.sip.values import (
    address_end,
    number,
    parse_params,
    quote,
    split_first,
    split_list,
    tag_of,
    unfold,
    unquote,
)


@pytest.mark.rfc("PAR-01")
@pytest.mark.parametrize(
    ("folded", "plain"),
    [
        (b"a\r\n b", b"a b"),
        (b"a \t\r\n\t  b", b"a b"),
        (b"a\r\n \r\n b", b"a b"),
        (b"no fold", b"no fold"),
    ],
)
def test_unfold(folded: bytes, plain: bytes) -> None:
    assert unfold(folded) == plain


@pytest.mark.rfc("PAR-01", "PAR-08")
@pytest.mark.parametrize(
    ("value", "items"),
    [
        (b"path, outbound ,gruu", [b"path", b"outbound", b"gruu"]),
        (b", a,, b ,", [b"a", b"b"]),
        (b"", []),
        (b'"a, b" <sip:x>, <sip:y,z>', [b'"a, b" <sip:x>', b"<sip:y,z>"]),
        (b'"a\\", <b>" <sip:x>;p="q,r", sip:z', [b'"a\\", <b>" <sip:x>;p="q,r"', b"sip:z"]),
        (b'"open, <sip:x>, y', [b'"open, <sip:x>, y']),
        (b"<open, y", [b"<open, y"]),
        (b'a, "x\\', [b"a", b'"x\\']),
    ],
)
def test_split_list(value: bytes, items: list[bytes]) -> None:
    assert split_list(value) == items


def test_split_first_leaves_the_rest_alone() -> None:
    assert split_first(b'"a,b" <sip:x> , c ,, d') == (b'"a,b" <sip:x>', b"c ,, d")
    assert split_first(b"one") == (b"one", b"")
    assert split_first(b", two") == (b"", b"two")


@pytest.mark.rfc("PAR-08")
def test_parameters_with_and_without_value() -> None:
    assert parse_params(b';Q="a;b\\";c" ; lr;x= 1 ;X=2;empty=;;') == {
        b"q": b'"a;b\\";c"',
        b"lr": None,
        b"x": b"1",
        b"empty": b"",
    }


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (b"<sip:a@h>;tag=x1", b"x1"),
        (b"sip:a@h;tag=x1", b"x1"),
        (b"<sip:a@h;tag=uri>", b""),
        (b'"x;tag=1 <" <sip:a@h;tag=2> ; p="a;tag=3" ; TAG = real', b"real"),
        (b"sip:a@h ;   tag    = 1918181833n", b"1918181833n"),
        (b"<sip:a@h>;tag", b""),
        (b"<sip:a@h>", b""),
        (b"", b""),
    ],
)
def test_tag_of(value: bytes, tag: bytes) -> None:
    assert tag_of(value) == tag


def test_header_parameters_begin_behind_the_address() -> None:
    value = b'"a;<b>" <sip:x;y>;z'
    assert value[address_end(value) :] == b";z"


@pytest.mark.rfc("PAR-06")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0),
        (b"0068", 68),
        (b"4294967295", 2**32 - 1),
        (b"0" * 5000 + b"7", 7),
        (b"0" * 30, 0),
        (b"4294967296", None),
        (b"9" * 5000, None),
        (b"", None),
        (b"+5", None),
        (b"-1", None),
        (b" 5", None),
        (b"5 ", None),
        (b"1_0", None),
        (b"1e3", None),
        (b"0x10", None),
        ("٣".encode(), None),  # an Arabic digit
        (b"five", None),
    ],
)
def test_number(text: bytes, value: int | None) -> None:
    assert number(text) == value


@pytest.mark.rfc("PAR-06")
def test_number_has_a_limit() -> None:
    assert number(b"255", 255) == 255
    assert number(b"256", 255) is None


@given(st.binary())
def test_quoted_text_comes_back(text: bytes) -> None:
    if b"\r" not in text and b"\n" not in text:
        assert unquote(quote(text)) == text


@pytest.mark.rfc("PAR-05")
def test_a_line_end_cannot_be_quoted() -> None:
    assert quote(b'a\r\nVia: "x\\') == b'"a Via: \\"x\\\\"'


def test_unquote_leaves_other_values_alone() -> None:
    assert [unquote(x) for x in (b"abc", b'"', b'"abc', b"")] == [b"abc", b'"', b'"abc', b""]


@given(st.lists(st.binary(max_size=8).map(quote), max_size=6))
def test_quoted_items_are_never_split(items: list[bytes]) -> None:
    assert split_list(b",".join(items)) == items


@pytest.mark.rfc("PAR-13")
@pytest.mark.parametrize("piece", [b'"', b"<", b'"\\', b',"', b';"', b"\\"])
def test_hostile_values_take_linear_time(piece: bytes) -> None:
    """A quadratic pattern needs minutes for these, a linear one milliseconds."""
    value = piece * 200_000
    split_list(value)
    parse_params(value)
    tag_of(value + b"=")


@pytest.mark.rfc("PAR-13")
@pytest.mark.parametrize("piece", [b" ", b"\r\n ", b" \r", b"\t\r\n"])
def test_hostile_folding_takes_linear_time(piece: bytes) -> None:
    assert unfold(b"a" + piece * 200_000).startswith(b"a")
