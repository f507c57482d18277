"""Kamailio 5.6 both ways round: its registrar behind our edge, its edge before our registrar.

The phones are SIPp's scenarios and, where a test must see single messages, scripted.
"""

from __future__ import annotations

import pytest

from tests.peerlib.kamailio import kamailio_edge, kamailio_registrar, secret_that_counts
from tests.peerlib.process import Crew
from tests.peerlib.sipedge import CORE, edge, registrar
from tests.peerlib.ua import Phone
from tests.scenarios.play import TCP, UDP, Cast

PAIRS = ("our edge, its registrar", "its edge, our registrar")

pairs = pytest.mark.parametrize("pair", PAIRS)
both_transports = pytest.mark.parametrize("transport", [UDP, TCP], ids=["udp", "tcp"])


def open_pair(pair: str, crew: Crew) -> tuple[str, int]:
    """Start a pair; where phones register and call."""
    if pair == PAIRS[0]:
        return edge(crew, kamailio_registrar(crew, CORE).address).at
    return kamailio_edge(crew, registrar(crew).address).at


@pairs
@both_transports
@pytest.mark.rfc("EPR-01", "EPR-03", "RGO-01", "RGO-04")
def test_register_refresh_and_fetch(pair: str, transport: str, crew: Crew) -> None:
    cast = Cast(crew, open_pair(pair, crew))
    phone = cast.phone("register", transport=transport)
    phone.finish()
    assert phone.messages.rpartition("SIP/2.0 200 OK")[2].count("+sip.instance") == 1


@pairs
@pytest.mark.parametrize("caller", [UDP, TCP], ids=["from_udp", "from_tcp"])
@pytest.mark.parametrize("callee", [UDP, TCP], ids=["to_udp", "to_tcp"])
@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.rfc("EPR-06", "INC-03", "INC-06", "INC-09", "OUT-01", "OUT-03", "OUT-04", "HPX-05")
def test_call_ends_from_either_side(
    pair: str, caller: str, callee: str, first: str, crew: Crew
) -> None:
    cast = Cast(crew, open_pair(pair, crew))
    called = "callee_waits" if first == "caller" else "callee_hangs_up"
    calling = "caller_hangs_up" if first == "caller" else "caller_waits"
    bob = cast.phone(called, "bob", transport=callee)
    bob.wait_log("registered")
    cast.phone(calling, "alice", "bob", transport=caller).finish()
    bob.finish()


@pairs
@both_transports
@pytest.mark.rfc("INC-10")
def test_cancel_while_it_rings(pair: str, transport: str, crew: Crew) -> None:
    cast = Cast(crew, open_pair(pair, crew))
    bob = cast.phone("callee_cancelled", "bob", transport=transport)
    bob.wait_log("registered")
    cast.phone("caller_cancels", "alice", "bob", transport=transport).finish()
    bob.finish()


@pytest.mark.rfc("INC-04", "HPX-02")
def test_its_registrar_tries_the_next_flow_when_our_edge_says_430(crew: Crew) -> None:
    """Kamailio sorts flows oldest first, so the dead one is registered before the other."""
    cast = Cast(crew, open_pair(PAIRS[0], crew))
    cast.phone("flow", "bob", transport=TCP, reg_id=2).finish()
    bob = cast.phone("callee_waits", "bob", reg_id=1)
    bob.wait_log("registered")
    cast.phone("caller_hangs_up", "alice", "bob").finish()
    bob.finish()


@pytest.mark.rfc("INC-03", "INC-04")
def test_our_edge_takes_over_its_tokens(crew: Crew) -> None:
    """Its edge goes, ours takes its address: a UDP phone rings without having noticed."""
    secret = "johndoessecretphrase"
    home = registrar(crew)
    its = kamailio_edge(crew, home.address, secret=secret)
    with (
        Phone("bob", its.at) as bob,
        Phone("carol", its.at, "tcp") as carol,
        Phone("alice", its.at) as alice,
    ):
        (path,) = bob.register().all("Path")
        assert path.startswith("<sip:")
        carol.register()
        its.program.stop()
        key = 'modparam("outbound", "flow_token_key", keyfile("flow_token.key"))\n'
        accept = f"""\
modparam("outbound", "accept_kamailio_tokens", 1)
modparam("outbound", "kamailio_flow_token_secret", "{secret_that_counts(secret)}")
"""
        edge(crew, home.address, port=its.at[1], more={key: key + accept})
        branch = alice.invite(bob.aor)
        invite = bob.expect("INVITE")
        assert invite.uri == bob.contact
        bob.respond(invite, 486, "Busy Here")
        alice.ack_failure(bob.aor, branch, alice.expect("486"))
        # carol's connection went with it; her token is authentic, so it is no 403 either
        branch = alice.invite(carol.aor)
        alice.ack_failure(carol.aor, branch, alice.expect("480"))
