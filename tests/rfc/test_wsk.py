"""Requirements B17, WebSocket, and KA-24, KA-25: scenarios S04 and S26 without sockets, and what
only a socket shows."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipedge.flow import TCP, UDP, WS, WSS, Listener
from sipedge.sip.message import SipMessage, parse
from tests.certs import Authority
from tests.helpers_net import PATIENCE, RunningEdge, options, running_edge, tcp_peer
from tests.helpers_ws import (
    ANSWER_ALL,
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    close_code,
    frame,
    open_layer,
    sent_frames,
    upgrade_request,
    ws_peer,
)
from tests.net.fakes import eventually
from tests.sim import Sim
from tests.world import EDGE, KEY, OUTBOUND, Phone, World

EDGE_IP, HOME_IP = "127.0.2.1", "127.0.1.1"
WS_EDGE = EDGE.replace(
    'listen("tcp:', 'listen("ws:{ip}:8080")\nloadmodule("websocket")\nlisten("tcp:', 1
)
ISUP = b"\x01\x10\x48\x00\xff\xfe"


@pytest.fixture(scope="module")
def edge() -> Iterator[RunningEdge]:
    with running_edge(ANSWER_ALL) as running:
        yield running


def upgraded(edge: RunningEdge) -> socket.socket:
    sock = tcp_peer(edge.address(WS))
    sock.sendall(upgrade_request())
    assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
    return sock


def one_edge() -> World:
    world = World()
    world.home()
    world.core(EDGE_IP, WS_EDGE, OUTBOUND % KEY)
    return world


def browser(world: World, name: str, port: int = 41001) -> Phone:
    phone = Phone(world, name, EDGE_IP, ("127.0.3.1", port), transport=WS)
    ok = phone.register()
    assert ok.status == 200
    assert ok.options(b"require") == {b"outbound"}
    assert f'+sip.instance="<{phone.instance}>"'.encode() in ok.values(b"contact")[0]
    return phone


def desk_phone(world: World, name: str, transport: int = UDP) -> Phone:
    phone = Phone(world, name, EDGE_IP, ("127.0.3.2", 40002), transport=transport)
    assert phone.register().status == 200
    return phone


def towards_core(world: World, method: bytes) -> SipMessage:
    """The last request of that method which the home proxy got."""
    found = [data for _, to, data in world.wire if to.startswith(HOME_IP) and data[:8].strip()]
    return parse([data for data in found if data.startswith(method + b" ")][-1])


# -- the handshake -----------------------------------------------------------------------------


@pytest.mark.rfc("WSK-01")
@pytest.mark.parametrize(
    ("offered", "status"),
    [
        (["Sec-WebSocket-Protocol: chat, sip"], b"101"),
        (["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: sip"], b"101"),
        (["Sec-WebSocket-Protocol: xsipx"], b"400"),
        ([], b"400"),
    ],
)
def test_sub_protocol(edge: RunningEdge, offered: list[str], status: bytes) -> None:
    with tcp_peer(edge.address(WS)) as sock:
        sock.sendall(upgrade_request(drop=["Sec-WebSocket-Protocol"], add=offered))
        answer = sock.recv(65536)
    assert answer.split(b" ")[1] == status
    assert (b"\r\nSec-WebSocket-Protocol: sip\r\n" in answer) == (status == b"101")


@pytest.mark.rfc("WSK-09")
def test_another_version(edge: RunningEdge) -> None:
    with tcp_peer(edge.address(WS)) as sock:
        sock.sendall(
            upgrade_request(drop=["Sec-WebSocket-Version"], add=["Sec-WebSocket-Version: 25"])
        )
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


POLICY = """
modparam("websocket", "allowed_origins", ["https://phone.example.com"])
def websocket_request(ksr, request):
    if request.cookie("session") == "good" or request.argument("token") == "good":
        request.facts["user"] = "alice"
    else:
        request.refuse(401, "log in", [("WWW-Authenticate", "Bearer")])
