"""Pseudo-variables of rr."""

from __future__ import annotations

import pytest

from sipedge.sip.message import SipMessage
from tests.helpers import Modules, message


def pv(modules: Modules, msg: SipMessage, name: str, key: str | None = None) -> object:
    table = {variable.name: variable for variable in modules.rr.exports.pseudo_variables}
    return table[name].get(msg, key)


def test_route_uri_before_and_after_loose_route() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Route: <sip:192.0.2.10;lr;x>, <sip:other;lr>")
    assert pv(modules, msg, "route_uri") == b"sip:192.0.2.10;lr;x"
    modules.rr.loose_route(msg)
    assert pv(modules, msg, "route_uri") == b"sip:192.0.2.10;lr;x"


def test_route_uri_without_own_routes() -> None:
    modules = Modules("rr")
    msg = message(modules.phone(), "INVITE", "Route: <sip:other;lr>")
    modules.rr.loose_route(msg)
    assert pv(modules, msg, "route_uri") == b"sip:other;lr"
    assert pv(modules, message(modules.phone()), "route_uri") is None
    msg.replace(msg.find(b"route"), b"nonsense")
    assert pv(modules, msg, "route_uri") is None


@pytest.mark.parametrize(
    ("from_tag", "to_tag", "fti", "tti", "number", "name"),
    [
        ("caller", "callee", b"caller", b"callee", 1, b"downstream"),
        ("callee", "caller", b"caller", b"callee", 2, b"upstream"),
    ],
)
def test_tags_and_direction(
    from_tag: str, to_tag: str, fti: bytes, tti: bytes, number: int, name: bytes
) -> None:
    modules = Modules("rr")
    route = "Route: <sip:192.0.2.10;lr;ftag=caller>"
    msg = message(modules.phone(), "BYE", route, from_tag=from_tag, to_tag=to_tag)
    modules.rr.loose_route(msg)
    assert pv(modules, msg, "fti") == fti
    assert pv(modules, msg, "tti") == tti
    assert pv(modules, msg, "rdir", "id") == number
    assert pv(modules, msg, "rdir", "name") == name
    assert pv(modules, msg, "rdir", "other") is None
    assert pv(modules, msg, "rdir") is None


def test_first_request_has_no_to_tag() -> None:
    modules = Modules("rr")
    msg = message(modules.phone())
    assert pv(modules, msg, "fti") == b"caller"
    assert pv(modules, msg, "tti") is None
    assert pv(modules, msg, "rdir", "id") == 1
