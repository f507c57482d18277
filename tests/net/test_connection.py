"""One connection and its layers: handshakes, order, ends, and when it is a flow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
import uvloop

from sipedge.flow import TCP, Flow, Listener
from sipedge.net import connection
from sipedge.net.layers import Layer
from tests.helpers_net import PATIENCE, RunningEdge, receive, running_edge, silent, tcp_peer
from tests.net.fakes import FakeCore, FakeEdge, eventually
from tests.net.toys import Toy, stacked

LOOPS = [uvloop.new_event_loop, asyncio.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningEdge]:
    core = FakeCore(Listener(TCP, "127.0.0.1", 0))
    with running_edge(FakeEdge(core), loop_factory=request.param) as running:
        yield running


def one(log: list[Any] | None = None) -> Callable[[], list[Layer]]:
    return lambda: [Toy(b"1", log)]


def two(log: list[Any] | None = None) -> Callable[[], list[Layer]]:
    return lambda: [Toy(b"1", log), Toy(b"2", log)]


def everything(sock: socket.socket) -> bytes:
    """All octets until the end of the stream."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


# -- becoming a flow -------------------------------------------------------------------------


def test_nothing_is_a_flow_before_it_is_established(server: RunningEdge) -> None:
    log: list[Any] = []
    stacked(server, two(log))
    core = server.core
    with tcp_peer(server.tcp) as peer:
        eventually(lambda: log)
        assert not core.flows.streams
        peer.sendall(b"H")
        assert receive(peer, 1) == b"H"
        assert silent(peer, 0.1)
        assert not core.flows.streams
        assert not core.count("opened")
        peer.sendall(b"H")
        assert receive(peer, 3) == b"v1H"
        [(_, flow)] = core.wait_for("opened")
        assert core.flows.streams == {flow.conn_id: flow}
        assert flow.remote == peer.getsockname()
    core.wait_for("closed")
    assert core.count("closed") == 1


def test_layers_are_started_in_order(server: RunningEdge) -> None:
    log: list[Any] = []
    stacked(server, two(log))
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"HHhello")
        server.core.wait_for("receive")
    assert log[:4] == [(b"1", "start"), (b"1", b"HHhello"), (b"2", "start"), (b"2", b"Hhello")]


def test_data_goes_up_and_down_through_all_layers(server: RunningEdge) -> None:
    stacked(server, two())
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"HHaxbxc")
        events = server.core.wait_for("receive", 3)
        assert [data for _, data, _ in events] == [b"a", b"b", b"c"]
        # the greetings of both; then each echo, wrapped by both
        assert receive(peer, 19) == b"Hv1H" + b"v1v2a" + b"v1v2b" + b"v1v2c"


def test_octets_that_come_one_by_one(server: RunningEdge) -> None:
    stacked(server, two())
    with tcp_peer(server.tcp) as peer:
        for octet in b"HHab":
            peer.sendall(bytes((octet,)))
            time.sleep(0.01)
        events = server.core.wait_for("receive", 2)
        assert b"".join(data for _, data, _ in events) == b"ab"


class Done(Toy):
    """Needs no handshake."""

    __slots__ = ()

    def start(self) -> None:
        super().start()
        self.established = True
        self._out = b"!"


def test_layers_without_a_handshake(server: RunningEdge) -> None:
    stacked(server, lambda: [Done(b"1"), Done(b"2")])
    with tcp_peer(server.tcp) as peer:
        assert receive(peer, 4) == b"!v1!"
        server.core.wait_for("opened")
        peer.sendall(b"a")
        assert receive(peer, 5) == b"v1v2a"


def test_facts_of_all_layers_belong_to_the_flow(server: RunningEdge) -> None:
    def make() -> list[Layer]:
        layers: list[Layer] = [Toy(b"1"), Toy(b"2")]
        layers[0].facts.update(remote=("192.0.2.7", 7), local=("192.0.2.8", 8), name="low")
        layers[1].facts["path"] = "/sip"
        return layers

    stacked(server, make)
    server.listener(TCP).proxies = (ip_network("127.0.0.0/8"),)
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"HH")
        [(_, flow)] = server.core.wait_for("opened")
        assert flow.facts == {"name": "low", "path": "/sip"}
        assert (flow.remote, flow.local) == (("192.0.2.7", 7), ("192.0.2.8", 8))
    with running_edge(FakeEdge(FakeCore())) as plain, tcp_peer(plain.tcp):
        assert plain.core.wait_for("opened")[0][1].facts is None


def test_a_dialed_connection_waits_for_its_layers(server: RunningEdge) -> None:
    stacked(server, lambda: [Toy(b"1", client=True)])
    core = server.core
    core.on_receive = lambda data, flow: None
    with socket.create_server(("127.0.0.1", 0)) as target:
        flow: Flow = core.flows.dial(server.listener(TCP), target.getsockname())
        server.call(lambda: (core.outbox.append((b"data", flow)), server.server.drain(0.0)))
        target.settimeout(PATIENCE)
        sock, _ = target.accept()
        with sock:
            sock.settimeout(PATIENCE)
            assert receive(sock, 1) == b"H"
            assert silent(sock, 0.1), "not before the handshake is done"
            assert not core.count("opened")
            sock.sendall(b"H")
            assert receive(sock, 6) == b"v1data"
            assert core.wait_for("opened")[0][1] is flow


