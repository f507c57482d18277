"""loose_route: which Routes go, where the request goes, and the result codes."""

from __future__ import annotations

import pytest

from sipedge.errors import ParseError, SipError
from sipedge.flow import CLOSED, TLS, Listener, same_flow
from sipedge.sip.message import SipMessage
from tests.helpers import Modules, message, values


def in_dialog(flow: object, *routes: str, **kwargs: str) -> SipMessage:
    """A BYE from the callee, unless the tags say otherwise."""
    tags = {"from_tag": "callee", "to_tag": "caller", **kwargs}
    headers = [f"Route: {route}" for route in routes]
    return message(flow, "BYE", *headers, **tags)  # type: ignore[arg-type]


def test_no_route() -> None:
    modules = Modules("rr")
    assert modules.rr.loose_route(message(modules.phone())) == -1
    assert modules.rr.loose_route(message(modules.phone(), "INVITE", "Route: ,")) == -1


def test_foreign_route_stays() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Route: <sip:other:5060;lr>")
    before = msg.to_bytes()
    assert modules.rr.loose_route(msg) == 1
    assert msg.to_bytes() == before
    assert (msg.dst_uri, msg.dst_flow) == (None, None)


@pytest.mark.parametrize(
    "route",
    [
        "<sip:192.0.2.10;lr>",
        "<sip:192.0.2.10:5060;lr=on>",
        "<sip:EDGE.example.com;transport=tcp;lr;ob>",
        '"us" <sip:192.0.2.10:5060>;x=1',
        "<sip:192.0.2.20:5060;lr;ftag=x;fs=uac>",
    ],
)
def test_own_route_alone(route: str) -> None:
    modules = Modules("rr")
    initial = message(modules.phone(), "INVITE", f"Route: {route}")
    assert modules.rr.loose_route(initial) == -3
    assert not initial.has(b"route")
    assert modules.rr.loose_route(in_dialog(modules.phone(), route)) == 1


def test_own_routes_then_a_foreign_one() -> None:
    modules = Modules("rr")
    for lines in (
        ["<sip:192.0.2.10;lr>", "<sip:192.0.2.20;lr>", "<sip:other;lr;ftag=x>"],
        ["<sip:192.0.2.10;lr>,<sip:192.0.2.20;lr> ,\t<sip:other;lr;ftag=x>"],
        ["<sip:192.0.2.10;lr>, <sip:192.0.2.20;lr>", "<sip:other;lr;ftag=x>"],
    ):
        msg = message(modules.phone(), "INVITE", *(f"Route: {line}" for line in lines))
        assert modules.rr.loose_route(msg) == 1
        assert values(msg, "Route") == ["<sip:other;lr;ftag=x>"]


def test_own_routes_behind_a_foreign_one_stay() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Route: <sip:other;lr>, <sip:192.0.2.10;lr>")
    assert modules.rr.loose_route(msg) == 1
    assert len(values(msg, "Route")) == 2


def test_malformed_route_is_the_sender_s_fault() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Route: <sip:192.0.2.10;lr>")
    msg.replace(msg.find(b"route"), b"<sip:@>")
    with pytest.raises(ParseError):
        modules.rr.loose_route(msg)


def test_a_user_part_means_nothing_without_outbound() -> None:
    modules = Modules("rr")
    assert modules.rr.loose_route(in_dialog(modules.phone(), "<sip:bob@192.0.2.10;lr>")) == 1


def test_incoming_and_outgoing() -> None:
    modules = Modules("outbound", "rr")
    for phone in (modules.phone(), modules.tcp_phone()):
        route = f"<sip:{modules.token(phone)}@192.0.2.10:5060;lr;ob>"
        incoming = message(modules.from_core(), "INVITE", f"Route: {route}", vias=2)
        assert modules.rr.loose_route(incoming) == 2
        assert incoming.dst_flow is phone
        assert not incoming.has(b"route")
        outgoing = message(phone, "INVITE", f"Route: {route}, <sip:other;lr>")
        assert modules.rr.loose_route(outgoing) == 1
        assert outgoing.dst_flow is None
        assert values(outgoing, "Route") == ["<sip:other;lr>"]
        alone = message(phone, "INVITE", f"Route: {route}")
        assert modules.rr.loose_route(alone) == -3


