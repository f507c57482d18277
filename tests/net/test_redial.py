"""When a server that failed is dialed again; a storm of requests is no storm of connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest

from sipedge.flow import TCP, TLS, Flow, Listener
from sipedge.net.redial import FIRST_REST, FORGET, LONGEST_REST, MOST, Redial
from tests.helpers_net import PATIENCE, RunningEdge, receive, running_edge
from tests.net.fakes import FakeCore, FakeEdge, eventually


def flow_to(port: int = 5060, name: str = "", transport: int = TCP) -> Flow:
    listener = Listener(transport, "127.0.0.1", 5060)
    return Flow(listener, ("192.0.2.1", port), None, b"1", True, name)


def test_the_first_retry_comes_at_once_later_ones_after_longer_and_longer_rests() -> None:
    redial, flow = Redial(), flow_to()
    assert redial.rest(flow, 0.0) == 0
    redial.failed(flow, 10.0)
    assert redial.rest(flow, 10.0) == 0
    now, rests = 10.0, []
    for _ in range(12):
        redial.failed(flow, now)
        rests.append(redial.rest(flow, now))
        now += rests[-1]
        assert redial.rest(flow, now) == 0
    assert rests[:4] == [FIRST_REST, 2 * FIRST_REST, 4 * FIRST_REST, 8 * FIRST_REST]
    assert rests[-1] == LONGEST_REST == max(rests)


def test_a_rest_ends_however_many_requests_come_meanwhile() -> None:
    redial, flow = Redial(), flow_to()
    dials = []
    for tick in range(1000):
        now = tick / 10
        if not redial.rest(flow, now):
            dials.append(now)
        redial.failed(flow, now)  # what is not dialed fails as well
    rests = [round(b - a, 1) for a, b in pairwise(dials)]
    assert rests == [0.1, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_what_worked_begins_anew() -> None:
    redial, flow = Redial(), flow_to()
    for _ in range(5):
        redial.failed(flow, 0.0)
    redial.worked(flow)
    assert redial.rest(flow, 0.0) == 0
    redial.failed(flow, 0.0)
    assert redial.rest(flow, 0.0) == 0


def test_old_failures_do_not_count() -> None:
    redial, flow = Redial(), flow_to()
    for _ in range(5):
        redial.failed(flow, 0.0)
    redial.failed(flow, FORGET + 1)
    assert redial.rest(flow, FORGET + 1) == 0


def test_servers_are_told_apart_by_address_transport_and_name() -> None:
    redial = Redial()
    for _ in range(2):
        redial.failed(flow_to(5061, "core.example.com", TLS), 0.0)
    assert redial.rest(flow_to(5061, "CORE.example.com", TLS), 0.0) > 0
    assert redial.rest(flow_to(5061, "other.example.com", TLS), 0.0) == 0
    assert redial.rest(flow_to(5061), 0.0) == 0


def test_it_remembers_so_many() -> None:
    redial = Redial()
    for _ in range(2):
        redial.failed(flow_to(1), 0.0)
    for port in range(2, MOST + 2):
        redial.failed(flow_to(port), 0.0)
    assert redial.rest(flow_to(1), 0.0) == 0
    assert len(redial._failures) == MOST


# in the server


@pytest.fixture
def server() -> Iterator[RunningEdge]:
    with running_edge(FakeEdge(FakeCore(Listener(TCP, "127.0.0.1", 0)))) as running:
        yield running


def send(server: RunningEdge, to: tuple[str, int]) -> Flow:
    core = server.core

    def act() -> Flow:
        flow: Flow = core.flows.dial(server.listener(TCP), to)
        core.send(b"x", flow)
        server.server.drain(0.0)
        return flow

    return server.call(act)


def test_a_server_that_refuses_is_left_alone(server: RunningEdge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        to = gone.getsockname()
    for number in range(1, 11):
        send(server, to)
        server.core.wait_for("closed", number)
    reasons = [event[2] for event in server.core.wait_for("closed", 10)]
    assert reasons[0] == reasons[1] == "connecting failed: connection refused"
    assert reasons[9] == "not connected: it failed a moment ago"
    assert server.core.stats["dials_rested"] >= 5


def test_a_server_that_closes_at_once_is_one_that_failed(server: RunningEdge) -> None:
    """TLS 1.3, for one: a server that does not like our certificate says so after the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        for number in range(1, 3):
            send(server, there.getsockname())
            there.accept()[0].close()
            server.core.wait_for("closed", number)
        send(server, there.getsockname())
        assert "a moment ago" in server.core.wait_for("closed", 3)[-1][2]


def test_a_server_that_has_answered_is_dialed_again_at_once(server: RunningEdge) -> None:
    def heard(data: bytes, flow: Flow) -> None:
        flow.spoke = True  # as the core does

    server.core.on_receive = heard
    with socket.create_server(("127.0.0.1", 0)) as there:
        for number in range(1, 6):
            flow = send(server, there.getsockname())
            peer = there.accept()[0]
            assert receive(peer, 1) == b"x"
            peer.sendall(b"200")
            eventually(lambda flow=flow: flow.spoke)
            peer.close()
            server.core.wait_for("closed", number)
    assert server.core.stats["dials_rested"] == 0


def test_a_connection_that_we_close_ourselves_has_not_failed(server: RunningEdge) -> None:
    """The core, which closes idle ones, has forgotten the flow when net closes the connection."""

    def heard(data: bytes, flow: Flow) -> None:
        flow.spoke = True
        flow.framer = None
        server.core.to_close.append((flow, "idle"))

    server.core.on_receive = heard
    with socket.create_server(("127.0.0.1", 0)) as there:
        there.settimeout(PATIENCE)
        for number in range(1, 6):
            send(server, there.getsockname())
            with there.accept()[0] as peer:
                assert receive(peer, 1) == b"x"
                peer.sendall(b"200")
                server.core.wait_for("closed", number)
    assert server.core.stats["dials_rested"] == 0
