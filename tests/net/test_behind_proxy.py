"""Behind a load balancer that speaks the PROXY protocol: all transports, real sockets (OPS-07)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sipedge.flow import TCP, TLS, UDP, WS, WSS, Flow
from sipedge.net.proxy_protocol import SIGNATURE
from tests.certs import Authority
from tests.helpers_net import (
    RunningEdge,
    options,
    receive_message,
    running_edge,
    silent,
    tcp_peer,
    udp_peer,
)
from tests.helpers_ws import TEXT, frame, upgrade_request
from tests.net.fakes import eventually
from tests.net.proxied import datagram_v2, header_v1, header_v2

#: 127.0.0.1 is the load balancer; REGISTER remembers a token, which a Route can name
EDGE = """
listen("udp:127.0.0.1:0", proxy_protocol=["127.0.0.1"])
listen("tcp:127.0.0.1:0", proxy_protocol="127.0.0.1/32")
listen("tcp:[::1]:0", proxy_protocol=["::1"])
loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("rr")
modparam("outbound", "flow_token_key", b"johndoessecretphrase")
CLOSED = []
def request_route(ksr, msg):
    if msg.method == b"INVITE" or msg.has(b"route"):
        if ksr.rr.loose_route(msg):
            ksr.tm.t_relay(msg)
        else:
            ksr.sl.send_reply(msg, 404, "Not Found")
    else:
        ksr.sl.send_reply(msg, 200, "OK")
