"""Edge: requests to and from UAs over their flows (RFC 5626 §5.3), driven function by function.

``Edge.pass_on`` does what the route of an edge does: follow Route, record-route, send."""

from __future__ import annotations

import pytest

from outbound_plugin.api import INCOMING, NOT_USED, OUTGOING
from sipedge.errors import SipError
from sipedge.flow import CLOSED, TLS, UDP, Flow, Listener
from sipedge.forward import hop_of
from sipedge.sip.message import SipMessage, parse
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.uri import parse_uri
from tests.helpers import Modules, message, values

OB = "Contact: <sip:bob@10.0.0.9:5060;transport=tcp;ob>"
PLAIN = "Contact: <sip:bob@10.0.0.9:5060>"


class Edge(Modules):
    def __init__(self, **params: object) -> None:
        super().__init__("outbound", "rr", "path", **params)

    def path_of(self, flow: Flow) -> str:
        """What the registrar stored for the UA on this flow."""
        register = message(flow, "REGISTER", "Contact: <sip:b@10.0.0.9>;reg-id=1")
        assert self.path.add_path(register) == 1
        return values(self.sent(register, self.from_core()), "Path")[0]

    def pass_on(self, msg: SipMessage, default: Flow | None = None) -> tuple[SipMessage, Flow]:
        """Follow Route, record-route and send; to ``default`` when no flow is chosen."""
        self.rr.loose_route(msg)
        if msg.method != b"BYE":
            assert self.rr.record_route(msg) == 1
        send = msg.dst_flow or default or self.from_core()
        return self.sent(msg, send, msg.dst_flow is not None), send

    def again(self, sent: SipMessage, flow: Flow, *headers: str) -> SipMessage:
        """``sent`` comes to this edge once more, on ``flow``, with more headers."""
        head, _, body = sent.to_bytes().partition(b"\r\n\r\n")
        extra = b"".join(b"\r\n" + header.encode() for header in headers)
        msg = parse(head + extra + b"\r\n\r\n" + body)
        msg.flow = flow
        return msg


def invite_to(edge: Edge, phone: Flow) -> SipMessage:
    """From the core to a registered UA, as its home proxy sends it."""
    route = f"Route: {edge.path_of(phone)}"
    return message(edge.from_core(), "INVITE", route, uri="sip:bob@10.9.9.9", vias=2)


def bye(flow: Flow, routes: list[str], from_tag: str, to_tag: str) -> SipMessage:
    lines = [f"Route: {route}" for route in routes]
    return message(flow, "BYE", *lines, uri="sip:x@peer.invalid", from_tag=from_tag, to_tag=to_tag)


# -- incoming ------------------------------------------------------------------------------------


@pytest.mark.rfc("INC-01")
def test_a_token_in_somebody_else_s_route_is_not_looked_at() -> None:
    edge = Edge()
    phone = edge.phone()
    for token in (edge.token(phone), "forged"):
        route = f"<sip:{token}@192.0.2.99:5060;lr;ob>"
        msg = message(edge.from_core(), "INVITE", f"Route: {route}", vias=2)
        assert edge.rr.loose_route(msg) == 1
        assert values(msg, "Route") == [route]
        assert msg.dst_flow is None


@pytest.mark.rfc("INC-02")
@pytest.mark.parametrize("stream", [True, False])
def test_the_source_decides_between_outgoing_and_incoming(stream: bool) -> None:
    edge = Edge()
    phone = edge.tcp_phone() if stream else edge.phone()
    route = f"Route: <sip:{edge.token(phone)}@192.0.2.10:5060;lr>"
    others = [edge.from_core(), edge.phone(49153), edge.phone(49152, "198.51.100.8")]
    others.append(edge.phone() if stream else edge.tcp_phone())
    for sender in others:
        msg = message(sender, "INVITE", route)
        assert edge.ob.use_outbound(msg) is INCOMING
        assert edge.rr.loose_route(msg) == 2
        assert msg.dst_flow is phone
    msg = message(phone, "INVITE", route)
    assert edge.rr.loose_route(msg) == -3
    assert msg.dst_flow is None


