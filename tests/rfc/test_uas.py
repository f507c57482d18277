"""What is answered right here (RFC 3261 §8.2 and §10.3): UAS-xx, and rows of REG, SVR and HPX."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from sipedge.sip.message import SipMessage
from tests.registrar_plugin.home import (
    BOTH,
    EDGE1,
    EDGE2,
    Home,
    outbound_contact,
    register_text,
    why,
)
from tests.sim import RELAY_ALL, Sim, answer, request

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
REGISTRARS = ("registrar", "edge_and_registrar")


def example(name: str) -> tuple[Sim, str]:
    """An example, and the address that it listens on."""
    text = (EXAMPLES / f"{name}.py").read_text().replace('keyfile("flow_token.key")', 'b"k" * 20')
    return Sim(text), "127.0.0.2" if name == "registrar" else "127.0.0.1"


def finals(sim: Sim, data: bytes) -> list[SipMessage]:
    peer = sim.udp("127.0.0.66")
    peer.got.clear()
    peer.send(data)
    return [msg for msg in peer.got if msg.status >= 200]


@pytest.mark.rfc("UAS-01")
@pytest.mark.parametrize("name", REGISTRARS)
@pytest.mark.parametrize(
    ("method", "status", "allow"),
    [
        ("PUBLISH", 405, b"OPTIONS, REGISTER"),
        ("INVITE", 405, b"OPTIONS, REGISTER"),
        ("MESSAGE", 405, b"OPTIONS, REGISTER"),
        ("FLIP", 501, None),
        ("register", 501, None),  # methods have case (RFC 3261 §7.1)
        ("OPTIONS", 200, b"OPTIONS, REGISTER"),
    ],
)
def test_what_we_cannot_do(name: str, method: str, status: int, allow: bytes | None) -> None:
    sim, host = example(name)
    for n, uri in enumerate((f"sip:{host}:5060", "sip:example.com")):
        (final,) = finals(sim, request(method, uri, branch=f"z9hG4bK{n}"))
        assert (final.status, final.first(b"allow")) == (status, allow)
    assert finals(sim, request("ACK", f"sip:{host}:5060", branch="z9hG4bK9")) == []


@pytest.mark.rfc("UAS-04")
@pytest.mark.parametrize("name", REGISTRARS)
def test_what_we_can_do_is_said(name: str) -> None:
    sim, host = example(name)
    (final,) = finals(sim, request("OPTIONS", f"sip:{host}:5060"))
    assert final.options(b"supported") == {b"path", b"outbound", b"gruu"}
    assert final.has(b"accept")


@pytest.mark.rfc("UAS-02")
def test_the_same_register_on_two_ways_is_482_the_second_time() -> None:
    home = Home()
    first = home.register(outbound_contact(), cseq=7)
    second = home.register(outbound_contact(), cseq=7, path=(EDGE2,), branch="z9hG4bKother")
    assert (first.status, second.status) == (200, 482)
    assert why(second) == b"Merged request"
    assert [binding.path for binding in home.bindings()] == [EDGE1.encode()]


@pytest.mark.rfc("UAS-03")
@pytest.mark.parametrize(
    ("disposition", "status"),
    [
        ("", 415),
        ("Content-Disposition: session\r\n", 415),
        ("Content-Disposition: session;handling=required\r\n", 415),
        ("Content-Disposition: x;Handling=OPTIONAL\r\n", 200),
        ("Content-Disposition: x;a=b;handling=optional;c=d\r\n", 200),
    ],
)
@pytest.mark.parametrize("registered", [False, True])
def test_a_body_that_nobody_understands(disposition: str, status: int, registered: bool) -> None:
    home = Home()
    if registered:  # the fast path for refreshes must look, too
        home.register(outbound_contact())
    before = home.bindings()
    data = register_text(
        outbound_contact(), cseq=50, branch="z9hG4bKb",
        headers=f"{BOTH}Content-Type: application/x-unknown\r\n{disposition}",
    ).replace(b"Content-Length: 0\r\n\r\n", b"Content-Length: 4\r\n\r\nbody")  # fmt: skip
    final = home.send(data, home.edge)
    assert final.status == status
    if status == 415:
        assert final.first(b"accept") == b""  # RFC 3261 §20.1: none
        assert home.bindings() == before
    else:
        assert len(home.bindings()) == 1


@pytest.mark.rfc("UAS-05")
@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "PUBLISH", "FLIP", "REGISTER"])
def test_vias_timestamp_and_one_to_tag(method: str) -> None:
    sim, _ = example("registrar")
    vias = "Via: SIP/2.0/TCP b.example.net;branch=z9hG4bK2, SIP/2.0/UDP c\r\nv: SIP/2.0/UDP d\r\n"
    contact = "Contact: <sip:bob@10.0.0.9>\r\nTimestamp: 54.2\r\n"
    data = request(method, "sip:example.com", headers=vias + contact)
    seen = finals(sim, data) + finals(sim, data)
    assert len(seen) == 2, "a retransmission is answered again"
    assert len({msg.to_tag for msg in seen}) == 1
    assert seen[0].to_tag
    hops = [value.split(b";")[0] for value in seen[0].values(b"via")]
    assert hops == [
        b"SIP/2.0/UDP 127.0.0.2:5060", b"SIP/2.0/TCP b.example.net", b"SIP/2.0/UDP c",
        b"SIP/2.0/UDP d",
    ]  # fmt: skip


@pytest.mark.rfc("UAS-05")
def test_100_copies_timestamp_and_has_no_tag() -> None:
    sim = Sim()
    caller = sim.udp()
    caller.send(request(headers="Timestamp: 54.2\r\n"))
    trying = caller.take()
    assert (trying.status, trying.first(b"timestamp"), trying.to_tag) == (100, b"54.2", b"")


@pytest.mark.rfc("UAS-06")
@pytest.mark.parametrize("to", ["<tel:+4930123>", "<isbn:2983792873>", "<http://example.com>"])
def test_a_to_that_is_no_sip_uri_is_400(to: str) -> None:
    home = Home()
    assert home.register(outbound_contact(), to=to).status == 400


@pytest.mark.rfc("UAS-06", "REG-01")
@pytest.mark.parametrize("name", REGISTRARS)
def test_a_domain_that_is_not_ours_is_404(name: str) -> None:
    sim, _ = example(name)
    data = request("REGISTER", "sip:other.example", headers="Contact: <sip:bob@10.0.0.9>\r\n")
    to = b"To: <sip:bob@other.example>"
    (final,) = finals(sim, data.replace(b"To: <sip:bob@example.com>", to))
    assert final.status == 404


# the 200 to a REGISTER


@pytest.mark.rfc("REG-12")
def test_date() -> None:
    home = Home()
    assert not home.register(outbound_contact()).has(b"date"), "the core knows no time yet"
    home.core.wall_offset = 1_799_999_000.0
    for seconds in (0, 0.5, 2):
        home.advance(seconds)
        for contacts in ((outbound_contact(),), (outbound_contact(2),), ()):
            date = (home.register(*contacts).first(b"date") or b"").decode()
            assert date.endswith(" GMT")
            assert parsedate_to_datetime(date).timestamp() == int(home.core.wall())


@pytest.mark.rfc("SVR-01")
def test_service_route_of_every_200() -> None:
    route = "<sip:orig@home.example.com;lr>, <sip:app.example.com;lr>"
    home = Home(service_route=route)
    for contacts in ((outbound_contact(),), (outbound_contact(),), ()):
        assert home.register(*contacts).rows(b"service-route") == [route.encode()]
    assert not home.register(outbound_contact(), headers="Require: x\r\n").has(b"service-route")
    assert not Home().register(outbound_contact()).has(b"service-route")


FOLLOW = (
    RELAY_ALL.replace("def request_route", 'loadmodule("rr")\ndef unused')
    + """
