"""Module textops: questions about rows, edits of rows, and no way to smuggle a row in."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.sip.message import parse
from tests.modules.conftest import Message, arrived
from tests.sim import Sim, answer, request

HEADERS = "X-One: 1\r\nSupported: path\r\nX-One: 2\r\n"


def names(msg: Any) -> list[bytes]:
    return [line.partition(b":")[0] for line in msg.lines[1:-2]]


def test_is_method(ksr: Any, message: Message) -> None:
    msg = message("INVITE")
    assert ksr.textops.is_method(msg, "INVITE") == 1
    assert ksr.textops.is_method(msg, b"ACK|INVITE") == 1
    assert ksr.textops.is_method(msg, "INVITE | ACK") == 1
    assert ksr.textops.is_method(msg, "INV|ACK") == -1
    assert ksr.textops.is_method(msg, "invite") == -1, "methods are case-sensitive"


def test_is_method_of_a_response_is_that_of_cseq(sim: Sim, ksr: Any) -> None:
    reply = arrived(sim, answer(parse(request("SUBSCRIBE")), 200))
    assert ksr.textops.is_method(reply, "SUBSCRIBE") == 1
    assert ksr.textops.is_method(reply, "INVITE") == -1


@pytest.mark.parametrize("name", ["Supported", "supported", "k", b"K"])
def test_is_present_hf(ksr: Any, message: Message, name: str | bytes) -> None:
    assert ksr.textops.is_present_hf(message(headers=HEADERS), name) == 1
    assert ksr.textops.is_present_hf(message(), name) == -1


def test_search_hf(ksr: Any, message: Message) -> None:
    msg = message(headers=HEADERS)
    assert ksr.textops.search_hf(msg, "X-One", "^[12]$") == 1
    assert ksr.textops.search_hf(msg, "X-One", "2") == 1
    assert ksr.textops.search_hf(msg, "X-One", "2", "f") == -1
    assert ksr.textops.search_hf(msg, "X-One", "2", "l") == 1
    assert ksr.textops.search_hf(msg, "X-One", "1", "l") == -1
    assert ksr.textops.search_hf(msg, "supported", "PATH") == 1, "case does not count"
    assert ksr.textops.search_hf(msg, "X-None", ".*") == -1
    with pytest.raises(ValueError, match="flags are"):
        ksr.textops.search_hf(msg, "X-One", "1", "x")


def test_search_sees_the_whole_message(ksr: Any, message: Message) -> None:
    msg = message(headers=HEADERS, body="v=0\r\n")
    assert ksr.textops.search(msg, "^x-one: 2") == 1
    assert ksr.textops.search(msg, "v=0") == 1
    assert ksr.textops.search(msg, "X-Two") == -1


def test_has_body(ksr: Any, message: Message) -> None:
    sdp = "Content-Type: application/SDP;charset=utf-8\r\n"
    msg = message(headers=sdp, body="v=0\r\n")
    assert ksr.textops.has_body(msg) == 1
    assert ksr.textops.has_body_type(msg, "application/sdp") == 1
    assert ksr.textops.has_body_type(msg, "application") == 1
    assert ksr.textops.has_body_type(msg, "text/plain") == -1
    assert ksr.textops.has_body(message()) == -1
    assert ksr.textops.has_body(message(headers=sdp), "application/sdp") == -1


def test_remove_hf_takes_all_of_a_name(ksr: Any, message: Message) -> None:
    msg = message(headers=HEADERS)
    assert ksr.textops.remove_hf(msg, "x-ONE") == 1
    assert ksr.textops.remove_hf(msg, "X-One") == -1
    assert b"X-One" not in names(msg)
    assert b"Supported" in names(msg)


def test_insert_hf_stands_above(ksr: Any, message: Message) -> None:
    msg = message(headers=HEADERS)
    assert ksr.textops.insert_hf(msg, "Flow-Timer: 20\r\n", "Call-ID") == 1
    at = names(msg).index(b"Flow-Timer")
    assert names(msg)[at + 1] == b"Call-ID"
    assert ksr.textops.insert_hf(msg, b"X-Top: 1") == 1, "the CRLF at the end may be left out"
    assert names(msg)[0] == b"X-Top"
    assert ksr.textops.insert_hf(msg, "X-Toptop: 1\r\n", "X-Absent") == 1
    assert names(msg)[0] == b"X-Toptop"


def test_append_hf_stands_below(ksr: Any, message: Message) -> None:
    msg = message(headers=HEADERS)
    assert ksr.textops.append_hf(msg, "x-TWO: 2\r\nX-Three: 3\r\n") == 1
    assert names(msg)[-2:] == [b"x-TWO", b"X-Three"], "as the route spells it"
    assert ksr.textops.append_hf(msg, "X-Half: 1.5\r\n", "X-One") == 1
    at = names(msg).index(b"X-Half")
    assert names(msg)[at - 1 : at + 2] == [b"X-One", b"X-Half", b"Supported"]
    again = parse(msg.to_bytes())
    assert again.first(b"x-two") == b"2"
    assert again.lines == msg.lines


def test_an_edit_is_seen_at_once(ksr: Any, message: Message) -> None:
    msg = message()
    assert msg.via_count() == 1
    ksr.textops.insert_hf(msg, "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n", "Via")
    assert msg.via_count() == 2
    assert msg.via().host == b"192.0.2.1"


@pytest.mark.parametrize(
    "text", ["no colon", "Two Words: x", ": x", "A: b\r\n\r\nbody", "A: b\nC: d", "A: b\rC", ""]
)
def test_text_that_is_no_header_never_reaches_the_message(
    ksr: Any, message: Message, text: str
) -> None:
    msg = message()
    before = msg.to_bytes()
    for function in (ksr.textops.insert_hf, ksr.textops.append_hf):
        with pytest.raises(ValueError, match="is no header"):
            function(msg, text)
    assert msg.to_bytes() == before
