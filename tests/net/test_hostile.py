"""Clients that do a connection harm, over every transport, while a good one goes on as ever.

Whatever a client does costs that client its connection, in bounded time and memory, and nobody
else.  ``Bystanders`` are clients of the same edge, one for each transport, that have to be served
before, during and after.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import socket
import ssl
import struct
from collections.abc import Callable, Iterator

import pytest

from sipedge.flow import TCP, TLS, TRANSPORT_NAME, UDP, WS, WSS
from tests.certs import Authority
from tests.helpers_net import RunningEdge, options, running_edge, tcp_peer, udp_peer
from tests.helpers_ws import TEXT, frame, upgrade_request
from tests.net.fakes import eventually

EDGE = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
listen("tls:127.0.0.1:0")
listen("ws:127.0.0.1:0")
listen("wss:127.0.0.1:0")
core.tcp_handshake_timeout = 1
core.tcp_msg_data_timeout = 1
core.tcp_msg_read_timeout = 1
loadmodule("sl")
loadmodule("tls")
loadmodule("websocket")
modparam("tls", "certificate", "CERTIFICATE")
modparam("tls", "private_key", "KEY")
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, "OK")
"""
STREAMS = (TCP, TLS, WS, WSS)
MB = 1 << 20
NUMBERS = itertools.count(1)
#: where bystanders come from; attacks come from 127.0.0.1
ELSEWHERE = "127.0.0.2"

every_stream = pytest.mark.parametrize("transport", STREAMS, ids=TRANSPORT_NAME.get)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


@pytest.fixture
def edge(authority: Authority) -> Iterator[RunningEdge]:
    pair = authority.pair("edge", "edge.example.com")
    source = EDGE.replace("CERTIFICATE", str(pair.certificate))
    with running_edge(source.replace("KEY", str(pair.private_key))) as running:
        yield running


def connected(
    edge: RunningEdge, context: ssl.SSLContext, transport: int, source: str | None = None
) -> socket.socket:
    """A stream with every handshake done."""
    sock = tcp_peer(edge.address(transport), source)
    if transport in (TLS, WSS):
        sock = context.wrap_socket(sock, server_hostname="edge.example.com")
    if transport in (WS, WSS):
        sock.sendall(upgrade_request())
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
    return sock


def packed(transport: int, message: bytes) -> bytes:
    """A message as that transport carries it."""
    return frame(TEXT, message) if transport in (WS, WSS) else message


def served(sock: socket.socket, transport: int) -> bool:
    """Whether a request is answered."""
    number = next(NUMBERS)
    request = packed(transport, options(number, via="SIP/2.0/TCP 10.1.1.1:5060"))
    sock.sendall(request)
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        more = sock.recv(65536)
        if not more:
            return False
        got += more
    return b"SIP/2.0 200 " in got and b"n%d@example.com" % number in got


class Bystanders:
    """A client on each transport that has done nothing wrong."""

    def __init__(self, edge: RunningEdge, context: ssl.SSLContext) -> None:
        self._edge = edge
        self._udp = udp_peer(ELSEWHERE)
        self._streams = [(connected(edge, context, t, ELSEWHERE), t) for t in STREAMS]
        self.check()

    def check(self) -> None:
        """All of them are served."""
        number = next(NUMBERS)
        self._udp.sendto(options(number), self._edge.address(UDP))
        assert b"n%d@example.com" % number in self._udp.recv(65536)
        for sock, transport in self._streams:
            assert served(sock, transport), TRANSPORT_NAME[transport]

    def close(self) -> None:
        for sock in (self._udp, *(sock for sock, _ in self._streams)):
            sock.close()


@pytest.fixture
def bystanders(edge: RunningEdge, context: ssl.SSLContext) -> Iterator[Bystanders]:
    all_of_them = Bystanders(edge, context)
    yield all_of_them
    all_of_them.check()
    assert not edge.core.stats["net_exceptions"]
    assert not edge.core.stats["exceptions"]
    all_of_them.close()


