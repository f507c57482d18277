"""A byte stream cut into messages and pings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipedge.errors import ParseError
from sipedge.sip.message import parse
from sipedge.sip.stream import PING, Event, StreamFramer
from tests.sip.samples import INVITE, REGISTER, RESPONSE

PING_OCTETS = b"\r\n\r\n"


def events_of(*chunks: bytes, framer: StreamFramer | None = None) -> list[Event]:
    framer = framer or StreamFramer()
    return [event for chunk in chunks for event in framer.feed(chunk, 0.0)]


def comparable(events: list[Event]) -> list[object]:
    return [str(event) if isinstance(event, ParseError) else event for event in events]


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def fatal(data: bytes) -> ParseError:
    """The one event of ``data``, whole and octet by octet; nothing comes after it."""
    for chunks in ([data], octets(data)):
        framer = StreamFramer()
        events = events_of(*chunks, framer=framer)
        assert len(events) == 1
        error = events[0]
        assert isinstance(error, ParseError)
        assert framer.feed(REGISTER, 0.0) == []
    return error


@pytest.mark.rfc("TRN-09")
def test_one_message_and_fifty() -> None:
    assert events_of(INVITE) == [INVITE]
    assert events_of(INVITE * 50) == [INVITE] * 50
    assert parse(INVITE, stream=True).to_bytes() == INVITE


@pytest.mark.rfc("TRN-09", "KA-02")
def test_every_split_point() -> None:
    """The body of INVITE holds a double CRLF; it is no ping, wherever the segments end."""
    data = INVITE + PING_OCTETS + REGISTER
    for i in range(len(data)):
        assert events_of(data[:i], data[i:]) == [INVITE, PING, REGISTER]
    assert events_of(*octets(data)) == [INVITE, PING, REGISTER]


@pytest.mark.rfc("KA-02")
def test_segments_that_end_at_each_line_end() -> None:
    chunks = [line + b"\r\n" for line in REGISTER.split(b"\r\n")[:-1]]
    assert events_of(*chunks) == [REGISTER]


@pytest.mark.rfc("KA-01", "KA-06")
def test_pings_around_messages() -> None:
    assert events_of(PING_OCTETS) == [PING]
    data = PING_OCTETS * 2 + REGISTER + PING_OCTETS
    assert events_of(data) == [PING, PING, REGISTER, PING]
    assert events_of(*octets(data)) == [PING, PING, REGISTER, PING]


@pytest.mark.rfc("KA-03")
@pytest.mark.parametrize("at", range(1, 4))
def test_a_ping_in_two_segments_is_one_ping(at: int) -> None:
    assert events_of(PING_OCTETS[:at], PING_OCTETS[at:]) == [PING]


@pytest.mark.rfc("KA-04")
def test_lone_line_ends_are_no_ping() -> None:
    framer = StreamFramer()
    assert framer.feed(b"\r\n", 0.0) == []
    assert framer.started is None  # no message has begun: no partial-message timer
    assert framer.feed(b"\r\n", 90.0) == []  # not half of a ping any more
    assert framer.feed(REGISTER, 150.0) == [REGISTER]
    assert framer.feed(b"\r\n", 151.0) == []
    assert framer.feed(PING_OCTETS, 152.5) == [PING]
    assert framer.feed(b"\n\r\r\n\n", 160.0) == []
    assert framer.feed(REGISTER, 160.0) == [REGISTER]


@pytest.mark.rfc("KA-04")
def test_a_residue_within_a_second_is_joined() -> None:
    framer = StreamFramer()
    assert framer.feed(b"\r\n", 0.0) == []
    assert framer.feed(b"\r\n", 0.9) == [PING]


@pytest.mark.rfc("KA-04")
def test_three_line_ends_are_one_ping() -> None:
    assert events_of(b"\r\n" + PING_OCTETS) == [PING]
    assert events_of(b"\r" + PING_OCTETS) == [PING]


@pytest.mark.rfc("TRN-14")
def test_line_ends_before_a_message() -> None:
    assert events_of(PING_OCTETS + b"\r\n" + REGISTER) == [PING, REGISTER]
    assert events_of(b"\r\n" + REGISTER + b"\r\n" + PING_OCTETS) == [REGISTER, PING]


def test_when_a_message_began() -> None:
    framer = StreamFramer()
    framer.feed(REGISTER[:50], 10.0)
    framer.feed(REGISTER[50:60], 20.0)
    assert framer.started == 10.0
    framer.feed(REGISTER[60:] + INVITE[:5], 30.0)
    assert framer.started == 30.0
    framer.feed(INVITE[5:], 40.0)
    assert framer.started is None


@pytest.mark.rfc("PAR-01", "TRN-09")
@pytest.mark.parametrize(
    "row",
    [b"l:9", b"L : 9", b"content-length:   9  ", b"Content-Length:\r\n 9", b"CONTENT-LENGTH: 0009"],
)
def test_every_spelling_of_content_length(row: bytes) -> None:
    data = INVITE.replace(b"Content-Length: 9", row)
    assert events_of(data + REGISTER) == [data, REGISTER]
    assert parse(data, stream=True).body == b"v=0\r\n\r\nxx"


@pytest.mark.parametrize("row", [b"X-Content-Length: 5", b"Subject: a\r\n l: 5", b"ll: 5"])
def test_what_only_looks_like_content_length(row: bytes) -> None:
    data = INVITE.replace(b"CSeq", row + b"\r\nCSeq")
    assert events_of(data + REGISTER) == [data, REGISTER]


@pytest.mark.rfc("TRN-09", "PAR-06")
@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"Content-Length: -999\r\n",  # RFC 4475 §3.1.2.3
        b"Content-Length: five\r\n",
        b"Content-Length: 9\r\nl: 9\r\n",
        b"Content-Length: 13\r\nContent-Length: 5\r\n",  # RFC 4475 §3.3.9
        b"Content-Length: 9, 9\r\n",
        b"Content-Length: 1_0\r\n",
        b"Content-Length: +9\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 9\r9\r\n",
    ],
)
def test_no_framing_without_one_number(row: bytes) -> None:
    error = fatal(INVITE.replace(b"Content-Length: 9\r\n", row))
    assert error.status == 400
    assert error.partial is not None
    assert error.partial.call_id == b"call"


@pytest.mark.rfc("TRN-13")
def test_headers_without_end() -> None:
    framer = StreamFramer()
    row = b"X-Row: " + b"x" * 1000 + b"\r\n"
    events: list[Event] = list(framer.feed(REGISTER[:-2], 0.0))
    fed = 0
    while not events and fed < 10_000_000:
        events += framer.feed(row, 0.0)
        fed += len(row)
    (error,) = events
    assert isinstance(error, ParseError)
    assert (error.status, error.partial is None) == (513, False)
    assert fed <= StreamFramer.MAX_HEAD + len(row)
    assert len(framer._buffer) == 0


@pytest.mark.rfc("TRN-13")
def test_the_largest_headers() -> None:
    def padded(size: int) -> bytes:
        pad = size - len(REGISTER) - len(b"X: \r\n")
        return REGISTER.replace(b"CSeq", b"X: " + b"x" * pad + b"\r\nCSeq")

    largest = padded(StreamFramer.MAX_HEAD)
    assert events_of(largest[:-1], largest[-1:]) == [largest]
    assert fatal_status(padded(StreamFramer.MAX_HEAD + 1)) == 513


def fatal_status(data: bytes) -> int:
    (error,) = events_of(data)
    assert isinstance(error, ParseError)
    return error.status


@pytest.mark.rfc("TRN-13")
def test_the_largest_body() -> None:
    limit = StreamFramer.MAX_BODY
    fits = INVITE.replace(b"Length: 9\r\n", b"Length: %d\r\n" % limit)[:-9] + b"x" * limit
    assert events_of(fits) == [fits]
    for size in (limit + 1, 10**9):
        error = fatal(INVITE.replace(b"Length: 9\r\n", b"Length: %d\r\n" % size)[:-9])
        assert (error.status, error.partial is None) == (413, False)
    assert fatal(INVITE.replace(b"Length: 9\r\n", b"Length: %d\r\n" % 10**30)[:-9]).status == 400


@pytest.mark.rfc("KA-14")
@pytest.mark.parametrize(
    "junk", [b"\x00\x01\x00\x00\x21\x12\xa4\x42", b"\x16\x03\x01", b"\x80", b" x", b"\t"]
)
def test_a_binary_octet_ends_the_stream(junk: bytes) -> None:
    for data in (junk, REGISTER + junk, b"\r\n" + junk):
        events = events_of(data)
        assert isinstance(events[-1], ParseError)
        assert events[-1].partial is None


_PARTS = st.sampled_from(
    [REGISTER, INVITE, RESPONSE, PING_OCTETS, b"\r\n", b"\r", b"\n", b"\0",
     INVITE.replace(b"Length: 9", b"Length: x"), b"garbage\r\n\r\n"]
)  # fmt: skip


@pytest.mark.rfc("TRN-09", "KA-03", "KA-06")
@given(st.lists(_PARTS, max_size=6), st.data())
@settings(max_examples=300)
def test_any_chunking_yields_the_same(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = comparable(events_of(whole))
    assert comparable(events_of(*chunks)) == expected
    assert comparable(events_of(*octets(whole))) == expected


@pytest.mark.rfc("TRN-09")
@given(st.lists(st.sampled_from([REGISTER, INVITE, RESPONSE, PING_OCTETS]), max_size=8))
def test_nothing_is_lost(parts: list[bytes]) -> None:
    expected = [PING if part == PING_OCTETS else part for part in parts]
    assert events_of(b"".join(parts)) == expected


@given(st.lists(st.binary(), max_size=5))
def test_any_bytes_are_messages_pings_or_one_error(chunks: list[bytes]) -> None:
    events = events_of(*chunks)
    assert not any(isinstance(event, ParseError) for event in events[:-1])


@pytest.mark.rfc("TRN-09")
def test_a_large_message_octet_by_octet() -> None:
    """64 kB of headers and 64 kB of body; a framer that starts its search again each time would
    need minutes."""
    rows = b"".join(b"X-%d: %s\r\n" % (i, b"x" * 90) for i in range(640))
    body = b"y" * 65536
    data = INVITE.replace(b"Length: 9\r\n", b"Length: %d\r\n" % len(body))[:-9] + body
    data = data.replace(b"CSeq", rows + b"CSeq")
    assert events_of(*octets(data)) == [data]
