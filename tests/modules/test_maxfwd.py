"""Module maxfwd: one hop counts once, whoever counts it."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.errors import ConfigError
from sipedge.sip.names import MAX_FORWARDS
from tests.modules.conftest import Message, make
from tests.sim import Sim, request


@pytest.mark.parametrize(
    ("before", "rc", "after"),
    [(70, 1, b"69"), (1, 1, b"0"), (0, -1, b"0"), (None, 2, b"10"), (255, 1, b"70")],
)
def test_process_maxfwd(
    ksr: Any, message: Message, before: int | None, rc: int, after: bytes
) -> None:
    msg = message(max_forwards=before)
    assert ksr.maxfwd.process_maxfwd(msg, 10) == rc
    assert msg.rows(MAX_FORWARDS) == [after]
    assert msg.max_forwards_done is (rc > 0)


def test_a_second_call_counts_nothing(ksr: Any, message: Message) -> None:
    msg = message(max_forwards=70)
    assert ksr.maxfwd.mf_process_maxfwd_header(msg, 10) == 1
    assert ksr.maxfwd.maxfwd_process(msg, 10) == 1
    assert msg.first(MAX_FORWARDS) == b"69"


def test_errors_are_minus_two(ksr: Any, message: Message) -> None:
    msg = message(max_forwards=None)
    assert ksr.maxfwd.process_maxfwd(msg, 256) == -2
    assert msg.first(MAX_FORWARDS) is None
    msg = message()
    msg.replace(msg.find(MAX_FORWARDS), b"many")
    assert ksr.maxfwd.process_maxfwd(msg, 10) == -2
    assert ksr.maxfwd.is_maxfwd_lt(msg, 10) == -3


def test_is_maxfwd_lt(ksr: Any, message: Message) -> None:
    msg = message(max_forwards=10)
    assert ksr.maxfwd.is_maxfwd_lt(msg, 11) == 1
    assert ksr.maxfwd.is_maxfwd_lt(msg, 10) == -1
    ksr.maxfwd.process_maxfwd(msg, 70)
    assert ksr.maxfwd.is_maxfwd_lt(msg, 10) == 1, "it looks at the lowered value"
    assert ksr.maxfwd.is_maxfwd_lt(message(max_forwards=None), 10) == -2


def test_max_limit_has_a_range() -> None:
    with pytest.raises(ConfigError, match="max_limit"):
        make('modparam("maxfwd", "max_limit", 256)')


RELAY = """
listen("udp:127.0.0.1:5060")
loadmodule("tm")
loadmodule("maxfwd")
modparam("maxfwd", "max_limit", 50)
def request_route(ksr, msg):
    {line}
    ksr.tm.t_relay(msg)
"""


@pytest.mark.rfc("PXF-02")
@pytest.mark.parametrize(
    ("line", "before", "after"),
    [
        ("pass", 70, b"69"),
        ("pass", None, b"70"),
        ("ksr.maxfwd.process_maxfwd(msg, 10)", 20, b"19"),
        ("ksr.maxfwd.process_maxfwd(msg, 10)", 70, b"50"),
        ("ksr.maxfwd.process_maxfwd(msg, 10)", None, b"10"),
    ],
)
def test_the_host_does_not_count_again(line: str, before: int | None, after: bytes) -> None:
    sim = Sim(RELAY.replace("{line}", line))
    sim.udp().send(request("OPTIONS", max_forwards=before))
    assert sim.udp("127.0.0.9").take().first(MAX_FORWARDS) == after
