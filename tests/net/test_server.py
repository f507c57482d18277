"""The server around a core: start, timers, errors, stop, and as a process."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from sipedge.errors import ConfigError
from sipedge.flow import CLOSED, TCP, UDP, Listener
from sipedge.lookups import SRV, A, Lookup
from sipedge.net.mmsg import PlainIO
from tests.helpers_net import (
    ANSWER_ALL,
    PATIENCE,
    options,
    receive,
    running_edge,
    tcp_peer,
    udp_peer,
)
from tests.net.fakes import FakeCore, FakeEdge


def test_modules_hear_of_it_when_the_ports_are_known() -> None:
    core = FakeCore()
    with running_edge(FakeEdge(core)) as server:
        learn, child_init = core.events
        assert learn == ("learn", [server.udp[1], server.tcp[1]])
        assert all(learn[1])
        assert child_init == ("child_init", 0)
    assert core.events[-1] == ("destroy",)


@pytest.mark.parametrize(
    ("transport", "kind"), [(UDP, socket.SOCK_DGRAM), (TCP, socket.SOCK_STREAM)]
)
def test_an_address_in_use_is_the_operators_error(transport: int, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        core = FakeCore(
            Listener(TCP, "127.0.0.1", 0),
            Listener(transport, "127.0.0.1", port, source=("edge.py", 7)),
        )
        with pytest.raises(ConfigError, match="in use") as info, running_edge(FakeEdge(core)):
            pass
    assert str(info.value).startswith("edge.py:7: cannot listen on ")
    assert f":{port}: the address is in use" in str(info.value)
    assert core.count("child_init") == 0


@pytest.mark.parametrize("transport", [UDP, TCP])
def test_what_cannot_be_bound(transport: int) -> None:
    core = FakeCore(Listener(transport, "192.0.2.77", 0))
    with pytest.raises(ConfigError, match="no such address"), running_edge(FakeEdge(core)):
        pass


def test_a_module_that_refuses_to_start() -> None:
    class Refuses(FakeEdge):
        def child_init(self, rank: int) -> None:
            raise ConfigError("not today")

    core = FakeCore()
    with pytest.raises(ConfigError, match="not today"), running_edge(Refuses(core)):
        pass
    again = FakeCore(*(Listener(x.transport, x.host, x.port) for x in core.flows.listeners))
    with running_edge(FakeEdge(again)):  # the ports are free again
        pass


def test_timers_fire_and_move_only_to_earlier() -> None:
    core = FakeCore()
    with running_edge(FakeEdge(core)) as server:
        start = time.monotonic()

        def arm(delay: float) -> None:
            core.timer = start + delay
            server.server.drain(start)

        server.call(lambda: (arm(3600), arm(0.05), arm(1800)))
        first = core.wait_for("timer")[0][1]
        assert first >= start + 0.05  # not before it was due; the core is asked what is next
        server.call(lambda: arm(0.01))
        core.wait_for("timer", 2)
        server.call(lambda: arm(-5.0))  # in the past
        core.wait_for("timer", 3)


def test_exceptions_of_the_core_do_not_stop_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeCore):
        def receive(self, data: bytes, flow: object, now: float) -> None:
            if data == b"bad":
                raise ZeroDivisionError
            super().receive(data, flow, now)  # type: ignore[arg-type]

        def on_timer(self, now: float) -> None:
            super().on_timer(now)
            raise LookupError

        def flow_closed(self, flow: object, reason: str, now: float) -> None:
            super().flow_closed(flow, reason, now)  # type: ignore[arg-type]
            raise KeyError

    core = Broken()
    with running_edge(FakeEdge(core)) as server:
        with tcp_peer(server.tcp) as peer:
            peer.sendall(b"bad")
            while not core.stats["net_exceptions"]:
                time.sleep(0.01)
            peer.sendall(b"good")
            assert receive(peer, 4) == b"good"
        core.wait_for("closed")

        def arm() -> None:
            core.timer = 0.0
            server.server.drain(0.0)

        server.call(arm)
        core.wait_for("timer")
        with udp_peer() as sock:
            sock.sendto(b"good", server.udp)
            assert sock.recv(9) == b"good"
    for name in ("ZeroDivisionError", "LookupError", "KeyError"):
        assert name in caplog.text
    assert core.stats["net_exceptions"] == 3


def test_lookups_are_answered() -> None:
    core = FakeCore()
    with running_edge(FakeEdge(core)) as server:

        def ask() -> None:
            core.to_resolve += [Lookup(A, "localhost"), Lookup(SRV, "_sip._udp.localhost")]
            server.server.drain(0.0)

        server.call(ask)
        answers = {one.kind: found.records for _, one, found in core.wait_for("resolved", 2)}
    assert set(answers[A]) <= {"127.0.0.1", "127.0.1.1"}
    assert answers[A]
    assert answers[SRV] == ()


def test_stopping_delivers_what_was_written_and_closes() -> None:
    core = FakeCore()
    with running_edge(FakeEdge(core)) as server:
        peer = tcp_peer(server.tcp)
        [(_, flow)] = core.wait_for("opened")
        server.call(lambda: (core.send(b"bye", flow), server.server.drain(0.0)))
    with peer:
        assert receive(peer, 3) == b"bye"
        assert peer.recv(1) == b""
    assert core.wait_for("closed")[0][2] == "shutdown"
    assert flow.state == CLOSED


ASYNC = ANSWER_ALL.replace(
    "def request_route(ksr, msg):",
    """import asyncio
async def request_route(ksr, msg):
    if msg.first(b"subject") == b"wait":
        await asyncio.sleep(0.05)
    if msg.first(b"subject") == b"fail":
        await asyncio.sleep(0)
        raise RuntimeError("in the route")""",
)


def test_asynchronous_routes() -> None:
    with running_edge(ASYNC) as server, udp_peer() as peer:
        for number, subject in enumerate(("none", "wait", "fail", "none"), 1):
            header = f"Subject: {subject}\r\n"
            peer.sendto(options(number, headers=header), server.udp)
            reply = peer.recv(9999)
            assert reply.startswith(b"SIP/2.0 500 " if subject == "fail" else b"SIP/2.0 200 ")
            assert b"n%d@example.com" % number in reply


class CountingIO(PlainIO):
    """Remembers what was sent together."""

    sent: list[list[bytes]]

    def send(self, sock: socket.socket, data: list[bytes], to: list[Any]) -> int:
        self.sent.append(data)
        return super().send(sock, data, to)


def test_datagrams_of_many_connections_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are ready at the same time cost one system call, not one each."""
    monkeypatch.setattr(CountingIO, "sent", [], raising=False)
    core = FakeCore()
    udp = core.flows.listeners[0]
    gate = threading.Event()
    with (
        udp_peer() as registrar,
        running_edge(FakeEdge(core), io=CountingIO) as server,
        ExitStack() as stack,
    ):
        to = core.flows.udp(udp, registrar.getsockname())
        core.on_receive = lambda data, flow: core.send(data, to)
        peers = [stack.enter_context(tcp_peer(server.tcp)) for _ in range(5)]
        core.wait_for("opened", 5)
        server.loop.call_soon_threadsafe(gate.wait, PATIENCE)
        for number, peer in enumerate(peers):
            peer.sendall(b"%d" % number)
        gate.set()
        arrived = sorted(registrar.recv(10) for _ in peers)
    assert arrived == [b"0", b"1", b"2", b"3", b"4"]
    assert [len(batch) for batch in CountingIO.sent] == [5]
