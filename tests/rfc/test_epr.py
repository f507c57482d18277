"""Edge: REGISTER and Path (RFC 5626 §5.1, RFC 3327), driven function by function."""

from __future__ import annotations

import pytest

from outbound_plugin.api import VALID
from sipedge.errors import SipError
from sipedge.flow import TLS, WSS, Flow, Listener, same_flow
from sipedge.forward import hop_of
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.uri import Uri, parse_uri
from tests.helpers import Modules, message, values

INSTANCE = ';+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>"'
CONTACT = f"Contact: <sip:bob@10.0.0.9:5060;transport=tcp;ob>;reg-id=1{INSTANCE}"
PLAIN = "Contact: <sip:bob@10.0.0.9:5060>"
NAMES = ("outbound", "rr", "path")


def register(
    modules: Modules, flow: Flow, *headers: str, vias: int = 1, send: Flow | None = None
) -> SipMessage:
    """The REGISTER as the core gets it."""
    msg = message(flow, "REGISTER", *headers, uri="sip:example.com", vias=vias)
    assert modules.path.add_path(msg) == 1
    return modules.sent(msg, send or modules.from_core())


def top(sent: SipMessage) -> tuple[Uri, bytes]:
    """URI and header parameters of the topmost Path."""
    value = parse_nameaddr(sent.values(b"path")[0])
    return parse_uri(value.uri), value.params


@pytest.mark.rfc("EPR-01", "EPR-03")
def test_first_hop_with_reg_id_prepends_its_uri_with_token_lr_and_ob() -> None:
    modules = Modules(*NAMES)
    phone = modules.tcp_phone()
    uri, header_params = top(register(modules, phone, CONTACT))
    assert uri.user == modules.token(phone).encode()
    assert (uri.host, uri.port) == (b"192.0.2.20", 5060)
    assert uri.params == {b"lr": None, b"ob": None}
    assert header_params == b""


@pytest.mark.rfc("EPR-02")
def test_one_token_for_each_flow() -> None:
    modules = Modules(*NAMES)
    one, two, stream = modules.phone(1), modules.phone(2), modules.tcp_phone(1)
    seen = {}
    for flow in (one, two, stream):
        user = top(register(modules, flow, CONTACT))[0].user
        assert user is not None
        verdict, found = modules.ob.decode_flow_token(user)
        assert verdict is VALID
        assert found is flow
        assert top(register(modules, flow, CONTACT))[0].user == user
        seen[user] = flow
    assert len(seen) == 3


@pytest.mark.rfc("EPR-04", "EPR-14")
def test_a_later_hop_adds_no_ob_and_leaves_the_others_alone() -> None:
    modules = Modules(*NAMES)
    theirs = "<sip:tok@other.example.com;lr;ob>"
    sent = register(modules, modules.phone(), CONTACT, f"Path: {theirs}", vias=2)
    assert values(sent, "Path") == ["<sip:192.0.2.20:5060;lr>", theirs]
    # the policy switch of EPR-14 is whether the route calls add_path at all
    skipped = message(modules.phone(), "REGISTER", CONTACT, f"Path: {theirs}", vias=2)
    assert values(modules.sent(skipped, modules.from_core()), "Path") == [theirs]


@pytest.mark.rfc("EPR-05")
def test_a_refresh_on_a_new_connection_names_that_connection() -> None:
    modules = Modules(*NAMES)
    old = modules.tcp_phone(1)
    before = top(register(modules, old, CONTACT))[0].user
    modules.flows.closed(old)
    new = modules.tcp_phone(1)  # even from the same address
    after = top(register(modules, new, CONTACT))[0].user
    assert after is not None
    assert after != before
    assert modules.ob.decode_flow_token(after)[1] is new


@pytest.mark.rfc("EPR-06")
def test_the_core_can_dial_what_path_says() -> None:
    modules = Modules(*NAMES)
    wss = modules.flows.add_listener(Listener(WSS, "192.0.2.10", 443))
    browser = modules.flows.accept(wss, ("198.51.100.7", 1))
    for send in (
        modules.from_core(),
        modules.flows.dial(modules.tcp, ("192.0.2.30", 5060)),
        modules.flows.accept(wss, ("192.0.2.30", 1)),
    ):
        uri, _ = top(register(modules, browser, CONTACT, send=send))
        transport, host, port = hop_of(uri)
        assert modules.flows.find_listener(transport, host, port) is not None
        assert b"ws" not in (uri.params.get(b"transport") or b"")


@pytest.mark.rfc("EPR-07")
def test_nothing_else_is_touched() -> None:
    modules = Modules(*NAMES)
    odd = f"m :  <sip:bob@10.0.0.9>\r\n ;reg-id=1{INSTANCE} "
    msg = message(modules.phone(), "REGISTER", odd, "X-Odd:  kept\t as it is", "k: path")
    before = msg.lines.copy()
    assert modules.path.add_path(msg) == 1
    sent = modules.sent(msg, modules.from_core())
    ours = (b"Path:", b"Max-Forwards:", b"Max-Breadth:", b"Via: SIP/2.0/UDP 192.0.2.20")
    assert [line for line in sent.lines if not line.startswith(ours)] == before


