"""What the fast path reads by itself and what it leaves to the grammar.

That both agree is shown in ``test_message``; here is that the usual messages do not take the slow
way, and that the unusual ones do.
"""

from __future__ import annotations

import pytest

from sipedge.sip.message import Response, parse, read_usual
from tests.sim import answer, request

USUAL = request("REGISTER", headers='Contact: <sip:a@h;ob>;+sip.instance="<urn:x>";reg-id=1\r\n')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"Max-Forwards: 70\r\n", b""),
        (b"127.0.0.2:5060", b"[2001:db8::1]:5060"),
        (b"sip:bob@127.0.0.9:5060", b"sip:[2001:db8::9]:50600;transport=tcp;lr"),
        (b"From: <", b'From: "A. Lice" <'),
        (b"Call-ID:", b"i:"),
        (b";rport", b";rport, SIP/2.0/TCP h;branch=z9hG4bK2"),
    ],
)
def test_usual_requests_are_read_here(old: bytes, new: bytes) -> None:
    assert old in USUAL
    assert read_usual(USUAL.replace(old, new, 1), False) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"CSeq: 1 REGISTER", b"CSeq: 1 INVITE"),
        (b"Call-ID: ", b"Call-ID : "),
        (b"<sip:bob@example.com>", b'"bob <sip:bob@example.com>'),
        (b"Max-Forwards: 70", b"Max-Forwards: 7x"),
        (b"Content-Length: 0", b"Content-Length: 7"),
        (b"\r\nCall-ID", b"\r\n Call-ID"),
        (b"\r\nCall-ID", b"\nCall-ID"),
    ],
)
def test_unusual_requests_are_left_to_the_grammar(old: bytes, new: bytes) -> None:
    assert old in USUAL
    assert read_usual(USUAL.replace(old, new, 1), False) is None


def test_a_response_to_us_is_not_taken_apart() -> None:
    data = answer(parse(USUAL), 200, "OK", headers="X-Y: y\r\n")
    msg = parse(data)
    assert isinstance(msg, Response)
    assert (msg.status, msg.reason, msg.branch()) == (200, b"OK", b"z9hG4bKa1")
    assert msg.to_bytes() == data
    assert msg.first(b"x-y") == b"y"
    assert msg.to_bytes() == data


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"SIP/2.0 200 OK", b"SIP/2.0 99 OK"),
        (b"SIP/2.0 200 OK", b"SIP/2.0  200 OK"),
        (b"Via: ", b"v: "),
        (b"branch=z9hG4bKa1", b"branch=z9"),
        (b";rport", b";rport, SIP/2.0/UDP h"),
        (b"CSeq: 1 ", b"CSeq: x "),
        (b"Length: 0", b"Length: 1"),
        (b"\r\nCall-ID", b"\nCall-ID"),
    ],
)
def test_other_responses_are_left_to_the_grammar(old: bytes, new: bytes) -> None:
    data = answer(parse(USUAL), 200, "OK")
    assert old in data
    assert read_usual(data.replace(old, new, 1), False) is None


@pytest.mark.parametrize("odd", [b"x", b"x REGISTER", b"1" * 5000 + b" REGISTER"])
def test_a_response_with_a_second_odd_cseq_does_no_harm(odd: bytes) -> None:
    data = answer(parse(USUAL), 200, "OK").replace(b"CSeq:", b"CSeq:" + odd + b"\r\nCSeq:", 1)
    assert parse(data).cseq() == (0, b"REGISTER")
