"""Octets as text, keys, and flows as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar_plugin.bindings import Binding
from registrar_plugin.store.records import Home, key_of, octets, read_home, text


@given(st.binary())
def test_octets_survive(raw: bytes) -> None:
    as_text = text(raw)
    assert as_text.isascii()
    assert "\0" not in as_text
    assert octets(as_text) == raw


def test_usual_text_stays_as_it_is() -> None:
    usual = b'<sip:bob@10.0.0.9:5060>;+sip.instance="<urn:uuid:00>"'
    assert text(usual) == usual.decode()
    assert text(b"a\\x41\xff") == r"a\\x41\xff"


def binding(contact: bytes, reg_id: int) -> Binding:
    return Binding(contact, reg_id, -1, b"", None, b"c", 1, 0, 60, None)


def test_the_key_is_instance_and_reg_id_or_the_uri() -> None:
    contact = b'<sip:bob@h>;+sip.instance="<urn:uuid:AB>";reg-id=3'
    assert key_of(binding(contact, 3)) == "3 urn:uuid:ab"
    assert key_of(binding(contact, 0)) == "0 sip:bob@h"
    long = b"<sip:" + b"b" * 200 + b"@%s>"
    keys = {key_of(binding(long % host, 0)) for host in (b"a", b"b", b"a")}
    assert len(keys) == 2
    assert max(map(len, keys)) < 50


def test_homes() -> None:
    for home in (
        Home("node", "udp:[::1]:5060", "::1", 9, "", True),
        Home("a.example.com:1", "tcp:127.0.0.1:5060", "192.0.2.1", 65535, "00ff", False),
    ):
        assert read_home(home.text) == home
    assert read_home("") is None
    with pytest.raises(ValueError, match="unpack"):
        read_home("nonsense")
