"""Record-Route values, as they leave."""

from __future__ import annotations

from sipedge.flow import TCP, TLS, WSS, Flow, Listener
from sipedge.sip.message import SipMessage
from tests.helpers import Modules, message, values

OB = "Contact: <sip:alice@10.0.0.9;ob>"


def recorded(
    modules: Modules, msg: SipMessage, send: Flow, on_flow: bool = False, params: str = ""
) -> list[str]:
    assert modules.rr.record_route(msg, params)
    return values(modules.sent(msg, send, on_flow), "Record-Route")


def test_one_value_when_both_sides_are_one_listener() -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert recorded(modules, msg, modules.phone(5060, "203.0.113.9")) == [
        "<sip:192.0.2.10:5060;lr;ftag=caller>"
    ]


def test_two_values_when_the_sides_differ() -> None:
    modules = Modules("rr")
    msg = message(modules.tcp_phone())
    assert recorded(modules, msg, modules.from_core()) == [
        "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>",
        "<sip:192.0.2.10:5060;transport=tcp;r2=on;lr;ftag=caller>",
    ]


def test_enable_double_rr() -> None:
    never = Modules("rr", rr__enable_double_rr=0)
    assert recorded(never, message(never.tcp_phone()), never.from_core()) == [
        "<sip:192.0.2.10:5060;transport=tcp;lr;ftag=caller>"
    ]
    always = Modules("rr", rr__enable_double_rr=2)
    assert recorded(always, message(always.phone()), always.phone(1)) == [
        "<sip:192.0.2.10:5060;r2=on;lr;ftag=caller>",
        "<sip:192.0.2.10:5060;r2=on;lr;ftag=caller>",
    ]


def test_above_other_record_routes() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Record-Route: <sip:other;lr>")
    assert modules.rr.record_route(msg)
    sent = modules.sent(msg, modules.phone(1))
    assert values(sent, "Record-Route") == [
        "<sip:192.0.2.10:5060;lr;ftag=caller>",
        "<sip:other;lr>",
    ]
    assert sent.via().branch == b"z9hG4bKsent"
    bare = message(modules.phone())
    assert modules.rr.record_route(bare)
    names = modules.sent(bare, modules.phone(1)).ids
    assert names.count(b"record-route") == 1


def test_each_branch_gets_its_own_values() -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert recorded(modules, msg, modules.from_core())[0].startswith("<sip:192.0.2.20:5060;r2=on")
    assert values(modules.sent(msg, modules.phone(1)), "Record-Route") == [
        "<sip:192.0.2.10:5060;lr;ftag=caller>"
    ]
    assert not msg.has(b"record-route")


def test_without_ftag_and_with_lr_on() -> None:
    modules = Modules("rr", rr__append_fromtag=0, rr__enable_full_lr=1)
    assert recorded(modules, message(modules.phone()), modules.phone(1)) == [
        "<sip:192.0.2.10:5060;lr=on>"
    ]


def test_a_from_tag_is_escaped() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), from_tag="a%b`c")
    assert recorded(modules, msg, modules.phone(1)) == ["<sip:192.0.2.10:5060;lr;ftag=a%25b%60c>"]


def test_no_from_tag_no_ftag() -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    msg.set(b"from", b"<sip:alice@example.com>")
    assert recorded(modules, msg, modules.phone(1)) == ["<sip:192.0.2.10:5060;lr>"]


def test_params_and_add_rr_param() -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert modules.rr.add_rr_param(msg, ";a=1") == 1
    assert modules.rr.record_route(msg, b";x=y;z") == 1
    assert modules.rr.add_rr_param(msg, b";b") == 1
    assert values(modules.sent(msg, modules.phone(1)), "Record-Route") == [
        "<sip:192.0.2.10:5060;lr;ftag=caller;x=y;z;a=1;b>"
    ]
    other = message(modules.phone())  # nothing leaks into the next message
    assert recorded(modules, other, modules.phone(1)) == ["<sip:192.0.2.10:5060;lr;ftag=caller>"]


def test_add_username() -> None:
    modules = Modules("rr", rr__add_username=1)
    msg = message(modules.phone())
    assert recorded(modules, msg, modules.phone(1)) == ["<sip:bob@192.0.2.10:5060;lr;ftag=caller>"]
    tel = message(modules.phone(), uri="tel:+1")
    assert recorded(modules, tel, modules.phone(1)) == ["<sip:192.0.2.10:5060;lr;ftag=caller>"]


def test_sips_request_uri() -> None:
    modules = Modules("rr")
    tls = modules.flows.add_listener(Listener(TLS, "192.0.2.10", 5061))
    wss = modules.flows.add_listener(Listener(WSS, "192.0.2.10", 443))
    browser = modules.flows.accept(wss, ("198.51.100.7", 1))
    phone = modules.flows.accept(tls, ("198.51.100.8", 1))
    msg = message(browser, uri="sips:bob@example.com")
    assert recorded(modules, msg, phone) == [
        "<sips:192.0.2.10:5061;r2=on;lr;ftag=caller>",
        "<sips:192.0.2.10:443;transport=ws;r2=on;lr;ftag=caller>",
    ]
    plain = message(browser)
    assert recorded(modules, plain, phone)[0] == (
        "<sip:192.0.2.10:5061;transport=tls;r2=on;lr;ftag=caller>"
    )
    ignoring = Modules("rr", rr__ignore_sips=1)
    sips = message(ignoring.phone(), uri="sips:bob@example.com")
    assert recorded(ignoring, sips, ignoring.phone(1))[0].startswith("<sip:")


