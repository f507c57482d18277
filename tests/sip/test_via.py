"""Via, and what the receiving side writes into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipedge.errors import ParseError
from sipedge.flow import UDP, Flow, Listener
from sipedge.sip import via as via_module
from sipedge.sip.via import parse_via, salvage, with_received


def facts(value: bytes) -> tuple[object, ...]:
    via = parse_via(value)
    return (via.transport, via.host, via.port, via.sent_by, via.branch, via.has_rport)


def test_usual_shape() -> None:
    via = parse_via(b"SIP/2.0/UDP Host.Example.COM:5070;branch=z9hG4bKaB;rport;x=1")
    assert facts(via.raw) == (
        b"UDP", b"host.example.com", 5070, b"host.example.com:5070", b"z9hG4bKaB", True,
    )  # fmt: skip
    assert (via.get(b"x"), via.get(b"nope"), via.has(b"rport"), via.has(b"nope")) == (
        b"1", None, True, False,
    )  # fmt: skip
    assert via.rest == b""
    assert via.raw_params == b";branch=z9hG4bKaB;rport;x=1"


def test_no_parameters_at_all() -> None:
    # RFC 4475 §3.4.1: RFC 2543 had no branch
    assert facts(b"SIP/2.0/UDP iftgw.example.com") == (
        b"UDP", b"iftgw.example.com", None, b"iftgw.example.com", b"", False,
    )  # fmt: skip
    assert parse_via(b"SIP/2.0/UDP iftgw.example.com").raw_params == b""


@pytest.mark.rfc("PAR-01", "PAR-12")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            b"SIP / 2.0 / UDP host : 5060 ; branch = z9hG4bK1 ; rport",
            (b"UDP", b"host", 5060, b"host:5060", b"z9hG4bK1", True),
        ),
        (
            b"SIP  / 2.0  / TCP     spindle.example.com   ; branch  =   z9hG4bK9ikj8",
            (b"TCP", b"spindle.example.com", None, b"spindle.example.com", b"z9hG4bK9ikj8", False),
        ),
        (
            b"SIP/2.0/tcp h;BRANCH=z9hG4bK1;RPORT",
            (b"TCP", b"h", None, b"h", b"z9hG4bK1", True),
        ),
        (
            b"SIP/2.0/UDP [2001:DB8::9:1]:5062;branch=z9hG4bKas3-111",
            (b"UDP", b"2001:db8::9:1", 5062, b"[2001:db8::9:1]:5062", b"z9hG4bKas3-111", False),
        ),
        (
            b"SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bKasd0f3en",
            (b"UNKNOWN", b"t4.example.com", None, b"t4.example.com", b"z9hG4bKasd0f3en", False),
        ),
        (
            b"SIP/2.0/TCP h;branch=z9hG4bK-.!%66*_+`'~",
            (b"TCP", b"h", None, b"h", b"z9hG4bK-.!%66*_+`'~", False),
        ),
        (
            b'SIP/2.0/UDP h;x="a;branch=no,b";branch=yes',
            (b"UDP", b"h", None, b"h", b"yes", False),
        ),
        (b"SIP/2.0/UDP h;branch=1;branch=2", (b"UDP", b"h", None, b"h", b"1", False)),
        (b"SIP/2.0/UDP h;rport=1;rport", (b"UDP", b"h", None, b"h", b"", False)),
        (b"SIP/2.0/UDP h;rport=99", (b"UDP", b"h", None, b"h", b"", False)),
    ],
)
def test_other_legal_spellings(value: bytes, expected: tuple[object, ...]) -> None:
    assert facts(value) == expected


@pytest.mark.rfc("PAR-09")
@pytest.mark.parametrize("received", [b"[2001:db8::9:255]", b"2001:db8::9:255"])
def test_received_ipv6_with_and_without_brackets(received: bytes) -> None:
    via = parse_via(b"SIP/2.0/UDP [2001:db8::9:1];received=" + received + b";branch=z9hG4bKas3")
    assert via.get(b"received") == received
    assert via.branch == b"z9hG4bKas3"


@pytest.mark.rfc("PAR-01")
def test_joined_by_a_comma() -> None:
    via = parse_via(
        b"SIP/2.0/UDP a:1;branch=z9hG4bK1 , SIP/2.0/TCP b;branch=z9hG4bK2, SIP/2.0/UDP c"
    )
    assert (via.host, via.branch) == (b"a", b"z9hG4bK1")
    assert via.raw == b"SIP/2.0/UDP a:1;branch=z9hG4bK1"
    assert via.rest == b"SIP/2.0/TCP b;branch=z9hG4bK2, SIP/2.0/UDP c"
    assert parse_via(via.rest).host == b"b"


@pytest.mark.rfc("PAR-03", "PAR-06")
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"SIP/2.0/UDP",
        b"SIP/2.0/UDP ",
        b"SIP/2.0/UDP :5060",
        b"SIP/2.0 UDP h",
        b"UDP h",
        b"SIP/2.0/UDP h:0",
        b"SIP/2.0/UDP h:65536",
        b"SIP/2.0/UDP h:99999999",
        b"SIP/2.0/UDP h:5_0",
        b"SIP/2.0/UDP h:",
        b"SIP/2.0/UDP 2001:db8::1",
        b"SIP/2.0/UDP [2001:db8::1",
        b"SIP/2.0/UDP [1.2.3.4]",
        b"SIP/2.0/UDP 192.0.2.15;;,;,,",  # RFC 4475 §3.1.2.1
        b"SIP/2.0/UDP h;",
        b"SIP/2.0/UDP h;;branch=1",
        b"SIP/2.0/UDP h;=1",
        b'SIP/2.0/UDP h;x="open',
        b"SIP/2.0/UDP h;branch=a b",
        b"SIP/2.0/UDP h branch=a",
        b"SIP/2.0/UDP h!x;branch=a",
        b"SIP/2.0/UDP h;branch=a\x00",
    ],
)
def test_malformed(value: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse_via(value)
    assert caught.value.status == 400


_PIECES = st.sampled_from(
    [b"SIP/2.0/UDP ", b"SIP/2.0/TLS ", b"h", b"1.2.3.4", b":5060", b":0", b";branch=z9hG4bKx",
     b";rport", b";rport=5", b";RPORT", b";ttl=1", b";=", b";", b",", b" ", b"=", b'"', b"!",
     b"[::1]", b";x=Ab", b";lr=1=2", b"\t", b"\xc3"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=10).map(b"".join))
def test_fast_and_careful_agree(value: bytes) -> None:
    """The differential test: whatever the usual shape gives, the grammar gives too."""
    try:
        fast = facts(value)
    except ParseError:
        with pytest.raises(ParseError):
            via_module._spaced(value)
        return
    careful = via_module._spaced(value)
    assert fast == (
        careful.transport, careful.host, careful.port, careful.sent_by, careful.branch,
        careful.has_rport,
    )  # fmt: skip
    again = parse_via(value)
    assert (again.raw, again.rest, again.params) == (careful.raw, careful.rest, careful.params)


def test_salvage_keeps_what_is_sound() -> None:
    assert salvage(b"SIP/2.0/UDP 192.0.2.15;branch=z9;;,;,,") == b"SIP/2.0/UDP 192.0.2.15;branch=z9"
    assert salvage(b"rubbish") is None


@pytest.fixture
def flow() -> Flow:
    return Flow(Listener(UDP, "127.0.0.1", 5060), ("127.0.0.2", 9000))


def filled(value: bytes, flow: Flow, force: bool = False) -> bytes | None:
    return with_received(value, parse_via(value), flow, force)


@pytest.mark.rfc("TRN-02")
def test_rport_is_filled_in_and_received_added(flow: Flow) -> None:
    assert filled(b"SIP/2.0/UDP 10.0.0.1:5060;rport;branch=z9", flow) == (
        b"SIP/2.0/UDP 10.0.0.1:5060;rport=9000;branch=z9;received=127.0.0.2"
    )
    # RFC 3581 §4: received even when sent-by is the source
    assert filled(b"SIP/2.0/UDP 127.0.0.2:9000;branch=z9;rport", flow) == (
        b"SIP/2.0/UDP 127.0.0.2:9000;branch=z9;rport=9000;received=127.0.0.2"
    )


@pytest.mark.rfc("TRN-01")
def test_received_only_when_the_host_differs(flow: Flow) -> None:
    assert filled(b"SIP/2.0/UDP 127.0.0.2:5060;branch=z9", flow) is None
    assert filled(b"SIP/2.0/UDP phone.example.com;branch=z9", flow) == (
        b"SIP/2.0/UDP phone.example.com;branch=z9;received=127.0.0.2"
    )


@pytest.mark.rfc("TRN-04")
def test_force_rport(flow: Flow) -> None:
    assert filled(b"SIP/2.0/UDP 127.0.0.2;branch=z9", flow, force=True) == (
        b"SIP/2.0/UDP 127.0.0.2;branch=z9;rport=9000;received=127.0.0.2"
    )


def test_what_a_client_claims_is_overwritten(flow: Flow) -> None:
    value = b'SIP/2.0/UDP h;received="1;2";rport = 53 ; Received=8.8.8.8;branch=z9;received'
    assert filled(value, flow) == b"SIP/2.0/UDP h;rport=9000;branch=z9;received=127.0.0.2"


def test_the_other_vias_of_a_row_stay(flow: Flow) -> None:
    assert filled(b"SIP/2.0/UDP a;rport, SIP/2.0/UDP b;received=1.2.3.4", flow) == (
        b"SIP/2.0/UDP a;rport=9000;received=127.0.0.2, SIP/2.0/UDP b;received=1.2.3.4"
    )


@pytest.mark.rfc("PAR-09")
def test_ipv6_received_has_no_brackets() -> None:
    flow = Flow(Listener(UDP, "::1", 5060), ("2001:db8::7", 9000))
    value = b"SIP/2.0/UDP [2001:db8::9:1];rport"
    assert filled(value, flow) == (b"SIP/2.0/UDP [2001:db8::9:1];rport=9000;received=2001:db8::7")
    assert filled(b"SIP/2.0/UDP [2001:DB8:0::7];branch=x", flow) is None


@pytest.mark.rfc("PAR-13")
@pytest.mark.parametrize("piece", [b";", b";a", b" ", b'"', b";a=", b"a "])
def test_hostile_vias_take_linear_time(piece: bytes) -> None:
    with pytest.raises(ParseError):
        parse_via(b"SIP/2.0/UDP h" + piece * 100_000 + b"\x00")