def gone(sock: socket.socket) -> bool:
    """Whether the edge ends the connection, whatever it says before."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):  # a reset, or no close_notify
        while sock.recv(65536):
            pass
    return True


# -- half-open -------------------------------------------------------------------------------

HALF = [
    pytest.param(TCP, b"", id="tcp-silent"),
    pytest.param(TCP, b"\r\n\r\n", id="tcp-pings-only"),
    pytest.param(TCP, b"OPTIONS sip:x SIP/2.0\r\nVia: ", id="tcp-half-a-message"),
    pytest.param(TLS, b"", id="tls-silent"),
    pytest.param(TLS, b"\x16\x03\x01\x02\x00\x01\x00", id="tls-half-a-hello"),
    pytest.param(WS, b"", id="ws-silent"),
    pytest.param(WS, b"GET / HTTP/1.1\r\nHost: x\r\n", id="ws-half-an-upgrade"),
    pytest.param(WSS, b"\x16\x03\x01", id="wss-half-a-hello"),
]


@pytest.mark.rfc("TRN-18", "OPS-04")
@pytest.mark.parametrize(("transport", "said"), HALF)
def test_half_open(edge: RunningEdge, bystanders: Bystanders, transport: int, said: bytes) -> None:
    peers = [tcp_peer(edge.address(transport)) for _ in range(50)]
    for peer in peers:
        peer.sendall(said)
    bystanders.check()
    assert all(gone(peer) for peer in peers)
    for peer in peers:
        peer.close()


@pytest.mark.rfc("TRN-18")
@pytest.mark.parametrize(
    ("transport", "said"),
    [
        (TLS, b""),
        (TLS, b"OPTIONS sip:x SIP/2.0\r\n"),
        (WS, b""),
        (WS, b"\x81\xfe"),  # the beginning of a frame
        (WS, frame(TEXT, b"OPTIONS sip:x", fin=False)),
        (WSS, frame(TEXT, b"OPTIONS sip:x", fin=False)),
    ],
)
def test_half_open_above_the_handshake(
    edge: RunningEdge,
    bystanders: Bystanders,
    context: ssl.SSLContext,
    transport: int,
    said: bytes,
) -> None:
    with connected(edge, context, transport) as peer:
        peer.sendall(said)
        bystanders.check()
        assert gone(peer)


# -- garbage ---------------------------------------------------------------------------------

GARBAGE = [
    b"\x00" * 64,
    b"\xff" * 4096,
    b"\x16\x03\x01\x00\x05hello" * 9,
    b"SSH-2.0-OpenSSH_9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x81\x00",
    b"{}" * 4000 + b"\r\n\r\n",
]


@every_stream
@pytest.mark.parametrize("octets", GARBAGE, ids=lambda octets: repr(octets[:12]))
def test_garbage(edge: RunningEdge, bystanders: Bystanders, transport: int, octets: bytes) -> None:
    for _ in range(5):
        with tcp_peer(edge.address(transport)) as peer:
            peer.sendall(octets)
            assert gone(peer)
    bystanders.check()


@every_stream
@pytest.mark.parametrize("octets", GARBAGE[:2], ids=["zeros", "ones"])
def test_garbage_above_the_handshake(
    edge: RunningEdge,
    bystanders: Bystanders,
    context: ssl.SSLContext,
    transport: int,
    octets: bytes,
) -> None:
    with connected(edge, context, transport) as peer:
        peer.sendall(octets)
        assert gone(peer)


# -- octet by octet --------------------------------------------------------------------------


class Dribble:
    """A stream whose every octet is a segment of its own, handshakes included."""

    def __init__(self, edge: RunningEdge, context: ssl.SSLContext, transport: int) -> None:
        self.sock = tcp_peer(edge.address(transport))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None
        if transport in (TLS, WSS):
            self._tls = context.wrap_bio(self._in, self._out, server_hostname="edge.example.com")
            self._pump(self._tls.do_handshake)

    def _octets(self, data: bytes) -> None:
        for octet in data:
            self.sock.sendall(bytes((octet,)))

    def _pump(self, step: Callable[[], object]) -> object:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._octets(self._out.read())
                self._in.write(self.sock.recv(65536))
            finally:
                self._octets(self._out.read())

    def sendall(self, data: bytes) -> None:
        if self._tls is None:
            self._octets(data)
            return
        for octet in data:  # a record each, and each record octet by octet
            self._tls.write(bytes((octet,)))
            self._octets(self._out.read())

    def recv(self, size: int) -> bytes:
        if self._tls is None:
            return self.sock.recv(size)
        tls = self._tls
        got = self._pump(lambda: tls.read(size))
        assert isinstance(got, bytes)
        return got


@every_stream
def test_one_octet_a_segment(
    edge: RunningEdge, bystanders: Bystanders, context: ssl.SSLContext, transport: int
) -> None:
    for name in ("tcp_handshake_timeout", "tcp_msg_data_timeout", "tcp_msg_read_timeout"):
        setattr(edge.core, name, 60)
    peer = Dribble(edge, context, transport)
    if transport in (WS, WSS):
        peer.sendall(upgrade_request())
        assert peer.recv(65536).startswith(b"HTTP/1.1 101 ")
    assert served(peer, transport)  # type: ignore[arg-type]
    bystanders.check()
    peer.sock.close()


# -- too much --------------------------------------------------------------------------------


def pushed(sock: socket.socket, data: bytes, octets: int) -> int:
    """How much of ``octets`` the edge takes before it ends the connection."""
    sent = 0
    with contextlib.suppress(OSError):  # a reset in one form or other
        while sent < octets:
            sock.sendall(data)
            sent += len(data)
    return sent


def memory() -> int:
    """Octets that this process, the edge within, has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.rfc("TRN-13")