"""


@pytest.mark.rfc("WSK-10", "WSK-11")
def test_policy() -> None:
    source = ANSWER_ALL.replace("def request_route", POLICY + "def request_route")
    cases = {
        upgrade_request(): b"401",
        upgrade_request(add=["Cookie: session=good"]): b"101",
        upgrade_request("/?token=good"): b"101",
        upgrade_request("/?token=good", drop=["Origin"], add=["Origin: https://evil"]): b"403",
        upgrade_request("/?token=good", drop=["Origin"]): b"403",
    }
    with running_edge(source) as running:
        for data, status in cases.items():
            with tcp_peer(running.address(WS)) as sock:
                sock.sendall(data)
                answer = sock.recv(65536)
            assert answer.split(b" ")[1] == status
            assert (b"WWW-Authenticate: Bearer" in answer) == (status == b"401")


# -- frames ------------------------------------------------------------------------------------


@pytest.mark.rfc("WSK-02", "WSK-13")
def test_fragments_with_a_ping_between(edge: RunningEdge) -> None:
    data = options(1, via="SIP/2.0/WS a.invalid", content_length=None)
    with upgraded(edge) as sock:
        sock.sendall(frame(TEXT, data[:50], fin=False))
        sock.sendall(frame(PING, b"x" * 125))
        assert sent_frames(sock.recv(65536)) == [(PONG, b"x" * 125)]
        sock.sendall(frame(CONT, data[50:100], fin=False) + frame(CONT, data[100:]))
        ((opcode, reply),) = sent_frames(sock.recv(65536))
    assert opcode == TEXT
    assert reply.startswith(b"SIP/2.0 200 OK\r\n")


@pytest.mark.rfc("WSK-03")
def test_text_and_binary(edge: RunningEdge) -> None:
    with upgraded(edge) as sock:
        for number, opcode in enumerate((TEXT, BINARY)):
            sock.sendall(frame(opcode, options(number, via="SIP/2.0/WS a.invalid")))
            ((came_as, reply),) = sent_frames(sock.recv(65536))
            assert came_as == TEXT
            assert reply.startswith(b"SIP/2.0 200 OK\r\n")


@pytest.mark.rfc("WSK-03")
def test_a_body_that_is_no_utf8_leaves_as_binary() -> None:
    world = one_edge()
    bob = browser(world, "bob")
    alice = desk_phone(world, "alice")
    data = alice.request("MESSAGE", "sip:bob@example.com", headers="Content-Type: x/isup\r\n")
    data = data.replace(b"Content-Length: 0", b"Content-Length: %d" % len(ISUP)) + ISUP
    alice.send(data)
    message = bob.take(b"MESSAGE")
    assert message.to_bytes().endswith(ISUP)
    ((opcode, payload),) = sent_frames(open_layer().send(message.to_bytes()))
    assert opcode == BINARY
    assert payload == message.to_bytes()


@pytest.mark.rfc("WSK-09")
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (frame(TEXT, b"x", mask=None), 1002),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (b"\x81\xff" + (64 << 20).to_bytes(8, "big") + b"mask", 1009),
        (frame(CLOSE, b"\x03\xe8"), 1000),
    ],
)
def test_violations_and_close(edge: RunningEdge, data: bytes, status: int) -> None:
    with upgraded(edge) as sock:
        sock.sendall(data)
        assert close_code(sock.recv(65536)) == status
        assert sock.recv(65536) == b""


@pytest.mark.rfc("WSK-13")
def test_control_frames_are_short_and_nothing_is_compressed(edge: RunningEdge) -> None:
    for data in (frame(PING, b"x" * 126), frame(TEXT, b"x", rsv=4)):
        with upgraded(edge) as sock:
            sock.sendall(data)
            assert close_code(sock.recv(65536)) == 1002
    with tcp_peer(edge.address(WS)) as sock:
        sock.sendall(upgrade_request(add=["Sec-WebSocket-Extensions: permessage-deflate"]))
        assert b"Sec-WebSocket-Extensions" not in sock.recv(65536)


@pytest.mark.rfc("WSK-14")
def test_json(edge: RunningEdge) -> None:
    with ws_peer(edge) as client:
        for _ in range(20):
            client.send('{"jsonrpc": "2.0", "method": "login", "id": 1}')
        client.send(options(1, via="SIP/2.0/WS a.invalid").decode())
        assert str(client.recv(PATIENCE)).startswith("SIP/2.0 200 ")


# -- keep-alives -------------------------------------------------------------------------------


@pytest.mark.rfc("KA-24")
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_pings_and_crlf(edge: RunningEdge, opcode: int) -> None:
    with upgraded(edge) as sock:
        sock.sendall(frame(opcode, b"\r\n\r\n"))
        assert [payload for _, payload in sent_frames(sock.recv(65536))] == [b"\r\n"]
        sock.sendall(frame(opcode, b"\r\n") + frame(PING, b"\r\n\r\n"))
        assert sent_frames(sock.recv(65536)) == [(PONG, b"\r\n\r\n")]


@pytest.mark.rfc("KA-25")
def test_a_silent_browser_survives() -> None:
    """It says nothing for ten times Flow-Timer, but answers our pings, as browsers do."""
    source = ANSWER_ALL.replace(
        "def request_route",
        'core.tcp_connection_lifetime = 3\nmodparam("websocket", "keepalive_timeout", 1)\n'
        "def request_route",
    )
    with running_edge(source) as running, ws_peer(running) as client:
        client.send(options(1, via="SIP/2.0/WS a.invalid").decode())
        client.recv(PATIENCE)
        eventually(lambda: running.core.stats["websocket_pongs_received"] >= 5)
        assert running.core.stats["websocket_pings_sent"] >= 5
        assert not running.core.stats["flows_closed"]
        client.send(options(2, via="SIP/2.0/WS a.invalid").decode())
        assert str(client.recv(PATIENCE)).startswith("SIP/2.0 200 ")


@pytest.mark.rfc("KA-25")
def test_a_browser_that_is_gone_is_found_out() -> None:
    source = ANSWER_ALL.replace(
        "def request_route",
        'modparam("websocket", "keepalive_timeout", 1)\ndef request_route',
    )
    with running_edge(source) as running, upgraded(running) as sock:
        until = time.monotonic() + PATIENCE
        data = b""
        while more := sock.recv(65536):  # reads, but never answers
            data += more
            assert time.monotonic() < until
    assert [opcode for opcode, _ in sent_frames(data)] == [PING, CLOSE]
    assert running.core.stats["websocket_pings_unanswered"] == 1


# -- calls -------------------------------------------------------------------------------------


@pytest.mark.rfc("WSK-04", "WSK-05", "WSK-06", "WSK-07")
@pytest.mark.parametrize("hang_up", ["caller", "callee"])
@pytest.mark.parametrize("caller", ["browser", "phone"])
@pytest.mark.parametrize("transport", [UDP, TCP, WS])
def test_calls(transport: int, caller: str, hang_up: str) -> None:
    world = one_edge()
    bob = browser(world, "bob")
    if transport == WS:
        alice = browser(world, "alice", 41002)
    else:
        alice = desk_phone(world, "alice", transport)
    first, second = (bob, alice) if caller == "browser" else (alice, bob)
    first.call(second.name)
    invite = second.take(b"INVITE")
    assert invite.ruri == second.contact[1:-1].encode()
    second.reply(invite, 180, "Ringing")
    first.take(180)
    second.reply(invite, 200)
    ok = first.take(200)
    first.send(first.in_dialog("ACK", ok, uac=True, cseq=1))
    second.take(b"ACK")
    # a request within the dialog, in the other direction
    second.send(second.in_dialog("INFO", invite, uac=False))
    info = first.take(b"INFO")
    first.reply(info, 200)
    second.take(200)
    if hang_up == "caller":
        first.send(first.in_dialog("BYE", ok, uac=True, cseq=3))
        bye, ends = second.take(b"BYE"), (second, first)
    else:
        second.send(second.in_dialog("BYE", invite, uac=False, cseq=3))
        bye, ends = first.take(b"BYE"), (first, second)
    ends[0].reply(bye, 200)
    ends[1].take(200)
    assert first.silent()
    assert second.silent()
    assert not world.refused  # nothing was dialed
    assert not world.cores[EDGE_IP].lookups()  # nor looked up
    via = (invite if second is bob else info).values(b"via")[0]
    assert via.startswith(b"SIP/2.0/WS 127.0.2.1:8080;branch=")
    _record_routes(invite if second is bob else ok, bob_is_callee=second is bob)
    path = towards_core(world, b"REGISTER").values(b"path")
    assert len(path) == 1
    assert b"transport=ws" not in path[0]


def _record_routes(seen: SipMessage, bob_is_callee: bool) -> None:
    """The value that faces the browser is ws, with its token; the next one is not."""
    values = seen.values(b"record-route")
    ours = [value for value in values if b"@127.0.2.1:" in value or b":127.0.2.1:" in value]
    nearest = values[0] if bob_is_callee else values[-1]
    assert b"@127.0.2.1:8080;transport=ws;" in nearest
    neighbour = values[1] if bob_is_callee else values[-2]
    assert neighbour in ours
    assert b"transport=ws" not in neighbour


@pytest.mark.rfc("WSK-07")
def test_what_the_core_is_to_send_to_is_never_ws() -> None:
    """The topmost Record-Route and the only Path of what reaches the home proxy."""
    world = one_edge()
    bob = browser(world, "bob")
    bob.call("nobody")
    invite = towards_core(world, b"INVITE")
    assert invite.values(b"record-route")[0].startswith(b"<sip:127.0.2.1:5060;")
    assert b"transport=ws" in invite.values(b"record-route")[1]  # for bob, below it
    register = towards_core(world, b"REGISTER")
    (path,) = register.values(b"path")
    assert path.endswith(b"@127.0.2.1:5060;lr;ob>")


@pytest.mark.rfc("WSK-04")
def test_names_of_both_transports() -> None:
    ws, wss = Listener(WS, "192.0.2.1", 80), Listener(WSS, "192.0.2.1", 443)
    assert ws.via_sent == b"SIP/2.0/WS 192.0.2.1:80"
    assert wss.via_sent == b"SIP/2.0/WSS 192.0.2.1:443"
    assert ws.uri_transport == wss.uri_transport == b";transport=ws"


@pytest.mark.rfc("WSK-06")
def test_rport_is_filled_in_if_it_was_asked_for() -> None:
    source = """
