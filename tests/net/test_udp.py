"""UDP sockets of a server with a fake core, on both kinds of loop and both kinds of batches."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from sipedge.flow import UDP, Flow, Listener
from sipedge.net import udp
from sipedge.net.mmsg import PlainIO, batch_io
from tests.helpers_net import RunningEdge, running_edge, udp_peer
from tests.net.fakes import FakeCore, FakeEdge, eventually

Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS = [pytest.param(uvloop.new_event_loop, id="uvloop"),
         pytest.param(asyncio.new_event_loop, id="asyncio")]  # fmt: skip
IOS = [pytest.param(batch_io, id="batch"), pytest.param(PlainIO, id="plain")]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Loop:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=IOS)
def server(request: pytest.FixtureRequest, loop: Loop) -> Iterator[RunningEdge]:
    core = FakeCore(Listener(UDP, "127.0.0.1", 0), Listener(UDP, "::1", 0))
    with running_edge(FakeEdge(core), loop_factory=loop, io=request.param) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_echo_from_many_sources(server: RunningEdge, host: str) -> None:
    to = server.address(UDP, host)
    peers = [udp_peer(host) for _ in range(20)]
    try:
        for round_ in range(3):
            for i, peer in enumerate(peers):
                peer.sendto(b"%d %d" % (round_, i), to)
            for i, peer in enumerate(peers):
                data, source = peer.recvfrom(100)
                assert data == b"%d %d" % (round_, i)
                assert source[:2] == to
    finally:
        for peer in peers:
            peer.close()
    flows = {event[2].remote: event[2] for event in server.core.wait_for("receive", 60)}
    assert len(flows) == 20
    assert all(flow is event[2] for event in server.core.events if event[0] == "receive"
               for flow in [flows[event[2].remote]])  # fmt: skip


def test_a_burst_is_answered_to_the_last(server: RunningEdge) -> None:
    with udp_peer() as peer:
        server.call(lambda: [peer.sendto(b"%d" % i, server.udp) for i in range(150)])
        assert [peer.recv(100) for _ in range(150)] == [b"%d" % i for i in range(150)]


def test_a_flow_that_was_made_from_a_token_is_sent_to(server: RunningEdge) -> None:
    core = server.core
    for host in ("127.0.0.1", "::1"):
        with udp_peer(host) as a, udp_peer(host) as b:
            flows = [Flow(server.listener(UDP, host), peer.getsockname()[:2]) for peer in (a, a, b)]
            server.call(lambda flows=flows: [core.send(b"%d" % i, f) for i, f in enumerate(flows)])
            server.call(lambda: server.server.drain(0.0))
            assert [a.recv(9), a.recv(9), b.recv(9)] == [b"0", b"1", b"2"]


def closed_port(host: str) -> tuple[str, int]:
    with udp_peer(host) as sock:
        return sock.getsockname()[:2]  # type: ignore[no-any-return]


@pytest.mark.rfc("INC-13", "TRN-17")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_icmp_is_told_to_the_core_and_the_port_stays_alive(server: RunningEdge, host: str) -> None:
    core, to = server.core, server.address(UDP, host)
    gone = closed_port(host)
    for round_ in range(1, 4):
        flow = core.flows.udp(server.listener(UDP, host), gone)
        server.call(lambda flow=flow: (core.send(b"anybody?", flow), server.server.drain(0.0)))
        assert core.wait_for("unreachable", round_)[-1][1].remote == gone
        with udp_peer(host) as peer:
            peer.sendto(b"ping", to)
            assert peer.recv(9) == b"ping"
    assert core.count("unreachable") == 3


def test_an_error_of_one_datagram_loses_no_other(server: RunningEdge) -> None:
    core = server.core
    gone = closed_port("127.0.0.1")
    with udp_peer() as peer:
        flow = Flow(server.listener(UDP), peer.getsockname())
        dead = Flow(server.listener(UDP), gone)
        batch = [(b"1", flow), (b"x", dead), (bytes(70_000), flow), (b"2", flow), (b"x", dead),
                 (b"3", flow), (bytes(66_000), flow)]  # fmt: skip
        for _ in range(3):
            server.call(lambda: (core.outbox.extend(batch), server.server.drain(0.0)))
            assert [peer.recv(9) for _ in range(3)] == [b"1", b"2", b"3"]
        eventually(lambda: core.stats["udp_send_errors"] == 6)
        core.wait_for("unreachable", 1)


def test_no_route_counts_as_unreachable(
    server: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = server.core

    class NoRoute:
        def sendto(self, *_: object) -> int:
            raise OSError(errno.EHOSTUNREACH, "no route to host")

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    endpoint = server.listener(UDP).io
    real = endpoint._sock
    flow = Flow(server.listener(UDP), ("127.0.0.1", 9))
    monkeypatch.setattr(endpoint, "_sock", NoRoute())
    server.call(lambda: (core.send(b"x", flow), server.server.drain(0.0)))
    assert core.wait_for("unreachable")[0][1] is flow


def test_what_the_socket_does_not_take_waits_in_order(
    server: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says EAGAIN three times, then takes everything."""
    core = server.core
    endpoint = server.listener(UDP).io
    real = endpoint._send_batch
    refusals = [BlockingIOError()] * 3

    def send(batch: list[Any]) -> int:
        if refusals:
            raise refusals.pop()
        return int(real(batch[:2]))  # and then not all at once

    monkeypatch.setattr(endpoint, "_send_batch", send)
    monkeypatch.setattr(udp, "WAITING", 8)
    with udp_peer() as peer:
        flow = Flow(server.listener(UDP), peer.getsockname())

        def burst() -> None:
            core.outbox.extend((b"%d" % i, flow) for i in range(6))
            server.server.drain(0.0)
            core.outbox.extend((b"%d" % i, flow) for i in range(6, 12))
            server.server.drain(0.0)

        server.call(burst)
        assert [peer.recv(9) for _ in range(8)] == [b"%d" % i for i in range(8)]
    assert core.stats["udp_send_drops"] == 4
    assert not refusals


def test_the_address_cache_is_bounded(server: RunningEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "FLOWS", 4)
    endpoint = server.listener(UDP).io
    peers = [udp_peer() for _ in range(12)]
    try:
        for _ in range(3):
            for peer in peers:
                peer.sendto(b"x", server.udp)
                assert peer.recv(9) == b"x"
                assert len(endpoint._new) <= 4
                assert len(endpoint._old) <= 4
    finally:
        for peer in peers:
            peer.close()


def test_an_exception_costs_one_datagram(
    server: RunningEdge, caplog: pytest.LogCaptureFixture
) -> None:
    core = server.core

    def touchy(data: bytes, flow: Flow) -> None:
        if data == b"bad":
            raise ZeroDivisionError
        core.send(data, flow)

    core.on_receive = touchy
    with udp_peer() as peer:
        server.call(lambda: [peer.sendto(x, server.udp) for x in (b"1", b"bad", b"2")])
        assert [peer.recv(9), peer.recv(9)] == [b"1", b"2"]
    assert core.stats["net_exceptions"] == 1
    assert "ZeroDivisionError" in caplog.text


def test_socket_buffers_are_large(server: RunningEdge) -> None:
    granted = server.listener(UDP).io._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with udp_peer() as peer:
        assert granted > peer.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
