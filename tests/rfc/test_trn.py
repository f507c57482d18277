"""Requirements B15, transport, and those of B3 that are about sockets, over real sockets."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from sipedge.flow import UDP
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

#: REGISTER remembers the flow of a user; what is for a user goes to that flow
SWITCHBOARD = """
listen("udp:127.0.0.1:0")
listen("udp:127.0.0.2:0")
listen("tcp:127.0.0.1:0")
loadmodule("tm")
loadmodule("sl")
USERS = {}
def request_route(ksr, msg):
    user = msg.ruri.partition(b":")[2].partition(b"@")[0]
    if msg.method == b"REGISTER":
        USERS[user] = msg.flow
        ksr.sl.send_reply(msg, 200, b"OK")
    else:
        msg.dst_flow = USERS[user]
        ksr.tm.t_relay(msg)
"""


@pytest.fixture(scope="module")
def edge() -> Iterator[RunningEdge]:
    with running_edge(ANSWER_ALL) as running:
        yield running


@pytest.fixture(scope="module")
def switchboard() -> Iterator[RunningEdge]:
    with running_edge(SWITCHBOARD) as running:
        yield running


def top_via(message: bytes) -> bytes:
    return next(x for x in message.split(b"\r\n") if x.lower().startswith(b"via:"))


def ask(edge: RunningEdge, request: bytes, host: str = "127.0.0.2") -> bytes:
    """The answer over UDP to one request from ``host``."""
    with udp_peer(host) as peer:
        peer.sendto(request, edge.udp)
        return peer.recv(65535)


NUMBERS = itertools.count(100_000)


def register(edge: RunningEdge, phone: socket.socket, user: str, host: str | None = None) -> None:
    request = options(next(NUMBERS), method="REGISTER", uri=f"sip:{user}@x")
    if phone.type == socket.SOCK_STREAM:
        phone.sendall(request)
        assert receive_message(phone).startswith(b"SIP/2.0 200 ")
    else:
        phone.sendto(request, edge.address(UDP, host))
        assert phone.recv(9999).startswith(b"SIP/2.0 200 ")


# -- Via and where answers go ----------------------------------------------------------------------


@pytest.mark.rfc("TRN-01")
@pytest.mark.parametrize("sent_by", ["10.0.0.1:5060", "phone.example.com"])
def test_received_is_added_if_the_source_is_another(edge: RunningEdge, sent_by: str) -> None:
    via = top_via(ask(edge, options(1, via=f"SIP/2.0/UDP {sent_by}", rport=False)))
    assert b";received=127.0.0.2" in via
    assert sent_by.encode() in via


@pytest.mark.rfc("TRN-02", "TRN-03")
def test_rport_is_filled_in_and_used_over_udp(edge: RunningEdge) -> None:
    with udp_peer("127.0.0.2") as peer:
        peer.sendto(options(2, via="SIP/2.0/UDP 127.0.0.2:1"), edge.udp)
        reply, source = peer.recvfrom(9999)
        assert source == edge.udp
        assert b";rport=%d" % peer.getsockname()[1] in top_via(reply)
        assert b";received=127.0.0.2" in top_via(reply)


@pytest.mark.rfc("TRN-02", "TRN-05")
def test_rport_is_filled_in_over_tcp_too(edge: RunningEdge) -> None:
    with tcp_peer(edge.tcp, "127.0.0.2") as peer:
        peer.sendall(options(3, via="SIP/2.0/TCP phone.invalid:1"))
        via = top_via(receive_message(peer))
        assert b";rport=%d" % peer.getsockname()[1] in via
        assert b";received=127.0.0.2" in via


@pytest.mark.rfc("TRN-04")
@pytest.mark.parametrize("forced", [True, False])
def test_without_rport_the_answer_goes_to_the_port_of_via(forced: bool) -> None:
    source = ANSWER_ALL + f"core.force_rport = {forced}\n"
    with running_edge(source) as server, udp_peer() as sender, udp_peer() as named:
        port = named.getsockname()[1]
        sender.sendto(options(4, via=f"SIP/2.0/UDP 127.0.0.1:{port}", rport=False), server.udp)
        right, wrong = (sender, named) if forced else (named, sender)
        assert right.recv(9999).startswith(b"SIP/2.0 200")
        assert silent(wrong, 0.1)


SLOW = ANSWER_ALL.replace(
    "def request_route(ksr, msg):",
    "import asyncio\nasync def request_route(ksr, msg):\n    await asyncio.sleep(0.3)",
)


@pytest.mark.rfc("TRN-05")
def test_an_answer_is_never_dialed_to_a_client() -> None:
    """The connection is gone before the answer, and the address in Via would take one."""
    with running_edge(SLOW) as server, socket.create_server(("127.0.0.1", 0)) as tempting:
        port = tempting.getsockname()[1]
        with tcp_peer(server.tcp) as peer:
            peer.sendall(options(5, via=f"SIP/2.0/TCP 127.0.0.1:{port}"))
            while not server.core.stats["flows_opened"]:
                time.sleep(0.01)
            time.sleep(0.05)
        tempting.settimeout(1.0)
        with pytest.raises(TimeoutError):
            tempting.accept()
        assert server.core.stats["flows_closed"] == 1


@pytest.mark.rfc("TRN-06")
def test_maddr_is_not_followed(edge: RunningEdge) -> None:
    with udp_peer("127.0.0.3") as other, udp_peer("127.0.0.2") as peer:
        via = f"SIP/2.0/UDP 127.0.0.2:{other.getsockname()[1]};maddr=127.0.0.3;ttl=1"
        peer.sendto(options(6, via=via), edge.udp)
        assert peer.recv(9999).startswith(b"SIP/2.0 200")
        assert silent(other, 0.1)


@pytest.mark.rfc("TRN-07")
def test_a_response_that_is_not_ours_is_dropped(switchboard: RunningEdge) -> None:
    with udp_peer() as peer, udp_peer() as victim:
        port = victim.getsockname()[1]
        peer.sendto(
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx\r\n"
            b"Via: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bKy\r\nFrom: <sip:a@b>;tag=1\r\n"
            b"To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
            % port,
            switchboard.udp,
        )
        assert silent(victim)
        assert silent(peer, 0.1)


@pytest.mark.rfc("TRN-08")
def test_one_port_for_udp_and_tcp() -> None:
    with udp_peer() as probe:
        port = probe.getsockname()[1]
    source = ANSWER_ALL.replace("127.0.0.1:0", f"127.0.0.1:{port}")
    with running_edge(source) as server:
        assert server.udp == server.tcp == ("127.0.0.1", port)
        assert ask(server, options(8), "127.0.0.1").startswith(b"SIP/2.0 200")
        with tcp_peer(server.tcp) as peer:
            peer.sendall(options(8))
            assert receive_message(peer).startswith(b"SIP/2.0 200")


# -- framing ---------------------------------------------------------------------------------------


@pytest.mark.rfc("TRN-09")
def test_fifty_in_one_segment_and_octet_by_octet(edge: RunningEdge) -> None:
    requests = [options(900 + i, method="MESSAGE", body=b"x" * i) for i in range(50)]
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(b"".join(requests))
        for i in range(50):
            assert b"n%d@example.com" % (900 + i) in receive_message(peer)
        for octet in options(960, method="MESSAGE", body=b"body", content_length="l: {}"):
            peer.sendall(bytes((octet,)))
        assert b"n960@example.com" in receive_message(peer)


@pytest.mark.rfc("TRN-09")
@pytest.mark.parametrize(
    "length",
    [None, "Content-Length: x", "Content-Length: -1", "Content-Length: ",
     "Content-Length: 0\r\nContent-Length: 4"],
)  # fmt: skip
def test_what_cannot_be_framed_is_answered_and_closed(
    edge: RunningEdge, length: str | None
) -> None:
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(options(9, content_length=length) + options(10))
        assert receive_message(peer).startswith(b"SIP/2.0 400 ")
        assert peer.recv(100) == b""


@pytest.mark.rfc("TRN-10")
def test_content_length_over_udp(edge: RunningEdge) -> None:
    extra = ask(edge, options(11, method="MESSAGE", body=b"1234") + b"trailing octets")
    assert extra.startswith(b"SIP/2.0 200 ")
    none = ask(edge, options(12, method="MESSAGE", body=b"1234", content_length=None))
    assert none.startswith(b"SIP/2.0 200 ")
    short = ask(edge, options(13, method="MESSAGE", body=b"1234", content_length="l: 5"))
    assert short.startswith(b"SIP/2.0 400 ")


@pytest.mark.rfc("TRN-12")
@pytest.mark.parametrize("size", [60_000, 65_000])
def test_the_largest_datagrams(switchboard: RunningEdge, size: int) -> None:
    """Through the edge, to the last octet of the body."""
    with udp_peer() as phone, udp_peer() as caller:
        register(switchboard, phone, "big")
        body = bytes(ord("a") + i % 26 for i in range(size))
        request = options(15 + size, method="MESSAGE", uri="sip:big@x", body=body)
        caller.sendto(request, switchboard.udp)
        got = phone.recv(65535)
        assert got.startswith(b"MESSAGE sip:big@x SIP/2.0\r\n")
        assert got.endswith(b"\r\n\r\n" + body)


@pytest.mark.rfc("TRN-13")
def test_an_endless_header_is_answered_and_closed(edge: RunningEdge) -> None:
    head, _, rest = options(16).partition(b"\r\n")
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(head + b"\r\n")
        peer.sendall(rest[: rest.index(b"Content-Length")])
        with contextlib.suppress(ConnectionError):  # closed while we still write is fine
            for _ in range(10 * 1024 // 64):
                peer.sendall(b"X-Filler: " + b"x" * 65_524 + b"\r\n")
        assert receive_message(peer).startswith(b"SIP/2.0 513 ")
        with contextlib.suppress(ConnectionError):
            assert peer.recv(100) == b""


@pytest.mark.rfc("TRN-14")
@pytest.mark.parametrize(("crlfs", "pongs"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_crlfs_before_a_request(edge: RunningEdge, crlfs: int, pongs: int) -> None:
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(b"\r\n" * crlfs + options(17))
        assert receive(peer, 2 * pongs) == b"\r\n" * pongs
        assert receive_message(peer).startswith(b"SIP/2.0 200 ")


@pytest.mark.rfc("TRN-15")
def test_a_connection_outlives_its_transactions(edge: RunningEdge) -> None:
    assert edge.core.tcp_connection_lifetime >= 64 * 0.5
    with tcp_peer(edge.tcp) as peer:
        for number in range(20, 23):
            peer.sendall(options(number))
            assert receive_message(peer).startswith(b"SIP/2.0 200 ")
            assert silent(peer, 0.2), "still open"


# -- delivery over flows ---------------------------------------------------------------------------


def final(caller: socket.socket) -> bytes:
    """The first final response."""
    while True:
        response = caller.recv(65535)
        if not response.startswith(b"SIP/2.0 1"):
            return response


@pytest.mark.rfc("INC-12")
def test_large_requests_stay_on_the_udp_flow(switchboard: RunningEdge) -> None:
    with udp_peer() as phone, udp_peer() as caller:
        with socket.create_server(phone.getsockname()) as tempting:
            register(switchboard, phone, "carol")
            request = options(31, method="INVITE", uri="sip:carol@x", body=b"v" * 6000)
            caller.sendto(request, switchboard.udp)
            data, source = phone.recvfrom(65535)
            assert data.startswith(b"INVITE sip:carol@x SIP/2.0\r\n")
            assert len(data) > 6000
            assert source == switchboard.udp
            tempting.settimeout(0.3)
            with pytest.raises(TimeoutError):
                tempting.accept()


@pytest.mark.rfc("INC-13")
def test_icmp_fails_the_branch_at_once(switchboard: RunningEdge) -> None:
    with udp_peer() as phone:
        register(switchboard, phone, "dave")
    with udp_peer() as caller:
        caller.sendto(options(32, method="INVITE", uri="sip:dave@x"), switchboard.udp)
        assert final(caller).startswith(b"SIP/2.0 430 ")  # long before timer B


@pytest.mark.rfc("INC-04", "INC-14")
def test_a_lost_connection_fails_the_branch_at_once(switchboard: RunningEdge) -> None:
    with tcp_peer(switchboard.tcp) as phone, udp_peer() as caller:
        register(switchboard, phone, "erin")
        address = phone.getsockname()
        caller.sendto(options(33, method="INVITE", uri="sip:erin@x"), switchboard.udp)
        invite = receive_message(phone)
        assert invite.startswith(b"INVITE sip:erin@x SIP/2.0\r\n")
        phone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        phone.close()  # by a reset, which leaves the address free for ``tempting``
        assert final(caller).startswith(b"SIP/2.0 430 ")
        # and the next one fails before anything is sent; nothing is dialed
        with socket.create_server(address) as tempting:
            caller.sendto(options(34, method="INVITE", uri="sip:erin@x"), switchboard.udp)
            assert final(caller).startswith(b"SIP/2.0 430 ")
            tempting.settimeout(0.3)
            with pytest.raises(TimeoutError):
                tempting.accept()


@pytest.mark.rfc("INC-22")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_a_request_leaves_from_the_address_of_the_flow(switchboard: RunningEdge, host: str) -> None:
    with udp_peer() as phone, udp_peer() as caller:
        register(switchboard, phone, "frank", host)
        number = 35 + int(host[-1])
        caller.sendto(options(number, method="INVITE", uri="sip:frank@x"), switchboard.udp)
        data, source = phone.recvfrom(65535)
        assert data.startswith(b"INVITE sip:frank@x")
        assert source == switchboard.address(UDP, host)
        assert b"%s:%d" % (host.encode(), source[1]) in top_via(data)