core.force_rport = False
listen("udp:127.0.0.1:5060")
listen("ws:127.0.0.1:8080")
loadmodule("websocket")
loadmodule("sl")
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, "OK")
"""
    world = Sim(source)
    peer = world.ws(port=41001)
    data = options(1, via="SIP/2.0/WS df7jal23ls0d.invalid")
    peer.send(data)
    assert b";rport=41001" in peer.take().values(b"via")[0]
    peer.send(data.replace(b";rport", b"").replace(b"-n1", b"-n2"))
    assert b"rport" not in peer.take().values(b"via")[0]


@pytest.mark.rfc("WSK-08")
def test_nothing_is_sent_twice() -> None:
    world = one_edge()
    bob = browser(world, "bob")
    alice = desk_phone(world, "alice")
    alice.call("bob")
    invite = bob.take(b"INVITE")
    world.advance(10)  # timer A
    assert bob.silent()
    bob.reply(invite, 486, "Busy Here")
    bob.take(b"ACK")
    bob.call("nobody")
    bob.take(480)
    world.advance(40)  # timer G: there is no ACK
    assert bob.silent()
    alice.send(alice.request("MESSAGE", "sip:bob@example.com"))
    bob.take(b"MESSAGE")
    world.advance(20)  # timer E
    assert bob.silent()


@pytest.mark.rfc("WSK-12")
def test_a_closed_connection_is_no_flow_any_more() -> None:
    world = one_edge()
    bob = browser(world, "bob")
    alice = desk_phone(world, "alice")
    bob.hang_connection()
    alice.call("bob")
    alice.take(480)  # the edge said 430 to the home proxy, which has no other flow
    got = [data for _, to, data in world.wire if to.startswith(HOME_IP)]
    assert any(data.startswith(b"SIP/2.0 430 ") for data in got)
    assert bob.silent()
    alice.call("bob")  # that binding is gone
    alice.take(480)
    assert not world.refused
    again = browser(world, "bob", 41003)
    alice.call("bob")
    again.take(b"INVITE")


@pytest.mark.rfc("WSK-12")
@pytest.mark.parametrize("way", ["close", "end", "reset"])
def test_each_way_to_end_ends_the_flow(way: str) -> None:
    with running_edge(ANSWER_ALL) as running:
        sock = upgraded(running)
        eventually(lambda: running.core.flows.streams)
        if way == "close":
            sock.sendall(frame(CLOSE, b"\x03\xe9"))
        elif way == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        else:
            sock.shutdown(socket.SHUT_WR)
        eventually(lambda: running.core.stats["flows_closed"] == 1)
        assert not running.core.flows.streams
        sock.close()


# -- over TLS ----------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[RunningEdge, ssl.SSLContext]]:
    """An edge with wss, and the context of a browser that trusts its authority."""
    authority = Authority(tmp_path)
    pair = authority.pair("edge", "edge.example.com", addresses=["127.0.0.1"])
    source = (
        ANSWER_ALL.replace("ws:127.0.0.1:0", "wss:127.0.0.1:0").replace(
            'loadmodule("websocket")', 'loadmodule("websocket")\nloadmodule("tls")', 1
        )
        + "seen = []\ndef websocket_request(ksr, request):\n    seen.append(request)\n"
    )
    params = f"""
