"""``ksr``: what routes call, and what is found out about their calls before anything runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sipedge.config import Edge, load_source
from sipedge.errors import ConfigError
from sipedge.flow import Flow
from sipedge.ksr import Ksr
from sipedge.module import REQUEST_ROUTE, Function, ModuleExports
from sipedge.settings import SETTINGS
from sipedge.sip.message import SipMessage, parse

ROUTE = "def request_route(ksr, msg): pass\n"
LISTEN = 'listen("udp:127.0.0.1:5060")\n'


class Probe:
    """A module with a function for every route and one for request routes."""

    def __init__(self) -> None:
        self.params = None
        self.seen: list[object] = []
        self.exports = ModuleExports(
            "probe",
            functions=(
                Function("note", self.note),
                Function("early", self.note, REQUEST_ROUTE),
            ),
        )

    def note(self, msg: Any, what: object) -> None:
        self.seen.append(what)


def probed(text: str) -> Edge:
    return load_source(text, "edge.py", modules={"probe": Probe})


def refused(text: str, line: int) -> str:
    with pytest.raises(ConfigError) as caught:
        probed(text)
    assert (caught.value.file, caught.value.line) == ("edge.py", line)
    return caught.value.message


def calling(*lines: str, route: str = "request_route") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    text = LISTEN + 'loadmodule("probe")\n' + f"def {route}(ksr, msg):\n" + body
    return text if route == "request_route" else text + ROUTE


def test_a_function_of_a_module_is_the_bound_method_itself() -> None:
    edge = probed(calling("ksr.probe.note(msg, 5)"))
    probe: Any = edge.modules["probe"]
    edge.config.routes["request_route"](edge.ksr, None)
    assert probe.seen[-1] == 5
    assert edge.ksr.probe.note == probe.note


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        (("pass", "ksr.tm.t_relay(msg)"), 5, "add loadmodule('tm')"),
        (("ksr.probe.nota(msg)",), 4, "did you mean 'note'"),
        (("ksr.nothing",), 4, "add loadmodule('nothing')"),
        (("ksr._core.stats",), 4, "_core"),
        (("if True:", "  for x in [ksr.probe.no for _ in '']: pass"), 5, "no function 'no'"),
    ],
)
def test_unknown_names_are_found_before_anything_runs(
    lines: tuple[str, ...], line: int, words: str
) -> None:
    assert words in refused(calling(*lines), line)


def test_functions_are_legal_only_in_their_routes() -> None:
    probed(calling("ksr.probe.early(msg, 1)"))
    probed(calling("ksr.probe.early(msg, 1)", route="helper"))
    for route in ("reply_route", "failure_route", "branch_route"):
        message = refused(calling("ksr.probe.early(msg, 1)", route=route), 4)
        assert f"is not for a {route}; only for: request_route" in message
        probed(calling("ksr.probe.note(msg, 1)", route=route))


def test_unknown_names_are_refused_at_run_time_too() -> None:
    ksr: Any = probed(calling("pass")).ksr
    with pytest.raises(ConfigError, match=r"add loadmodule\('rr'\)"):
        _ = ksr.rr
    with pytest.raises(ConfigError, match="has no function 'nothing'"):
        _ = ksr.probe.nothing
    with pytest.raises(AttributeError):
        _ = ksr.__nothing__


# the functions of the core

REQUEST = (
    b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK1\r\n"
    b"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n"
)


@pytest.fixture
def edge() -> Edge:
    return load_source(LISTEN + 'alias("example.com")\n' + ROUTE)


@pytest.fixture
def ksr(edge: Edge) -> Ksr:
    return edge.ksr


@pytest.fixture
def msg(edge: Edge) -> SipMessage:
    msg = parse(REQUEST)
    msg.flow = edge.core.flows.udp(edge.config.listeners[0], ("127.0.0.2", 5060))
    return msg


def test_flags_are_bits(ksr: Ksr, msg: SipMessage) -> None:
    assert not ksr.isflagset(msg, 0)
    assert ksr.setflag(msg, 0)
    assert ksr.setflag(msg, 31)
    assert msg.flags == 1 << 31 | 1
    assert ksr.isflagset(msg, 0)
    assert ksr.isflagset(msg, 31)
    assert not ksr.isflagset(msg, 30)
    assert ksr.resetflag(msg, 0)
    assert msg.flags == 1 << 31
    for call in (ksr.setflag, ksr.resetflag, ksr.isflagset):
        for number in (-1, 32):
            assert call(msg, number) == -1
    assert msg.flags == 1 << 31


@pytest.mark.parametrize("uri", [b"sip:carol@192.0.2.9", "sip:carol@192.0.2.9"])
def test_seturi_writes_the_start_line(ksr: Ksr, msg: SipMessage, uri: bytes | str) -> None:
    assert ksr.seturi(msg, uri) == 1
    assert msg.ruri == b"sip:carol@192.0.2.9"
    assert msg.to_bytes().startswith(b"INVITE sip:carol@192.0.2.9 SIP/2.0\r\nVia")


@pytest.mark.parametrize(
    "uri", ["", "carol", "sip:", "sip:a@b\r\nX: y", "sip:a@b SIP/2.0", "sip:a b@c", "sip:a\0@b"]
)
def test_what_is_no_uri_changes_nothing(ksr: Ksr, msg: SipMessage, uri: str) -> None:
    assert ksr.seturi(msg, uri) == -1
    assert ksr.setdsturi(msg, uri) == -1
    assert msg.to_bytes() == REQUEST
    assert msg.dst_uri is None


def test_a_response_has_no_request_uri(ksr: Ksr) -> None:
    response = parse(REQUEST.replace(b"INVITE sip:bob@example.com SIP/2.0", b"SIP/2.0 200 OK"))
    assert ksr.seturi(response, "sip:carol@192.0.2.9") == -1
    assert response.lines[0] == b"SIP/2.0 200 OK"


def test_setdsturi_wins_over_a_flow_and_resetdsturi_takes_it_back(
    ksr: Ksr, msg: SipMessage
) -> None:
    msg.dst_flow = msg.flow
    assert ksr.setdsturi(msg, "sip:192.0.2.9;transport=tcp") == 1
    assert msg.dst_uri == b"sip:192.0.2.9;transport=tcp"
    flow: Flow | None = msg.dst_flow
    assert flow is None
    assert msg.ruri == b"sip:bob@example.com"
    msg.dst_flow = msg.flow
    assert ksr.resetdsturi(msg) == 1
    assert (msg.dst_uri, msg.dst_flow) == (None, None)


def test_is_myself(ksr: Ksr) -> None:
    for uri in ("sip:127.0.0.1", b"sip:x@127.0.0.1:5060;lr", "sip:bob@EXAMPLE.com:5099"):
        assert ksr.is_myself(uri)
    for uri in ("sip:127.0.0.1:5061", "sip:example.net", "tel:+123", "", b"\xff", "sip:[::1"):
        assert not ksr.is_myself(uri)


def test_drop_marks_the_message(ksr: Ksr, msg: SipMessage) -> None:
    assert ksr.drop(msg) == 1
    assert msg.drop is True


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("dbg", logging.DEBUG),
        ("info", logging.INFO),
        ("warn", logging.WARNING),
        ("err", logging.ERROR),
    ],
)
def test_log_functions(ksr: Ksr, caplog: pytest.LogCaptureFixture, name: str, level: int) -> None:
    with caplog.at_level(logging.DEBUG, "sipedge.route"):
        getattr(ksr, name)("%s is %d", "five", 5)
        getattr(ksr, name)("100 %")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (level, "five is 5"),
        (level, "100 %"),
    ]


def test_the_manual_names_every_function_of_the_core_and_of_the_file(edge: Edge) -> None:
    manual = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    for name in vars(Ksr):
        assert name.startswith("_") or f"`ksr.{name}(" in manual, name
    for name in ("listen", "alias", "loadmodule", "modparam", "keyfile"):
        assert f"{name}(" in manual, name
    for param in SETTINGS:
        row = next(line for line in manual.splitlines() if f"`core.{param.name}`" in line)
        value = getattr(edge.core, param.name)
        assert (f'`"{value}"`' if isinstance(value, str) else f"`{value}`") in row
