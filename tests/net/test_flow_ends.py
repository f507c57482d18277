"""However a connection ends: one ``flow_closed`` with a reason, and its bindings go at once."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import struct
from collections.abc import Callable, Iterator

import pytest

from sipedge.flow import TCP, TLS, TRANSPORT_NAME, WS, WSS, Flow
from sipedge.net.connection import Connection
from tests.certs import Authority
from tests.helpers_net import RunningEdge, options, running_edge, udp_peer
from tests.helpers_ws import CLOSE, frame
from tests.net.fakes import eventually
from tests.net.test_hostile import connected, packed

EDGE = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
listen("tls:127.0.0.1:0")
listen("ws:127.0.0.1:0")
listen("wss:127.0.0.1:0")
alias("example.com")
core.tcp_connection_lifetime = 30
loadmodule("tm")
loadmodule("sl")
loadmodule("tls")
loadmodule("websocket")
loadmodule("outbound")
loadmodule("registrar")
modparam("tls", "certificate", "CERTIFICATE")
modparam("tls", "private_key", "KEY")
modparam("websocket", "keepalive_mechanism", 0)
modparam("outbound", "flow_token_key", b"johndoessecretphrase")
def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    elif ksr.registrar.lookup(msg, "location"):
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 480, "Temporarily Unavailable")
"""
REGISTER = (
    'Contact: <sip:bob@10.1.1.1;ob>;reg-id=1;+sip.instance="<urn:uuid:1>"\r\n'
    "Supported: path, outbound\r\nExpires: 600\r\n"
)


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


def register(phone: socket.socket, transport: int) -> None:
    request = options(
        1,
        via="SIP/2.0/TCP 10.1.1.1:5060",
        method="REGISTER",
        uri="sip:example.com",
        headers=REGISTER,
    )
    phone.sendall(packed(transport, request))
    assert b"SIP/2.0 200 " in phone.recv(65536)


def is_called(edge: RunningEdge, caller: socket.socket, number: int) -> bool:
    """Whether a call for the phone finds a binding."""
    caller.sendto(options(number, method="MESSAGE", uri="sip:b@example.com"), edge.udp)
    caller.settimeout(1)
    try:
        return not caller.recv(65536).startswith(b"SIP/2.0 480 ")
    except TimeoutError:  # relayed, and the phone does not answer
        return True


def fin(phone: socket.socket) -> None:
    socket.socket.shutdown(phone, socket.SHUT_WR)


def rst(phone: socket.socket) -> None:
    phone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    phone.close()


def close_notify(phone: socket.socket) -> None:
    assert isinstance(phone, ssl.SSLSocket)
    with contextlib.suppress(OSError):
        phone.unwrap()


def broken_record(phone: socket.socket) -> None:
    """The edge answers with an alert."""
    socket.socket.send(phone, b"\x17\x03\x03\x00\x20" + bytes(32))


def close_frame(phone: socket.socket) -> None:
    phone.sendall(frame(CLOSE, struct.pack("!H", 1000)))


def bad_frame(phone: socket.socket) -> None:
    phone.sendall(frame(3, b"?"))


ENDS = [
    *((transport, fin, "closed by the peer") for transport in (TCP, TLS, WS, WSS)),
    *((transport, rst, "lost: ") for transport in (TCP, TLS, WS, WSS)),
    (TLS, close_notify, ""),
    (WSS, close_notify, ""),
    (TLS, broken_record, ""),
    (WS, close_frame, ""),
    (WSS, close_frame, ""),
    (WS, bad_frame, ""),
]


@pytest.mark.rfc("INC-14", "HPX-08")
@pytest.mark.parametrize(
    ("transport", "end", "reason"),
    [
        pytest.param(*row, id=f"{TRANSPORT_NAME[row[0]]}-{row[1].__name__}")  # type: ignore[index]
        for row in ENDS
    ],
)
def test_ends_of_the_peer(
    edge: RunningEdge,
    context: ssl.SSLContext,
    transport: int,
    end: Callable[[socket.socket], None],
    reason: str,
) -> None:
    ended: list[tuple[Flow, str]] = []
    edge.core.hooks_flow_closed += (lambda flow, why: ended.append((flow, why)),)
    phone = connected(edge, context, transport)
    register(phone, transport)
    [flow] = edge.core.flows.streams.values()
    with udp_peer() as caller:
        end(phone)
        eventually(lambda: ended)
        assert not is_called(edge, caller, 2)
    phone.close()
    eventually(lambda: not edge.server.connections)
    assert [one for one, _ in ended] == [flow]
    why = ended[0][1]
    assert why
    assert reason in why
    assert edge.core.stats["contacts_lost_with_flow"] == 1
    assert not flow.alive


@pytest.mark.rfc("KA-16")
@pytest.mark.parametrize("transport", [TCP, TLS, WS, WSS], ids=TRANSPORT_NAME.get)
def test_silence(edge: RunningEdge, context: ssl.SSLContext, transport: int) -> None:
    ended: list[tuple[Flow, str]] = []
    edge.core.hooks_flow_closed += (lambda flow, why: ended.append((flow, why)),)
    edge.core.tcp_connection_lifetime = 1
    with connected(edge, context, transport) as phone:
        register(phone, transport)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while phone.recv(65536):
                pass
        eventually(lambda: not edge.server.connections)
    assert [why for _, why in ended] == ["idle"]
    with udp_peer() as caller:
        assert not is_called(edge, caller, 2)


@pytest.mark.parametrize(
    "said", [b"\0" * 40, b"OPTIONS sip:x SIP/2.0\r\nVia: x\r\n\r\n"], ids=["noise", "no length"]
)
def test_nothing_of_a_connection_waits_for_the_garbage_collector(
    edge: RunningEdge, context: ssl.SSLContext, said: bytes
) -> None:
    """It may never look at it (``net.process.tame_gc``)."""
    gc.collect()
    gc.disable()
    try:
        for transport in (TCP, TLS):
            for _ in range(3):
                with connected(edge, context, transport) as peer:
                    peer.sendall(said)
                    with contextlib.suppress(OSError):
                        while peer.recv(65536):
                            pass
        eventually(lambda: not edge.server.connections)
        eventually(lambda: not any(type(one) is Connection for one in gc.get_objects()))
    finally:
        gc.enable()
