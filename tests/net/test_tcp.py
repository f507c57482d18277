"""TCP connections of a server with a fake core, on both kinds of loop."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import uvloop

from sipedge.flow import CONNECTING, OPEN, TCP, Flow, Listener
from sipedge.net import connection
from tests.helpers_net import (
    PATIENCE,
    RunningEdge,
    receive,
    running_edge,
    silent,
    tcp_peer,
)
from tests.net.fakes import FakeCore, FakeEdge, eventually

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningEdge]:
    core = FakeCore(Listener(TCP, "127.0.0.1", 0), Listener(TCP, "::1", 0))
    with running_edge(FakeEdge(core), loop_factory=request.param) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_is_a_flow(server: RunningEdge, host: str) -> None:
    core, to = server.core, server.address(TCP, host)
    with tcp_peer(to) as peer:
        [(_, flow)] = core.wait_for("opened")
        assert flow.remote == peer.getsockname()[:2]
        assert flow.local == to
        assert core.flows.streams == {flow.conn_id: flow}
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"
    [(_, ended, reason)] = core.wait_for("closed")
    assert ended is flow
    assert reason == "closed by the peer"
    assert not core.flows.streams


def test_a_half_close_ends_the_flow_after_what_was_answered(server: RunningEdge) -> None:
    core = server.core
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"last words")
        peer.shutdown(socket.SHUT_WR)
        assert receive(peer, 10) == b"last words"
        assert peer.recv(10) == b""
    core.wait_for("closed")
    assert core.count("closed") == 1


def test_a_reset_ends_the_flow_once(server: RunningEdge) -> None:
    core = server.core
    peer = tcp_peer(server.tcp)
    core.wait_for("opened")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    [(_, _, reason)] = core.wait_for("closed")
    assert "reset" in reason.lower()
    eventually(lambda: not server.server.connections)
    assert core.count("closed") == 1


def test_what_is_sent_to_an_ended_flow_is_dropped(server: RunningEdge) -> None:
    core = server.core
    with tcp_peer(server.tcp):
        [(_, flow)] = core.wait_for("opened")
    core.wait_for("closed")
    server.call(lambda: (core.send(b"too late", flow), server.server.drain(0.0)))
    assert core.stats["tcp_send_drops"] == 1


def test_the_last_answer_gets_through_to_a_peer_that_goes_on_sending(server: RunningEdge) -> None:
    """No reset, although we close with the peer's bytes unread (requirement TRN-13)."""
    core = server.core

    def refuse(data: bytes, flow: Flow) -> None:
        if flow.alive:
            core.send(b"513", flow)
            core.to_close.append((flow, "too much"))
            core.flow_closed(flow, "too much", core.now)

    core.on_receive = refuse
    with tcp_peer(server.tcp) as peer:
        for _ in range(32):
            peer.sendall(bytes(65536))
        assert receive(peer, 3) == b"513"
        assert peer.recv(10) == b""
    eventually(lambda: not server.server.connections)
    assert core.wait_for("closed")[0][2] == "too much"


def test_a_peer_that_never_closes_is_not_waited_for(
    server: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.1)
    core = server.core
    with tcp_peer(server.tcp) as peer:
        [(_, flow)] = core.wait_for("opened")
        server.call(lambda: (core.to_close.append((flow, "idle")), server.server.drain(0.0)))
        assert peer.recv(10) == b""
        eventually(lambda: not server.server.connections)
    assert core.wait_for("closed")[0][2] == "idle"


@pytest.mark.rfc("INC-15")
def test_a_peer_that_does_not_read_loses_its_connection_and_nobody_else(
    server: RunningEdge,
) -> None:
    core = server.core
    with tcp_peer(server.tcp) as deaf, tcp_peer(server.tcp) as other:
        flows = {flow.remote: flow for _, flow in core.wait_for("opened", 2)}
        flow = flows[deaf.getsockname()]

        def push() -> None:
            for _ in range(1000):
                core.send(bytes(32768), flow)
            server.server.drain(0.0)

        server.call(push)
        [(_, ended, reason)] = core.wait_for("closed")
        assert ended is flow
        assert reason == "the peer does not read"
        other.sendall(b"still here?")
        assert receive(other, 11) == b"still here?"
        assert core.stats["tcp_send_drops"] > 0