@every_stream
def test_a_message_of_64_mb(
    edge: RunningEdge, bystanders: Bystanders, context: ssl.SSLContext, transport: int
) -> None:
    """Announced, by Content-Length or by the length of a frame; refused before it comes."""
    announced = options(1, content_length=f"Content-Length: {64 * MB}")
    if transport in (WS, WSS):
        announced = struct.pack("!BBQ", 0x81, 0xFF, 64 * MB) + b"mask"
    with connected(edge, context, transport) as peer:
        peer.sendall(announced)
        before = memory()
        pushed(peer, bytes(MB), 64 * MB)
        assert gone(peer)
        assert memory() - before < 32 * MB
    eventually(lambda: edge.core.stats["flows_closed"] >= 1)


@pytest.mark.rfc("TRN-13")
@every_stream
def test_a_header_without_end(
    edge: RunningEdge, bystanders: Bystanders, context: ssl.SSLContext, transport: int
) -> None:
    piece = b"x" * 65000
    begin = b"OPTIONS sip:x SIP/2.0\r\nSubject: "
    if transport in (WS, WSS):  # fragments without end
        begin, piece = frame(TEXT, begin, fin=False), frame(0, piece, fin=False)
    with connected(edge, context, transport) as peer:
        peer.sendall(begin)
        before = memory()
        pushed(peer, piece, 64 * MB)
        assert gone(peer)
        assert memory() - before < 32 * MB


@pytest.mark.rfc("TRN-13")
@pytest.mark.parametrize("transport", [WS, WSS], ids=["ws", "wss"])
def test_an_upgrade_without_end(
    edge: RunningEdge, bystanders: Bystanders, context: ssl.SSLContext, transport: int
) -> None:
    with tcp_peer(edge.address(transport)) as plain:
        peer = plain
        if transport == WSS:
            peer = context.wrap_socket(plain, server_hostname="edge.example.com")
        peer.sendall(b"GET / HTTP/1.1\r\nCookie: ")
        before = memory()
        pushed(peer, b"x" * 65536, 64 * MB)
        assert gone(peer)
        assert memory() - before < 32 * MB
        peer.close()


# -- slow readers ----------------------------------------------------------------------------


@pytest.mark.rfc("INC-15")
@every_stream
def test_a_client_that_never_reads(
    edge: RunningEdge, bystanders: Bystanders, context: ssl.SSLContext, transport: int
) -> None:
    """Answers copy From: it makes us say much, and does not listen."""
    request = options(1, via="SIP/2.0/TCP 10.1.1.1:5060")
    request = request.replace(b"From: ", b'From: "' + b"x" * 30_000 + b'" ')
    with connected(edge, context, transport) as deaf:
        before = memory()
        pushed(deaf, packed(transport, request), 256 * MB)
        bystanders.check()
        assert memory() - before < 64 * MB
        eventually(lambda: edge.core.stats["flows_closed"] >= 1)


@pytest.mark.rfc("INC-15")
@pytest.mark.parametrize("transport", [WS, WSS], ids=["ws", "wss"])
def test_a_client_that_pings_and_never_reads(
    edge: RunningEdge, bystanders: Bystanders, context: ssl.SSLContext, transport: int
) -> None:
    with connected(edge, context, transport) as deaf:
        pushed(deaf, frame(9, b"p" * 125) * 500, 256 * MB)
        bystanders.check()
        eventually(lambda: edge.core.stats["flows_closed"] >= 1)


# -- too many --------------------------------------------------------------------------------


@pytest.mark.rfc("OPS-04")
def test_ten_thousand_connections_of_one_address(
    edge: RunningEdge,
    bystanders: Bystanders,
    context: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first ones are connections, all others are closed at once; it is one line in the log."""
    edge.core.tcp_accept_iplimit = limit = 100
    edge.core.tcp_msg_data_timeout = 0
    kept = [tcp_peer(edge.address(TCP)) for _ in range(limit)]
    eventually(lambda: len(edge.server.connections) >= limit)
    for number in range(10_000 - limit):
        with tcp_peer(edge.address(STREAMS[number % 4])) as peer:
            assert gone(peer)
    assert edge.core.stats["connections_refused"] == 10_000 - limit
    bystanders.check()
    assert all(served(peer, TCP) for peer in kept)
    kept.pop().close()
    eventually(lambda: edge.core.stats["flows_closed"])
    with connected(edge, context, TLS) as again:
        assert served(again, TLS)
    for peer in kept:
        peer.close()
    assert caplog.text.count("connections refused") == 1
