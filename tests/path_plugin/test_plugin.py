"""Module path: result codes and parameters."""

from __future__ import annotations

import logging

import pytest

from path_plugin.plugin import PathPlugin
from sipedge.errors import ConfigError, SipError
from sipedge.flow import Flow, Listener
from tests.helpers import Modules, message, values

REG_ID = "Contact: <sip:bob@10.0.0.9>;reg-id=1"
PLAIN = "Contact: <sip:bob@10.0.0.9>"


def test_exports() -> None:
    exports = PathPlugin().exports
    assert [f.name for f in exports.functions] == [
        "add_path",
        "add_path_user",
        "add_path_received",
        "add_path_received_user",
    ]
    assert [p.name for p in exports.params] == [
        "use_received",
        "received_format",
        "received_name",
        "enable_r2",
        "without_support",
        "require_path",
    ]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"path__without_support": "maybe"}, "write one of: force"),
        ({"path__received_name": ""}, "is no name for a URI parameter"),
        ({"path__received_name": "a;b"}, "is no name for a URI parameter"),
        ({"path__use_received": 1}, 'write loadmodule("rr") above'),
    ],
)
def test_refuses_to_start(params: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match="path: ") as caught:
        Modules("path", "rr", **params)
    assert text in str(caught.value)


def test_use_received_with_rr_before_it() -> None:
    Modules("rr", "path", path__use_received=1)


def test_bound_only_if_outbound_was_loaded_before() -> None:
    for names, token in ((("outbound", "path"), 1), (("path", "outbound"), 0), (("path",), 0)):
        modules = Modules(*names)
        msg = message(modules.phone(), "REGISTER", REG_ID)
        assert modules.path.add_path(msg) == 1
        (value,) = values(modules.sent(msg, modules.from_core()), "Path")
        assert value.count("@") == value.count(";ob") == token


def test_add_path_user() -> None:
    modules = Modules("path")
    for user, params, expected in [
        ("inbound", "", "<sip:inbound@192.0.2.20:5060;lr>"),
        (b"a+b", b"x=1", "<sip:a+b@192.0.2.20:5060;lr;x=1>"),
        ("a%20b", ";x;ob", "<sip:a%20b@192.0.2.20:5060;lr;x;ob>"),
    ]:
        msg = message(modules.phone(), "REGISTER", PLAIN)
        assert modules.path.add_path_user(msg, user, params) == 1
        assert values(modules.sent(msg, modules.from_core()), "Path") == [expected]


@pytest.mark.parametrize(
    ("user", "params"),
    [("", ""), ("a@b", ""), ("a>b", ""), ("a%2", ""), ("a", "x>"), ("a", "x y"), ("a", "x\r\ny")],
)
def test_what_cannot_stand_in_a_uri(user: str, params: str) -> None:
    modules = Modules("path")
    msg = message(modules.phone(), "REGISTER", PLAIN)
    assert modules.path.add_path_user(msg, user, params) == -1
    assert modules.path.add_path_received_user(msg, user, params) == -1
    assert msg.late is None


def test_add_path_user_with_outbound_is_literal_and_warns_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    modules = Modules("outbound", "path")
    for _ in range(2):
        msg = message(modules.phone(), "REGISTER", REG_ID)
        with caplog.at_level(logging.WARNING):
            assert modules.path.add_path_user(msg, "inbound") == 1
        assert values(modules.sent(msg, modules.from_core()), "Path") == [
            "<sip:inbound@192.0.2.20:5060;lr>"
        ]
    assert caplog.text.count("use add_path") == 1


def test_add_path_received() -> None:
    modules = Modules("outbound", "path")
    phone = modules.tcp_phone()
    token = modules.token(phone)
    msg = message(phone, "REGISTER", REG_ID)
    assert modules.path.add_path_received(msg) == 1
    assert values(modules.sent(msg, modules.from_core()), "Path") == [
        f"<sip:{token}@192.0.2.20:5060;lr;received=sip:198.51.100.7:49152%3Btransport%3Dtcp;ob>"
    ]


def test_add_path_received_user_and_its_parameters() -> None:
    modules = Modules("path", path__received_format=1, path__received_name="Src")
    msg = message(modules.phone(), "REGISTER", PLAIN)
    assert modules.path.add_path_received_user(msg, "u", "x") == 1
    assert values(modules.sent(msg, modules.from_core()), "Path") == [
        "<sip:u@192.0.2.20:5060;lr;src=198.51.100.7~49152~1;x>"
    ]


@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("mode", ["force", "none", "421"])
def test_without_support(mode: str, supported: bool) -> None:
    modules = Modules("outbound", "path", path__without_support=mode)
    headers = [PLAIN, "k: PATH, 100rel"] if supported else [PLAIN, "Supported: 100rel"]
    msg = message(modules.phone(), "REGISTER", *headers)
    if mode == "421" and not supported:
        with pytest.raises(SipError) as caught:
            modules.path.add_path(msg)
        assert caught.value.status == 421
        assert caught.value.headers == ((b"Require", b"path"),)
        return
    assert modules.path.add_path(msg) == 1
    got = values(modules.sent(msg, modules.from_core()), "Path")
    if mode == "none" and not supported:
        assert got == []
    else:
        assert got == [f"<sip:{modules.token(modules.phone())}@192.0.2.20:5060;lr>"]
    outbound = message(modules.phone(), "REGISTER", REG_ID)  # reg-id: always
    assert modules.path.add_path(outbound) == 1
    assert values(modules.sent(outbound, modules.from_core()), "Path")[0].endswith(";lr;ob>")


@pytest.mark.parametrize(
    ("headers", "required"),
    [
        (["Supported: path"], ["path"]),
        (["Supported: path", "Require: gruu"], ["gruu", "path"]),
        (["Supported: path", "Require: Path"], ["Path"]),
        (["Supported: outbound"], []),
    ],
)
def test_require_path(headers: list[str], required: list[str]) -> None:
    modules = Modules("path", path__require_path=1)
    msg = message(modules.phone(), "REGISTER", PLAIN, *headers)
    modules.path.add_path(msg)
    assert values(modules.sent(msg, modules.from_core()), "Require") == required
    off = Modules("path")
    msg = message(off.phone(), "REGISTER", PLAIN, "Supported: path")
    off.path.add_path(msg)
    assert not msg.has(b"require")


def test_a_flow_without_a_name_is_refused() -> None:
    modules = Modules("outbound", "path")
    stranger = Flow(Listener(1, "192.0.2.99", 5060), ("198.51.100.7", 49152))
    msg = message(stranger, "REGISTER", REG_ID)
    with pytest.raises(SipError) as caught:
        modules.path.add_path(msg)
    assert caught.value.status == 500
    assert msg.late is None


def test_a_response_gets_no_path() -> None:
    modules = Modules("path")
    msg = message(modules.phone(), "REGISTER", PLAIN)
    msg.is_request = False
    assert modules.path.add_path(msg) == -1
