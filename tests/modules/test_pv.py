"""Module pv: the usual variables of a request and a response, and setting some of them."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.flow import UDP, Flow
from sipedge.sip.message import SipMessage, parse
from tests.modules.conftest import SOURCE, Message, arrived
from tests.sim import Sim, answer, request

HEADERS = "User-Agent: phone\xff\r\nContact: <sip:alice@10.0.0.1>\r\nX-A: 1\r\nX-A: 2\r\n"


@pytest.fixture
def msg(message: Message) -> SipMessage:
    return message(
        uri="sips:bob:pw@[2001:db8::1]:5070;transport=TCP;x=1", to_tag="t9", headers=HEADERS
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("$ru", "sips:bob:pw@[2001:db8::1]:5070;transport=TCP;x=1"),
        ("$rU", "bob"),
        ("$rd", "[2001:db8::1]"),
        ("$rp", 5070),
        ("$rP", "tcp"),
        ("$rm", "INVITE"),
        ("$rs", None),
        ("$rr", None),
        ("$rb", None),
        ("$fu", "sip:alice@example.com"),
        ("$fU", "alice"),
        ("$fd", "example.com"),
        ("$ft", "f1"),
        ("$tu", "sip:bob@example.com"),
        ("$tU", "bob"),
        ("$td", "example.com"),
        ("$tt", "t9"),
        ("$ci", "c1@127.0.0.2"),
        ("$cs", 1),
        ("$ct", "<sip:alice@10.0.0.1>"),
        ("$cT", None),
        ("$ua", "phoneÿ"),
        ("$du", None),
        ("$si", "127.0.0.2"),
        ("$sp", 5060),
        ("$Ri", "127.0.0.1"),
        ("$Rp", 5060),
        ("$pr", "udp"),
        ("$proto", "udp"),
        ("$mf", 0),
        ("$null", None),
        ("$hdr(x-a)", "1"),
        ("$hdr(X-B)", None),
        ("$hdrc(X-A)", 2),
        ("$hdrc(X-B)", 0),
        ("$var(unset)", None),
        ("$avp(unset)", None),
    ],
)
def test_get(ksr: Any, msg: SipMessage, name: str, value: object) -> None:
    assert ksr.pv.get(msg, name) == value
    assert type(ksr.pv.get(msg, name)) is type(value)


def test_whole_message(ksr: Any, message: Message) -> None:
    msg = message(headers="Content-Type: text/plain\r\n", body="hello")
    assert ksr.pv.get(msg, "$rb") == "hello"
    assert ksr.pv.get(msg, "$cT") == "text/plain"
    assert ksr.pv.get(msg, "$mb") == msg.to_bytes().decode()
    assert ksr.pv.get(msg, "$ml") == len(msg.to_bytes())


@pytest.mark.parametrize(
    ("uri", "port", "transport", "user"),
    [
        ("sip:example.com", 5060, "udp", None),
        ("sips:a@example.com", 5061, "udp", "a"),
        ("tel:+1234", 5060, "udp", None),
    ],
)
def test_defaults_of_the_request_uri(
    ksr: Any, message: Message, uri: str, port: int, transport: str, user: str | None
) -> None:
    msg = message(uri=uri)
    assert ksr.pv.get(msg, "$rp") == port
    assert ksr.pv.get(msg, "$rP") == transport
    assert ksr.pv.get(msg, "$rU") == user


def test_of_a_response(sim: Sim, ksr: Any) -> None:
    reply = arrived(sim, answer(parse(request("BYE")), 404, "Not Here"))
    assert ksr.pv.get(reply, "$rs") == 404
    assert ksr.pv.get(reply, "$rr") == "Not Here"
    assert ksr.pv.get(reply, "$rm") == "BYE"
    for name in ("$ru", "$rU", "$rd", "$rp", "$rP"):
        assert ksr.pv.get(reply, name) is None


def test_octets_that_are_no_text(ksr: Any, message: Message) -> None:
    msg = message()
    ksr.textops.append_hf(msg, b"X-Raw: a\xffb\r\n")
    assert ksr.pv.get(msg, "$hdr(X-Raw)") == "a\\xffb"


def test_nothing_in_other_words(ksr: Any, msg: SipMessage) -> None:
    pv = ksr.pv
    assert pv.gete(msg, "$du") == ""
    assert pv.getw(msg, "$du") == "<null>"
    assert pv.getvs(msg, "$du", "x") == "x"
    assert pv.geti(msg, "$du") == 0
    assert pv.getvn(msg, "$du", 7) == 7
    assert pv.is_null(msg, "$du") == 1
    assert pv.isset(msg, "$du") == -1
    assert pv.gete(msg, "$rU") == pv.getw(msg, "$rU") == pv.getvs(msg, "$rU", "x") == "bob"
    assert pv.is_null(msg, "$rU") == -1
    assert pv.isset(msg, "$rU") == 1
    assert pv.geti(msg, "$rp") == pv.getvn(msg, "$rp", 7) == 5070


def test_numbers_from_text(ksr: Any, msg: SipMessage) -> None:
    assert ksr.pv.geti(msg, "$hdr(X-A)") == 1
    assert ksr.pv.geti(msg, "$rU") == 0
    ksr.pv.sets(msg, "$var(n)", "-12")
    assert ksr.pv.geti(msg, "$var(n)") == -12
    ksr.pv.sets(msg, "$var(n)", "9" * 5000)
    assert ksr.pv.getvn(msg, "$var(n)", 3) == 3


def test_a_variable_without_key_takes_none(ksr: Any, msg: SipMessage) -> None:
    with pytest.raises(ValueError, match=r"\$ru takes no key"):
        ksr.pv.get(msg, "$ru(x)")


@pytest.mark.parametrize(
    ("name", "value", "uri"),
    [
        ("$ru", "sip:carol@c.example", "sip:carol@c.example"),
        ("$rU", "carol", "sips:carol:pw@[2001:db8::1]:5070;transport=TCP;x=1"),
        ("$rd", "c.example", "sips:bob:pw@c.example:5070;transport=TCP;x=1"),
        ("$rp", 5080, "sips:bob:pw@[2001:db8::1]:5080;transport=TCP;x=1"),
        ("$rp", None, "sips:bob:pw@[2001:db8::1];transport=TCP;x=1"),
        ("$rU", None, "sips:[2001:db8::1]:5070;transport=TCP;x=1"),
    ],
)
def test_set_the_request_uri(
    ksr: Any, msg: SipMessage, name: str, value: str | int | None, uri: str
) -> None:
    setter = {str: ksr.pv.sets, int: ksr.pv.seti}.get(type(value))
    rc = ksr.pv.unset(msg, name) if setter is None else setter(msg, name, value)
    assert rc == 1
    assert msg.ruri == uri.encode()
    assert parse(msg.to_bytes()).ruri == uri.encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("$ru", "no uri"),
        ("$ru", "sip:a@b SIP/2.0\r\nX: y"),
        ("$rU", "a@evil"),
        ("$rU", "a:secret"),
        ("$rU", "two words"),
        ("$rd", "h;lr"),
        ("$rd", "h:99"),
        ("$rd", "evil@h"),
        ("$rd", ""),
        ("$rp", "99999"),
        ("$rp", "50;lr"),
        ("$rp", "05070"),
    ],
)
def test_a_part_stays_a_part(ksr: Any, msg: SipMessage, name: str, value: str) -> None:
    before = msg.to_bytes()
    assert ksr.pv.sets(msg, name, value) == -1
    assert msg.to_bytes() == before
    assert msg.lines[0].split(b" ")[1] == msg.ruri


def test_a_user_never_becomes_a_password(ksr: Any, message: Message) -> None:
    msg = message(uri="sip:bob@example.com")
    assert ksr.pv.sets(msg, "$rU", "a:secret") == -1
    assert msg.ruri == b"sip:bob@example.com"


def test_what_cannot_be_set(sim: Sim, ksr: Any, msg: SipMessage) -> None:
    with pytest.raises(ValueError, match=r"\$fu cannot be set"):
        ksr.pv.sets(msg, "$fu", "sip:a@b")
    reply = arrived(sim, answer(parse(request()), 200))
    assert ksr.pv.sets(reply, "$ru", "sip:a@b") == -1
    assert ksr.pv.sets(reply, "$rU", "a") == -1
    assert ksr.pv.unset(msg, "$ru") == -1
    assert ksr.pv.unset(msg, "$rd") == -1


def test_destination(sim: Sim, ksr: Any, msg: SipMessage) -> None:
    msg.dst_flow = Flow(sim.listener(UDP), ("192.0.2.7", 5060))
    assert ksr.pv.sets(msg, "$du", "sip:192.0.2.1;transport=tcp") == 1
    assert msg.dst_uri == b"sip:192.0.2.1;transport=tcp"
    assert msg.dst_flow is None, "a destination by address replaces a flow"
    assert ksr.pv.sets(msg, "$du", "nonsense") == -1
    assert ksr.pv.get(msg, "$du") == "sip:192.0.2.1;transport=tcp"
    assert ksr.pv.unset(msg, "$du") == 1
    assert msg.dst_uri is None


def test_var_and_avp(ksr: Any, message: Message) -> None:
    msg, other = message(), message()
    for name in ("$var(a)", "$avp(a)"):
        assert ksr.pv.sets(msg, name, "ü") == 1
        assert ksr.pv.get(msg, name) == "ü"
        assert ksr.pv.seti(msg, name, 7) == 1
        assert ksr.pv.get(msg, name) == 7
        assert ksr.pv.get(other, name) is None, "each message has its own"
        assert ksr.pv.unset(msg, name) == 1
        assert ksr.pv.isset(msg, name) == -1
    ksr.pv.seti(msg, "$var(a)", 1)
    assert ksr.pv.get(msg, "$avp(a)") is None


def test_avp_lives_as_long_as_the_transaction() -> None:
    source = SOURCE.replace("{more}", "seen = []").replace(
        "    pass",
        """    ksr.pv.sets(msg, "$avp(who)", "alice")
    ksr.pv.sets(msg, "$var(who)", "alice")
    ksr.tm.t_on_branch(msg, "branch")
    ksr.tm.t_relay(msg)

def branch(ksr, msg):
    ksr.textops.append_hf(msg, "X-Who: " + ksr.pv.getw(msg, "$avp(who)"))

def reply_route(ksr, msg):
    ksr.textops.append_hf(msg, "X-Avp: " + ksr.pv.getw(msg, "$avp(who)"))
    ksr.textops.append_hf(msg, "X-Var: " + ksr.pv.getw(msg, "$var(who)"))
""",
    )
    sim = Sim(source)
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request("OPTIONS"))
    forwarded = bob.take()
    assert forwarded.first(b"x-who") == b"alice"
    bob.send(answer(forwarded, 200))
    reply = alice.take()
    assert reply.first(b"x-avp") == b"alice"
    assert reply.first(b"x-var") == b"<null>"


def test_variables_of_other_modules(ksr: Any, message: Message) -> None:
    assert ksr.pv.get(message(), "$T_reply_code") == 0