def request_route(ksr, msg):
    ksr.rr.loose_route(msg)
    ksr.tm.t_relay(msg)
"""
)


@pytest.mark.rfc("SVR-02")
def test_service_route_passes_untouched() -> None:
    sim = Sim(FOLLOW)
    phone, registrar = sim.udp(), sim.udp("127.0.0.9")
    phone.send(request("REGISTER", "sip:127.0.0.9"))
    rows = ["<sip:a@one.example.com;lr> , <sip:b;lr>;x=y", "<sip:two.example.com;lr>"]
    headers = "".join(f"Service-Route:  {row}\r\n" for row in rows)
    registrar.send(answer(registrar.take(), 200, headers=headers))
    got = phone.take()
    lines = [line for line in got.lines if line.startswith(b"Service-Route")]
    assert lines == [f"Service-Route:  {row}".encode() for row in rows]


@pytest.mark.rfc("SVR-03")
def test_a_ua_that_follows_its_service_route() -> None:
    sim = Sim(FOLLOW)
    route = "<sip:127.0.0.1:5060;lr>, <sip:orig@127.0.0.7:5070;lr>, <sip:127.0.0.8;lr>"
    sim.udp().send(request(uri="sip:bob@far.example.net", headers=f"Route: {route}\r\n"))
    got = sim.udp("127.0.0.7", 5070).take()
    assert got.values(b"route") == [b"<sip:orig@127.0.0.7:5070;lr>", b"<sip:127.0.0.8;lr>"]


# the home proxy

AT_HOME = """
listen("udp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("rr")
loadmodule("registrar")
def request_route(ksr, msg):
    rc = ksr.rr.loose_route(msg)
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg)
    elif msg.to_tag:
        ksr.tm.t_on_failure(msg, "in_dialog")
        ksr.tm.t_relay(msg)
    elif ksr.registrar.lookup(msg):
        ksr.tm.t_relay(msg)

