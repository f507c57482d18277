"""Our edge alone, between a SIPp phone and a SIPp that plays home proxy and registrar.

The home side routes by what the edge itself put into Path and Record-Route, and by nothing else.
"""

from __future__ import annotations

import re

import pytest

from tests.peerlib.process import Crew
from tests.peerlib.sipedge import edge
from tests.peerlib.sipp import Agent
from tests.peerlib.ua import Phone
from tests.scenarios.play import TCP, UDP, Cast, changed

both_transports = pytest.mark.parametrize("transport", [UDP, TCP], ids=["udp", "tcp"])


def scene(crew: Crew, home: str) -> tuple[Cast, Agent]:
    """The cast, and the home side playing ``home`` behind a fresh edge."""
    cast = Cast(crew)
    server = cast.home(home)
    cast.proxy = edge(crew, server.address).at
    return cast, server


@both_transports
@pytest.mark.parametrize(
    ("home", "phone"),
    [
        ("home_hangs_up", "callee_waits"),
        ("home_waits", "callee_hangs_up"),
        ("home_cancels", "callee_cancelled"),
        ("home_called_waits", "caller_hangs_up"),
        ("home_called_hangs_up", "caller_waits"),
    ],
)
@pytest.mark.rfc("EPR-01", "EPR-03", "INC-03", "INC-06", "INC-10", "OUT-01", "OUT-03", "OUT-04")
def test_calls(home: str, phone: str, transport: str, crew: Crew) -> None:
    cast, server = scene(crew, home)
    bob = cast.phone(phone, "bob", "alice", transport=transport)
    bob.finish()
    server.finish()


@both_transports
@pytest.mark.rfc("EPR-02")
def test_register_and_refresh(transport: str, crew: Crew) -> None:
    cast, server = scene(crew, "registrar_refresh")
    bob = cast.phone("register", transport=transport)
    bob.finish()
    server.finish()
    # the same flow is the same token, in the refresh too
    tokens = re.findall(r"^Path: <sip:([^@]+)@.*;ob>$", server.messages, re.MULTILINE)
    assert len(tokens) > 1
    assert len(set(tokens)) == 1
    assert "Flow-Timer: " in bob.messages


def registered(crew: Crew, transport: str) -> tuple[Cast, Agent, str]:
    """A phone that registered and left: the cast, the phone, and its Path."""
    cast, server = scene(crew, "registrar")
    bob = cast.phone("flow", "bob", transport=transport)
    bob.finish()
    server.finish()
    path = re.search(r"^Path: (.*)$", server.messages, re.MULTILINE)
    assert path
    return cast, bob, path[1]


@pytest.mark.rfc("TOK-01", "TOK-05", "INC-05")
def test_forged_and_truncated_path_tokens(crew: Crew) -> None:
    cast, bob, path = registered(crew, UDP)
    token = path.partition("sip:")[2].partition("@")[0]
    with Phone("bob", cast.proxy, port=bob.local[1]) as victim:
        forged = [changed(token, place) for place in range(len(token))]
        truncated = [token[:length] for length in (1, 8, len(token) - 4, len(token) - 1)]
        for bad in (*forged, *truncated):
            bad_path = path.replace(token, bad)
            cast.probe(bad_path, 403, home=True).finish()
        victim.silence(0.5)
        probe = cast.probe(path, 486, home=True)
        victim.respond(victim.expect("INVITE"), 486, "Busy Here")
        victim.expect("ACK")
        probe.finish()


@pytest.mark.rfc("INC-04")
def test_dead_flow(crew: Crew) -> None:
    cast, bob, path = registered(crew, TCP)
    with Phone("bob", None, "tcp", port=bob.local[1]) as listener:  # SIPp connects from its port
        listener.socket.listen()
        listener.socket.settimeout(0.5)
        cast.probe(path, 430, home=True).finish()
        with pytest.raises(TimeoutError):
            listener.socket.accept()


@pytest.mark.rfc("INC-13")
def test_dead_udp_flow(crew: Crew) -> None:
    """Nobody has the port any more: ICMP says so, and the home side need not wait."""
    cast, _, path = registered(crew, UDP)
    cast.probe(path, 430, home=True).finish()


@pytest.mark.rfc("INC-04", "TOK-02")
def test_second_flow_rings_when_the_other_is_dead(crew: Crew) -> None:
    cast, server = scene(crew, "home_failover")
    bob = cast.phone("callee_waits", "bob", reg_id=1)
    bob.wait_log("registered")
    cast.phone("flow", "bob", transport=TCP, reg_id=2).finish()
    cast.phone("go", "bob").finish()
    bob.finish()
    server.finish()
