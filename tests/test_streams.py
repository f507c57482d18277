"""What ends a stream from within: silence, nothing to say, and messages that never end."""

from __future__ import annotations

import pytest

from sipedge.flow import TCP
from tests.sim import RELAY_ALL, Sim, request

OPTIONS = request("OPTIONS", max_forwards=0, via="SIP/2.0/TCP 127.0.0.2:40000")


def sim(**settings: float) -> Sim:
    lines = "".join(f"core.{name} = {value}\n" for name, value in settings.items())
    return Sim(RELAY_ALL + lines)


def test_chunks_become_messages_and_pings() -> None:
    world = sim()
    phone = world.tcp()
    phone.send(b"\r\n\r\n" + OPTIONS[:40])
    assert phone.raw == [b"\r\n"]
    phone.send(OPTIONS[40:])
    assert phone.take().status == 483
    assert world.core.stats["pings_answered"] == 1


def test_what_cannot_be_framed_ends_the_flow() -> None:
    world = sim()
    phone = world.tcp()
    phone.send(b"\x16\x03\x01")
    assert [flow for flow, _ in world.closed] == [phone.flow]
    phone.send(OPTIONS)
    assert phone.silent()


def test_a_flow_that_says_nothing_is_idle() -> None:
    world = sim(tcp_connection_lifetime=30)
    phone = world.tcp()
    phone.send(OPTIONS)
    world.advance(29.9)
    assert phone.flow.alive
    world.advance(0.2)
    assert world.closed == [(phone.flow, "idle")]


@pytest.mark.parametrize("lifetime", [0, -1])
def test_connections_may_live_for_ever(lifetime: int) -> None:
    world = sim(tcp_connection_lifetime=lifetime)
    phone = world.tcp()
    phone.send(OPTIONS)
    world.advance(1e6)
    assert phone.flow.alive


def test_no_timer_at_all() -> None:
    world = sim(tcp_connection_lifetime=0, tcp_msg_data_timeout=0, tcp_msg_read_timeout=0)
    phone = world.tcp()
    phone.send(OPTIONS[:10])
    world.advance(1e6)
    assert phone.flow.alive


@pytest.mark.rfc("TRN-18")
def test_keep_alives_alone_do_not_keep_a_connection_that_never_spoke() -> None:
    world = sim()
    phone, mute = world.tcp(), world.tcp("127.0.0.3")
    phone.send(OPTIONS)
    for _ in range(20):
        world.advance(5)
        for peer in (phone, mute):
            if peer.flow.alive:
                peer.send(b"\r\n\r\n")
    assert world.closed == [(mute.flow, "no message")]
    assert world.core.stats["pings_answered"] >= 20


def test_the_first_message_has_its_time() -> None:
    world = sim(tcp_msg_data_timeout=40)
    late, mute = world.tcp(), world.tcp("127.0.0.3")
    world.advance(39.5)
    late.send(OPTIONS)
    world.advance(30)
    assert late.flow.alive
    assert world.closed == [(mute.flow, "no message")]


def test_servers_that_we_dialed_may_be_silent() -> None:
    world = sim()
    core = world.core
    flow = core.flows.dial(world.listener(TCP), ("127.0.0.9", 5060))
    core.flow_opened(flow, world.now)
    world.advance(100)
    assert flow.alive


@pytest.mark.rfc("TRN-18")
def test_a_message_that_never_ends() -> None:
    world = sim()
    slow, other = world.tcp(), world.tcp("127.0.0.3")
    other.send(OPTIONS)
    slow.send(OPTIONS)
    began = world.now
    slow.send(OPTIONS[:1])
    for octet in range(1, 200):  # one octet every half second: alive, but to no purpose
        if slow.flow.alive:
            slow.send(OPTIONS[octet : octet + 1])
            world.advance(0.5)
    assert world.closed == [(slow.flow, "a message that does not end")]
    assert 20 <= world.now - began
    assert other.flow.alive


def test_slow_messages_that_end_are_fine() -> None:
    world = sim(tcp_msg_read_timeout=20)
    slow = world.tcp()
    for _ in range(3):
        slow.send(OPTIONS[:-1])
        world.advance(19)
        slow.send(OPTIONS[-1:])
        world.advance(15)
    assert slow.flow.alive


def test_a_layer_that_keeps_the_bounds_of_messages_says_when_one_began() -> None:
    world = sim()
    phone = world.tcp()
    phone.flow.spoke = True
    phone.flow.begun = world.now
    world.advance(31)
    assert world.closed == [(phone.flow, "a message that does not end")]
