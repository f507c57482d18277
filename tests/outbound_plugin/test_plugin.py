"""Module outbound: its key, its parameters, its one function."""

from __future__ import annotations

import logging

import pytest

from outbound_plugin.api import GONE, VALID, ObBinds, ob_load_api
from outbound_plugin.plugin import OutboundPlugin
from sipedge.errors import ConfigError
from sipedge.flow import FlowTable
from tests.helpers import KEY, FakeContext, Modules, message

OLD = b"an older key, 20 oct"
VECTOR = "VzUIUR8dzuOrVQHAAAIKE8TGM2QHwAA="
SECRET_VECTOR = "YbF7/cGcN5pRMAHAAAIKE8TGM2QHwAA="
EMPTY_SECRET_VECTOR = "iDkjr1jtcbd1mQHAAAIKE8TGM2QHwAA="


def start(key: object) -> ObBinds:
    plugin = OutboundPlugin()
    plugin.params.flow_token_key = key  # type: ignore[assignment]
    context = FakeContext(FlowTable(), {})
    context.module = "outbound"
    plugin.mod_init(context)
    api = ob_load_api(context)
    assert api is not None
    return api


@pytest.mark.parametrize(
    "key",
    [KEY, KEY.decode(), [KEY], (KEY, OLD), [KEY.decode(), OLD], "ééééé!!!!!!!!!!", bytes(20)],
)
def test_keys_of_twenty_octets(key: object) -> None:
    assert isinstance(start(key), ObBinds)


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        b"",
        KEY[:19],
        KEY + b"!",
        "éééééééééééééééééééé",  # 20 characters, 40 octets
        12345678901234567890,
        [],
        (),
        [KEY, KEY[:19]],
        [KEY, None],
        [KEY, 7],
    ],
)
def test_any_other_key_refuses_to_start_and_says_how_to_make_one(key: object) -> None:
    with pytest.raises(ConfigError) as caught:
        start(key)
    text = str(caught.value)
    assert "outbound: flow_token_key" in text
    assert "sipedge keygen > flow_token.key" in text
    assert 'modparam("outbound", "flow_token_key", keyfile("flow_token.key"))' in text


def test_the_error_names_the_length_but_not_the_key() -> None:
    with pytest.raises(ConfigError, match="expected 20 octets, got 19") as caught:
        start(KEY[:19])
    assert "Kamailio" not in str(caught.value)


def test_exports() -> None:
    exports = OutboundPlugin().exports
    assert exports.name == "outbound"
    assert [f.name for f in exports.functions] == ["check_flow_token"]
    ranges = {p.name: (p.low, p.high) for p in exports.params}
    assert ranges["force_outbound_flag"] == ranges["force_no_outbound_flag"] == (-1, 31)


def check(modules: Modules, *headers: str) -> int:
    msg = message(modules.from_core(), "INVITE", *headers)
    before = msg.to_bytes()
    code = modules.outbound.check_flow_token(msg)
    assert msg.to_bytes() == before
    return int(code)


def test_check_flow_token_codes() -> None:
    modules = Modules("outbound")
    token = modules.token(modules.phone())
    assert check(modules, f"Route: <sip:{token}@192.0.2.10;lr;ob>, <sip:x@y;lr>") == 1
    assert check(modules) == -1
    assert check(modules, f"Route: <sip:{token}@192.0.2.99;lr>") == -2
    assert check(modules, "Route: <sip:192.0.2.10;lr>") == -3
    assert check(modules, f"Route: <sip:{token[:-1]}@192.0.2.10;lr>") == -3
    assert check(modules, f"Route: <sip:{token[:-1]}!@192.0.2.10;lr>") == -4
    assert check(modules, f"Route: <sip:{VECTOR}@192.0.2.10;lr>") == -3
    stream = modules.tcp_phone()
    route = f"Route: <sip:{modules.token(stream)}@192.0.2.10;lr>"
    assert check(modules, route) == 1
    modules.flows.closed(stream)
    assert check(modules, route) == -5


def test_check_flow_token_of_an_unknown_key() -> None:
    before = Modules("outbound", outbound__flow_token_key=OLD)
    token = before.token(before.phone())
    assert check(Modules("outbound"), f"Route: <sip:{token}@192.0.2.10;lr>") == -5


def test_check_flow_token_with_a_route_that_cannot_be_parsed() -> None:
    modules = Modules("outbound")
    msg = message(modules.from_core(), "INVITE", "Route: <sip:a@192.0.2.10;lr>")
    msg.replace(msg.find(b"route"), b"<sip:@>")
    assert modules.outbound.check_flow_token(msg) == -7


def test_older_keys_are_accepted_and_the_first_one_signs() -> None:
    before = Modules("outbound", outbound__flow_token_key=OLD)
    old_token = before.token(before.phone()).encode()
    modules = Modules("outbound", outbound__flow_token_key=[KEY, OLD])
    assert modules.ob.decode_flow_token(old_token)[0] is VALID
    fresh = modules.token(modules.phone()).encode()
    after = Modules("outbound")
    assert after.ob.decode_flow_token(fresh)[0] is VALID
    assert after.ob.decode_flow_token(old_token)[0] is GONE


def test_kamailio_tokens_when_asked_for() -> None:
    modules = Modules(
        "outbound",
        outbound__accept_kamailio_tokens=1,
        outbound__kamailio_flow_token_secret="johndoessecretphrase",
    )
    for token, code in [(VECTOR, 1), (SECRET_VECTOR, 1), (EMPTY_SECRET_VECTOR, -4)]:
        assert check(modules, f"Route: <sip:{token}@192.0.2.10;lr;ob>") == code
    own = modules.token(modules.phone())
    assert check(modules, f"Route: <sip:{own}@192.0.2.10;lr>") == 1


def test_the_public_key_of_kamailio_5_6_needs_an_empty_secret_and_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = {"outbound__accept_kamailio_tokens": 1}
    route = f"Route: <sip:{EMPTY_SECRET_VECTOR}@192.0.2.10;lr>"
    with caplog.at_level(logging.WARNING):
        assert check(Modules("outbound", **asked), route) == -4
        assert not caplog.records
        assert check(Modules("outbound", **asked, outbound__kamailio_flow_token_secret=""), route)
    assert "can forge tokens" in caplog.text


def test_a_secret_without_the_switch_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Modules("outbound", outbound__kamailio_flow_token_secret="x")
    assert "does nothing without accept_kamailio_tokens" in caplog.text
