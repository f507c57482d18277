"""Module xlog: lines with variables, and nothing that a message could forge."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.modules.conftest import Message, arrived, make
from tests.sim import request


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "sipedge.route")
    return caplog


def test_variables_are_filled_in(
    ksr: Any, message: Message, lines: pytest.LogCaptureFixture
) -> None:
    assert ksr.xlog.xlog(message(), "L_ERR", "$rm from $si:$sp, $hdr(X-None) $$\n") == 1
    record = lines.records[-1]
    assert record.name == "sipedge.route"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "<script>: INVITE from 127.0.0.2:5060, <null> $"


@pytest.mark.parametrize(
    ("level", "number"),
    [
        ("L_ALERT", 50),
        ("L_CRIT", 50),
        ("err", 40),
        ("L_WARN", 30),
        ("l_notice", 25),
        ("L_INFO", 20),
        ("dbg", 10),
    ],
)
def test_levels(
    ksr: Any, message: Message, lines: pytest.LogCaptureFixture, level: str, number: int
) -> None:
    assert ksr.xlog.xlog(message(), level, "x") == 1
    assert lines.records[-1].levelno == number


@pytest.mark.parametrize(
    ("name", "number"),
    [("xdbg", 10), ("xinfo", 20), ("xnotice", 25), ("xwarn", 30), ("xerr", 40), ("xcrit", 50)],
)
def test_a_function_for_each_level(
    ksr: Any, message: Message, lines: pytest.LogCaptureFixture, name: str, number: int
) -> None:
    assert getattr(ksr.xlog, name)(message(), b"$rm") == 1
    assert lines.records[-1].levelno == number
    assert lines.records[-1].getMessage().endswith("INVITE")


def test_notice_has_a_name() -> None:
    make()
    assert logging.getLevelName(25) == "NOTICE"


def test_a_level_that_is_off_costs_nothing(
    ksr: Any, message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sipedge.route")
    assert ksr.xlog.xinfo(message(), "$no_such_variable is never looked at") == -1
    assert caplog.records == []


def test_a_level_that_does_not_exist(ksr: Any, message: Message) -> None:
    with pytest.raises(ValueError, match="no level 'loud'"):
        ksr.xlog.xlog(message(), "loud", "x")


def test_a_message_cannot_forge_a_line(
    ksr: Any, message: Message, lines: pytest.LogCaptureFixture
) -> None:
    msg = message()
    msg.append(b"x-evil", b"a\nERROR forged\x1b[31m\xff")
    ksr.xlog.xerr(msg, "$hdr(X-Evil)")
    text = lines.records[-1].getMessage()
    assert text == "<script>: a\\x0aERROR forged\\x1b[31m\\xff"


def test_prefix_and_buf_size(lines: pytest.LogCaptureFixture) -> None:
    sim = make('modparam("xlog", "prefix", "edge1: ")\nmodparam("xlog", "buf_size", 64)')
    sim.edge.ksr.xlog.xerr(arrived(sim, request()), "y" * 100)
    assert lines.records[-1].getMessage() == "edge1: " + "y" * 57
