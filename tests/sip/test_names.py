"""Header names: every spelling to one id."""

from __future__ import annotations

import pytest

from sipedge.sip import names
from sipedge.sip.message import ParseError, parse
from tests.sip.samples import REGISTER


@pytest.mark.rfc("PAR-01")
@pytest.mark.parametrize(
    ("wire", "name"),
    [
        (b"Via", names.VIA), (b"v", names.VIA), (b"V", names.VIA), (b"vIa", names.VIA),
        (b"V  ", names.VIA),
        (b"f", names.FROM), (b"t", names.TO), (b"i", names.CALL_ID), (b"m", names.CONTACT),
        (b"l", names.CONTENT_LENGTH), (b"c", names.CONTENT_TYPE), (b"k", names.SUPPORTED),
        (b"s", b"subject"), (b"e", b"content-encoding"), (b"CALL-id", names.CALL_ID),
        (b"X-Whatever", b"x-whatever"), (b"C%6Fntact", b"c%6fntact"),
        (b"", None), (b" ", None), (b" Via", None), (b"Vi a", None), (b"V\xefa", None),
        (b"Via\r\n", None),
    ],
)  # fmt: skip
def test_canonical(wire: bytes, name: bytes | None) -> None:
    assert names.canonical(wire) == name


def test_what_is_learned_is_bounded() -> None:
    before = names.CANONICAL.copy(), names.USUAL.copy()
    for n in range(names.MAX_SPELLINGS):
        assert names.canonical(b"X-Learned-%d" % n) == b"x-learned-%d" % n
    assert len(names.CANONICAL) == names.MAX_SPELLINGS
    assert len(names.USUAL) <= len(names.CANONICAL)
    for table, old in zip((names.CANONICAL, names.USUAL), before, strict=True):
        table.clear()
        table.update(old)


@pytest.mark.parametrize("row", [b"Supported", b"Supportedx", b"Via", b"v", b"vx"])
def test_a_row_without_a_colon_is_no_header(row: bytes) -> None:
    with pytest.raises(ParseError):
        parse(REGISTER.replace(b"CSeq", row + b"\r\nCSeq"))


def test_how_we_write_them() -> None:
    written = [
        names.spelling(x) for x in (names.CALL_ID, names.CSEQ, names.VIA, b"x-new", b"sip-etag")
    ]
    assert written == [b"Call-ID", b"CSeq", b"Via", b"X-New", b"SIP-ETag"]