def test_same_address_on_another_transport_or_connection_is_another_flow() -> None:
    modules = Modules("outbound", "rr")
    udp, one, two = modules.phone(1), modules.tcp_phone(1), modules.tcp_phone(1)
    for flow, sender in ((udp, one), (one, udp), (one, two)):
        msg = in_dialog(sender, f"<sip:{modules.token(flow)}@192.0.2.10;lr>")
        assert modules.rr.loose_route(msg) == 2
        assert msg.dst_flow is flow


def test_closed_and_broken_tokens() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.tcp_phone()
    token = modules.token(phone)
    modules.flows.closed(phone)
    msg = in_dialog(modules.from_core(), f"<sip:{token}@192.0.2.10;lr>")
    assert modules.rr.loose_route(msg) == 2
    assert msg.dst_flow is not None
    assert msg.dst_flow.state == CLOSED
    for user in ("bob", token[:-1], token[1:], token + ":pw", token[:-1] + "-" + token[-1]):
        msg = in_dialog(modules.from_core(), f"<sip:{user}@192.0.2.10;lr>", "<sip:other;lr>")
        assert modules.rr.loose_route(msg) == -2
        assert msg.dst_flow is None


def test_broken_token_below_a_good_outgoing_one() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.phone()
    good = f"<sip:{modules.token(phone)}@192.0.2.10;lr>"
    assert modules.rr.loose_route(in_dialog(phone, good, "<sip:bad@192.0.2.10;lr>")) == -2


def test_foreign_routes_below_stay_in_an_incoming_request() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.phone()
    route = f"<sip:{modules.token(phone)}@192.0.2.10;lr>"
    msg = in_dialog(modules.from_core(), route, "<sip:behind.example.com>")
    ruri = msg.ruri
    assert modules.rr.loose_route(msg) == 2
    assert values(msg, "Route") == ["<sip:behind.example.com>"]
    assert msg.ruri == ruri  # no strict-router rewriting: the flow decides
    assert msg.dst_uri is None


def pair(modules: Modules, token: str, end: str = "uas") -> tuple[str, str]:
    ua = f"<sip:{token}@192.0.2.10:5060;transport=tcp;r2=on;lr;ftag=caller;fs={end}>"
    return ua, "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>"


def test_both_values_of_a_pair_go() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.tcp_phone()
    ua, core = pair(modules, modules.token(phone))
    bye = in_dialog(phone, ua, core, "<sip:home;lr>")
    assert modules.rr.loose_route(bye) == 1
    assert values(bye, "Route") == ["<sip:home;lr>"]
    assert bye.listener is modules.core_side
    from_caller = in_dialog(
        modules.from_core(), core, ua, core, "<sip:x;lr>", from_tag="caller", to_tag="callee"
    )
    assert modules.rr.loose_route(from_caller) == 2
    assert from_caller.dst_flow is phone
    assert values(from_caller, "Route") == [core, "<sip:x;lr>"]  # the walk ended at the token


def test_the_partner_goes_with_the_token() -> None:
    """Path pairs, and pairs in which the token stands first."""
    modules = Modules("outbound", "rr")
    phone = modules.phone()
    token = modules.token(phone)
    first = f"<sip:{token}@192.0.2.20:5060;lr;ob;r2=on>"
    second = f"<sip:{token}@192.0.2.10:5060;lr;ob;r2=on>"
    msg = message(modules.from_core(), "INVITE", f"Route: {first}, {second}, <sip:x;lr>", vias=2)
    assert modules.rr.loose_route(msg) == 2
    assert values(msg, "Route") == ["<sip:x;lr>"]
    alone = message(modules.from_core(), "INVITE", f"Route: {first}, <sip:x;lr;r2=on>", vias=2)
    assert modules.rr.loose_route(alone) == 2
    assert values(alone, "Route") == ["<sip:x;lr;r2=on>"]  # not ours