@pytest.mark.rfc("INC-03", "INC-08")
@pytest.mark.parametrize("uri", ["sip:bob@10.9.9.9", "sip:r@x.invalid;transport=ws;ob"])
def test_incoming_goes_over_the_flow_and_keeps_its_request_uri(uri: str) -> None:
    edge = Edge()
    for phone in (edge.phone(), edge.tcp_phone()):
        route = f"Route: {edge.path_of(phone)}"
        msg = message(edge.from_core(), "INVITE", route, uri=uri, vias=2)
        sent, send = edge.pass_on(msg)
        assert send is phone
        assert sent.ruri == uri.encode()
        assert not sent.has(b"route")


@pytest.mark.rfc("INC-04")
def test_a_dead_flow_is_chosen_as_dead_and_nothing_is_dialed() -> None:
    edge = Edge()
    phone = edge.tcp_phone()
    msg = invite_to(edge, phone)
    edge.flows.closed(phone)
    assert edge.rr.loose_route(msg) == 2
    assert msg.dst_flow is not None
    assert msg.dst_flow.state == CLOSED
    assert msg.dst_uri is None
    assert edge.flows.dials == []


@pytest.mark.rfc("INC-06")
def test_record_route_has_the_token_without_ob() -> None:
    edge = Edge()
    phone = edge.tcp_phone()
    sent, _ = edge.pass_on(invite_to(edge, phone))
    uri = parse_uri(parse_nameaddr(values(sent, "Record-Route")[0].encode()).uri)
    assert uri.user == edge.token(phone).encode()
    assert b"lr" in uri.params
    assert b"ob" not in uri.params


@pytest.mark.rfc("INC-07")
@pytest.mark.parametrize("method", ["INVITE", "SUBSCRIBE", "REFER", "NOTIFY", "FROBNICATE"])
def test_any_request_that_may_begin_a_dialog(method: str) -> None:
    edge = Edge()
    phone = edge.phone()
    msg = message(edge.from_core(), method, f"Route: {edge.path_of(phone)}", vias=2)
    sent, _ = edge.pass_on(msg)
    assert edge.token(phone) in values(sent, "Record-Route")[0]


@pytest.mark.rfc("INC-06")
@pytest.mark.parametrize("before", [True, False])
def test_record_route_before_or_after_loose_route(before: bool) -> None:
    edge = Edge()
    phone = edge.phone()
    msg = invite_to(edge, phone)
    if before:
        assert edge.rr.record_route(msg) == 1
    assert edge.rr.loose_route(msg) == 2
    if not before:
        assert edge.rr.record_route(msg) == 1
    assert values(edge.sent(msg, phone, True), "Record-Route") == [
        f"<sip:{edge.token(phone)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uas>",
        "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>",
    ]


@pytest.mark.rfc("INC-09", "OUT-03", "OUT-04")
@pytest.mark.parametrize("stream", [True, False])
def test_call_to_a_ua_and_bye_from_either_side(stream: bool) -> None:
    """S22, S25.5: the route sets that the two ends make of Record-Route lead where they should."""
    edge = Edge()
    phone = edge.tcp_phone() if stream else edge.phone()
    sent, _ = edge.pass_on(invite_to(edge, phone))
    recorded = values(sent, "Record-Route")
    from_caller = bye(edge.from_core(), recorded[::-1], "caller", "callee")
    out, send = edge.pass_on(from_caller)
    assert send is phone
    assert not out.has(b"route")
    from_callee = bye(phone, recorded, "callee", "caller")
    assert edge.rr.loose_route(from_callee) == 1
    assert from_callee.dst_flow is None
    assert not from_callee.has(b"route")
    assert from_callee.ruri == b"sip:x@peer.invalid"


