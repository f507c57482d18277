"""What is left of a request that is refused, and when there must be no answer."""

from __future__ import annotations

import pytest

from sipedge.errors import ParseError
from sipedge.sip.message import parse
from sipedge.sip.names import CALL_ID, CSEQ, FROM, TO, VIA
from sipedge.sip.reply import build_reply
from tests.sip.samples import INVITE, REGISTER, RESPONSE


def refused(data: bytes) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(data)
    return caught.value


def test_partial_holds_what_an_answer_needs() -> None:
    error = refused(INVITE.replace(b"17 INVITE", b"17 BYE"))
    partial = error.partial
    assert partial is not None
    assert partial.ids[1:-2] == [VIA, FROM, TO, CALL_ID, CSEQ]
    assert (partial.method, partial.is_request) == (b"INVITE", True)
    reply = parse(
        build_reply(partial, error.status, error.reason, b"t").replace(b"17 BYE", b"17 INVITE")
    )
    assert (reply.status, reply.to_tag, reply.via().branch) == (400, b"t", b"z9hG4bKxyz")


def test_partial_of_rows_that_are_missing_or_doubled() -> None:
    data = INVITE.replace(b"From: <sip:alice@example.com>;tag=1\r\n", b"")
    partial = refused(data.replace(b"CSeq", b"i: 2\r\nCSeq")).partial
    assert partial is not None
    assert partial.ids[1:-2] == [VIA, TO, CALL_ID, CSEQ]
    assert partial.first(CALL_ID) == b"call"


def test_a_broken_via_is_cut_down_to_its_sound_part() -> None:
    partial = refused(INVITE.replace(b"branch=z9hG4bKxyz", b"branch=z9hG4bKxyz;;,")).partial
    assert partial is not None
    assert partial.first(VIA) == b"SIP/2.0/TCP 192.168.1.20:5060;branch=z9hG4bKxyz"


@pytest.mark.parametrize(
    "data",
    [
        RESPONSE.replace(b"CSeq: 1", b"CSeq: x"),
        RESPONSE.replace(b"200", b"2000"),
        INVITE.replace(b"INVITE", b"ACK").replace(b"CSeq: 17", b"CSeq: x"),
        INVITE.replace(b"Via: SIP/2.0/TCP", b"Via: no"),
        REGISTER.replace(b"Via:", b"Vla:"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_no_answer_to_responses_acks_and_what_has_no_via(data: bytes) -> None:
    assert refused(data).partial is None
