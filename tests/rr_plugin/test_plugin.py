"""Module rr: result codes, parameters, and what its functions tell of a dialog."""

from __future__ import annotations

import logging

import pytest

from outbound_plugin.api import INCOMING, NOT_USED, OUTGOING
from rr_plugin.plugin import RrPlugin
from sipedge.errors import ConfigError
from sipedge.module import BRANCH_ROUTE
from tests.helpers import Modules, message, values


def test_add_username_refuses_to_start_with_outbound() -> None:
    with pytest.raises(ConfigError, match="rr: add_username: cannot be used together with"):
        Modules("outbound", "rr", rr__add_username=1)
    Modules("rr", rr__add_username=1)
    Modules("rr", "outbound", rr__add_username=1)  # loaded after rr: not bound


def test_bound_only_if_outbound_was_loaded_before() -> None:
    for names, token in ((("outbound", "rr"), True), (("rr", "outbound"), False), (("rr",), False)):
        modules = Modules(*names)
        msg = message(modules.phone(), "INVITE", "Contact: <sip:a@h;ob>")
        assert modules.rr.record_route(msg) == 1
        (value,) = values(modules.sent(msg, modules.phone(1)), "Record-Route")
        assert ("@" in value) is token


def test_no_double_rr_with_outbound_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Modules("rr", rr__enable_double_rr=0)
        assert not caplog.records
        Modules("outbound", "rr", rr__enable_double_rr=0)
    assert "enable_double_rr is 0" in caplog.text


def test_exports() -> None:
    exports = RrPlugin().exports
    assert [f.name for f in exports.functions] == [
        "record_route",
        "record_route_preset",
        "record_route_advertised_address",
        "add_rr_param",
        "remove_record_route",
        "loose_route",
        "loose_route_preloaded",
        "check_route_param",
        "is_direction",
        "next_hop_route",
    ]
    assert [p.name for p in exports.params] == [
        "append_fromtag",
        "enable_double_rr",
        "enable_full_lr",
        "add_username",
        "ignore_sips",
        "force_send_socket",
    ]
    assert [pv.name for pv in exports.pseudo_variables] == ["route_uri", "fti", "tti", "rdir"]


def test_a_second_record_route_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert modules.rr.record_route(msg) == 1
    with caplog.at_level(logging.WARNING):
        assert modules.rr.record_route(msg) == -1
        assert modules.rr.record_route_preset(msg, "h") == -1
        assert modules.rr.record_route_advertised_address(msg, "h") == -1
    assert "twice" in caplog.text
    assert len(values(modules.sent(msg, modules.phone(1)), "Record-Route")) == 1


def test_once_more_in_a_branch_route() -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert modules.rr.record_route(msg) == 1
    msg.route_kind = BRANCH_ROUTE
    assert modules.rr.record_route(msg, ";b") == 1
    assert modules.rr.record_route(msg, ";c") == -1
    assert len(values(modules.sent(msg, modules.phone(1)), "Record-Route")) == 2


@pytest.mark.parametrize("bad", ["x", ";a>", ";a=b,c", ";a b", ";a\r\nX: y", ';a="b"', ";", ";a?b"])
def test_params_that_cannot_stand_in_a_uri(bad: str) -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert modules.rr.record_route(msg, bad) == -1
    assert modules.rr.add_rr_param(msg, bad) == -1
    assert modules.rr.record_route(msg) == 1
    assert values(modules.sent(msg, modules.phone(1)), "Record-Route") == [
        "<sip:192.0.2.10:5060;lr;ftag=caller>"
    ]


@pytest.mark.parametrize("bad", ["", "h>", "a@h", "h p", "h;x=\r\n", "h:99999", '"h"', ";lr"])
def test_addresses_that_cannot_stand_in_a_uri(bad: str) -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert modules.rr.record_route_preset(msg, bad) == -1
    assert modules.rr.record_route_preset(msg, "h", bad) == -1
    assert modules.rr.record_route_advertised_address(msg, bad) == -1
    assert msg.late is None


def test_two_preset_addresses_need_double_rr() -> None:
    modules = Modules("rr", rr__enable_double_rr=0)
    msg = message(modules.phone())
    assert modules.rr.record_route_preset(msg, "a", "b") == -1
    assert modules.rr.record_route_preset(msg, "a") == 1


def test_add_rr_param_has_a_limit() -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert modules.rr.add_rr_param(msg, ";" + "a" * 511) == 1
    assert modules.rr.add_rr_param(msg, ";a") == -1