# -- half-open handshakes --------------------------------------------------------------------


@pytest.mark.rfc("TRN-18")
@pytest.mark.parametrize("said", [b"", b"H"])
def test_a_handshake_has_only_so_much_time(server: RunningEdge, said: bytes) -> None:
    stacked(server, two())
    server.core.tcp_handshake_timeout = 0.3
    with tcp_peer(server.tcp) as peer:
        peer.sendall(said)
        assert everything(peer) == said
    eventually(lambda: not server.server.connections)
    assert server.core.stats["handshakes_failed"] == 1
    assert not server.core.count("opened")
    assert not server.core.count("closed")


def test_an_established_connection_has_no_such_limit(server: RunningEdge) -> None:
    stacked(server, one())
    server.core.tcp_handshake_timeout = 0.2
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"H")
        assert receive(peer, 1) == b"H"
        time.sleep(0.4)
        peer.sendall(b"still")
        assert receive(peer, 7) == b"v1still"


def test_a_dialed_handshake_that_hangs_fails_the_flow(server: RunningEdge) -> None:
    stacked(server, lambda: [Toy(b"1", client=True)])
    server.core.tcp_handshake_timeout = 0.2
    with socket.create_server(("127.0.0.1", 0)) as target:
        flow = server.core.flows.dial(server.listener(TCP), target.getsockname())
        server.call(lambda: server.server.drain(0.0))
        [(_, ended, reason)] = server.core.wait_for("closed")
    assert ended is flow
    assert reason == "the handshake took too long"
    eventually(lambda: not server.server.connections)


def test_a_failed_handshake_leaves_its_last_words(server: RunningEdge) -> None:
    log: list[Any] = []
    stacked(server, two(log))
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n")
        assert everything(peer) == b"no" + b"close1"
    eventually(lambda: not server.server.connections)
    assert (b"2", "close") not in log, "it was never begun"
    assert not server.core.count("opened")
    assert server.core.stats["handshakes_failed"] == 1


@pytest.mark.parametrize("said", [b"", b"H"])
def test_whoever_leaves_during_the_handshake_was_nobody(server: RunningEdge, said: bytes) -> None:
    stacked(server, two())
    with tcp_peer(server.tcp) as peer:
        peer.sendall(said)
        receive(peer, len(said))
    eventually(lambda: server.core.stats["handshakes_failed"])
    eventually(lambda: not server.server.connections)
    assert not server.core.count("closed")


# -- the end ---------------------------------------------------------------------------------


def test_a_layer_that_ends_delivers_what_it_had(server: RunningEdge) -> None:
    stacked(server, two())
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"HHlast words.")
        [(_, data, _)] = server.core.wait_for("receive")
        assert data == b"last words"
        [(_, _, reason)] = server.core.wait_for("closed")
        assert reason == "the end"
        rest = everything(peer)
    assert rest == b"Hbye" + b"v1H" + b"v1v2last words" + b"close1", "above it nobody listens"


def test_closing_says_goodbye_from_the_top_down(server: RunningEdge) -> None:
    stacked(server, two())
    core = server.core
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"HH")
        [(_, flow)] = core.wait_for("opened")
        server.call(lambda: (core.to_close.append((flow, "idle")), server.server.drain(0.0)))
        assert everything(peer) == b"Hv1H" + b"v1close2" + b"close1"
    assert [event[2] for event in core.wait_for("closed")] == ["idle"]
    eventually(lambda: not server.server.connections)


def test_no_more_is_received_after_the_core_closed(server: RunningEdge) -> None:
    stacked(server, one())
    core = server.core
    core.on_receive = lambda data, flow: core.to_close.append((flow, "enough"))
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"Hone" + b"x" + b"two")
        core.wait_for("closed")
        peer.sendall(b"three")
        everything(peer)
    eventually(lambda: not server.server.connections)
    assert [data for _, data, _ in core.wait_for("receive")] == [b"one"]


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_every_end_of_the_peer_is_told_once(server: RunningEdge, how: str) -> None:
    stacked(server, one())
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"H")
        receive(peer, 1)
        if how == "RST":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    [(_, _, reason)] = server.core.wait_for("closed")
    assert ("reset" in reason) == (how == "RST")
    eventually(lambda: not server.server.connections)
    assert server.core.count("closed") == 1


@pytest.mark.rfc("INC-15")
def test_layers_do_not_hide_that_a_peer_does_not_read(server: RunningEdge) -> None:
    stacked(server, two())
    core = server.core
    with tcp_peer(server.tcp) as deaf:
        deaf.sendall(b"HH")
        [(_, flow)] = core.wait_for("opened")

        def push() -> None:
            for _ in range(1000):
                core.send(bytes(32768), flow)
            server.server.drain(0.0)

        server.call(push)
        assert core.wait_for("closed")[0][2] == "the peer does not read"
        eventually(lambda: not server.server.connections)


