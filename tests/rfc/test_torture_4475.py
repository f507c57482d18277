"""RFC 4475, every message, with the verdict that the RFC gives it at a parser or a proxy.

The table says what ``parse`` must say; ``ANSWERS`` says what an edge that relays everything puts
on the wire.  Where the RFC leaves a choice, the row says which one was made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.message import SipMessage, parse
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import (
    AUTHORIZATION,
    CALL_ID,
    CONTACT,
    CSEQ,
    FROM,
    MAX_FORWARDS,
    ROUTE,
    TO,
)
from sipedge.sip.reply import build_reply
from sipedge.sip.stream import StreamFramer
from sipedge.sip.uri import parse_uri, unescape
from sipedge.sip.via import parse_via
from tests.sim import Sim

FILES = Path(__file__).parent / "torture4475"

ACCEPT = 0
DROP = -1  # never answered

VERDICTS = {
    # §3.1.1: valid messages
    "wsinv": ACCEPT,  # §3.1.1.1: folding and white space everywhere
    "intmeth": ACCEPT,  # §3.1.1.2: the whole range of characters
    "esc01": ACCEPT,  # §3.1.1.3: escapes
    "escnull": ACCEPT,  # §3.1.1.4: escaped nulls
    "esc02": ACCEPT,  # §3.1.1.5: % that is no escape
    "lwsdisp": ACCEPT,  # §3.1.1.6: no space between display name and <
    "longreq": ACCEPT,  # §3.1.1.7: long values, 34 Vias
    "dblreq": ACCEPT,  # §3.1.1.8: octets after the body are noise
    "semiuri": ACCEPT,  # §3.1.1.9: semicolon in the user part
    "transports": ACCEPT,  # §3.1.1.10: unknown transports
    "mpart01": ACCEPT,  # §3.1.1.11: binary body
    "unreason": ACCEPT,  # §3.1.1.12: UTF-8 in the reason
    "noreason": ACCEPT,  # §3.1.1.13: no reason at all
    # §3.1.2: invalid messages
    "badinv01": 400,  # §3.1.2.1: separators without parameters
    "clerr": 400,  # §3.1.2.2: Content-Length beyond the datagram
    "ncl": 400,  # §3.1.2.3: negative Content-Length
    "scalar02": 400,  # §3.1.2.4: CSeq beyond 32 bits
    "scalarlg": DROP,  # §3.1.2.5: the same in a response
    "quotbal": 400,  # §3.1.2.6: quote that is never closed
    "ltgtruri": 400,  # §3.1.2.7: Request-URI in <>; could be ignored, is refused
    "lwsruri": 400,  # §3.1.2.8: white space in the Request-URI
    "lwsstart": 400,  # §3.1.2.9: two spaces in the start line; could be ignored, is refused
    "trws": 400,  # §3.1.2.10: spaces after the version; could be ignored, is refused
    "escruri": 400,  # §3.1.2.11: headers in the Request-URI; could be cleaned, is refused
    "baddate": ACCEPT,  # §3.1.2.12: should not be refused by who does not need the date
    "regbadct": 400,  # §3.1.2.13: Contact with ? without <>
    "badaspec": 400,  # §3.1.2.14: spaces inside <>; could be ignored, is refused
    "baddn": 400,  # §3.1.2.15: comma in an unquoted display name
    "badvers": 505,  # §3.1.2.16: SIP/7.0
    "mismatch01": 400,  # §3.1.2.17: CSeq of another method
    "mismatch02": 501,  # §3.1.2.18: the same with an unknown method; 501 is what it prefers
    "bigcode": DROP,  # §3.1.2.19: status 4294967301
    # §3.2, §3.3, §3.4: transactions, applications, backward compatibility
    "badbranch": 400,  # §3.2.1: nothing behind z9hG4bK; could be treated as RFC 2543
    "insuf": 400,  # §3.3.1: no Call-ID, From, To
    "unkscm": ACCEPT,  # §3.3.2: unknown scheme; 416 from the edge, below
    "novelsc": ACCEPT,  # §3.3.3: known but atypical scheme; likewise
    "unksm2": ACCEPT,  # §3.3.4: unknown schemes in From, To and Contact; 400 from a registrar
    "bext01": ACCEPT,  # §3.3.5: 420 from the edge, below
    "invut": ACCEPT,  # §3.3.6: unknown Content-Type
    "regaut01": ACCEPT,  # §3.3.7: unknown Authorization scheme
    "multi01": 400,  # §3.3.8: two of each of what must stand once
    "mcl01": 400,  # §3.3.9: two Content-Length
    "bcast": ACCEPT,  # §3.3.10: well formed; the edge drops it, below
    "zeromf": ACCEPT,  # §3.3.11: 483 from the edge, below
    "cparam01": ACCEPT,  # §3.3.12: parameter of the Contact
    "cparam02": ACCEPT,  # §3.3.13: parameter of the URI
    "regescrt": ACCEPT,  # §3.3.14: escaped header in a Contact
    "sdp01": ACCEPT,  # §3.3.15: 406 is a matter of the UAS
    "inv2543": ACCEPT,  # §3.4.1: no branch, no tag, no Content-Length, no Max-Forwards
    "test": DROP,  # in the archive only: no version in the start line
}


def data_of(name: str) -> bytes:
    return (FILES / f"{name}.dat").read_bytes()


def message(name: str) -> SipMessage:
    return parse(data_of(name))


def test_no_message_is_left_out() -> None:
    assert {path.stem for path in FILES.glob("*.dat")} == set(VERDICTS)


@pytest.mark.rfc("PAR-02", "PAR-03", "PAR-04")
@pytest.mark.parametrize(("name", "verdict"), VERDICTS.items())
@pytest.mark.parametrize("parser", [parse, strict.parse])
def test_verdict(name: str, verdict: int, parser: Callable[[bytes], SipMessage]) -> None:
    data = data_of(name)
    if verdict == ACCEPT:
        msg = parser(data)
        assert data.startswith(msg.to_bytes())
        assert len(msg.to_bytes()) == len(data) or name == "dblreq"
        return
    with pytest.raises(ParseError) as caught:
        parser(data)
    if verdict == DROP:
        assert caught.value.partial is None
        return
    assert caught.value.status == verdict
    assert caught.value.partial is not None
    reply = build_reply(caught.value.partial, verdict, caught.value.reason, b"t")
    assert reply.startswith(b"SIP/2.0 %d " % verdict)
    assert b"\r\nVia:" in reply
    assert b"\r\nCSeq:" in reply
    assert caught.value.partial.via().host  # that is where the answer goes


@pytest.mark.rfc("PAR-03")
def test_baddn_is_refused_for_its_display_name() -> None:
    """The file lacks its last line, which would hide what it is about."""
    with pytest.raises(ParseError, match="malformed address"):
        parse(data_of("baddn") + b"\r\n")


# §3.1.1: what the parser must have understood


@pytest.mark.rfc("PAR-01", "PAR-02")
def test_wsinv() -> None:
    msg = message("wsinv")
    assert (msg.from_tag, msg.to_tag) == (b"98asjd8", b"1918181833n")
    assert msg.cseq() == (9, b"INVITE")
    assert msg.first(MAX_FORWARDS) == b"0068"
    assert msg.first(b"subject") == b""
    assert msg.first(b"newfangledheader") == b"newfangled value continued newfangled value"
    assert msg.first(b"unknownheaderwithunusualvalue") == b";;,,;;,;"
    assert msg.values(ROUTE) == [
        b"<sip:services.example.com;lr;unknownwith=value;unknown-no-value>"
    ]
    assert msg.via_count() == 3
    vias = [parse_via(value) for value in msg.values(b"via")]
    assert [via.transport for via in vias] == [b"UDP", b"TCP", b"UDP"]
    assert [via.host for via in vias] == [
        b"192.0.2.2",
        b"spindle.example.com",
        b"192.168.255.111",
    ]
    assert [via.branch for via in vias] == [b"390skdjuw", b"z9hG4bK9ikj8", b"z9hG4bK30239"]
    contact = parse_nameaddr(msg.values(CONTACT)[0])
    assert contact.uri == b"sip:jdrosen@example.com"
    assert (contact.get(b"newparam"), contact.get(b"q")) == (b"newvalue", b"0.33")
    assert contact.has(b"secondparam")
    assert len(msg.body) == 150


@pytest.mark.rfc("PAR-02")
def test_intmeth() -> None:
    msg = message("intmeth")
    assert msg.method == b"!interesting-Method0123456789_*+`.%indeed'~"
    assert msg.call_id == b"intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    assert msg.from_tag == b"_token~1'+`*%!-."
    assert msg.via().branch == b"z9hG4bK-.!%66*_+`'~"
    caller = parse_nameaddr(msg.first(FROM) or b"")
    assert caller.display == b"token1~` token2'+_ token3*%!.-"
    assert parse_uri(msg.ruri).host == b"example.com"


@pytest.mark.rfc("PAR-02", "PAR-07")
def test_escapes() -> None:
    uri = parse_uri(message("esc01").ruri)
    assert (uri.user, uri.host) == (b"sips%3Auser%40example.com", b"example.net")
    contacts = [parse_nameaddr(value).uri for value in message("escnull").values(CONTACT)]
    assert [unescape(parse_uri(uri).user or b"") for uri in contacts] == [b"\0", b"\0\0"]
    msg = message("esc02")
    assert msg.method == b"RE%47IST%45R"
    assert len(msg.values(CONTACT)) == 2
    assert msg.has(b"c%6fntact")


@pytest.mark.rfc("PAR-02")
def test_longreq() -> None:
    msg = message("longreq")
    assert msg.via_count() == 34
    assert msg.via().host == b"sip33.example.com"
    assert len(msg.from_tag) == 2 + 50 * 3 + 3
    assert parse_via(msg.values(b"via")[-1]).get(b"received") == b"192.0.2.5"


@pytest.mark.rfc("PAR-02", "TRN-10")
def test_dblreq() -> None:
    msg = message("dblreq")
    assert (msg.method, msg.body) == (b"REGISTER", b"")
    assert b"INVITE" not in msg.to_bytes()


@pytest.mark.rfc("PAR-02")
def test_the_other_valid_ones() -> None:
    assert parse_nameaddr(message("lwsdisp").first(FROM) or b"").display == b"caller"
    assert parse_uri(message("semiuri").ruri).user == b"user;par=u%40example.net"
    transports = [parse_via(value).transport for value in message("transports").values(b"via")]
    assert transports == [b"UDP", b"SCTP", b"TLS", b"UNKNOWN", b"TCP"]
    assert message("mpart01").body.count(b"\0") > 0
    assert len(message("mpart01").body) == 553
    assert message("unreason").reason.startswith("= 2**3 * 5**2 но".encode())
    assert (message("noreason").status, message("noreason").reason) == (100, b"")


@pytest.mark.rfc("PAR-04")
def test_contacts_are_kept_as_they_are() -> None:
    inside = parse_nameaddr(message("cparam02").values(CONTACT)[0])
    outside = parse_nameaddr(message("cparam01").values(CONTACT)[0])
    escaped = parse_nameaddr(message("regescrt").values(CONTACT)[0])
    assert (inside.uri, inside.params) == (b"sip:+19725552222@gw1.example.net;unknownparam", b"")
    assert (outside.uri, outside.params) == (b"sip:+19725552222@gw1.example.net", b";unknownparam")
    assert escaped.uri == b"sip:user@example.com?Route=%3Csip:sip.example.com%3E"
    assert parse_uri(escaped.uri).headers == b"Route=%3Csip:sip.example.com%3E"
    assert message("regaut01").first(AUTHORIZATION) == b"NoOneKnowsThisScheme opaque-data=here"


@pytest.mark.rfc("PAR-04")
def test_inv2543() -> None:
    msg = message("inv2543")
    assert (msg.via().branch, msg.from_tag, msg.to_tag) == (b"", b"", b"")
    assert msg.first(TO) == b"sip:+16505552222@ss1.example.net;user=phone"
    assert msg.body.startswith(b"v=0\r\n")


@pytest.mark.rfc("TRN-09")
@pytest.mark.parametrize("name", ["ncl", "mcl01", "inv2543"])
def test_a_stream_that_cannot_be_framed(name: str) -> None:
    """§3.1.2.3, §3.3.9: over TCP the framing error cannot be mended."""
    (error,) = StreamFramer().feed(data_of(name))
    assert isinstance(error, ParseError)
    assert error.status == 400
    assert error.partial is not None


@pytest.mark.rfc("TRN-09")
def test_clerr_on_a_stream_waits_for_more() -> None:
    framer = StreamFramer()
    assert framer.feed(data_of("clerr"), 5.0) == []
    assert framer.started == 5.0  # §3.1.2.2: closed if nothing comes within a reasonable time


@pytest.mark.rfc("TRN-09", "PAR-02")
def test_all_framed_messages_in_one_stream() -> None:
    names = [
        name
        for name, verdict in VERDICTS.items()
        if verdict == ACCEPT and name not in ("dblreq", "inv2543")
    ]
    stream = b"".join(data_of(name) for name in names)
    assert StreamFramer().feed(stream) == [data_of(name) for name in names]


# what the edge does with them

ANSWERS = {name: status for name, status in VERDICTS.items() if status > 0} | {
    "unkscm": 416,  # §3.3.2
    "novelsc": 416,  # §3.3.3
    "bext01": 420,  # §3.3.5
    "zeromf": 483,  # §3.3.11
}


@pytest.mark.rfc("PAR-03", "PAR-04")
@pytest.mark.parametrize(("name", "status"), ANSWERS.items())
def test_what_the_edge_answers(name: str, status: int) -> None:
    sim = Sim()
    flow = sim.udp("192.0.2.99").flow
    sim.core.receive(data_of(name), flow, sim.now)
    raw = [data for data, _ in sim.core.sends()]
    assert [data[:12] for data in raw] == [b"SIP/2.0 %d " % status]
    if name == "bext01":
        assert b"\r\nUnsupported: noProxiesSupportThis, norDoAnyProxiesSupportThis\r\n" in raw[0]


@pytest.mark.rfc("PAR-03", "PAR-04")
@pytest.mark.parametrize("name", ["scalarlg", "bigcode", "bcast", "unreason", "noreason", "test"])
def test_what_the_edge_drops(name: str) -> None:
    """Malformed responses, and responses to nothing that it has sent (§3.1.2.5, §3.3.10)."""
    sim = Sim()
    sim.udp("192.0.2.99").send(data_of(name))
    sim.advance(40)
    assert [data for peer in sim.peers.values() for data in peer.raw] == []


def test_partial_rows_are_the_ones_of_the_message() -> None:
    with pytest.raises(ParseError) as caught:
        message("multi01")
    partial = caught.value.partial
    assert partial is not None
    assert partial.first(CALL_ID) == b"multi01.98asdh@192.0.2.1"
    assert partial.first(CSEQ) == b"5 INVITE"
