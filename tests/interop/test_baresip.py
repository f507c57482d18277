"""baresip as the phone, over UDP and TCP, with SIP Outbound: both ends see a call begin and end.

What is easily lost is the BYE of the callee: with a registrar that hands out GRUUs, the caller's
Contact is ``sip:alice@example.com;gr=...``, without ``ob`` and without an address.  A pair of stock
Kamailios drops that BYE; an edge has to know the flow by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.peerlib.baresip import Baresip
from tests.peerlib.kamailio import kamailio_registrar
from tests.peerlib.process import Crew
from tests.peerlib.sipedge import CORE, all_in_one, edge, registrar

SITES: Final[dict[str, Callable[[Crew], tuple[str, int]]]] = {
    "our edge and registrar in one": lambda crew: all_in_one(crew).at,
    "our edge, our registrar": lambda crew: edge(crew, registrar(crew).address).at,
    "our edge, kamailio": lambda crew: edge(crew, kamailio_registrar(crew, CORE).address).at,
}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("transports", ["udp udp", "tcp tcp", "udp tcp"])
@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.rfc("RGO-04", "RGO-09", "INC-03", "INC-08", "INC-09", "OUT-03", "OUT-06")
def test_call(site: str, transports: str, first: str, crew: Crew) -> None:
    at = SITES[site](crew)
    calling, called = transports.split()
    alice = Baresip(crew, "alice", at, transport=calling)
    bob = Baresip(crew, "bob", at, transport=called)
    alice.registered()
    bob.registered()
    alice.call(bob)
    bob.answer()
    alice.in_call()
    bob.in_call()
    ends, sees = (alice, bob) if first == "caller" else (bob, alice)
    ends.hang_up()
    sees.call_ended()
    ends.call_ended()
