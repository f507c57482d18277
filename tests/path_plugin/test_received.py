"""use_received: back to the address in our own Path."""

from __future__ import annotations

import pytest

from sipedge.flow import CLOSED, Listener
from tests.helpers import Modules, message, values

PLAIN = "Contact: <sip:bob@10.0.0.9>"


@pytest.mark.parametrize("numbers", [0, 1])
def test_round_trip(numbers: int) -> None:
    modules = Modules("rr", "path", path__use_received=1, path__received_format=numbers)
    modules.flows.dial(modules.tcp, ("198.51.100.7", 49152))  # ours, and no client's
    udp, tcp = modules.phone(), modules.tcp_phone()
    for phone in (udp, tcp):
        register = message(phone, "REGISTER", PLAIN)
        assert modules.path.add_path_received(register) == 1
        (path,) = values(modules.sent(register, modules.from_core()), "Path")
        invite = message(modules.from_core(), "INVITE", f"Route: {path}")
        modules.rr.loose_route(invite)
        if phone is udp:
            assert invite.dst_uri == b"sip:198.51.100.7:49152"
            assert invite.dst_flow is None
        else:
            assert invite.dst_flow is phone
            assert invite.dst_uri is None


def test_a_connection_that_is_gone_is_not_dialed() -> None:
    modules = Modules("rr", "path", path__use_received=1)
    route = "Route: <sip:192.0.2.20;lr;received=sip:198.51.100.7:1%3Btransport%3Dtcp>"
    msg = message(modules.from_core(), "INVITE", route)
    modules.rr.loose_route(msg)
    assert msg.dst_flow is not None
    assert msg.dst_flow.state == CLOSED
    assert msg.dst_uri is None


def test_ipv6() -> None:
    modules = Modules("rr", "path", path__use_received=1)
    modules.flows.add_listener(Listener(1, "2001:db8::10", 5060))
    route = "Route: <sip:192.0.2.20;lr;received=sip:[2001:db8::7]:1>"
    msg = message(modules.from_core(), "INVITE", route)
    modules.rr.loose_route(msg)
    assert msg.dst_uri == b"sip:[2001:db8::7]:1"


@pytest.mark.parametrize(
    ("numbers", "value"),
    [
        (0, "nonsense"),
        (0, "sip:host.example.com"),
        (0, "sip:198.51.100.7:1%3Btransport%3Dsmoke"),
        (0, "tel:+1"),
        (1, "198.51.100.7~1"),
        (1, "198.51.100.7~1~9"),
        (1, "198.51.100.7~0~1"),
        (1, "198.51.100.7~99999~1"),
        (1, "host~1~1"),
        (1, "198.51.100.7~1~1~1"),
    ],
)
def test_what_is_no_address_is_passed_over(numbers: int, value: str) -> None:
    modules = Modules("rr", "path", path__use_received=1, path__received_format=numbers)
    route = f"Route: <sip:192.0.2.20;lr;received={value}>, <sip:192.0.2.10;lr;other=sip:1.2.3.4>"
    msg = message(modules.from_core(), "INVITE", route)
    modules.rr.loose_route(msg)
    assert (msg.dst_uri, msg.dst_flow) == (None, None)


def test_a_flow_token_wins() -> None:
    modules = Modules("outbound", "rr", "path", path__use_received=1)
    phone = modules.phone()
    route = f"<sip:{modules.token(phone)}@192.0.2.20;lr;received=sip:203.0.113.66:6666;ob>"
    msg = message(modules.from_core(), "INVITE", f"Route: {route}", vias=2)
    assert modules.rr.loose_route(msg) == 2
    assert msg.dst_flow is phone
    assert msg.dst_uri is None


def test_off_by_default() -> None:
    modules = Modules("rr", "path")
    route = "Route: <sip:192.0.2.20;lr;received=sip:203.0.113.66:6666>"
    msg = message(modules.from_core(), "INVITE", route)
    modules.rr.loose_route(msg)
    assert msg.dst_uri is None
