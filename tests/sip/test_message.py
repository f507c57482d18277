"""Messages: parsed quickly and carefully, edited by rows, joined again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.message import Response, SipMessage, parse, read
from sipedge.sip.names import (
    CONTACT,
    CSEQ,
    FROM,
    MAX_FORWARDS,
    ROUTE,
    SUPPORTED,
    TO,
    USER_AGENT,
    VIA,
)
from sipedge.sip.via import Via
from tests.sip.samples import INVITE, PIECES, REGISTER, RESPONSE, messages


def test_request() -> None:
    msg = parse(REGISTER)
    assert (msg.is_request, msg.method, msg.ruri) == (True, b"REGISTER", b"sip:example.com")
    assert msg.call_id == b"1j9FpLxk3uxtm8tn@192.168.1.20"
    assert (msg.from_tag, msg.to_tag) == (b"a73kszlfl", b"")
    assert msg.cseq() == (1, b"REGISTER")
    assert msg.via().branch == b"z9hG4bKPj4f2b8f1e"
    assert msg.options(SUPPORTED) == {b"path", b"outbound"}
    assert msg.body == b""


def test_response() -> None:
    msg = parse(RESPONSE)
    assert (msg.is_request, msg.status, msg.reason) == (False, 200, b"OK")
    assert (msg.from_tag, msg.to_tag) == (b"1", b"2")
    assert msg.via_count() == 2


@pytest.mark.rfc("PAR-01")
def test_every_spelling_of_a_header_is_one_header() -> None:
    data = (
        b"REGISTER sip:h SIP/2.0\r\n"
        b"v: SIP/2.0/TCP h;BRANCH=z9hG4bK1;RPORT\r\n"
        b"f: <sip:a@h>;TAG=1\r\nt: <sip:a@h>\r\ni: 1\r\ncSeQ: 1 REGISTER\r\n"
        b'm:\r\n <sip:a@h>\r\n\t;REG-ID=1\r\n ;+SIP.Instance="<urn:x>"\r\n'
        b"k: PATH,Outbound\r\nSUPPORTED  :   gruu\r\nrOuTe: <sip:e;lr>\r\nl : 0\r\n\r\n"
    )
    msg = parse(data)
    assert msg.to_bytes() == data
    assert msg.options(SUPPORTED) == {b"path", b"outbound", b"gruu"}
    assert msg.first(CONTACT) == b'<sip:a@h> ;REG-ID=1 ;+SIP.Instance="<urn:x>"'
    assert msg.values(ROUTE) == [b"<sip:e;lr>"]
    assert (msg.from_tag, msg.via().branch, msg.via().has_rport) == (b"1", b"z9hG4bK1", True)
    assert (
        parse(data).ids == parse(data).ids
    )  # names are known now, the second parse is the fast one
    again = parse(data.replace(b"\r\n <", b" <").replace(b"\r\n\t;", b";").replace(b"\r\n ;", b";"))
    assert again.ids == msg.ids


@pytest.mark.rfc("PAR-01")
def test_the_method_has_a_case() -> None:
    msg = parse(REGISTER.replace(b"REGISTER", b"register"))
    assert msg.method == b"register"


@pytest.mark.rfc("PAR-05")
def test_foreign_bytes_survive_and_break_no_line() -> None:
    row = b"X-Any: a\x0bb\x0cc\x1cd\xc2\x85e\xe2\x80\xa8f\xff\x00g"
    data = REGISTER.replace(b"Max-Forwards: 70", row)
    msg = parse(data)
    assert msg.to_bytes() == data
    assert msg.first(b"x-any") == row[7:]
    assert len(msg.lines) == len(parse(REGISTER).lines)


@pytest.mark.rfc("PAR-05")
@pytest.mark.parametrize(
    "evil", [b"a\rRoute: <sip:evil>", b"a\nRoute: <sip:evil>", b"a\n", b"a\r", b"\r", b"a\n\r"]
)
def test_no_header_injection_by_a_bare_line_end(evil: bytes) -> None:
    for where in (b"Subject: ", b"Contact: <sip:a@h>;x=", b"Call-ID: "):
        data = INVITE.replace(b"Call-ID: call", b"Call-ID: call\r\n" + where + evil)
        with pytest.raises(ParseError) as caught:
            parse(data)
        assert caught.value.status == 400
        assert caught.value.partial is not None
        assert b"evil" not in caught.value.partial.to_bytes()


@pytest.mark.rfc("PAR-05")
@pytest.mark.parametrize("evil", [b"\rRoute: <sip:evil>", b"\nRoute: <sip:evil>"])
@pytest.mark.parametrize("row", [b"Via: SIP/2.0/TCP 192.168.1.20:5060", b"To: sip:bob@example.com"])
def test_no_header_injection_into_the_answer(row: bytes, evil: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse(INVITE.replace(row, row + evil))
    assert caught.value.partial is None or b"evil" not in caught.value.partial.to_bytes()


@pytest.mark.rfc("PAR-12")
@pytest.mark.parametrize(
    "row",
    [b"f: <sip:x@h>;tag=1", b"To: <sip:x@h>", b"i: 2", b"CSEQ: 17 INVITE", b"l: 9",
     b"Max-Forwards: 1\r\nMax-Forwards: 1", b"Expires: 1\r\nexpires: 2",
     b"c: a/b\r\nContent-Type: a/b"],
)  # fmt: skip
def test_a_header_that_stands_once_must_not_stand_twice(row: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse(INVITE.replace(b"CSeq:", row + b"\r\nCSeq:"))
    assert caught.value.status == 400


@pytest.mark.rfc("PAR-12")
def test_other_headers_may_be_repeated() -> None:
    rows = (
        b"Route: <sip:a;lr>\r\nVia: SIP/2.0/UDP b\r\nX: 1\r\n"
        b"Route: <sip:b;lr>, <sip:c;lr>\r\nx: 2\r\n"
    )
    msg = parse(INVITE.replace(b"CSeq:", rows + b"CSeq:"))
    assert msg.values(ROUTE) == [b"<sip:a;lr>", b"<sip:b;lr>", b"<sip:c;lr>"]
    assert msg.via_count() == 2


@pytest.mark.rfc("PAR-06")
@pytest.mark.parametrize(
    "text", [b"1_0", b"+5", b"-1", "٣".encode(), b"9" * 5000, b"", b"0x1", b"1.0"]
)
@pytest.mark.parametrize("name", [b"Content-Length: ", b"Max-Forwards: ", b"CSeq: "])
def test_numbers_are_ascii_digits(name: bytes, text: bytes) -> None:
    data = REGISTER.replace(b"Content-Length: 0", b"Content-Length: 2") + b"xy"
    start = data.index(name)
    end = data.index(b"\r\n", start)
    method = b" REGISTER" if name == b"CSeq: " else b""
    with pytest.raises(ParseError) as caught:
        parse(data[:start] + name + text + method + data[end:])
    assert caught.value.status == 400


@pytest.mark.rfc("PAR-06")
def test_max_forwards_is_an_octet() -> None:
    # RFC 3261 §20.22
    for value in (b"0", b"70", b"255", b"00255"):
        data = REGISTER.replace(b"Max-Forwards: 70", b"Max-Forwards: " + value)
        assert parse(data).first(MAX_FORWARDS) == value
    for value in (b"256", b"300"):
        with pytest.raises(ParseError):
            parse(REGISTER.replace(b"Max-Forwards: 70", b"Max-Forwards: " + value))


@pytest.mark.parametrize("data", [REGISTER, INVITE, RESPONSE, REGISTER + b"surplus"])
def test_usual_messages_never_see_the_strict_parser(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(strict, "parse")
    parse(data)


@pytest.mark.rfc("TRN-10")
def test_body_by_content_length() -> None:
    assert parse(INVITE).body == b"v=0\r\n\r\nxx"
    cut = parse(INVITE + b"INVITE sip:surplus SIP/2.0\r\n")
    assert cut.to_bytes() == INVITE
    assert parse(INVITE.replace(b"Content-Length: 9\r\n", b"")).body == b"v=0\r\n\r\nxx"
    assert parse(INVITE.replace(b": 9\r\n", b": 0009\r\n")).body == b"v=0\r\n\r\nxx"
    with pytest.raises(ParseError) as caught:
        parse(INVITE[:-1])
    assert (caught.value.status, caught.value.partial is None) == (400, False)
    with pytest.raises(ParseError) as caught:
        parse(RESPONSE.replace(b": 0\r\n", b": 1\r\n"))
    assert caught.value.partial is None


@pytest.mark.rfc("TRN-09")
def test_a_stream_needs_content_length() -> None:
    assert parse(INVITE, stream=True).body == b"v=0\r\n\r\nxx"
    with pytest.raises(ParseError):
        parse(INVITE.replace(b"Content-Length: 9\r\n", b""), stream=True)


@pytest.mark.rfc("TRN-14")
def test_line_ends_before_the_start_line_are_ignored() -> None:
    assert parse(b"\r\n\r\n\r\n" + REGISTER).to_bytes() == REGISTER


@pytest.mark.rfc("TRN-13")
def test_limits() -> None:
    many = b"X: 1\r\n" * strict.MAX_ROWS
    with pytest.raises(ParseError) as caught:
        parse(REGISTER.replace(b"CSeq:", many + b"CSeq:"))
    assert (caught.value.status, caught.value.partial is None) == (513, False)
    parse(REGISTER.replace(b"CSeq:", many[: -20 * 6] + b"CSeq:"))
    long = b"sip:" + b"a" * (strict.MAX_URI - 4)
    assert parse(REGISTER.replace(b"sip:example.com ", long + b" ")).ruri == long
    with pytest.raises(ParseError) as caught:
        parse(REGISTER.replace(b"sip:example.com ", long + b"a "))
    assert (caught.value.status, caught.value.partial is None) == (414, False)


@pytest.mark.rfc("TRN-12")
def test_a_datagram_of_the_largest_size() -> None:
    body = b"x" * (65535 - len(INVITE) - 4 + 9)
    data = INVITE.replace(b": 9\r\n", b": %d\r\n" % len(body))[:-9] + body
    assert len(data) == 65535
    assert parse(data).body == body


@pytest.mark.rfc("KA-15")
@pytest.mark.parametrize(
    "junk", [b"", b"\r\n", b"\r\n\r\n", b"\0\0\0\0", b"jaK", b"\0" * 100, b"hello\r\n\r\n"]
)
def test_junk_cannot_be_answered(junk: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse(junk)
    assert caught.value.partial is None


def fields(msg: SipMessage) -> tuple[object, ...]:
    via: Via = msg.via()
    return (
        msg.lines, msg.ids, msg.is_request, msg.method, msg.ruri, msg.status, msg.reason,
        msg.call_id, msg.from_tag, msg.to_tag, via.transport, via.host, via.port, via.sent_by,
        via.branch,
        via.has_rport, via.raw, via.rest, via.params, msg.cseq(),
    )  # fmt: skip


def outcome(
    data: bytes, stream: bool = False, parser: Callable[..., SipMessage] = parse
) -> SipMessage | ParseError:
    try:
        return parser(data, stream)
    except ParseError as error:
        return error


@pytest.mark.rfc("PAR-13")
@given(
    st.one_of(st.binary(), messages(), st.tuples(messages(), st.binary(max_size=8)).map(b"".join))
)
@example(REGISTER)
@settings(max_examples=500)
def test_any_bytes_are_a_message_or_a_parse_error(data: bytes) -> None:
    for stream in (False, True):
        msg = outcome(data, stream)
        if isinstance(msg, SipMessage):
            fields(msg)
            assert data.lstrip(b"\r\n").startswith(msg.to_bytes())
        elif msg.partial is not None:
            assert msg.partial.via().sent_by
            assert msg.partial.method not in (b"", b"ACK")


@given(messages())
@example(REGISTER)
@example(RESPONSE)
@settings(max_examples=1000)
def test_the_fast_path_agrees_with_the_strict_parser(data: bytes) -> None:
    """The differential test.  ``parse`` falls back to ``strict.parse``, so what differs shows as a
    message that only one of them accepts, or as one with other fields."""
    fast, careful = outcome(data), outcome(data, parser=strict.parse)
    if isinstance(fast, Response) and isinstance(careful, ParseError):
        return  # of a response, not all is checked
    if isinstance(fast, SipMessage):
        assert isinstance(careful, SipMessage)
        assert fields(fast) == fields(careful)
    else:
        assert isinstance(careful, ParseError)
        assert (fast.status, fast.why) == (careful.status, careful.why)


MORE_PIECES = [
    *PIECES, b"SIP/2.0/UDP h", b"SIP/2.0/TCP [::1]:5061", b";branch=z9hG4bK1", b";rport",
    b";rport=1", b":5060", b"70", b"1 REGISTER", b"*", b"i@h", b"\t",
]  # fmt: skip
ROW_NAMES = [
    b"Via", b"v", b"From", b"f", b"To", b"t", b"Call-ID", b"CSeq", b"Max-Forwards", b"Contact",
    b"m", b"Route", b"Record-Route", b"Path", b"Content-Length", b"l", b"X",
]  # fmt: skip


@given(st.lists(st.sampled_from(MORE_PIECES), max_size=9).map(b"".join), st.sampled_from(ROW_NAMES))
@example(b"<sip:a@h>;x;tag=1", b"From")
@example(b"<sip:a@h>;TAG=1", b"To")
@example(b"SIP/2.0/UDP h;branch;branch=z9hG4bK1", b"Via")
@example(b"SIP/2.0/UDP h;rport=1;rport;branch=z9hG4bK1", b"Via")
@settings(max_examples=1000)
def test_the_fast_path_never_passes_a_row_that_the_grammar_refuses(
    value: bytes, name: bytes
) -> None:
    """The same for one row at a time, of which the rest of the message is in order."""
    rows = [row for row in REGISTER.split(b"\r\n") if not row.startswith(name + b":")]
    rows.insert(1 if name in (b"Via", b"v") else -2, name + b": " + value)
    data = b"\r\n".join(rows)
    fast, careful = outcome(data), outcome(data, parser=strict.parse)
    assert type(fast) is type(careful)
    if isinstance(fast, SipMessage):
        assert isinstance(careful, SipMessage)
        assert fields(fast) == fields(careful)


@given(st.lists(st.sampled_from(MORE_PIECES), max_size=9).map(b"".join), st.sampled_from(ROW_NAMES))
@settings(max_examples=1000)
def test_the_rows_of_a_response_are_those_that_the_strict_parser_finds(
    value: bytes, name: bytes
) -> None:
    rows = [row for row in RESPONSE.split(b"\r\n") if not row.startswith(name + b":")]
    rows.insert(1 if name in (b"Via", b"v") else -2, name + b": " + value)
    data = b"\r\n".join(rows)
    fast, careful = outcome(data), outcome(data, parser=strict.parse)
    if isinstance(careful, SipMessage):
        assert isinstance(fast, SipMessage)
        assert fast.to_bytes() == careful.to_bytes()
        assert fast.drop_top_via() == careful.drop_top_via()
        assert fast.to_bytes() == careful.to_bytes()
        assert (fast.lines, fast.ids) == (careful.lines, careful.ids)
        assert (fast.call_id, fast.from_tag, fast.to_tag) == (
            careful.call_id, careful.from_tag, careful.to_tag,
        )  # fmt: skip


def test_a_response_that_nobody_looks_at_is_not_split() -> None:
    msg = parse(RESPONSE + b"beyond Content-Length")
    assert isinstance(msg, Response)
    assert (msg.status, msg.reason, msg.cseq_method) == (200, b"OK", msg.cseq()[1])
    msg = read(RESPONSE + b"beyond Content-Length", False)
    assert msg.drop_top_via()
    assert msg._octets  # type: ignore[attr-defined]
    first = RESPONSE.index(b"Via: ")
    second = RESPONSE.index(b"Via: ", first + 1)
    assert msg.to_bytes() == RESPONSE[:first] + RESPONSE[second:]
    msg.open()
    assert msg.via().raw in RESPONSE[second:]
    msg.append(b"x-more", b"1")
    assert b"\r\nX-More: 1\r\n\r\n" in msg.to_bytes()
    assert not msg.drop_top_via()


@pytest.mark.parametrize(
    "odd", [b"a row without a name", b" leading", b": nothing", b'From: "', b"Call-ID: 1", b"\x00"]
)
def test_what_is_odd_in_a_response_goes_on_to_the_client(odd: bytes) -> None:
    data = RESPONSE.replace(b"Call-ID", odd + b"\r\nCall-ID")
    msg = parse(data)
    assert msg.to_bytes() == data
    assert len(msg.lines) == len(msg.ids)
    assert msg.to_bytes() == data


@pytest.mark.rfc("PAR-05")
@pytest.mark.parametrize("bare", [b"\r", b"\n", b"\n\r"])
def test_no_response_with_bare_line_ends(bare: bytes) -> None:
    for at in range(RESPONSE.index(b"Via"), RESPONSE.index(b"\r\n\r\n") + 1):
        if RESPONSE[at - 1 : at] not in b"\r\n" and RESPONSE[at : at + 1] != b"\n":
            with pytest.raises(ParseError):
                parse(RESPONSE[:at] + bare + b"x" + RESPONSE[at:])


@pytest.mark.rfc("PAR-13")
@pytest.mark.parametrize(
    "piece", [b'"', b"a: b\r\n", b";", b"<", b" ", b"\r\n ", b",", b":", b"\t"]
)
def test_hostile_messages_take_linear_time(piece: bytes) -> None:
    for name in (
        b"Via: SIP/2.0/UDP h",
        b"From: ",
        b"Contact: ",
        b"Route: <sip:a>",
        b"X: ",
        b"Call-ID: ",
    ):
        data = REGISTER.replace(b"CSeq:", name + piece * (60000 // len(piece)) + b"\x00\r\nCSeq:")
        try:
            parse(data)
        except ParseError:
            pass


# rows


def test_values_are_read_when_asked_for() -> None:
    msg = parse(
        INVITE.replace(b"CSeq", b'Contact: "a, b" <sip:a@h>, <sip:b@h>\r\nm:<sip:c@h>\r\nCSeq')
    )
    assert msg.first(CONTACT) == b'"a, b" <sip:a@h>, <sip:b@h>'
    assert msg.rows(CONTACT) == [b'"a, b" <sip:a@h>, <sip:b@h>', b"<sip:c@h>"]
    assert msg.values(CONTACT) == [b'"a, b" <sip:a@h>', b"<sip:b@h>", b"<sip:c@h>"]
    assert (msg.has(CONTACT), msg.has(ROUTE)) == (True, False)
    assert (msg.first(ROUTE), msg.rows(ROUTE), msg.values(ROUTE), msg.find(ROUTE)) == (
        None,
        [],
        [],
        -1,
    )


def test_edits_replace_whole_rows() -> None:
    msg = parse(INVITE)
    msg.prepend(VIA, b"SIP/2.0/UDP new;branch=z9hG4bK2")
    msg.prepend(ROUTE, b"<sip:r;lr>")
    msg.append(USER_AGENT, b"me")
    msg.set(MAX_FORWARDS, b"69")
    msg.set(FROM, b"<sip:x@h>;tag=9")
    assert msg.to_bytes() == (
        b"INVITE sip:bob@example.com SIP/2.0\r\n"
        b"Route: <sip:r;lr>\r\n"
        b"Via: SIP/2.0/UDP new;branch=z9hG4bK2\r\n"
        b"Via: SIP/2.0/TCP 192.168.1.20:5060;branch=z9hG4bKxyz\r\n"
        b"From: <sip:x@h>;tag=9\r\n"
        b"To: sip:bob@example.com\r\n"
        b"Call-ID: call\r\n"
        b"CSeq: 17 INVITE\r\n"
        b"Content-Length: 9\r\n"
        b"User-Agent: me\r\n"
        b"Max-Forwards: 69\r\n\r\n"
        b"v=0\r\n\r\nxx"
    )
    assert (msg.via().host, msg.from_tag) == (b"new", b"9")  # nothing stale is remembered
    assert msg.remove(VIA) == 2
    assert msg.remove(VIA) == 0
    assert len(msg.lines) == len(msg.ids)


def test_pop_value_takes_the_topmost_and_nothing_else() -> None:
    joined = b"Via: SIP/2.0/UDP a , SIP/2.0/UDP b,SIP/2.0/UDP c\r\n"
    msg = parse(RESPONSE.replace(b"From:", joined + b"From:"))
    for host in (b"127.0.0.1:5060", b"192.168.1.20:5060"):
        assert host in (msg.pop_value(VIA) or b"")
    assert msg.pop_value(VIA) == b"SIP/2.0/UDP a"
    assert msg.first(VIA) == b"SIP/2.0/UDP b,SIP/2.0/UDP c"
    assert [msg.pop_value(VIA) for _ in range(3)] == [b"SIP/2.0/UDP b", b"SIP/2.0/UDP c", None]


def test_set_leaves_exactly_one_row() -> None:
    msg = parse(INVITE.replace(b"CSeq", b"Route: <sip:a>\r\nRoute: <sip:b>\r\nCSeq"))
    msg.set(ROUTE, b"<sip:c>")
    assert msg.rows(ROUTE) == [b"<sip:c>"]


def test_what_modules_remember() -> None:
    msg = parse(INVITE)
    assert msg.recall("key") is None
    msg.remember("key", 1)
    assert msg.recall("key") == 1


def test_cseq_with_any_white_space() -> None:
    assert parse(INVITE.replace(b"CSeq: 17 INVITE", b"CSeq:  0017\t INVITE")).cseq() == (
        17,
        b"INVITE",
    )
    assert TO in parse(INVITE).ids
    assert CSEQ in parse(INVITE).ids