@pytest.mark.rfc("INC-16")
def test_two_accounts_on_one_connection() -> None:
    """S28, once through a home proxy and once within this box."""
    edge = Edge()
    phone = edge.tcp_phone()
    first, _ = edge.pass_on(message(phone, "INVITE", OB))
    second, send = edge.pass_on(
        edge.again(first, edge.from_core(), f"Route: {edge.path_of(phone)}")
    )
    assert send is phone
    local = message(phone, "INVITE", OB)
    assert edge.rr.record_route(local) == 1
    direct = edge.sent(local, phone, True)
    for sent in (second, direct):
        recorded = values(sent, "Record-Route")
        for routes, tags in (
            (recorded, ("callee", "caller")),
            (recorded[::-1], ("caller", "callee")),
        ):
            out, send = edge.pass_on(bye(phone, routes, *tags))
            assert send is phone
            assert not out.has(b"route")


@pytest.mark.rfc("INC-17", "OUT-04")
def test_two_uas_behind_this_edge() -> None:
    """S27: all own values are consumed, each token on its own."""
    edge = Edge()
    bob, carol = edge.tcp_phone(), edge.phone(5062, "203.0.113.9")
    first, _ = edge.pass_on(message(bob, "INVITE", OB))
    second, send = edge.pass_on(
        edge.again(first, edge.from_core(), f"Route: {edge.path_of(carol)}")
    )
    assert send is carol
    recorded = values(second, "Record-Route")
    assert len(recorded) == 4
    for sender, routes, tags, receiver in [
        (bob, recorded[::-1], ("caller", "callee"), carol),
        (carol, recorded, ("callee", "caller"), bob),
    ]:
        out, send = edge.pass_on(bye(sender, routes, *tags))
        assert send is receiver
        assert not out.has(b"route")


@pytest.mark.rfc("INC-18")
def test_foreign_routes_below_stay_in_what_the_ua_gets() -> None:
    edge = Edge()
    phone = edge.phone()
    msg = message(
        edge.from_core(),
        "INVITE",
        f"Route: {edge.path_of(phone)}, <sip:behind.example.com;lr>",
        vias=2,
    )
    sent, send = edge.pass_on(msg)
    assert send is phone
    assert values(sent, "Route") == ["<sip:behind.example.com;lr>"]


@pytest.mark.rfc("INC-20")
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("callee", [True, False])
def test_a_ua_that_reconnected_reaches_its_peer(closed: bool, callee: bool) -> None:
    """S39, for a UA that was called and for one that calls; its old connection may linger."""
    edge = Edge()
    old = edge.tcp_phone(1)
    if callee:
        recorded = values(edge.pass_on(invite_to(edge, old))[0], "Record-Route")
        routes, tags = recorded, ("callee", "caller")
    else:
        recorded = values(edge.pass_on(message(old, "INVITE", OB))[0], "Record-Route")
        routes, tags = recorded[::-1], ("caller", "callee")
    if closed:
        edge.flows.closed(old)
    new = edge.tcp_phone(2)
    msg = bye(new, routes, *tags)
    assert edge.rr.loose_route(msg) == 1
    assert msg.dst_flow is None
    # the documented limit: the peer's request still names the old flow
    peer = bye(edge.from_core(), routes[::-1], *tags[::-1])
    assert edge.rr.loose_route(peer) == 2
    assert peer.dst_flow is not None
    assert (peer.dst_flow.state == CLOSED) is closed


@pytest.mark.rfc("INC-21")
def test_sips_is_not_delivered_in_the_clear() -> None:
    edge = Edge()
    tls = edge.flows.add_listener(Listener(TLS, "192.0.2.10", 5061))
    for phone, allowed in (
        (edge.phone(), False),
        (edge.tcp_phone(), False),
        (edge.flows.accept(tls, ("198.51.100.7", 1)), True),
    ):
        route = f"Route: {edge.path_of(phone)}"
        msg = message(edge.from_core(), "INVITE", route, uri="sips:bob@10.0.0.9", vias=2)
        if allowed:
            assert edge.rr.loose_route(msg) == 2
        else:
            with pytest.raises(SipError) as caught:
                edge.rr.loose_route(msg)
            assert caught.value.status == 480
            assert caught.value.headers[0][0] == b"Warning"


