from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar_plugin.contact import MAX_EXPIRES, Contact, expires_of, q_of
from sipedge.errors import ParseError


def test_everything_that_means_something() -> None:
    contact = Contact(
        b'"B" <sip:bob@10.0.0.9;reg-id=7> ; Q=0.25 ;EXPIRES=30;reg-id=2'
        b';methods="INVITE, BYE";+sip.instance="<urn:uuid:AB>";pub-gruu="sip:x";temp-gruu="y";other'
    )
    assert (contact.q, contact.expires, contact.reg_id) == (250, 30, 2)
    assert (contact.instance, contact.methods) == (b"urn:uuid:ab", b'"INVITE, BYE"')
    assert contact.kept == (
        b'<sip:bob@10.0.0.9;reg-id=7>; Q=0.25;reg-id=2;methods="INVITE, BYE"'
        b';+sip.instance="<urn:uuid:AB>";other'
    )


def test_nothing_said() -> None:
    contact = Contact(b"<sip:bob@10.0.0.9>")
    assert (contact.q, contact.expires, contact.reg_id, contact.methods) == (-1, None, None, None)
    assert contact.instance == b""


def test_parameters_inside_quotes_do_not_count() -> None:
    contact = Contact(b'<sip:bob@10.0.0.9>;x=";expires=5;reg-id=3"')
    assert (contact.expires, contact.reg_id) == (None, None)
    assert contact.kept == b'<sip:bob@10.0.0.9>;x=";expires=5;reg-id=3"'


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"0", 0),
        (b"007", 7),
        (b"", 3600),
        (b"-1", 3600),
        (b"1e3", 3600),
        (b"4294967295", MAX_EXPIRES),
        (b"4294967296", MAX_EXPIRES),
        (b"9" * 5000, MAX_EXPIRES),
    ],
)
def test_expires_of(text: bytes, seconds: int) -> None:
    assert expires_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "q"), [(b"0", 0), (b"1", 1000), (b"1.", 1000), (b"0.5", 500), (b"0.125", 125)]
)
def test_q_of(text: bytes, q: int) -> None:
    assert q_of(text) == q


@pytest.mark.parametrize("text", [b"1.5", b"2", b"00.5", b"0.1234", b"", b".", b"0.x", b"-0"])
def test_q_that_is_none(text: bytes) -> None:
    with pytest.raises(ParseError):
        q_of(text)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_contact_or_a_parse_error(tail: bytes) -> None:
    for value in (tail, b"<sip:bob@10.0.0.9>" + tail, b"<sip:bob@10.0.0.9>;" + tail):
        try:
            contact = Contact(value)
        except ParseError:
            continue
        # what is kept can be read again and says the same
        again = Contact(contact.kept)
        assert again.kept == contact.kept
        assert (again.reg_id, again.instance, again.q) == (
            contact.reg_id,
            contact.instance,
            contact.q,
        )
