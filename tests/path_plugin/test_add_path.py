"""Path values, as they leave."""

from __future__ import annotations

from path_plugin.add_path import received_param
from sipedge.flow import TCP, TLS, UDP, WS, WSS, Flow, Listener
from tests.helpers import Modules, message, values

REG_ID = 'Contact: <sip:bob@10.0.0.9>;reg-id=1;+sip.instance="<urn:uuid:i>"'
PLAIN = "Contact: <sip:bob@10.0.0.9>"


def paths(
    modules: Modules, flow: Flow, *headers: str, send: Flow | None = None, vias: int = 1
) -> list[str]:
    msg = message(flow, "REGISTER", *headers, vias=vias)
    assert modules.path.add_path(msg) == 1
    return values(modules.sent(msg, send or modules.from_core()), "Path")


def test_without_outbound() -> None:
    modules = Modules("path")
    assert paths(modules, modules.phone(), REG_ID) == ["<sip:192.0.2.20:5060;lr>"]
    over_tcp = modules.flows.dial(modules.tcp, ("192.0.2.30", 5060))
    assert paths(modules, modules.phone(), REG_ID, send=over_tcp) == [
        "<sip:192.0.2.10:5060;transport=tcp;lr>"
    ]


def test_with_outbound() -> None:
    modules = Modules("outbound", "path")
    phone = modules.tcp_phone()
    token = modules.token(phone)
    assert paths(modules, phone, REG_ID) == [f"<sip:{token}@192.0.2.20:5060;lr;ob>"]
    assert paths(modules, phone, PLAIN) == [f"<sip:{token}@192.0.2.20:5060;lr>"]
    assert paths(modules, phone, REG_ID, vias=2) == ["<sip:192.0.2.20:5060;lr>"]


def test_forced_beyond_the_first_hop_has_a_token_but_no_ob() -> None:
    modules = Modules("outbound", "path", outbound__force_outbound_flag=3)
    msg = message(modules.phone(), "REGISTER", PLAIN, vias=2)
    msg.flags = 1 << 3
    modules.path.add_path(msg)
    token = modules.token(modules.phone())
    assert values(modules.sent(msg, modules.from_core()), "Path") == [
        f"<sip:{token}@192.0.2.20:5060;lr>"
    ]


def test_no_token_when_the_operator_says_no() -> None:
    modules = Modules("outbound", "path", outbound__force_no_outbound_flag=3)
    msg = message(modules.phone(), "REGISTER", REG_ID)
    msg.flags = 1 << 3
    modules.path.add_path(msg)
    assert values(modules.sent(msg, modules.from_core()), "Path") == ["<sip:192.0.2.20:5060;lr>"]


def test_above_the_first_path_or_below_all_headers() -> None:
    modules = Modules("path")
    msg = message(modules.phone(), "REGISTER", "Path: <sip:a;lr>", "Path: <sip:b;lr>", PLAIN)
    assert modules.path.add_path(msg) == 1
    sent = modules.sent(msg, modules.from_core())
    assert values(sent, "Path") == ["<sip:192.0.2.20:5060;lr>", "<sip:a;lr>", "<sip:b;lr>"]
    bare = message(modules.phone(), "REGISTER", PLAIN)
    assert modules.path.add_path(bare) == 1
    assert modules.sent(bare, modules.from_core()).lines[-4].startswith(b"Path: ")


def test_several_calls_stack() -> None:
    modules = Modules("path")
    msg = message(modules.phone(), "REGISTER", PLAIN)
    modules.path.add_path_user(msg, "first")
    modules.path.add_path_user(msg, "second")
    assert values(modules.sent(msg, modules.from_core()), "Path") == [
        "<sip:second@192.0.2.20:5060;lr>",
        "<sip:first@192.0.2.20:5060;lr>",
    ]


def test_the_edit_is_kept_with_the_flow() -> None:
    modules = Modules("outbound", "path")
    phone = modules.phone()
    first, again = (message(phone, "REGISTER", REG_ID) for _ in range(2))
    modules.path.add_path(first)
    modules.path.add_path(again)
    assert first.late is not None
    assert first.late == again.late
    other = message(phone, "REGISTER", PLAIN)
    modules.path.add_path(other)
    assert other.late != first.late
    # the same edit, another way out
    core, tcp = modules.from_core(), modules.flows.dial(modules.tcp, ("192.0.2.30", 5060))
    for send, place in ((core, "192.0.2.20:5060;lr"), (tcp, "192.0.2.10:5060;transport=tcp;lr")):
        for _ in range(2):
            assert place in values(modules.sent(first, send), "Path")[0]