@pytest.mark.rfc("INC-22")
def test_the_flow_remembers_the_local_address() -> None:
    edge = Edge()
    near = edge.flows.add_listener(Listener(UDP, "192.0.2.3", 5060))
    phone = edge.flows.udp(near, ("198.51.100.7", 49152))
    msg = invite_to(edge, phone)
    assert edge.rr.loose_route(msg) == 2
    assert msg.dst_flow is phone
    assert msg.dst_flow.local == ("192.0.2.3", 5060)


@pytest.mark.rfc("PXR-01")
def test_a_strict_router_put_our_record_route_into_the_request_uri() -> None:
    """S41: the token that stood there is honoured."""
    edge = Edge()
    phone = edge.tcp_phone()
    recorded = values(edge.pass_on(invite_to(edge, phone))[0], "Record-Route")
    core, ua = recorded[1], recorded[0]
    msg = message(
        edge.from_core(),
        "BYE",
        f"Route: {ua}, <sip:bob@10.0.0.9>",
        uri=core[1:-1],
        from_tag="caller",
        to_tag="callee",
    )
    sent, send = edge.pass_on(msg)
    assert send is phone
    assert sent.ruri == b"sip:bob@10.0.0.9"
    assert not sent.has(b"route")
    single = message(
        edge.from_core(),
        "BYE",
        "Route: <sip:bob@10.0.0.9>",
        uri=ua[1:-1],
        from_tag="caller",
        to_tag="callee",
    )
    sent, send = edge.pass_on(single)
    assert send is phone
    assert sent.ruri == b"sip:bob@10.0.0.9"


@pytest.mark.rfc("PXF-05")
def test_next_route_without_lr() -> None:
    edge = Edge()
    phone = edge.phone()
    own = f"<sip:{edge.token(phone)}@192.0.2.10;lr>"
    msg = message(
        phone, "BYE", f"Route: {own}, <sip:strict.example.com>", uri="sip:a@h", to_tag="t"
    )
    assert edge.rr.loose_route(msg) == 1
    assert (msg.ruri, msg.dst_uri) == (b"sip:strict.example.com", b"sip:strict.example.com")
    assert values(msg, "Route") == ["<sip:a@h>"]


@pytest.mark.rfc("PXR-02")
@pytest.mark.parametrize(
    ("route", "own"),
    [
        ("<sip:192.0.2.10;lr>", True),
        ("<sip:192.0.2.10:5060;lr>", True),
        ("<sip:EDGE.Example.COM;lr>", True),
        ("<SIP:edge.example.com;transport=TCP;LR>", True),
        ('"edge" <sip:edge.example.com;lr=on>', True),
        ("<sip:192.0.2.20;lr;ob>", True),
        ("<sip:192.0.2.10:5099;lr>", False),
        ("<sip:192.0.2.10;lr;gr>", False),
    ],
)
def test_spellings_of_us(route: str, own: bool) -> None:
    edge = Edge()
    msg = message(edge.phone(), "INVITE", f"Route: {route}")
    assert edge.rr.loose_route(msg) == (-3 if own else 1)
    assert msg.has(b"route") is not own


# -- outgoing ------------------------------------------------------------------------------------


@pytest.mark.rfc("OUT-01", "OUT-02")
@pytest.mark.parametrize("method", ["INVITE", "SUBSCRIBE", "NOTIFY"])
@pytest.mark.parametrize("supported", [[], ["Supported: 100rel"], ["Supported: outbound"]])
def test_ob_in_contact_or_top_route_is_enough(method: str, supported: list[str]) -> None:
    """No registration, no instance, no Supported: outbound."""
    edge = Edge()
    phone = edge.phone()
    token = edge.token(phone)
    for headers in ([OB], [PLAIN, "Route: <sip:edge.example.com;lr;ob>"]):
        sent, _ = edge.pass_on(message(phone, method, *headers, *supported))
        assert f"<sip:{token}@192.0.2.10:5060;" in values(sent, "Record-Route")[-1]
    sent, _ = edge.pass_on(message(phone, method, PLAIN, *supported))
    assert "@" not in "".join(values(sent, "Record-Route"))


