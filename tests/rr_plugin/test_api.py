"""Binding to rr, and the callback that other modules register."""

from __future__ import annotations

from rr_plugin.api import RrBinds, rr_load_api
from sipedge.flow import FlowTable
from sipedge.sip.message import SipMessage
from sipedge.sip.uri import Uri
from tests.helpers import FakeContext, Modules, message, values


def test_absent_rr() -> None:
    assert rr_load_api(FakeContext(FlowTable(), {})) is None
    assert rr_load_api(FakeContext(FlowTable(), {"bind_rr": 1})) is None


def bind(modules: Modules) -> RrBinds:
    api = rr_load_api(FakeContext(modules.flows, modules.exports))
    assert api is not None
    return api


def test_functions() -> None:
    modules = Modules("rr")
    api = bind(modules)
    msg = message(modules.phone(), "INVITE", "Route: <sip:192.0.2.10;lr;did=1>")
    assert api.loose_route(msg) == -3
    assert api.check_route_param(msg, ";did=") == 1
    assert api.is_direction(msg, "downstream") == 1
    assert api.record_route(msg, b"") == 1
    assert api.add_rr_param(msg, ";did=2") == 1
    assert values(modules.sent(msg, modules.phone(1)), "Record-Route")[0].endswith(";did=2>")


def test_callbacks_see_each_own_route_and_none_of_a_refused_request() -> None:
    modules = Modules("outbound", "rr")
    seen: list[bytes] = []

    def callback(msg: SipMessage, uri: Uri) -> None:
        seen.append(uri.raw)

    bind(modules).register_callback(callback)
    routes = "<sip:192.0.2.10;lr;a;ftag=x>, <sip:192.0.2.20;lr;b>, <sip:other;lr>"
    modules.rr.loose_route(message(modules.phone(), "INVITE", f"Route: {routes}"))
    assert seen == [b"sip:192.0.2.10;lr;a;ftag=x", b"sip:192.0.2.20;lr;b"]
    seen.clear()
    bad = "Route: <sip:192.0.2.10;lr;a>, <sip:bad@192.0.2.10;lr>"
    assert modules.rr.loose_route(message(modules.phone(), "INVITE", bad)) == -2
    assert seen == []
