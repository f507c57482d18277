"""What becomes of a flow: forged and truncated tokens, a dead flow, the second flow of a phone.

The token comes from the Record-Route of a call that went well before; then SIPp plays somebody who
puts a Route of his own choice into an INVITE.
"""

from __future__ import annotations

import pytest

from tests.peerlib.process import Crew
from tests.peerlib.sipedge import edge, registrar
from tests.peerlib.sipp import Agent
from tests.peerlib.ua import Phone
from tests.scenarios.play import SITES, TCP, UDP, Cast, changed, open_site, token_route

sites = pytest.mark.parametrize("site", SITES)


def called_once(cast: Cast, transport: str) -> Agent:
    """Bob's phone, after it registered and was called; both phones have left."""
    bob = cast.phone("callee_waits", "bob", transport=transport)
    bob.wait_log("registered")
    cast.phone("caller_hangs_up", "alice", "bob").finish()
    bob.finish()
    return bob


@sites
@pytest.mark.rfc("TOK-01", "TOK-05", "INC-05")
def test_forged_and_truncated_tokens_are_forbidden(site: str, crew: Crew) -> None:
    cast = Cast(crew, open_site(site, crew).at)
    bob = called_once(cast, UDP)
    token, route = token_route(bob.messages)
    middle = len(token) // 2
    forged = [changed(token, place) for place in (0, middle, -2, -1)]
    truncated = [token[:-1], token[1:], token[:middle], token[0]]
    with Phone("bob", cast.proxy, port=bob.local[1]) as victim:
        for bad in (*forged, *truncated):
            bad_route = route.replace(token, bad)
            cast.probe(bad_route, 403).finish()
        victim.silence(0.5)
        # the token as it was still works: it was the change that was refused
        probe = cast.probe(route, 486)
        victim.respond(victim.expect("INVITE"), 486, "Busy Here")
        victim.expect("ACK")
        probe.finish()


@sites
@pytest.mark.rfc("INC-04", "HPX-07", "HPX-08")
def test_a_dead_flow_is_430_and_nobody_is_dialed(site: str, crew: Crew) -> None:
    cast = Cast(crew, open_site(site, crew).at)
    bob = called_once(cast, TCP)
    _, route = token_route(bob.messages)
    with Phone("bob", None, "tcp", port=bob.local[1]) as listener:  # SIPp connects from its port
        listener.socket.listen()
        listener.socket.settimeout(0.5)
        cast.probe(route, 430).finish()
        cast.phone("caller_refused", "carol", "bob", status="480").finish()
        with pytest.raises(TimeoutError):
            listener.socket.accept()
    with Phone("bob", cast.proxy) as other:
        assert other.bindings() == []


@sites
@pytest.mark.parametrize("dead", ["newest", "oldest"])
@pytest.mark.rfc("HPX-02", "RGO-06")
def test_second_flow_rings_when_one_is_dead(site: str, dead: str, crew: Crew) -> None:
    cast = Cast(crew, open_site(site, crew).at)
    if dead == "oldest":
        cast.phone("flow", "bob", transport=TCP, reg_id=2).finish()
    bob = cast.phone("callee_hangs_up", "bob", reg_id=1)
    bob.wait_log("registered")
    if dead == "newest":
        cast.phone("flow", "bob", transport=TCP, reg_id=2).finish()
    alice = cast.phone("caller_waits", "alice", "bob")
    alice.finish()
    bob.finish()


@pytest.mark.rfc("HPX-04", "RGO-06")
def test_flow_through_a_second_edge_rings_when_the_first_edge_is_gone(crew: Crew) -> None:
    home = registrar(crew)
    first, second = edge(crew, home.address), edge(crew, home.address)
    cast = Cast(crew, second.at)
    bob = cast.phone("callee_waits", "bob", reg_id=1)
    bob.wait_log("registered")
    cast.phone("flow", "bob", reg_id=2, proxy=first.at).finish()
    first.kill()
    cast.phone("caller_hangs_up", "alice", "bob").finish()
    bob.finish()