"""
CLIENT = ("192.0.2.7", 40001)
OTHER = ("192.0.2.8", 40002)
CLIENT6 = ("2001:db8::7", 40001)


@pytest.fixture
def edge() -> Iterator[RunningEdge]:
    with running_edge(EDGE) as running:
        yield running


def asks(peer: socket.socket, number: int = 1) -> bytes:
    """The answer to an OPTIONS over a stream."""
    peer.sendall(options(number, via="SIP/2.0/TCP 10.1.1.1:5060"))
    return receive_message(peer)


def only_flow(edge: RunningEdge) -> Flow:
    eventually(lambda: edge.core.flows.streams)
    [flow] = edge.core.flows.streams.values()
    return flow  # type: ignore[no-any-return]


def token(edge: RunningEdge, flow: Flow) -> bytes:
    """The token of a flow, from the module itself."""
    binds = edge.edge.loader.find_export("rr", "bind_ob")
    encoded = edge.call(lambda: binds.encode_flow_token(flow))
    assert isinstance(encoded, bytes)
    return encoded


def decoded(edge: RunningEdge, user: bytes) -> tuple[str, Flow | None]:
    binds = edge.edge.loader.find_export("rr", "bind_ob")
    verdict, flow = edge.call(lambda: binds.decode_flow_token(user))
    return verdict.name, flow


# -- streams ---------------------------------------------------------------------------------


@pytest.mark.rfc("OPS-07")
@pytest.mark.parametrize("header", [header_v1, header_v2])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_the_client_is_who_the_header_says(
    edge: RunningEdge,
    header: Callable[[tuple[str, int], tuple[str, int]], bytes],
    host: str,
    client: tuple[str, int],
) -> None:
    """And the token names it, whatever family the load balancer itself speaks to us."""
    there = ("2001:db8::1" if ":" in client[0] else "198.51.100.1", 5060)
    with tcp_peer(edge.address(TCP, host)) as peer:
        peer.sendall(header(client, there))
        reply = asks(peer)
        assert f";rport={client[1]};received={client[0]}".encode() in reply
        flow = only_flow(edge)
        assert (flow.remote, flow.local) == (client, there)
        assert flow.listener is edge.listener(TCP, host)
        name = token(edge, flow)
        assert decoded(edge, name) == ("VALID", flow)
    eventually(lambda: not edge.core.flows.streams)
    assert decoded(edge, name)[0] == "GONE"


def test_header_and_message_in_one_segment_or_octet_by_octet(edge: RunningEdge) -> None:
    data = header_v2(CLIENT, ("198.51.100.1", 5060), tlvs=b"\x03\x00\x04abcd")
    message = options(1, via="SIP/2.0/TCP 10.1.1.1:5060")
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(data + message)
        assert b"received=192.0.2.7" in receive_message(peer)
    with tcp_peer(edge.tcp) as peer:
        for octet in data + message:
            peer.sendall(bytes((octet,)))
        assert b"received=192.0.2.7" in receive_message(peer)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\0\0\0"])
def test_health_checks_come_from_the_load_balancer_itself(edge: RunningEdge, header: bytes) -> None:
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(header)
        assert b"received=127.0.0.1" in asks(peer)
        assert only_flow(edge).remote == peer.getsockname()


@pytest.mark.rfc("OPS-07")
def test_a_load_balancer_must_send_a_header(edge: RunningEdge) -> None:
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(options(1))
        assert peer.recv(100) == b""
    assert edge.core.stats["handshakes_failed"] == 1
    assert not edge.core.stats["flows_opened"]


@pytest.mark.rfc("OPS-07")
@pytest.mark.parametrize("header", [header_v1, header_v2])
def test_nobody_else_is_believed(
    edge: RunningEdge, header: Callable[[tuple[str, int], tuple[str, int]], bytes]
) -> None:
    with tcp_peer(edge.tcp, "127.0.0.2") as peer:
        assert b"received=127.0.0.2" in asks(peer)
        flow = only_flow(edge)
        assert flow.remote == peer.getsockname()
        assert decoded(edge, token(edge, flow)) == ("VALID", flow)
    with tcp_peer(edge.tcp, "127.0.0.2") as liar:
        liar.sendall(header(CLIENT, ("198.51.100.1", 5060)) + options(1) + b"\r\n\r\n")
        said = b""
        while not said.endswith(b"\r\n"):  # whatever it is: an error, the pong, or the end
            more = liar.recv(65536)
            said += more or b"\r\n"
        assert b"192.0.2.7" not in said
        assert b"SIP/2.0 200" not in said
        assert all(flow.remote[0] != CLIENT[0] for flow in edge.core.flows.streams.values())


@pytest.mark.rfc("OPS-04", "OPS-07")
def test_limits_count_the_clients_and_not_the_load_balancer(edge: RunningEdge) -> None:
    edge.core.tcp_accept_iplimit = 2
    there = ("198.51.100.1", 5060)
    peers = []
    for number in range(2):
        for client in (CLIENT, OTHER):
            peer = tcp_peer(edge.tcp)
            peer.sendall(header_v2((client[0], 1000 + number), there))
            assert asks(peer).startswith(b"SIP/2.0 200")
            peers.append(peer)
    with tcp_peer(edge.tcp) as one_too_many:
        one_too_many.sendall(header_v2((CLIENT[0], 2000), there) + options(1))
        assert one_too_many.recv(100) == b""
    assert edge.core.stats["connections_refused"] == 1
    for peer in peers:
        assert asks(peer).startswith(b"SIP/2.0 200")
        peer.close()


@pytest.mark.rfc("TRN-18")
def test_a_header_that_does_not_come(edge: RunningEdge) -> None:
    edge.core.tcp_handshake_timeout = 0.2
    with tcp_peer(edge.tcp) as peer:
        peer.sendall(b"PROXY TCP4 ")
        assert peer.recv(100) == b""


# -- datagrams -------------------------------------------------------------------------------


@pytest.fixture
def lb() -> Iterator[socket.socket]:
    """A port of the load balancer."""
    with udp_peer() as sock:
        yield sock


def says(edge: RunningEdge, lb: socket.socket, client: tuple[str, int], data: bytes) -> None:
    there = ("2001:db8::1" if ":" in client[0] else "198.51.100.1", 5060)
    lb.sendto(datagram_v2(client, there, data), edge.udp)


def register(edge: RunningEdge, lb: socket.socket, client: tuple[str, int], number: int) -> bytes:
    """A datagram from ``client``; the token of its flow."""
    says(edge, lb, client, options(number, method="REGISTER"))
    assert lb.recv(9999).startswith(b"SIP/2.0 200 ")
    flow = edge.core.flows.behind.find(edge.listener(UDP), client)
    return token(edge, flow)


def call(edge: RunningEdge, core: socket.socket, user: bytes, number: int) -> None:
    host, port = edge.udp
    route = f"Route: <sip:{user.decode()}@{host}:{port};lr;ob>\r\n"
    core.sendto(options(number, method="MESSAGE", uri="sip:bob@10.1.1.1", headers=route), edge.udp)


@pytest.mark.rfc("OPS-07")
@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_datagrams_of_a_client(
    edge: RunningEdge, lb: socket.socket, client: tuple[str, int]
) -> None:
    says(edge, lb, client, options(1))
    reply, source = lb.recvfrom(9999)
    assert source == edge.udp
    assert f";rport={client[1]};received={client[0]}".encode() in reply
    says(edge, lb, client, b"\r\n\r\n")
    assert silent(lb, 0.1)


@pytest.mark.rfc("OPS-07")
@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_a_token_leads_through_the_load_balancer(
    edge: RunningEdge, lb: socket.socket, client: tuple[str, int]
) -> None:
    user = register(edge, lb, client, 1)
    with udp_peer("127.0.0.2") as core:
        call(edge, core, user, 2)
        assert lb.recv(9999).startswith(b"MESSAGE sip:bob@10.1.1.1 ")


@pytest.mark.rfc("OPS-07", "TOK-02")
def test_a_port_that_is_another_clients_now(edge: RunningEdge, lb: socket.socket) -> None:
    """Whoever has the port of the load balancer does not get the calls of the one before."""
    user = register(edge, lb, CLIENT, 1)
    other = register(edge, lb, OTHER, 2)
    assert other != user
    with udp_peer("127.0.0.2") as core:
        call(edge, core, user, 3)
        assert core.recv(9999).startswith(b"SIP/2.0 430 ")
        assert silent(lb, 0.1)
        call(edge, core, other, 4)
        assert lb.recv(9999).startswith(b"MESSAGE ")


@pytest.mark.rfc("OPS-07")
def test_a_client_that_comes_through_another_port(edge: RunningEdge, lb: socket.socket) -> None:
    user = register(edge, lb, CLIENT, 1)
    with udp_peer() as moved, udp_peer("127.0.0.2") as core:
        says(edge, moved, CLIENT, b"\r\n\r\n")
        eventually(lambda: edge.core.stats["keepalives"])
        call(edge, core, user, 2)
        assert moved.recv(9999).startswith(b"MESSAGE ")


@pytest.mark.rfc("OPS-07", "TOK-03")
def test_after_a_restart_a_keep_alive_is_enough(lb: socket.socket) -> None:
    with running_edge(EDGE) as edge:
        at = edge.udp
        user = register(edge, lb, CLIENT, 1)
    again = EDGE.replace("udp:127.0.0.1:0", f"udp:127.0.0.1:{at[1]}")
    with running_edge(again) as edge, udp_peer("127.0.0.2") as core:
        call(edge, core, user, 2)
        assert core.recv(9999).startswith(b"SIP/2.0 430 "), "its port is not known"
        says(edge, lb, CLIENT, b"\r\n\r\n")
        eventually(lambda: edge.core.stats["keepalives"])
        call(edge, core, user, 3)
        assert lb.recv(9999).startswith(b"MESSAGE ")


@pytest.mark.rfc("OPS-07")
def test_datagrams_that_are_not_believed(edge: RunningEdge, lb: socket.socket) -> None:
    lb.sendto(options(1), edge.udp)  # from the load balancer, without a header
    lb.sendto(header_v1(CLIENT, ("198.51.100.1", 5060)) + options(1), edge.udp)
    lb.sendto(datagram_v2(CLIENT, ("198.51.100.1", 5060), b"")[:20], edge.udp)
    assert silent(lb)
    assert edge.core.stats["proxy_headers_bad"] == 3
    with udp_peer("127.0.0.2") as direct:
        direct.sendto(options(2), edge.udp)
        assert b"received=127.0.0.2" in direct.recv(9999)
        direct.sendto(datagram_v2(CLIENT, ("198.51.100.1", 5060), options(3)), edge.udp)
        assert silent(direct, 0.1)
        direct.sendto(options(4), edge.udp)  # again, now that it is known
        assert b"received=127.0.0.2" in direct.recv(9999)


def test_health_checks_over_udp(edge: RunningEdge, lb: socket.socket) -> None:
    lb.sendto(datagram_v2(CLIENT, ("198.51.100.1", 5060), options(1), command=0x20), edge.udp)
    assert b"received=127.0.0.1" in lb.recv(9999)
    says(edge, lb, CLIENT, options(2))  # the same port, now for a client
    assert b"received=192.0.2.7" in lb.recv(9999)


# -- under TLS and WebSocket -----------------------------------------------------------------

SECURE = """
listen("tls:127.0.0.1:0", proxy_protocol=["127.0.0.1"])
listen("ws:127.0.0.1:0", proxy_protocol=["127.0.0.1"])
listen("wss:127.0.0.1:0", proxy_protocol=["127.0.0.1"])
loadmodule("tls")
loadmodule("websocket")
loadmodule("sl")
modparam("tls", "certificate", "CERTIFICATE")
modparam("tls", "private_key", "KEY")
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, "OK")
"""


@pytest.mark.rfc("OPS-07")
@pytest.mark.parametrize("transport", [TLS, WS, WSS])
@pytest.mark.parametrize("header", [header_v1, header_v2])
def test_under_tls_and_websocket(
    transport: int,
    header: Callable[[tuple[str, int], tuple[str, int]], bytes],
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("edge", "edge.example.com")
    source = SECURE.replace("CERTIFICATE", str(pair.certificate)).replace(
        "KEY", str(pair.private_key)
    )
    with running_edge(source) as edge, tcp_peer(edge.address(transport)) as plain:
        plain.sendall(header(CLIENT, ("198.51.100.1", 5061)))
        peer = plain
        if transport in (TLS, WSS):
            context = ssl.create_default_context(cafile=str(authority.file))
            peer = context.wrap_socket(plain, server_hostname="edge.example.com")
        message = options(1, via="SIP/2.0/TCP 10.1.1.1:5060")
        if transport in (WS, WSS):
            peer.sendall(upgrade_request())
            assert peer.recv(65536).startswith(b"HTTP/1.1 101 ")
            message = frame(TEXT, message)
        peer.sendall(message)
        reply = peer.recv(65536)
        assert b"SIP/2.0 200 " in reply
        assert b";rport=40001;received=192.0.2.7" in reply
        flow = only_flow(edge)
        assert (flow.remote, flow.local) == (CLIENT, ("198.51.100.1", 5061))
        assert not {"remote", "local"} & set(flow.facts or ())
        peer.close()
