"""Timers that do not go together are said at start-up."""

from __future__ import annotations

import logging

import pytest

from sipedge.config import load_source

SOURCE = """
listen("udp:127.0.0.1:5060")
{listen}
loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("registrar")
loadmodule("websocket")
modparam("outbound", "flow_token_key", b"johndoessecretphrase")
modparam("registrar", "flow_timer", {flow_timer})
modparam("websocket", "keepalive_timeout", {keepalive})
modparam("websocket", "keepalive_mechanism", {mechanism})
core.tcp_connection_lifetime = {lifetime}
def request_route(ksr, msg):
    pass
"""
STREAMS = 'listen("tcp:127.0.0.1:5060"); listen("ws:127.0.0.1:8080")'
NAMES = ("flow_timer", "keepalive_timeout", "tcp_connection_lifetime")


def warnings(
    flow_timer: int, keepalive: int, lifetime: float, listen: str = STREAMS, mechanism: int = 1
) -> list[str]:
    source = SOURCE.format(
        flow_timer=flow_timer,
        keepalive=keepalive,
        lifetime=lifetime,
        listen=listen,
        mechanism=mechanism,
    )
    return load_source(source, "edge.py").loader.warnings


@pytest.mark.parametrize(
    "values", [(25, 30, 35), (25, 30, 0), (25, 30, -1), (0, 30, 35), (0, 60, 120.5)]
)
def test_what_goes_together(values: tuple[int, int, float]) -> None:
    assert warnings(*values) == []


@pytest.mark.parametrize(
    ("values", "shorter", "longer"),
    [
        ((25, 30, 30), 1, 2),
        ((25, 30, 20), 1, 2),
        ((30, 30, 40), 0, 1),
        ((0, 60, 30), 1, 2),
    ],
)
def test_what_does_not(
    values: tuple[int, int, float], shorter: int, longer: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    [warning] = warnings(*values)
    assert warning.startswith("edge.py: ")
    assert warning.index(NAMES[shorter]) < warning.index(NAMES[longer])
    assert warning in caplog.text


def test_both_at_once() -> None:
    assert len(warnings(50, 40, 30)) == 2


def test_without_websockets_or_pings_the_other_two_are_compared() -> None:
    tcp = 'listen("tcp:127.0.0.1:5060")'
    assert warnings(25, 60, 35, tcp) == []
    assert warnings(25, 60, 35, mechanism=0) == []
    [warning] = warnings(40, 60, 35, tcp)
    assert NAMES[0] in warning
    assert NAMES[2] in warning


def test_over_udp_alone_nothing_is_closed() -> None:
    assert warnings(999, 60, 10, "") == []
