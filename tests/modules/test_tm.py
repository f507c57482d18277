"""Module tm: what a route can say and ask; what follows on the wire is in ``tests/tm``."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.errors import ConfigError
from tests.modules.conftest import SOURCE, Message, make
from tests.sim import Sim, answer, request


def edge(body: str, more: str = "") -> Sim:
    """An edge whose request_route, and what follows it, is ``body``."""
    return Sim(SOURCE.replace("{more}", more).replace("    pass\n", body))


def test_parameters_set_the_timers() -> None:
    lines = {"fr_timer": 5000, "fr_inv_timer": 60000, "fr_first_timer": 700,
             "retr_timer1": 50, "retr_timer2": 400, "wt_timer": 1000}  # fmt: skip
    sim = make("\n".join(f'modparam("tm", "{name}", {value})' for name, value in lines.items()))
    timers = sim.core.tm.timers
    assert (timers.fr, timers.fr_inv, timers.first_response) == (5.0, 60.0, 0.7)
    assert (timers.t1, timers.t2, timers.wait) == (0.05, 0.4, 1.0)


def test_an_invite_must_not_ring_shorter_than_it_may_be_silent() -> None:
    with pytest.raises(ConfigError, match="fr_inv_timer"):
        make('modparam("tm", "fr_inv_timer", 1000)')


def test_answers(sim: Sim, ksr: Any, message: Message) -> None:
    msg = message()
    assert ksr.tm.t_newtran(msg) == 1
    assert ksr.tm.t_reply(msg, 180, "Ringing") == 1
    assert ksr.tm.t_send_reply(msg, 486) == 1
    assert ksr.tm.t_reply(msg, 404) == -1
    assert ksr.tm.t_relay(msg) == -1
    sim.drain()
    assert [reply.status for reply in sim.udp().got] == [100, 180, 486]


def test_what_cannot_be_answered(ksr: Any, message: Message) -> None:
    assert ksr.tm.t_reply(message("ACK"), 404) == -1
    assert ksr.tm.t_newtran(message("ACK")) == -1
    assert ksr.tm.t_reply(message(), 99) == -1
    assert ksr.tm.t_check_trans(message()) == -1


def test_append_branch_and_clear_branches(ksr: Any, message: Message) -> None:
    msg = message()
    msg.dst_uri = b"sip:192.0.2.1"
    assert ksr.tm.append_branch(msg) == 1
    assert ksr.tm.append_branch(msg, "sip:carol@192.0.2.2", 0.5) == 1
    here, carol = msg.branches or []
    assert (here.uri, here.dst_uri, here.q) == (msg.ruri, b"sip:192.0.2.1", 1.0)
    assert (carol.uri, carol.dst_uri, carol.q) == (b"sip:carol@192.0.2.2", None, 0.5)
    assert ksr.tm.clear_branches(msg) == 1
    assert msg.branches is None


def test_routes_by_function_and_by_name(ksr: Any, message: Message) -> None:
    msg = message()

    def route(ksr: Any, msg: Any) -> None:
        """A route of a test."""

    assert ksr.tm.t_on_failure(msg, route) == ksr.tm.t_on_reply(msg, "request_route") == 1
    assert msg.on_failure is route
    assert callable(msg.on_reply)
    assert ksr.tm.t_on_branch(msg, "") == 1
    assert msg.on_branch is None
    with pytest.raises(ConfigError, match="no route 'nowhere'"):
        ksr.tm.t_on_branch(msg, "nowhere")


FAILURE = """    ksr.tm.t_on_failure(msg, "failed")
    ksr.tm.t_relay(msg)

def failed(ksr, msg):
    codes = [
        ksr.tm.t_branch_timeout(msg), ksr.tm.t_branch_replied(msg),
        ksr.tm.t_check_status(msg, "4[0-9]6"), ksr.tm.t_is_canceled(msg),
        ksr.pv.get(msg, "$T_reply_code"),
    ]
    ksr.tm.t_reply(msg, 499, " ".join(str(int(code)) for code in codes))
"""


def test_a_failure_route_asks_what_became_of_the_branch() -> None:
    sim = edge(FAILURE)
    sim.udp().send(request("INVITE"))
    bob = sim.udp("127.0.0.9")
    bob.send(answer(bob.take(), 486))
    final = [reply for reply in sim.udp().got if reply.status == 499]
    assert [reply.reason for reply in final] == [b"-1 1 1 -1 486"]


def test_a_failure_route_after_silence() -> None:
    sim = edge(FAILURE)
    sim.udp().send(request("INVITE"))
    sim.advance(40.0)
    final = [reply for reply in sim.udp().got if reply.status == 499]
    assert final[0].reason == b"1 -1 -1 -1 408"


def test_a_reply_route_may_ask_about_the_request() -> None:
    sim = edge(
        """    ksr.tm.t_on_reply(msg, "replied")
    ksr.tm.t_relay(msg)

def replied(ksr, msg):
    codes = [ksr.tm.t_is_canceled(msg), ksr.tm.t_check_status(msg, b"^48"),
             ksr.pv.get(msg, "$T_reply_code")]
    ksr.textops.append_hf(msg, "X-Codes: " + " ".join(str(int(code)) for code in codes))
"""
    )
    alice, bob = sim.udp(), sim.udp("127.0.0.9")
    alice.send(request("INVITE"))
    invite = bob.take()
    bob.send(answer(invite, 180))
    alice.send(request("CANCEL"))
    bob.send(answer(invite, 487))
    seen = {reply.status: reply.first(b"x-codes") for reply in alice.got}
    assert seen[180] == b"-1 -1 180"
    assert seen[487] == b"1 1 487"