def dial(server: RunningEdge, remote: tuple[str, int], *data: bytes) -> Flow:
    """Let the core ask for a connection, and send on it at once."""
    core = server.core
    host = "::1" if ":" in remote[0] else "127.0.0.1"
    flow: Flow = core.flows.dial(server.listener(TCP, host), remote)
    assert flow.state == CONNECTING
    server.call(lambda: (core.outbox.extend((d, flow) for d in data), server.server.drain(0.0)))
    return flow


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_dialed_flow_delivers_what_was_sent_before_it_was_there(
    server: RunningEdge, host: str
) -> None:
    core = server.core
    core.on_receive = lambda data, flow: None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as target:
        flow = dial(server, target.getsockname()[:2], b"one ", b"two")
        target.settimeout(PATIENCE)
        sock, source = target.accept()
        with sock:
            sock.settimeout(PATIENCE)
            assert receive(sock, 7) == b"one two"
            assert source[0] == host
            assert core.wait_for("opened")[0][1] is flow
            assert flow.state == OPEN
            assert flow.local == source[:2]
            sock.sendall(b"answer")
            core.wait_for("receive")
            assert core.flows.dial(server.listener(TCP, host), flow.remote) is flow
    core.wait_for("closed")


def test_a_refused_connection_ends_the_flow(server: RunningEdge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        remote = target.getsockname()
    flow = dial(server, remote, b"lost")
    [(_, ended, reason)] = server.core.wait_for("closed")
    assert ended is flow
    assert "refused" in reason
    assert not server.server.connections
    assert server.core.count("opened") == 0


@pytest.mark.rfc("TRN-17")
def test_connecting_takes_bounded_time(server: RunningEdge) -> None:
    """Towards a server whose backlog is full the handshake is never finished."""
    server.core.tcp_connect_timeout = 0.2
    with socket.socket() as target:
        target.bind(("127.0.0.1", 0))
        target.listen(0)
        with socket.create_connection(target.getsockname()):
            dial(server, target.getsockname(), b"lost")
            [(_, _, reason)] = server.core.wait_for("closed")
    assert "timed out" in reason


def test_too_much_for_a_connection_that_is_not_there_yet(server: RunningEdge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        dial(server, target.getsockname(), *[bytes(65536)] * 20)
        [(_, _, reason)] = server.core.wait_for("closed")
    assert reason == "the peer does not read"
    eventually(lambda: not server.server.connections)


@pytest.mark.rfc("KA-27")
def test_the_kernel_watches_over_connections(server: RunningEdge) -> None:
    with tcp_peer(server.tcp):
        [(_, flow)] = server.core.wait_for("opened")
        sock = flow.io._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_ended_connections_leave_no_cycles() -> None:
    """The collector never looks at old objects again (server.tame_gc): cycles would stay."""
    core = FakeCore()
    with running_edge(FakeEdge(core)) as server:
        for _ in range(3):  # whatever is made once
            tcp_peer(server.tcp).close()
        core.wait_for("closed", 3)
        eventually(lambda: not server.server.connections)
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                with tcp_peer(server.tcp) as peer:
                    peer.sendall(b"x")
                    receive(peer, 1)
            core.wait_for("closed", 103)
            eventually(lambda: not server.server.connections)
            core.events.clear()
            assert gc.collect() < 100
        finally:
            gc.enable()


FEW_DESCRIPTORS = """
import asyncio, resource, sys
import uvloop
from sipedge.net import connection, tcp
from sipedge.net.server import Server
from tests.net.fakes import FakeCore, FakeEdge
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
tcp.ACCEPT_PAUSE = 0.05
core = FakeCore()
async def main():
    async with Server(FakeEdge(core)):
        print(core.flows.listeners[1].port, flush=True)
        async with asyncio.timeout(10):
            while not core.stats["tcp_accept_pauses"]:
                await asyncio.sleep(0.01)
        print("paused", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
with asyncio.Runner(loop_factory=LOOP) as runner:
    runner.run(main())
"""


@pytest.mark.rfc("OPS-09")
@pytest.mark.parametrize("loop", ["uvloop.new_event_loop", "asyncio.new_event_loop"])
def test_running_out_of_descriptors_pauses_accepting(loop: str) -> None:
    code = FEW_DESCRIPTORS.replace("LOOP", loop)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to = ("127.0.0.1", int(process.stdout.readline()))
        peers = [tcp_peer(to) for _ in range(60)]
        assert process.stdout.readline() == "paused\n"
        assert silent(peers[-1]), "not accepted, but not refused either"
        peers[0].sendall(b"served")
        assert receive(peers[0], 6) == b"served"
        for peer in peers[:50]:
            peer.close()
        peers[-1].sendall(b"later")  # what waited in the backlog is served when there is room
        assert receive(peers[-1], 5) == b"later"
        for peer in peers:
            peer.close()
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