def in_dialog(ksr, msg):
    if ksr.tm.t_check_status(msg, "430"):
        ksr.tm.t_reply(msg, 480, "Temporarily Unavailable")
"""


@pytest.mark.rfc("HPX-16")
def test_path_goes_before_what_is_left_of_route() -> None:
    sim = Sim(AT_HOME)
    peer = sim.udp()
    contact = outbound_contact(uri="sip:bob@10.0.0.9")
    sim.udp("127.0.0.3").send(
        register_text(contact, cseq=1, path=("<sip:p@127.0.0.3;lr>", "<sip:e@127.0.0.4;lr;ob>"))
    )
    route = "<sip:127.0.0.1:5060;lr>, <sip:app.example.net;lr>"
    peer.send(request(uri="sip:bob@example.com", headers=f"Route: {route}\r\n"))
    hop = sim.udp("127.0.0.3")
    assert hop.take().status == 200
    invite = hop.take()
    assert invite.values(b"route") == [
        b"<sip:p@127.0.0.3;lr>", b"<sip:e@127.0.0.4;lr;ob>", b"<sip:app.example.net;lr>",
    ]  # fmt: skip
    assert invite.ruri == b"sip:bob@10.0.0.9"


@pytest.mark.rfc("HPX-20")
def test_430_within_a_dialog_may_become_480() -> None:
    sim = Sim(AT_HOME)
    peer, edge = sim.udp(), sim.udp("127.0.0.4")
    route = "<sip:127.0.0.1:5060;lr>, <sip:tok@127.0.0.4;lr>"
    peer.send(request("BYE", "sip:bob@10.0.0.9", to_tag="t", headers=f"Route: {route}\r\n"))
    edge.send(answer(edge.take(), 430, "Flow Failed"))
    assert [msg.status for msg in peer.got] == [480]