def test_advertised_name_and_ipv6() -> None:
    modules = Modules("rr")
    named = Listener(TCP, "10.0.0.1", 5060, advertise=("edge.example.com", 5070))
    v6 = Listener(TCP, "2001:db8::10", 5060)
    modules.flows.add_listener(named)
    modules.flows.add_listener(v6)
    msg = message(modules.flows.accept(named, ("198.51.100.7", 1)))
    assert recorded(modules, msg, modules.flows.accept(v6, ("2001:db8::7", 1))) == [
        "<sip:[2001:db8::10]:5060;transport=tcp;r2=on;lr;ftag=caller>",
        "<sip:edge.example.com:5070;transport=tcp;r2=on;lr;ftag=caller>",
    ]


def test_token_of_the_arrival_flow_for_an_outbound_caller() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.phone()
    token = modules.token(phone)
    assert recorded(modules, message(phone, "INVITE", OB), modules.phone(5060, "203.0.113.9")) == [
        f"<sip:{token}@192.0.2.10:5060;lr;ftag=caller;fs=uac>"
    ]
    assert recorded(modules, message(phone, "INVITE", OB), modules.from_core()) == [
        "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>",
        f"<sip:{token}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uac>",
    ]


def test_token_of_the_sending_flow_when_a_ua_is_there() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.tcp_phone()
    token = modules.token(phone)
    from_core = message(modules.from_core(), "INVITE", vias=2)
    assert recorded(modules, from_core, phone, on_flow=True) == [
        f"<sip:{token}@192.0.2.10:5060;transport=tcp;r2=on;lr;ftag=caller;fs=uas>",
        "<sip:192.0.2.20:5060;r2=on;lr;ftag=caller>",
    ]
    one_side = message(modules.phone(1), "INVITE", vias=2)
    assert recorded(modules, one_side, modules.phone(2), on_flow=True) == [
        f"<sip:{modules.token(modules.phone(2))}@192.0.2.10:5060;lr;ftag=caller;fs=uas>"
    ]


def test_tokens_of_both_sides_need_two_values_even_on_one_listener() -> None:
    modules = Modules("outbound", "rr")
    caller, callee = modules.phone(1), modules.phone(2)
    expected = [
        f"<sip:{modules.token(callee)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uas>",
        f"<sip:{modules.token(caller)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uac>",
    ]
    assert recorded(modules, message(caller, "INVITE", OB), callee, on_flow=True) == expected


def test_two_accounts_on_one_flow_get_two_values() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.tcp_phone()
    got = recorded(modules, message(phone, "INVITE", OB), phone, on_flow=True)
    assert [value.partition("fs=")[2] for value in got] == ["uas>", "uac>"]


def test_token_values_have_ftag_whatever_append_fromtag_says() -> None:
    modules = Modules("outbound", "rr", rr__append_fromtag=0)
    phone = modules.phone()
    got = recorded(modules, message(phone, "INVITE", OB), modules.from_core())
    assert got[0] == "<sip:192.0.2.20:5060;r2=on;lr>"
    assert got[1].endswith(";r2=on;lr;ftag=caller;fs=uac>")


def test_without_a_from_tag_there_is_no_fs() -> None:
    modules = Modules("outbound", "rr")
    msg = message(modules.phone(), "INVITE", OB)
    msg.set(b"from", b"<sip:alice@example.com>")
    assert recorded(modules, msg, modules.phone(1))[0].endswith("@192.0.2.10:5060;lr>")


def test_the_callee_s_reinvite_says_the_same() -> None:
    """ftag stays the caller's tag, fs stays with its UA (RFC 3261 §16.6 item 4)."""
    modules = Modules("outbound", "rr")
    callee, caller = modules.phone(2), modules.phone(1)
    route = f"Route: <sip:{modules.token(callee)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uas>"
    partner = f"Route: <sip:{modules.token(caller)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uac>"
    msg = message(callee, "INVITE", route, partner, from_tag="callee", to_tag="caller")
    assert modules.rr.loose_route(msg) == 2
    assert msg.dst_flow is caller
    assert recorded(modules, msg, caller, on_flow=True) == [
        f"<sip:{modules.token(caller)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uac>",
        f"<sip:{modules.token(callee)}@192.0.2.10:5060;r2=on;lr;ftag=caller;fs=uas>",
    ]


def test_preset() -> None:
    modules = Modules("outbound", "rr")
    phone = modules.phone()
    token = modules.token(phone)
    msg = message(phone, "INVITE", OB)
    assert modules.rr.record_route_preset(msg, "edge.example.com:5090;transport=tcp") == 1
    assert modules.rr.add_rr_param(msg, ";a=1") == 1
    assert values(modules.sent(msg, modules.from_core()), "Record-Route") == [
        f"<sip:{token}@edge.example.com:5090;transport=tcp;lr;ftag=caller;fs=uac;a=1>"
    ]
    msg = message(phone, "INVITE", OB)
    assert modules.rr.record_route_preset(msg, b"core.example.com", b"[2001:db8::1]:5062") == 1
    assert values(modules.sent(msg, modules.from_core()), "Record-Route") == [
        "<sip:core.example.com;r2=on;lr;ftag=caller>",
        f"<sip:{token}@[2001:db8::1]:5062;r2=on;lr;ftag=caller;fs=uac>",
    ]


def test_advertised_address() -> None:
    modules = Modules("rr")
    msg = message(modules.tcp_phone())
    assert modules.rr.record_route_advertised_address(msg, "edge.example.com:5060") == 1
    assert values(modules.sent(msg, modules.tcp_phone(1)), "Record-Route") == [
        "<sip:edge.example.com:5060;transport=tcp;lr;ftag=caller>"
    ]
    assert values(modules.sent(msg, modules.from_core()), "Record-Route") == [
        "<sip:edge.example.com:5060;r2=on;lr;ftag=caller>",
        "<sip:edge.example.com:5060;transport=tcp;r2=on;lr;ftag=caller>",
    ]