@pytest.mark.rfc("OUT-01")
def test_not_the_first_hop_has_no_flow_to_name() -> None:
    edge = Edge()
    msg = message(edge.phone(), "INVITE", OB, vias=2)
    assert edge.ob.use_outbound(msg) is NOT_USED


@pytest.mark.rfc("OUT-03")
def test_in_dialog_request_from_the_ua_never_loops_back() -> None:
    edge = Edge()
    for phone in (edge.phone(), edge.tcp_phone()):
        recorded = values(edge.pass_on(message(phone, "INVITE", OB))[0], "Record-Route")
        for rest in ([], ["<sip:home.example.com;lr>"]):
            msg = bye(phone, recorded[::-1] + rest, "caller", "callee")
            assert edge.rr.loose_route(msg) == 1
            assert msg.dst_flow is None
            assert values(msg, "Route") == rest
        back, send = edge.pass_on(bye(edge.from_core(), recorded, "callee", "caller"))
        assert send is phone
        assert not back.has(b"route")


@pytest.mark.rfc("OUT-04")
def test_tcp_ua_and_udp_core() -> None:
    """S25.1: top to bottom the core's side, the UA's side."""
    edge = Edge()
    phone = edge.tcp_phone()
    sent, _ = edge.pass_on(message(phone, "INVITE", OB))
    assert values(sent, "Record-Route") == [
        "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>",
        f"<sip:{edge.token(phone)}@192.0.2.10:5060;transport=tcp;r2=on;lr;ftag=caller;fs=uac>",
    ]
    one_family = message(edge.phone(), "INVITE", OB)
    v6 = edge.flows.add_listener(Listener(UDP, "2001:db8::10", 5060))
    assert edge.rr.record_route(one_family) == 1
    send = edge.flows.udp(v6, ("2001:db8::30", 5060))
    top, below = values(edge.sent(one_family, send), "Record-Route")
    assert "@[" not in top
    assert "[2001:db8::10]:5060" in top
    assert "@192.0.2.10:5060" in below


@pytest.mark.rfc("OUT-05")
def test_the_ua_s_value_resolves_to_its_own_flow() -> None:
    edge = Edge()
    for phone in (edge.phone(), edge.tcp_phone()):
        sent, _ = edge.pass_on(message(phone, "INVITE", OB))
        uri = parse_uri(parse_nameaddr(values(sent, "Record-Route")[-1].encode()).uri)
        assert uri.port is not None
        assert hop_of(uri) == (phone.transport, *phone.local)


@pytest.mark.rfc("OUT-06")
def test_forced_for_a_contact_without_ob() -> None:
    edge = Edge(outbound__force_outbound_flag=1)
    msg = message(edge.tcp_phone(), "INVITE", "Contact: <sip:r@x.invalid;transport=ws>")
    msg.flags = 1 << 1
    assert edge.ob.use_outbound(msg) is OUTGOING
    sent, _ = edge.pass_on(msg)
    assert edge.token(msg.flow) in values(sent, "Record-Route")[-1]


@pytest.mark.rfc("OUT-07")
@pytest.mark.parametrize(
    "route",
    [
        "<sip:edge.example.com;lr>",
        "<sip:edge.example.com:5060;lr=on>",
        "<sip:192.0.2.10;transport=tcp;lr>",
        "<sip:192.0.2.10;lr;ob>",
    ],
)
def test_preloaded_route_is_popped(route: str) -> None:
    edge = Edge()
    msg = message(edge.phone(), "INVITE", f"Route: {route}, <sip:home.example.com;lr>", OB)
    sent, _ = edge.pass_on(msg)
    assert values(sent, "Route") == ["<sip:home.example.com;lr>"]


