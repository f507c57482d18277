"""Module stun: there for the loadmodule line; STUN is answered with and without it."""

from __future__ import annotations

import pytest

from tests.sim import Sim

BINDING = bytes.fromhex("000100002112a442") + b"transaction1"


@pytest.mark.rfc("KA-07")
@pytest.mark.parametrize("line", ['loadmodule("stun")', ""])
def test_stun_is_answered_with_and_without_the_module(line: str) -> None:
    sim = Sim(f'listen("udp:127.0.0.1:5060")\n{line}\ndef request_route(ksr, msg): pass\n')
    peer = sim.udp("127.0.0.2", 5060)
    peer.send(BINDING)
    (reply,) = peer.raw
    assert reply[:2] == b"\x01\x01"
    assert reply[8:20] == b"transaction1"


def test_the_module_has_nothing_to_set_or_call() -> None:
    sim = Sim('listen("udp:127.0.0.1:5060")\nloadmodule("stun")\ndef request_route(k, m): pass\n')
    exports = sim.edge.modules["stun"].exports
    assert exports.functions == ()
    assert exports.params == ()
    assert exports.pseudo_variables == ()