def test_who_closes_and_does_not_read_is_not_waited_for(
    server: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else half of a connection would hold our memory for as long as the peer likes."""
    monkeypatch.setattr(connection, "LINGER", 0.1)
    monkeypatch.setattr(connection, "WRITE_LIMIT", 64 << 20)
    core = server.core
    with tcp_peer(server.tcp) as deaf:
        [(_, flow)] = core.wait_for("opened")

        def push() -> None:
            core.send(bytes(32 << 20), flow)
            server.server.drain(0.0)

        server.call(push)
        deaf.shutdown(socket.SHUT_WR)
        assert core.wait_for("closed")[0][2] == "closed by the peer"
        eventually(lambda: not server.server.connections)


def test_pongs_of_a_layer_count_as_unread_too(
    server: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes a layer answer and never reads fills our memory as well."""
    monkeypatch.setattr(connection, "WRITE_LIMIT", 1 << 16)

    class Chatty(Toy):
        __slots__ = ()

        def receive(self, data: bytes) -> list[bytes]:
            self.established = True
            self._out = data * 1000
            return []

    stacked(server, lambda: [Chatty()])
    with tcp_peer(server.tcp) as deaf:
        deaf.sendall(b"H")
        server.core.wait_for("opened")
        with contextlib.suppress(OSError):  # a reset, seen as one of several errors
            for _ in range(10_000):
                deaf.sendall(bytes(1000))
        assert server.core.wait_for("closed")[0][2] == "the peer does not read"


def test_who_does_not_read_during_the_handshake_never_is_a_flow(
    server: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WRITE_LIMIT", -1)
    stacked(server, one())
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"Hhello")
        eventually(lambda: server.core.stats["handshakes_failed"])
        eventually(lambda: not server.server.connections)
    assert not server.core.count("opened")
    assert not server.core.count("receive")


# -- signs of life ---------------------------------------------------------------------------


@pytest.mark.rfc("KA-17")
def test_octets_that_mean_nothing_to_sip_are_a_sign_of_life(server: RunningEdge) -> None:
    stacked(server, one())
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"H")
        receive(peer, 1)
        [(_, flow)] = server.core.wait_for("opened")
        before = flow.last_rx
        peer.sendall(b"ping")
        assert receive(peer, 4) == b"pong"
        eventually(lambda: flow.last_rx > before)
    assert not server.core.count("receive")


@pytest.mark.rfc("TRN-18")
def test_when_a_message_began_that_is_not_complete(server: RunningEdge) -> None:
    stacked(server, one())
    with tcp_peer(server.tcp) as peer:
        peer.sendall(b"H")
        [(_, flow)] = server.core.wait_for("opened")
        assert flow.begun is None
        peer.sendall(b"a-")
        eventually(lambda: flow.begun is not None)
        peer.sendall(b"end")
        eventually(lambda: flow.begun is None)


# -- how many --------------------------------------------------------------------------------


def test_half_open_handshakes_count_as_connections(
    server: RunningEdge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stacked(server, one())
    server.core.tcp_accept_iplimit = 3
    with tcp_peer(server.tcp) as a, tcp_peer(server.tcp), tcp_peer(server.tcp):
        eventually(lambda: len(server.server.connections) == 3)
        for _ in range(20):
            with tcp_peer(server.tcp) as refused:
                assert refused.recv(1) == b""
        assert server.core.stats["connections_refused"] == 20
        with tcp_peer(server.tcp, "127.0.0.2") as other:
            other.sendall(b"H")
            assert receive(other, 1) == b"H"
        a.close()
        eventually(lambda: server.core.stats["handshakes_failed"])
        with tcp_peer(server.tcp) as again:
            again.sendall(b"H")
            assert receive(again, 1) == b"H"
    assert caplog.text.count("refused") == 1


def test_a_layer_may_find_out_who_it_is(server: RunningEdge) -> None:
    """Behind a load balancer it is the address in the PROXY header that counts."""

    def make() -> list[Layer]:
        layer = Toy(b"1")
        layer.facts.update(remote=("192.0.2.7", 7), local=("192.0.2.8", 8))
        return [layer]

    stacked(server, make)
    server.listener(TCP).proxies = (ip_network("127.0.0.0/8"),)
    server.core.tcp_accept_iplimit = 2
    with tcp_peer(server.tcp) as a, tcp_peer(server.tcp, "127.0.0.2") as b:
        for peer in (a, b):
            peer.sendall(b"H")
        server.core.wait_for("opened", 2)
        with tcp_peer(server.tcp, "127.0.0.3") as third:
            third.sendall(b"H")
            assert b"H" not in everything(third)[1:]
    assert server.core.stats["connections_refused"] == 1
    eventually(lambda: not server.server.connections)
    server.core.wait_for("closed", 2)
    assert server.server.admission._by_source == {}
    assert server.server.admission._total == 0
