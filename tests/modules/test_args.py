"""Arguments of functions: text or bytes, and names of headers."""

from __future__ import annotations

import pytest

from sipedge.modules.args import as_bytes, as_text, header_id


def test_text_is_utf8() -> None:
    assert as_bytes("Grüße") == "Grüße".encode()
    assert as_bytes(b"\xff") == b"\xff"
    assert as_bytes("\udcff") == b"\xff", "what surrogateescape made is undone"


def test_octets_that_are_no_text_become_escapes() -> None:
    assert as_text(b"a\xffb") == "a\\xffb"
    assert as_text("ü".encode()) == "ü"


@pytest.mark.parametrize("name", ["Call-ID", b"call-id", "i", "CALL-ID"])
def test_header_names_in_any_spelling(name: str | bytes) -> None:
    assert header_id(name) == b"call-id"


@pytest.mark.parametrize("name", ["", "two words", "a:b", "a\r\nb"])
def test_what_is_no_header_name_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="is no header name"):
        header_id(name)