def test_one_token_in_both_values_of_a_pair_is_one_hop() -> None:
    """As Kamailio writes them."""
    modules = Modules("outbound", "rr")
    phone = modules.tcp_phone()
    token = modules.token(phone)
    ua = f"<sip:{token}@192.0.2.10:5060;transport=tcp;r2=on;lr>"
    core = f"<sip:{token}@192.0.2.20:5060;r2=on;lr>"
    msg = in_dialog(phone, ua, core, "<sip:home;lr>")
    assert modules.rr.loose_route(msg) == 1
    assert values(msg, "Route") == ["<sip:home;lr>"]
    msg = in_dialog(modules.from_core(), core, ua)
    assert modules.rr.loose_route(msg) == 2
    assert msg.dst_flow is phone
    assert not msg.has(b"route")


def test_a_ua_that_reconnected_is_known_by_its_end_of_the_dialog() -> None:
    modules = Modules("outbound", "rr")
    old, new = modules.tcp_phone(1), modules.tcp_phone(2)
    token = modules.token(old)
    modules.flows.closed(old)
    callee = f"<sip:{token}@192.0.2.10:5060;lr;ftag=caller;fs=uas>"
    caller = f"<sip:{token}@192.0.2.10:5060;lr;ftag=caller;fs=uac>"
    assert modules.rr.loose_route(in_dialog(new, callee)) == 1
    assert modules.rr.loose_route(in_dialog(new, caller, from_tag="caller", to_tag="callee")) == 1
    # the other end: towards that UA, whose flow is gone
    assert modules.rr.loose_route(in_dialog(new, callee, from_tag="caller", to_tag="callee")) == 2
    assert modules.rr.loose_route(in_dialog(new, caller)) == 2


def test_fs_says_nothing_outside_of_its_dialog() -> None:
    """A route set that is used again for another dialog: only the flow counts."""
    modules = Modules("outbound", "rr")
    phone = modules.phone()
    route = f"<sip:{modules.token(phone)}@192.0.2.10:5060;lr;ftag=caller;fs=uas>"
    for tags in ({"from_tag": "x", "to_tag": ""}, {"from_tag": "x", "to_tag": "y"}):
        msg = in_dialog(modules.from_core(), route, **tags)
        assert modules.rr.loose_route(msg) == 2
        assert msg.dst_flow is phone
    unknown = route.replace("fs=uas", "fs=abc")
    assert modules.rr.loose_route(in_dialog(modules.from_core(), unknown)) == 2


def test_fs_does_not_save_a_forged_token() -> None:
    modules = Modules("outbound", "rr")
    route = "<sip:forged@192.0.2.10:5060;lr;ftag=caller;fs=uas>"
    assert modules.rr.loose_route(in_dialog(modules.phone(), route)) == -2


def test_an_escaped_ftag_is_recognised() -> None:
    modules = Modules("outbound", "rr")
    msg = message(modules.phone(1), "INVITE", "Contact: <sip:a@h;ob>", from_tag="a`b%")
    assert modules.rr.record_route(msg)
    (value,) = values(modules.sent(msg, modules.phone(2)), "Record-Route")
    bye = message(modules.phone(3), "BYE", f"Route: {value}", from_tag="a`b%", to_tag="t")
    assert modules.rr.loose_route(bye) == 1


def test_second_token_never_means_the_sender_again() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.tcp_phone()
    token = modules.token(phone)
    for first, second in (("uac", "uas"), ("", "")):
        ends = (f";fs={fs}" if fs else "" for fs in (first, second))
        routes = [
            f"<sip:{token}@192.0.2.10:5060;transport=tcp;lr;ftag=caller{end}>" for end in ends
        ]
        msg = in_dialog(phone, *routes, from_tag="caller", to_tag="callee")
        assert modules.rr.loose_route(msg) == 2
        assert msg.dst_flow is phone


