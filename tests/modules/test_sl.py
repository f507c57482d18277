"""Module sl: one final answer a request, whoever gives it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.modules.conftest import Message
from tests.sim import Sim


@pytest.mark.parametrize("name", ["send_reply", "sl_send_reply"])
def test_answers(sim: Sim, ksr: Any, message: Message, name: str) -> None:
    msg = message("MESSAGE")
    assert getattr(ksr.sl, name)(msg, 404, "Nobody") == 1
    sim.drain()
    reply = sim.udp().take()
    assert (reply.status, reply.reason) == (404, b"Nobody")
    assert reply.to_tag


def test_reasons_of_the_standard(sim: Sim, ksr: Any, message: Message) -> None:
    ksr.sl.send_reply(message(), 486)
    sim.drain()
    assert sim.udp().take().reason == b"Busy Here"


def test_there_is_one_final_answer(sim: Sim, ksr: Any, message: Message) -> None:
    msg = message()
    assert ksr.sl.send_reply(msg, 100) == 1
    assert ksr.sl.send_reply(msg, 404, b"Not Found") == 1
    assert ksr.sl.send_reply(msg, 403) == -1
    assert ksr.sl.sl_reply_error(msg) == -1
    sim.drain()
    assert [reply.status for reply in sim.udp().got] == [100, 404]


def test_error(sim: Sim, ksr: Any, message: Message) -> None:
    assert ksr.sl.sl_reply_error(message()) == 1
    sim.drain()
    assert sim.udp().take().status == 500


def test_an_ack_is_never_answered(sim: Sim, ksr: Any, message: Message) -> None:
    assert ksr.sl.send_reply(message("ACK"), 404) == -1
    sim.drain()
    assert sim.udp().silent()


@pytest.mark.parametrize("code", [0, 99, 700])
def test_codes_out_of_range(sim: Sim, ksr: Any, message: Message, code: int) -> None:
    assert ksr.sl.send_reply(message(), code) == -1
    assert sim.core.sends() == []
