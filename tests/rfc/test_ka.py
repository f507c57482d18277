"""Requirements B5, keep-alives, over real sockets (framer and STUN have tests of their own)."""

from __future__ import annotations

import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipedge.flow import TCP, UDP
from tests.helpers_net import (
    ANSWER_ALL,
    RunningEdge,
    options,
    receive,
    receive_message,
    running_edge,
    silent,
    tcp_peer,
    udp_peer,
)

PING, PONG = b"\r\n\r\n", b"\r\n"
COOKIE = 0x2112A442
EDGE = (
    ANSWER_ALL
    + """
listen("udp:127.0.0.2:0")
listen("udp:[::1]:0")
listen("tcp:[::1]:0")
"""
)


@pytest.fixture(scope="module")
def edge() -> Iterator[RunningEdge]:
    with running_edge(EDGE) as running:
        yield running


@pytest.fixture(params=["127.0.0.1", "::1"])
def stream(edge: RunningEdge, request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with tcp_peer(edge.address(TCP, request.param)) as sock:
        yield sock


def answered(sock: socket.socket, number: int) -> bool:
    """Whether the next thing on the stream is the 200 to request ``number``."""
    reply = receive_message(sock)
    return reply.startswith(b"SIP/2.0 200 OK\r\n") and b"n%d@example.com" % number in reply


# -- streams --------------------------------------------------------------------------------


@pytest.mark.rfc("KA-01")
def test_ping_is_answered_by_exactly_one_crlf(stream: socket.socket) -> None:
    stream.sendall(PING)  # the first octets of a connection
    assert receive(stream, 2) == PONG
    stream.sendall(options(1))
    assert answered(stream, 1)
    stream.sendall(PING)  # after a message
    assert receive(stream, 2) == PONG
    assert silent(stream)
    stream.sendall(PING)  # idle
    assert receive(stream, 2) == PONG
    assert silent(stream)


@pytest.mark.rfc("KA-02")
def test_crlf_inside_a_message_is_no_ping(stream: socket.socket) -> None:
    message = options(2, method="MESSAGE", body=b"one\r\n\r\ntwo\r\n\r\n")
    for piece in message.split(b"\r\n"):
        stream.sendall(piece)
        stream.sendall(b"\r\n")
    # split() and our CRLFs add one pair at the end: half of a ping, nothing to answer
    assert answered(stream, 2)
    for octet in options(3):
        stream.sendall(bytes((octet,)))
    assert answered(stream, 3)
    assert silent(stream)


@pytest.mark.rfc("KA-03")
@pytest.mark.parametrize(
    "parts", [(b"\r", b"\n\r", b"\n"), (b"\r\n", b"\r\n"), (b"\r", b"\n\r\n"), (b"\r\n\r", b"\n"),
              (b"\r", b"\n", b"\r", b"\n")]
)  # fmt: skip
def test_a_ping_in_pieces_gets_one_pong(stream: socket.socket, parts: tuple[bytes, ...]) -> None:
    for part in parts:
        stream.sendall(part)
        time.sleep(0.02)  # a segment of its own; joined they are a ping just the same
    assert receive(stream, 2) == PONG
    assert silent(stream, 0.1)


@pytest.mark.rfc("KA-04")
def test_lone_crlfs_are_skipped(stream: socket.socket) -> None:
    stream.sendall(b"\r\n")
    assert silent(stream, 1.3)  # longer than the residue is remembered
    stream.sendall(b"\r\n")
    assert silent(stream, 1.3), "two old halves are no ping"
    stream.sendall(b"\r\n" + options(4))
    assert answered(stream, 4)


@pytest.mark.rfc("KA-05")
def test_a_pong_never_lands_inside_a_message(stream: socket.socket) -> None:
    """The answer copies From: a long one makes long answers, more than the socket takes at once."""
    request = options(5).replace(b"From: ", b'From: "' + b"x" * 60_000 + b'" ')
    for _ in range(20):
        stream.sendall(request)
        stream.sendall(PING)
    for _ in range(20):
        assert answered(stream, 5)
        assert receive(stream, 2) == PONG


@pytest.mark.rfc("KA-06")
def test_as_many_pongs_as_pings(stream: socket.socket) -> None:
    stream.sendall(PING + PING + options(6) + PING)
    assert receive(stream, 4) == PONG + PONG
    assert answered(stream, 6)
    assert receive(stream, 2) == PONG
    assert silent(stream)


@pytest.mark.rfc("KA-14")
@pytest.mark.parametrize("octets", [b"\x00\x01\x00\x00", b"\x16\x03\x01\x02\x00", bytes(20)])
def test_no_stun_on_streams(stream: socket.socket, octets: bytes) -> None:
    stream.sendall(octets)
    assert stream.recv(100) == b""


LIFETIME = 1.0
SHORT_LIVED = ANSWER_ALL + f"core.tcp_connection_lifetime = {LIFETIME}\n"


@pytest.mark.rfc("KA-16", "KA-17")
def test_a_flow_lives_from_its_last_octet_on() -> None:
    with running_edge(SHORT_LIVED) as server, tcp_peer(server.tcp) as sock:
        for octets in (b"\r\n", options(16), b"\r\n", b"O"):  # whatever it is
            time.sleep(LIFETIME * 0.6)
            last = time.monotonic()
            sock.sendall(octets)
        while sock.recv(65536):  # the answer; then the edge closes
            pass
        assert time.monotonic() - last >= LIFETIME, "closed before its time"
        assert server.core.stats["flows_closed"] == 1


@pytest.mark.rfc("KA-16")
@pytest.mark.parametrize("name", ["edge", "edge_and_registrar"])
def test_the_examples_wait_longer_than_the_flow_timer_they_announce(name: str) -> None:
    from sipedge.config import load_source
    from sipedge.keyfile import new_key

    root = Path(__file__).parents[2]
    text = (root / "examples" / f"{name}.py").read_text()
    line = next(x for x in text.splitlines() if x.lstrip().startswith("modparam")
                and "flow_token_key" in x)  # fmt: skip
    text = text.replace(
        line, f'modparam("outbound", "flow_token_key", bytes.fromhex("{new_key()}"))'
    )
    edge = load_source(text, f"{name}.py")
    namespace = next(iter(edge.config.routes.values())).__globals__
    flow_timer = namespace["FLOW_TIMER"]
    assert edge.core.tcp_connection_lifetime >= flow_timer + max(10, flow_timer * 0.25)


# -- datagrams --------------------------------------------------------------------------------


def stun(
    attributes: bytes = b"", kind: int = 0x0001, cookie: int = COOKIE, length: int | None = None
) -> tuple[bytes, bytes]:
    """A STUN message and its transaction id."""
    txid = os.urandom(12)
    size = len(attributes) if length is None else length
    return struct.pack("!HHI", kind, size, cookie) + txid + attributes, txid


def attributes_of(reply: bytes) -> dict[int, bytes]:
    found, at = {}, 20
    while at < len(reply):
        kind, size = struct.unpack_from("!HH", reply, at)
        found[kind] = reply[at + 4 : at + 4 + size]
        at += 4 + (size + 3) // 4 * 4
    return found


def mapped(reply: bytes, txid: bytes) -> tuple[str, int]:
    """XOR-MAPPED-ADDRESS (RFC 8489 §14.2)."""
    value = attributes_of(reply)[0x0020]
    family = {1: socket.AF_INET, 2: socket.AF_INET6}[value[1]]
    mask = struct.pack("!I", COOKIE) + txid
    port = struct.unpack("!H", value[2:4])[0] ^ (COOKIE >> 16)
    address = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return socket.inet_ntop(family, address), port


@pytest.mark.rfc("KA-07", "KA-08", "KA-09")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_binding_is_answered_from_where_it_was_asked(edge: RunningEdge, host: str) -> None:
    to = edge.address(UDP, host)
    with udp_peer("::1" if ":" in host else "127.0.0.1") as peer:
        message, txid = stun()
        assert len(message) == 20
        peer.sendto(message, to)
        reply, source = peer.recvfrom(2048)
        assert source[:2] == to
        assert reply[:2] == b"\x01\x01"
        assert reply[8:20] == txid
        assert mapped(reply, txid) == peer.getsockname()[:2]


@pytest.mark.rfc("KA-10")
def test_attributes_that_must_be_understood(edge: RunningEdge) -> None:
    with udp_peer() as peer:
        message, _ = stun(struct.pack("!HHI", 0x0002, 4, 0))
        peer.sendto(message, edge.udp)
        reply = peer.recv(2048)
        assert reply[:2] == b"\x01\x11"
        assert attributes_of(reply)[0x0009][2:4] == b"\x04\x14"  # 420
        assert attributes_of(reply)[0x000A] == b"\x00\x02"
        message, _ = stun(struct.pack("!HH4s", 0x8022, 4, b"test"))
        peer.sendto(message, edge.udp)
        assert peer.recv(2048)[:2] == b"\x01\x01"


@pytest.mark.rfc("KA-11", "KA-12")
def test_what_gets_no_answer(edge: RunningEdge) -> None:
    bad = [
        stun(cookie=0x12345678)[0],
        stun(length=8)[0],
        stun(length=3)[0],
        b"\xc0" + stun()[0][1:],  # top bits
        b"\x03" + stun()[0][1:],  # another method
        stun(kind=0x0003)[0],
        stun()[0][:19],
        stun(kind=0x0011)[0],  # an indication
        stun(kind=0x0101)[0],  # stray responses
        stun(kind=0x0111)[0],
    ]
    with udp_peer() as peer:
        for message in bad:
            peer.sendto(message, edge.udp)
        peer.sendto(options(11), edge.udp)
        assert peer.recv(2048).startswith(b"SIP/2.0 200"), "the first answer is to the last"
        assert silent(peer)


@pytest.mark.rfc("KA-13")
def test_fingerprint(edge: RunningEdge) -> None:
    txid = os.urandom(12)
    head = struct.pack("!HHI", 1, 8, COOKIE) + txid
    good = struct.pack("!HHI", 0x8028, 4, zlib.crc32(head) ^ 0x5354554E)
    bad = struct.pack("!HHI", 0x8028, 4, zlib.crc32(head))
    with udp_peer() as peer:
        peer.sendto(head + bad, edge.udp)
        assert silent(peer)
        peer.sendto(head + good, edge.udp)
        reply = peer.recv(2048)
        assert mapped(reply, txid) == peer.getsockname()


@pytest.mark.rfc("KA-15")
def test_short_datagrams_are_taken_in_silence(
    edge: RunningEdge, caplog: pytest.LogCaptureFixture
) -> None:
    with udp_peer() as peer:
        before = edge.core.stats["keepalives"]
        octets = [b"\r\n", PING, bytes(4), b"", b" ", b"\x00", b"jaK", b"\r\n\r\n\r\n"]
        for data in octets:
            peer.sendto(data, edge.udp)
        assert silent(peer)
        flow = edge.core.flows.udp(edge.listener(UDP), peer.getsockname())
        assert flow.last_rx > 0, "counted as a sign of life"
        assert edge.core.stats["keepalives"] > before
        peer.sendto(options(15), edge.udp)
        assert peer.recv(2048).startswith(b"SIP/2.0 200")
    assert not caplog.records