def test_hairpin_consumes_all_own_values() -> None:
    modules = Modules("outbound", "rr")
    bob, carol = modules.phone(1), modules.phone(2)
    routes = [
        f"<sip:{modules.token(bob)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uas>",
        "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>",
        "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>",
        f"<sip:{modules.token(carol)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uac>",
    ]
    msg = in_dialog(bob, *routes)
    assert modules.rr.loose_route(msg) == 2
    assert msg.dst_flow is not None
    assert same_flow(msg.dst_flow, carol)
    assert not msg.has(b"route")
    back = in_dialog(carol, *reversed(routes), from_tag="caller", to_tag="callee")
    assert modules.rr.loose_route(back) == 2
    assert back.dst_flow is bob


def test_strict_router_before_us() -> None:
    modules = Modules("rr")
    msg = message(
        modules.phone(),
        "BYE",
        "Route: <sip:next;lr>, <sip:bob@10.0.0.9;x=1>",
        uri="sip:192.0.2.10:5060;lr;ftag=caller",
        from_tag="callee",
        to_tag="caller",
    )
    assert modules.rr.loose_route(msg) == 1
    assert msg.ruri == b"sip:bob@10.0.0.9;x=1"
    assert msg.lines[0] == b"BYE sip:bob@10.0.0.9;x=1 SIP/2.0"
    assert values(msg, "Route") == ["<sip:next;lr>"]
    assert modules.rr.is_direction(msg, "upstream")


def test_a_request_uri_that_is_us_is_no_strict_router_without_lr() -> None:
    modules = Modules("rr")
    for uri in ("sip:192.0.2.10:5060", "sip:other:5060;lr"):
        msg = message(modules.phone(), "OPTIONS", "Route: <sip:bob@10.0.0.9;lr>", uri=uri)
        assert modules.rr.loose_route(msg) == 1
        assert msg.ruri == uri.encode()


def test_strict_router_behind_us() -> None:
    modules = Modules("rr")
    msg = message(
        modules.phone(),
        "INVITE",
        "Route: <sip:192.0.2.10;lr>, <sip:strict.example.com;ftag=a;fs=uac>, <sip:far;lr>",
    )
    assert modules.rr.loose_route(msg) == 1
    assert msg.ruri == b"sip:strict.example.com;ftag=a;fs=uac"
    assert msg.dst_uri == msg.ruri
    assert values(msg, "Route") == ["<sip:far;lr>", "<sip:bob@example.com>"]
    assert msg.lines[0] == b"INVITE sip:strict.example.com;ftag=a;fs=uac SIP/2.0"


def test_force_send_socket() -> None:
    for force, expected in ((0, None), (1, "core_side")):
        modules = Modules("rr", rr__force_send_socket=force)
        msg = message(modules.phone(), "INVITE", "Route: <sip:192.0.2.20;lr>, <sip:far;lr>")
        assert modules.rr.loose_route(msg) == 1
        assert msg.listener is (getattr(modules, expected) if expected else None)


def test_sips_is_not_delivered_without_tls() -> None:
    modules = Modules("outbound", "rr")
    tls = modules.flows.add_listener(Listener(TLS, "192.0.2.10", 5061))
    secure = modules.flows.accept(tls, ("198.51.100.7", 1))
    for flow, refused in ((modules.tcp_phone(), True), (secure, False)):
        route = f"Route: <sip:{modules.token(flow)}@192.0.2.10:5060;lr;ob>"
        msg = message(modules.from_core(), "INVITE", route, uri="sips:bob@example.com", vias=2)
        if refused:
            with pytest.raises(SipError) as caught:
                modules.rr.loose_route(msg)
            assert caught.value.status == 480
            assert caught.value.headers[0][1].startswith(b"380 ")
            assert msg.dst_flow is None
        else:
            assert modules.rr.loose_route(msg) == 2