modparam("tls", "certificate", {str(pair.certificate)!r})
modparam("tls", "private_key", {str(pair.private_key)!r})
"""
    with running_edge(source.replace("def request_route", params + "def request_route")) as edge:
        yield edge, ssl.create_default_context(cafile=str(authority.file))


@pytest.mark.rfc("WSK-01", "WSK-03", "WSK-04", "KA-24")
def test_wss(secure: tuple[RunningEdge, ssl.SSLContext]) -> None:
    edge, context = secure
    with ws_peer(edge, WSS, "/sip?a=1", ssl=context) as client:
        assert client.subprotocol == "sip"
        client.send(options(1, via="SIP/2.0/WSS df7jal23ls0d.invalid").decode())
        reply = client.recv(PATIENCE)
        assert isinstance(reply, str)
        assert reply.startswith("SIP/2.0 200 OK\r\nVia: SIP/2.0/WSS df7jal23ls0d.invalid;")
        client.send("\r\n\r\n")
        assert client.recv(PATIENCE) == "\r\n"
        assert client.ping(b"x").wait(PATIENCE)
        (request,) = edge.core.request_route.__globals__["seen"]
        assert request.secure
        assert request.path == "/sip"
    eventually(lambda: edge.core.stats["flows_closed"] == 1)


@pytest.mark.rfc("WSK-12")
@pytest.mark.parametrize("way", ["alert", "end"])
def test_the_end_of_tls_is_the_end_of_the_flow(
    secure: tuple[RunningEdge, ssl.SSLContext], way: str
) -> None:
    edge, context = secure
    tls = context.wrap_socket(tcp_peer(edge.address(WSS)), server_hostname="127.0.0.1")
    tls.sendall(upgrade_request())
    assert tls.recv(65536).startswith(b"HTTP/1.1 101 ")
    eventually(lambda: edge.core.stats["flows_opened"] == 1)
    if way == "alert":
        tls.unwrap().close()  # close_notify, and the edge's
    else:
        tls.shutdown(socket.SHUT_RDWR)
    eventually(lambda: edge.core.stats["flows_closed"] == 1)
    assert not edge.core.flows.streams
    tls.close()


def test_plain_http_on_the_secure_port(secure: tuple[RunningEdge, ssl.SSLContext]) -> None:
    edge, _ = secure
    with tcp_peer(edge.address(WSS)) as sock:
        sock.sendall(upgrade_request())
        while sock.recv(65536):
            pass
    assert not edge.core.stats["flows_opened"]


@pytest.mark.rfc("WSK-05")
@pytest.mark.parametrize(
    "uri",
    [
        "sip:bob@df7jal23ls0d.invalid;transport=ws",
        "sip:bob@df7jal23ls0d.invalid",
        "sip:bob@127.0.0.9:8080;transport=ws",
        "sips:bob@127.0.0.9:8080;transport=ws",
        "sip:bob@browser.example.com;transport=wss",
    ],
)
def test_nobody_dials_a_browser(uri: str) -> None:
    source = """
listen("udp:127.0.0.1:5060")
listen("ws:127.0.0.1:8080")
loadmodule("websocket")
loadmodule("tm")
def request_route(ksr, msg):
    ksr.tm.t_relay(msg)
"""
    world = Sim(source)
    peer = world.udp()
    peer.send(options(1, uri=uri, method="INVITE"))
    finals = [msg.status for msg in peer.got if msg.status >= 200]
    assert len(finals) == 1
    assert finals[0] >= 400
    assert not world.dialed
    assert not world.asked