def test_remove_record_route_undoes_only_ours() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Record-Route: <sip:other;lr>")
    assert modules.rr.remove_record_route(msg) == 1
    modules.rr.record_route(msg, ";a")
    modules.rr.add_rr_param(msg, ";b")
    assert modules.rr.remove_record_route(msg) == 1
    assert values(modules.sent(msg, modules.phone(1)), "Record-Route") == ["<sip:other;lr>"]
    assert modules.rr.record_route(msg, ";c") == 1
    first = values(modules.sent(msg, modules.phone(1)), "Record-Route")[0]
    assert first == "<sip:192.0.2.10:5060;lr;ftag=caller;c>"


def test_loose_route_preloaded() -> None:
    modules = Modules("outbound", "rr")
    token = modules.token(modules.phone())
    for route, code in [
        ("<sip:192.0.2.10;lr>", 1),
        ("<sip:192.0.2.10;lr>, <sip:other;lr>", -1),
        (f"<sip:{token}@192.0.2.10;lr>", -1),
        ("<sip:bad@192.0.2.10;lr>", -1),
    ]:
        msg = message(modules.from_core(), "INVITE", f"Route: {route}")
        assert modules.rr.loose_route_preloaded(msg) == code
    assert modules.rr.loose_route_preloaded(message(modules.phone())) == -1


def test_check_route_param() -> None:
    modules = Modules("rr")
    own = "<sip:192.0.2.10:5060;lr;ftag=a;nat=yes>, <sip:192.0.2.20;lr;x=1>"
    msg = message(modules.phone(), "INVITE", f"Route: {own}, <sip:o;y=1;lr>")
    assert modules.rr.check_route_param(msg, "lr") == -1  # loose_route was not called
    assert modules.rr.loose_route(msg) == 1
    for pattern, code in [
        (";nat=yes", 1),
        (b";NAT=(yes|no)$", 1),
        ("^;lr", 1),
        (";x=1", 1),
        (";y=1", -1),
        ("192", -1),
    ]:
        assert modules.rr.check_route_param(msg, pattern) == code


@pytest.mark.parametrize(
    ("from_tag", "route", "direction"),
    [
        ("caller", "<sip:192.0.2.10;lr;ftag=caller>", "downstream"),
        ("callee", "<sip:192.0.2.10;lr;ftag=caller>", "upstream"),
        ("callee", "<sip:192.0.2.20;lr>, <sip:192.0.2.10;lr;ftag=caller>", "upstream"),
        ("callee", "<sip:192.0.2.10;lr>", "downstream"),
        ("callee", "<sip:other;lr;ftag=caller>", "downstream"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_is_direction(from_tag: str, route: str, direction: str, before: bool) -> None:
    """Before loose_route only the topmost Route is looked at."""
    modules = Modules("rr")
    msg = message(modules.phone(), "BYE", f"Route: {route}", from_tag=from_tag, to_tag="t")
    if not before:
        modules.rr.loose_route(msg)
    elif "," in route:
        return
    other = "upstream" if direction == "downstream" else "downstream"
    assert modules.rr.is_direction(msg, direction) == 1
    assert modules.rr.is_direction(msg, other.encode()) == -1
    assert modules.rr.is_direction(msg, "sideways") == -1


def test_next_hop_route() -> None:
    modules = Modules("outbound", "rr")
    token = modules.token(modules.phone())
    for route, code in [
        ("<sip:192.0.2.10;lr>, <sip:other;lr>", 1),
        ("<sip:other;lr>", 1),
        ("<sip:192.0.2.10;lr>", -1),
        (f"<sip:{token}@192.0.2.10;lr>, <sip:other;lr>", -1),
    ]:
        msg = message(modules.from_core(), "INVITE", f"Route: {route}")
        assert modules.rr.next_hop_route(msg) == -1
        modules.rr.loose_route(msg)
        assert modules.rr.next_hop_route(msg) == code


def test_loose_route_tells_use_outbound_what_it_took_away() -> None:
    modules = Modules("outbound", "rr")
    mine, other = modules.token(modules.phone()), modules.token(modules.phone(1))
    for route, expected in [
        (f"<sip:{mine}@192.0.2.10;lr;ob>", OUTGOING),
        (f"<sip:{mine}@192.0.2.10;lr>", NOT_USED),
        (f"<sip:{other}@192.0.2.10;lr>", INCOMING),
        (f"<sip:192.0.2.20;lr>, <sip:{other}@192.0.2.10;lr>", INCOMING),
        ("<sip:192.0.2.10;lr;ob>", OUTGOING),
        ("<sip:192.0.2.10;lr>", NOT_USED),
        ("<sip:bad@192.0.2.10;lr;ob>", NOT_USED),
    ]:
        msg = message(modules.phone(), "INVITE", f"Route: {route}")
        modules.rr.loose_route(msg)
        assert not msg.has(b"route")
        assert modules.ob.use_outbound(msg) is expected


def test_a_response_is_not_routed() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Route: <sip:192.0.2.10;lr>")
    msg.is_request = False
    assert modules.rr.record_route(msg) == -1
    assert modules.rr.loose_route(msg) == -1