@pytest.mark.rfc("OUT-08")
@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY"])
@pytest.mark.parametrize("contact", [OB, PLAIN])
def test_target_refresh_gets_the_same_values(method: str, contact: str) -> None:
    """From either end, for UAs with and without ob."""
    edge = Edge()
    phone = edge.tcp_phone()
    first = values(edge.pass_on(message(phone, "INVITE", OB))[0], "Record-Route")
    routes = [f"Route: {value}" for value in first[::-1]]
    refresh = message(phone, method, *routes, contact, to_tag="callee")
    assert values(edge.pass_on(refresh)[0], "Record-Route") == first

    called = values(edge.pass_on(invite_to(edge, phone))[0], "Record-Route")
    towards = message(
        edge.from_core(),
        method,
        *(f"Route: {r}" for r in called[::-1]),
        to_tag="callee",
        vias=2,
    )
    assert values(edge.pass_on(towards)[0], "Record-Route") == called
    answer = message(
        phone, method, *(f"Route: {r}" for r in called), contact, from_tag="callee", to_tag="caller"
    )
    # seen from the callee the sides are swapped; the values are the same
    assert values(edge.pass_on(answer)[0], "Record-Route") == called[::-1]


@pytest.mark.rfc("OUT-09")
def test_notify_of_a_record_routed_subscription() -> None:
    """S23: it comes back over the flow, and is record-routed like the SUBSCRIBE."""
    edge = Edge()
    phone = edge.phone()
    recorded = values(edge.pass_on(message(phone, "SUBSCRIBE", OB))[0], "Record-Route")
    notify = message(
        edge.from_core(),
        "NOTIFY",
        *(f"Route: {r}" for r in recorded),
        from_tag="notifier",
        to_tag="caller",
        vias=2,
    )
    sent, send = edge.pass_on(notify)
    assert send is phone
    assert edge.token(phone) in values(sent, "Record-Route")[0]


@pytest.mark.rfc("OUT-11")
def test_outgoing_requests_are_otherwise_untouched() -> None:
    edge = Edge()
    headers = ["m:   <sip:bob@10.0.0.9;ob>", 'Authorization: Digest  x="y"']
    msg = message(edge.phone(), "INVITE", *headers)
    before = msg.lines.copy()
    sent, _ = edge.pass_on(msg)
    ours = (b"Record-Route:", b"Max-Forwards:", b"Max-Breadth:", b"Via: SIP/2.0/UDP 192.0.2.20")
    assert [line for line in sent.lines if not line.startswith(ours)] == before


@pytest.mark.rfc("OUT-12")
def test_a_gruu_contact_with_ob_is_no_obstacle() -> None:
    edge = Edge()
    phone = edge.phone()
    contact = "Contact: <sip:bob@example.com;gr=urn:uuid:i;ob>"
    sent, _ = edge.pass_on(message(phone, "INVITE", contact))
    recorded = values(sent, "Record-Route")
    assert edge.token(phone) in recorded[-1]
    assert edge.pass_on(bye(edge.from_core(), recorded, "callee", "caller"))[1] is phone


@pytest.mark.rfc("PXF-03", "PXF-04")
def test_record_route_is_on_top_has_lr_and_is_sips_for_sips() -> None:
    edge = Edge()
    msg = message(edge.phone(), "INVITE", OB, "Record-Route: <sip:below;lr>")
    recorded = values(edge.pass_on(msg)[0], "Record-Route")
    assert recorded[-1] == "<sip:below;lr>"
    for value in recorded[:-1]:
        uri = parse_uri(parse_nameaddr(value.encode()).uri)
        assert b"lr" in uri.params
        assert edge.flows.find_listener(*hop_of(uri)) is not None
    sips = message(edge.phone(), "INVITE", OB, uri="sips:alice@a.example")
    assert all(v.startswith("<sips:") for v in values(edge.pass_on(sips)[0], "Record-Route"))
