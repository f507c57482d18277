"""The order of answers, by itself; what becomes of them on the wire is in ``test_relay``."""

from __future__ import annotations

import pytest

from sipedge.forward import Target
from sipedge.sip.message import SipMessage
from sipedge.tm.answer import best_of, gather_challenges, rank
from sipedge.tm.client import ClientTx
from sipedge.tm.server import ServerTx
from tests.sim import Sim, answer, request


def transaction(*branches: ClientTx) -> ServerTx:
    sim = Sim()
    sim.udp().send(request(uri="sip:bob@127.0.0.9:5060"))
    (tx,) = sim.core.tm.servers.values()
    assert isinstance(tx, ServerTx)
    tx.branches = list(branches)
    return tx


def branch(status: int, answered: bool = True) -> ClientTx:
    tx = transaction()
    ctx = ClientTx(tx.tm, tx, Target(b"sip:bob@127.0.0.9"))
    ctx.status = status
    ctx.response = SipMessage([], []) if answered else None
    return ctx


@pytest.mark.rfc("PXP-04")
def test_the_order_of_statuses() -> None:
    falling = [603, 302, 401, 404, 503, 430]
    ranks = [rank(branch(status)) for status in falling]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
    assert rank(branch(407)) == rank(branch(484)) < rank(branch(486))
    # our own 408 says less than what anybody said, except that a server could not
    assert rank(branch(499)) < rank(branch(408, answered=False)) < rank(branch(500))


def test_no_branch_has_no_answer() -> None:
    assert best_of(transaction()) is None
    first, second = branch(404), branch(404)
    assert best_of(transaction(first, second)) is first


def test_challenges_are_only_gathered_for_a_challenge() -> None:
    sim = Sim()
    alice = sim.udp()
    alice.send(request(uri="sip:bob@127.0.0.9:5060"))
    bob = sim.udp("127.0.0.9")
    invite = bob.take()
    bob.send(answer(invite, 401, headers='WWW-Authenticate: Digest realm="a"\r\n'))
    first = alice.got[-1]
    other = branch(407)
    other.response = first
    busy = SipMessage([], [])  # nothing could be appended to it
    busy.status = 486
    gather_challenges(transaction(other), busy)
    assert busy.lines == []
    assert first.values(b"www-authenticate") == [b'Digest realm="a"']
