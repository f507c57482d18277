"""Responses made from the rows of their request."""

from __future__ import annotations

import pytest

from sipedge.sip.message import parse
from sipedge.sip.names import CONTACT, RETRY_AFTER
from sipedge.sip.reply import REASONS, build_reply

REQUEST = (
    b"INVITE sip:bob@example.com SIP/2.0\r\n"
    b"v: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/TCP b\r\n"
    b"Max-Forwards: 70\r\n"
    b"To:\r\n <sip:bob@example.com>\r\n"
    b"Via: SIP/2.0/UDP c\r\n"
    b"f: <sip:al@example.com>;tag=1\r\n"
    b"Call-ID: x\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Timestamp: 54\r\n"
    b"Record-Route: <sip:edge;lr>\r\n"
    b"l: 0\r\n\r\n"
)


def test_rows_are_copied_as_they_stand() -> None:
    # RFC 3261 §8.2.6.2
    assert build_reply(parse(REQUEST), 404, b"Not Found", b"t9") == (
        b"SIP/2.0 404 Not Found\r\n"
        b"v: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/TCP b\r\n"
        b"To:\r\n <sip:bob@example.com>;tag=t9\r\n"
        b"Via: SIP/2.0/UDP c\r\n"
        b"f: <sip:al@example.com>;tag=1\r\n"
        b"Call-ID: x\r\n"
        b"CSeq: 1 INVITE\r\n"
        b"Content-Length: 0\r\n\r\n"
    )


def test_a_100_has_no_new_tag_and_the_timestamp() -> None:
    reply = parse(build_reply(parse(REQUEST), 100, REASONS[100], b"t9"))
    assert (reply.status, reply.reason, reply.to_tag) == (100, b"Trying", b"")
    assert reply.first(b"timestamp") == b"54"


@pytest.mark.parametrize(
    "to", [b"<sip:b@h>;tag=old", b"sip:b@h;x=1;TAG = old", b"<sip:b@h> ; tag=old"]
)
def test_a_tag_that_is_there_stays(to: bytes) -> None:
    request = parse(REQUEST.replace(b"\r\n <sip:bob@example.com>", b" " + to))
    assert b"To: " + to + b"\r\n" in build_reply(request, 200, b"OK", b"new")


def test_a_tag_in_the_uri_or_the_name_is_no_tag() -> None:
    request = parse(REQUEST.replace(b"\r\n <sip:bob@", b' ";tag=1" <sip:bob;tag=2@'))
    assert parse(build_reply(request, 200, b"OK", b"new")).to_tag == b"new"


def test_more_headers_and_a_body() -> None:
    more = [(CONTACT, b"<sip:b@h>"), (RETRY_AFTER, b"5"), (b"X-Any", b"1"), (b"call-info", b"2")]
    reply = build_reply(parse(REQUEST), 200, b"OK", b"t", more, b"v=0\r\n")
    assert reply.endswith(
        b"\r\nContact: <sip:b@h>\r\nRetry-After: 5\r\nX-Any: 1\r\nCall-Info: 2\r\n"
        b"Content-Length: 5\r\n\r\nv=0\r\n"
    )


def test_reasons_of_outbound() -> None:
    # RFC 5626 §11.5, §11.6
    assert REASONS[430] == b"Flow Failed"
    assert REASONS[439] == b"First Hop Lacks Outbound Support"