def test_advertised_name_and_ipv6() -> None:
    modules = Modules("path")
    named = modules.flows.add_listener(
        Listener(UDP, "10.0.0.1", 5060, advertise=("edge.example.com", 5070))
    )
    v6 = modules.flows.add_listener(Listener(TCP, "2001:db8::10", 5060))
    for send, expected in [
        (modules.flows.udp(named, ("192.0.2.30", 5060)), "<sip:edge.example.com:5070;lr>"),
        (
            modules.flows.dial(v6, ("2001:db8::30", 5060)),
            "<sip:[2001:db8::10]:5060;transport=tcp;lr>",
        ),
    ]:
        assert paths(modules, modules.phone(), PLAIN, send=send) == [expected]


def test_enable_r2_writes_a_pair() -> None:
    modules = Modules("outbound", "path", path__enable_r2=1)
    phone = modules.tcp_phone()
    token = modules.token(phone)
    assert paths(modules, phone, REG_ID) == [
        f"<sip:{token}@192.0.2.20:5060;lr;ob;r2=on>",
        f"<sip:{token}@192.0.2.10:5060;transport=tcp;lr;ob;r2=on>",
    ]
    same = paths(modules, modules.phone(), REG_ID, send=modules.phone(1))
    assert len(same) == 2


def test_never_ws() -> None:
    """The core cannot dial a WebSocket: a listener that it can is named instead."""
    modules = Modules("path")
    ws = modules.flows.add_listener(Listener(WS, "192.0.2.10", 80))
    browser = modules.flows.accept(ws, ("198.51.100.7", 1))
    assert paths(modules, browser, PLAIN) == ["<sip:192.0.2.20:5060;lr>"]
    back = modules.flows.accept(ws, ("198.51.100.8", 1))
    assert paths(modules, browser, PLAIN, send=back) == ["<sip:192.0.2.10:5060;lr>"]


def test_ws_alone_has_no_other_name() -> None:
    modules = Modules("path")
    modules.flows.listeners.clear()
    ws = modules.flows.add_listener(Listener(WS, "192.0.2.10", 80))
    browser = modules.flows.accept(ws, ("198.51.100.7", 1))
    assert paths(modules, browser, PLAIN, send=browser) == ["<sip:192.0.2.10:80;transport=ws;lr>"]


def test_sips_contact_over_tls() -> None:
    modules = Modules("outbound", "path")
    tls = modules.flows.add_listener(Listener(TLS, "192.0.2.20", 5061))
    wss = modules.flows.add_listener(Listener(WSS, "192.0.2.10", 443))
    sips = "Contact: <sip:x@h>, <sips:bob@10.0.0.9>;reg-id=1"
    for listener in (tls, wss):
        phone = modules.flows.accept(listener, ("198.51.100.7", 1))
        token = modules.token(phone)
        assert paths(modules, phone, sips) == [f"<sips:{token}@192.0.2.20:5061;lr;ob>"]
        to_core = modules.flows.dial(tls, ("192.0.2.30", 5061))
        assert paths(modules, phone, sips, send=to_core) == [
            f"<sips:{token}@192.0.2.20:5061;lr;ob>"
        ]
        plain = paths(modules, phone, 'Contact: "sips:" <sip:b@h>;reg-id=1', send=to_core)
        assert plain == [f"<sip:{token}@192.0.2.20:5061;transport=tls;lr;ob>"]


def test_received_param() -> None:
    v4, v6 = ("198.51.100.7", 49152), ("2001:db8::7", 49152)
    for transport, uri, number in [
        (UDP, b"", 1),
        (TCP, b"%3Btransport%3Dtcp", 2),
        (TLS, b"%3Btransport%3Dtls", 3),
        (WS, b"%3Btransport%3Dws", 5),
        (WSS, b"%3Btransport%3Dws", 6),
    ]:
        flow = Flow(Listener(transport, "192.0.2.10", 5060), v4)
        assert received_param(b"r", flow, False) == b";r=sip:198.51.100.7:49152" + uri
        assert received_param(b"r", flow, True) == b";r=198.51.100.7~49152~%d" % number
    flow = Flow(Listener(UDP, "2001:db8::10", 5060), v6)
    assert received_param(b"received", flow, False) == b";received=sip:[2001:db8::7]:49152"
    assert received_param(b"received", flow, True) == b";received=[2001:db8::7]~49152~1"
