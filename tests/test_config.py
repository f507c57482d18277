"""The configuration file: what it may say, and where the finger points when it is wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sipedge.config import Edge, load_config, load_source
from sipedge.errors import ConfigError
from sipedge.hookspecs import hookimpl
from sipedge.module import Context, Function, ModuleExports, Param

ROUTE = "def request_route(ksr, msg): pass\n"
LISTEN = 'listen("udp:127.0.0.1:5060")\n'
GOOD = LISTEN + ROUTE


class Probe:
    """A module with a function, a parameter and a hot hook."""

    def __init__(self) -> None:
        self.params: Any = type("P", (), {"size": 5})()
        self.seen: list[object] = []
        self.exports = ModuleExports(
            "probe",
            functions=(Function("note", self.note),),
            params=(Param("size", int),),
        )

    def note(self, msg: Any, what: object) -> None:
        self.seen.append(what)

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self.seen.append((ctx.config.file, ctx.core.flows is ctx.flows))

    @hookimpl
    def request_in(self, msg: Any, now: float) -> None:
        self.seen.append("request_in")


def probed(text: str, **more: Any) -> Edge:
    return load_source(text, "edge.py", modules={"probe": Probe}, **more)


def refused(text: str | bytes, line: int | None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_source(text, "edge.py", modules={"probe": Probe})
    assert (caught.value.file, caught.value.line) == ("edge.py", line)
    return caught.value.message


# the file


def test_a_small_file_makes_an_edge() -> None:
    edge = probed(
        'listen("udp:127.0.0.1:5060", advertise="edge.example.com:5070")\n'
        'listen("tcp:[::1]:5061")\n'
        'alias("example.com", "example.net:5080")\n'
        "core.tcp_connection_lifetime = 30\n"
        "core.force_rport = False\n"
        'loadmodule("probe")\n'
        'modparam("probe", "size", 7)\n'
        "def request_route(ksr, msg): pass\n"
        "def reply_route(ksr, msg): pass\n"
        "def helper(a, b, c): pass\n"
    )
    assert [listener.name for listener in edge.config.listeners] == [
        "udp:127.0.0.1:5060",
        "tcp:[::1]:5061",
    ]
    assert edge.core.flows.listeners == list(edge.config.listeners)
    assert edge.config.listeners[0].uri_hostport == b"edge.example.com:5070"
    assert edge.config.listeners[1].source == ("edge.py", 2)
    assert edge.config.aliases == (("example.com", None), ("example.net", 5080))
    assert edge.core.tcp_connection_lifetime == 30
    assert edge.core.force_rport is False
    assert edge.modules["probe"].params.size == 7
    assert edge.core.request_route is edge.config.routes["request_route"]
    assert edge.core.reply_route is edge.config.routes["reply_route"]
    assert edge.config.routes["helper"].__name__ == "helper"
    assert edge.core.ksr is edge.ksr


def test_what_it_said_cannot_be_changed() -> None:
    config: Any = probed(GOOD).config
    with pytest.raises(AttributeError):
        config.file = "other"
    with pytest.raises(TypeError):
        config.routes["request_route"] = None


def test_mod_init_sees_the_whole_configuration() -> None:
    edge = probed(LISTEN + 'loadmodule("probe")\n' + ROUTE)
    probe: Any = edge.modules["probe"]
    assert probe.seen == [("edge.py", True)]


def test_hot_hooks_are_on_the_core() -> None:
    edge = probed(LISTEN + 'loadmodule("probe")\n' + ROUTE)
    probe: Any = edge.modules["probe"]
    assert edge.core.hooks_request_in == (probe.request_in,)
    assert edge.core.hooks_flow_closed == ()


def test_an_async_route_is_a_route() -> None:
    edge = probed(LISTEN + "async def request_route(ksr, msg): pass\n")
    assert edge.core.request_route is not None


def test_annotations_work_without_an_import() -> None:
    text = LISTEN + "def request_route(ksr: Ksr, msg: SipMessage) -> None: pass\n"
    assert probed(text).core.request_route is not None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("def f(:\n", 1, "SyntaxError"),
        (GOOD + "x = (\n", 3, "SyntaxError"),
        ("a = 1\n  b = 2\n", 2, "IndentationError"),
        (GOOD + "\nlisn('udp:127.0.0.1')\n", 4, "NameError: name 'lisn'"),
        (GOOD + "import no_such_thing\n", 3, "no_such_thing"),
        (GOOD + "1 / 0\n", 3, "ZeroDivisionError"),
        (GOOD + "raise SystemExit(3)\n", 3, "SystemExit"),
        (GOOD + "def f():\n    1 / 0\nf()\n", 4, "ZeroDivisionError"),
        (GOOD + "import json\njson.loads('{')\n", 4, "JSONDecodeError"),
        (GOOD + "listen()\n", 3, "TypeError"),
        (b"x = '\xff'\n", 1, "decode byte"),
        ("x = 1\0\n", 1, "null byte"),
        (LISTEN, None, "def request_route(ksr, msg):"),
        (ROUTE, None, "listen('udp:127.0.0.1:5060')"),
        (LISTEN + "def request_route(msg): pass\n", 2, "two arguments"),
        (LISTEN + "def request_route(ksr, msg, more): pass\n", 2, "two arguments"),
        (LISTEN + "def request_route(ksr, msg): yield\n", 2, "yield"),
        (LISTEN + "request_route = 5\n", None, "there is no request_route"),
        (GOOD + "\ndef reply_route(): pass\n", 4, "two arguments"),
        (GOOD + "failure_route = 5\n", None, "must be a function"),
    ],
)
def test_whatever_is_wrong_has_a_line(text: str | bytes, line: int | None, words: str) -> None:
    assert words in refused(text, line)


def test_an_error_in_a_helper_function_points_at_the_builder_call() -> None:
    text = LISTEN + ROUTE + "def more():\n    loadmodule('nope')\nmore()\n"
    assert "'nope'" in refused(text, 4)


def test_errors_print_as_compilers_do() -> None:
    with pytest.raises(ConfigError, match=r"^edge\.py:3: "):
        load_source(GOOD + "modparam('probe', 'size', 5)\n", "edge.py")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.py: cannot read the configuration: No such file"):
        load_config(tmp_path / "gone.py")


def test_load_config_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "edge.py"
    path.write_text(GOOD + f"assert __file__ == {str(path)!r}\n")
    assert load_config(path).config.file == str(path)


# after the freeze


@pytest.mark.parametrize(
    "call",
    [
        "loadmodule('probe')",
        "modparam('probe', 'size', 5)",
        "listen('udp:127.0.0.2:5060')",
        "alias('example.com')",
        "keyfile('x')",
    ],
)
def test_builder_functions_refuse_to_run_in_a_route(call: str) -> None:
    edge = probed(LISTEN + f"def request_route(ksr, msg):\n    {call}\n")
    with pytest.raises(ConfigError, match=r"^edge\.py:3: .* only while the configuration"):
        edge.config.routes["request_route"](edge.ksr, None)


def test_core_settings_refuse_to_change_in_a_route() -> None:
    edge = probed(LISTEN + "def request_route(ksr, msg):\n    core.force_rport = False\n")
    with pytest.raises(ConfigError, match="only while"):
        edge.config.routes["request_route"](edge.ksr, None)
    assert edge.core.force_rport is True


# core settings


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("core.tcp_conection_lifetime = 5", "no setting 'tcp_conection_lifetime'"),
        ("core.flows = 5", "no setting 'flows'"),
        ("core.tcp_connection_lifetime = '5'", "wants int or float, not str"),
        ("core.tcp_connection_lifetime = True", "wants int or float, not bool"),
        ("core.force_rport = 1", "wants bool, not int"),
        ("print(core.now)", "no setting 'now'"),
    ],
)
def test_core_settings_are_strict(line: str, words: str) -> None:
    assert words in refused(GOOD + line + "\n", 3)


def test_core_settings_can_be_read() -> None:
    probed(GOOD + "core.tcp_connection_lifetime = 7\nassert core.tcp_connection_lifetime == 7\n")


# the report


def test_the_report_shows_order_bindings_and_routes(caplog: pytest.LogCaptureFixture) -> None:
    class Giver(Probe):
        @hookimpl
        def mod_init(self, ctx: Context) -> None:
            self.exports = ModuleExports("giver")
            ctx.export("bind_it", self)

    class Taker(Probe):
        @hookimpl
        def mod_init(self, ctx: Context) -> None:
            ctx.find_export("bind_it")

    def giver() -> Any:
        module = Giver()
        module.exports = ModuleExports("giver")
        return module

    def taker() -> Any:
        module = Taker()
        module.exports = ModuleExports("taker")
        return module

    modules = {"giver": giver, "taker": taker}
    text = LISTEN + 'loadmodule("giver")\nloadmodule("taker")\n' + ROUTE
    report = load_source(text, "edge.py", modules=modules).report()
    assert "udp:127.0.0.1:5060" in report
    assert report.index(" 1 giver") < report.index(" 2 taker, bound to bind_it of giver")
    assert "request_route, line 4" in report
    assert not caplog.records

    text = LISTEN + 'loadmodule("taker")\nloadmodule("giver")\n' + ROUTE
    with caplog.at_level(logging.WARNING):
        report = load_source(text, "edge.py", modules=modules).report()
    assert "bound to" not in report
    assert "move loadmodule('giver') (line 3) above loadmodule('taker') (line 2)" in caplog.text


# the real modules

OUTBOUND = 'loadmodule("outbound")\nmodparam("outbound", "flow_token_key", b"k" * 20)\n'
USERS = 'loadmodule("rr")\nloadmodule("path")\n'


def test_rr_and_path_bind_to_outbound_loaded_before(caplog: pytest.LogCaptureFixture) -> None:
    edge = load_source(LISTEN + OUTBOUND + USERS + ROUTE)
    for name in ("rr", "path"):
        assert edge.loader.modules[name].bound["bind_ob"] == "outbound"
    assert "move loadmodule" not in caplog.text


def test_rr_and_path_do_not_bind_to_outbound_loaded_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    edge = load_source(LISTEN + USERS + OUTBOUND + ROUTE)
    for line, name in ((2, "rr"), (3, "path")):
        assert "bind_ob" not in edge.loader.modules[name].bound
        wanted = f"move loadmodule('outbound') (line 4) above loadmodule('{name}') (line {line})"
        assert wanted in caplog.text


def test_rr_and_path_work_without_outbound(caplog: pytest.LogCaptureFixture) -> None:
    edge = load_source(LISTEN + USERS + ROUTE)
    for name in ("rr", "path"):
        assert "bind_ob" not in edge.loader.modules[name].bound
    assert "move loadmodule" not in caplog.text