@pytest.mark.rfc("EPR-09")
@pytest.mark.parametrize(
    ("headers", "outbound"),
    [
        ((PLAIN, "m: <sip:bob@10.0.0.9>;\r\n\tReg-ID=1"), True),
        ((f"CONTACT: <sip:x@y>, <sip:bob@10.0.0.9>;REG-ID=2{INSTANCE}",), True),
        (("Contact: <sip:bob@10.0.0.9;reg-id=1>",), False),
    ],
)
def test_reg_id_in_any_form_but_only_as_header_parameter(
    headers: tuple[str, ...], outbound: bool
) -> None:
    modules = Modules(*NAMES)
    uri, _ = top(register(modules, modules.phone(), *headers))
    assert (b"ob" in uri.params) is outbound


@pytest.mark.rfc("EPR-10")
def test_a_ua_without_path_support_gets_what_the_operator_chose() -> None:
    force, none, refuse = (
        Modules(*NAMES, path__without_support=mode) for mode in ("force", "none", "421")
    )
    uri, _ = top(register(force, force.tcp_phone(), PLAIN))
    assert uri.user is not None
    assert b"ob" not in uri.params
    assert values(register(none, none.tcp_phone(), PLAIN), "Path") == []
    with pytest.raises(SipError) as caught:
        register(refuse, refuse.tcp_phone(), PLAIN)
    assert (caught.value.status, caught.value.headers) == (421, ((b"Require", b"path"),))


@pytest.mark.rfc("EPR-11")
def test_require_path_only_if_the_ua_supports_it() -> None:
    for on, headers, expected in [
        (1, (PLAIN, "Supported: path"), ["path"]),
        (1, (PLAIN,), []),
        (0, (PLAIN, "Supported: path"), []),
    ]:
        modules = Modules(*NAMES, path__require_path=on)
        assert values(register(modules, modules.phone(), *headers), "Require") == expected


@pytest.mark.rfc("EPR-12")
def test_deregistering_all_goes_through() -> None:
    modules = Modules(*NAMES)
    phone = modules.tcp_phone()
    sent = register(modules, phone, "Contact: *", "Expires: 0")
    assert values(sent, "Contact") == ["*"]
    assert top(sent)[0].user == modules.token(phone).encode()


@pytest.mark.rfc("EPR-13")
@pytest.mark.parametrize("route", ["<sip:edge.example.com;lr>", "<sip:192.0.2.10;lr;ob>", None])
def test_own_route_is_popped_before_forwarding(route: str | None) -> None:
    modules = Modules(*NAMES)
    headers = [CONTACT] if route is None else [CONTACT, f"Route: {route}"]
    msg = message(modules.tcp_phone(), "REGISTER", *headers)
    assert modules.rr.loose_route(msg) == (-1 if route is None else -3)
    assert modules.path.add_path(msg) == 1
    sent = modules.sent(msg, modules.from_core())
    assert not sent.has(b"route")
    assert b"ob" in top(sent)[0].params


@pytest.mark.rfc("EPR-15", "EPR-02")
def test_without_a_token_nothing_is_forwarded() -> None:
    modules = Modules(*NAMES)
    unknown = Flow(Listener(1, "192.0.2.99", 5060), ("198.51.100.7", 49152))
    with pytest.raises(SipError) as caught:
        register(modules, unknown, CONTACT)
    assert 500 <= caught.value.status < 600


@pytest.mark.rfc("EPR-16")
def test_a_path_that_the_ua_brought_stays_below_ours_and_routes_nothing() -> None:
    modules = Modules(*NAMES)
    msg = message(modules.phone(), "REGISTER", CONTACT, "Path: <sip:evil.example.com;lr;ob>")
    assert modules.path.add_path(msg) == 1
    assert (msg.dst_uri, msg.dst_flow, msg.has(b"route")) == (None, None, False)
    sent = modules.sent(msg, modules.from_core())
    token = modules.token(modules.phone())
    assert values(sent, "Path") == [
        f"<sip:{token}@192.0.2.20:5060;lr;ob>",
        "<sip:evil.example.com;lr;ob>",
    ]


@pytest.mark.rfc("EPR-17")
@pytest.mark.parametrize("name", ["Via", "v", "VIA"])
def test_vias_joined_by_a_comma_are_two(name: str) -> None:
    modules = Modules(*NAMES)
    msg = message(modules.phone(), "REGISTER", CONTACT)
    at = msg.find(b"via")
    joined = msg.row_value(at) + b", SIP/2.0/TCP 10.0.0.9;branch=z9hG4bKx"
    msg.lines[at] = name.encode() + b": " + joined
    msg.edited()
    assert modules.path.add_path(msg) == 1
    assert values(modules.sent(msg, modules.from_core()), "Path") == ["<sip:192.0.2.20:5060;lr>"]


@pytest.mark.rfc("EPR-18")
@pytest.mark.parametrize("transport", [TLS, WSS])
def test_a_sips_contact_gets_a_sips_path(transport: int) -> None:
    modules = Modules(*NAMES)
    modules.flows.add_listener(Listener(TLS, "192.0.2.20", 5061))
    near = modules.flows.add_listener(Listener(transport, "192.0.2.10", 443))
    phone = modules.flows.accept(near, ("198.51.100.7", 1))
    uri, _ = top(register(modules, phone, "Contact: <sips:bob@10.0.0.9>;reg-id=1"))
    assert uri.scheme == b"sips"
    assert hop_of(uri)[0] in (TLS, WSS)
    assert b"ob" in uri.params
    assert uri.user is not None
    _, found = modules.ob.decode_flow_token(uri.user)
    assert same_flow(found, phone)
    assert top(register(modules, phone, CONTACT))[0].scheme == b"sip"
