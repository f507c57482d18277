"""What the core does with WebSocket messages and silence; requests as policies see them."""

from __future__ import annotations

import pytest

from sipedge.websocket import Close, Ping, Pong, Request, close_frame, flows
from tests.sim import Peer, Sim, request

VIA = "SIP/2.0/WS df7jal23ls0d.invalid"
SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
listen("ws:127.0.0.1:8080")
loadmodule("sl")
loadmodule("websocket")
{more}
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, "OK")
"""


def sim(*lines: str) -> Sim:
    return Sim(SOURCE.replace("{more}", "\n".join(lines)))


def silent_edge(mechanism: int = 1, timeout: int = 25) -> Sim:
    """Where nothing but the keep-alive ends a connection."""
    return sim(
        "core.tcp_connection_lifetime = 0",
        "core.tcp_msg_data_timeout = 0",
        f'modparam("websocket", "keepalive_mechanism", {mechanism})',
        f'modparam("websocket", "keepalive_timeout", {timeout})',
    )


def pings(peer: Peer) -> list[bytes]:
    return [data for data in peer.raw if isinstance(data, Ping | Pong)]


# -- messages ----------------------------------------------------------------------------------


def test_a_request_is_answered() -> None:
    peer = sim().ws()
    peer.send(request("OPTIONS", via=VIA))
    reply = peer.take()
    assert reply.status == 200
    assert reply.lines[1].startswith(b"Via: SIP/2.0/WS df7jal23ls0d.invalid;branch=")


def test_content_length_may_be_left_out() -> None:
    peer = sim().ws()
    data = request("MESSAGE", via=VIA, body="hello").replace(b"Content-Length: 5\r\n", b"")
    peer.send(data)
    assert peer.take().status == 200


def test_a_body_that_is_too_short_is_refused() -> None:
    peer = sim().ws()
    peer.send(request("MESSAGE", via=VIA, body="hello")[:-1])
    assert peer.take().status == 400
    assert peer.flow.alive


def test_a_message_is_not_put_together_from_two() -> None:
    peer = sim().ws()
    data = request("OPTIONS", via=VIA)
    peer.send(data[:100])
    peer.send(data[100:])
    assert not [msg for msg in peer.got if msg.status == 200]


@pytest.mark.parametrize(
    "junk", [b'{"type": "hello", "version": 1}', b"<xml/>" * 10, b"\0" * 100, b"x" * 20, b"ping"]
)
def test_what_is_no_sip_is_ignored(junk: bytes) -> None:
    world = sim()
    peer = world.ws()
    for _ in range(50):
        peer.send(junk)
    assert peer.raw == []
    assert peer.flow.alive
    peer.send(request("OPTIONS", via=VIA))
    assert peer.take().status == 200


def test_crlf_keep_alives() -> None:
    world = sim()
    peer = world.ws()
    peer.send(b"\r\n\r\n")
    assert peer.raw == [b"\r\n"]
    peer.send(b"\r\n")
    peer.send(b"")
    assert peer.raw == [b"\r\n"]
    assert world.core.stats["pings_answered"] == 1


def test_control_frames_are_counted() -> None:
    world = sim()
    peer = world.ws()
    peer.send(Ping(b"\r\n\r\n"))
    peer.send(Pong(request("OPTIONS", via=VIA)[:125]))
    assert peer.raw == []
    assert world.core.stats["websocket_pings_answered"] == 1
    assert world.core.stats["websocket_pongs_received"] == 1


def test_messages_count_as_said_something() -> None:
    world = sim()
    peer = world.ws()
    peer.send(b"\r\n\r\n")
    assert not peer.flow.spoke
    peer.send(request("OPTIONS", via=VIA))
    assert peer.flow.spoke


# -- keep-alives -------------------------------------------------------------------------------


def test_a_silent_peer_is_pinged_and_lives_while_it_answers() -> None:
    world = silent_edge()
    peer = world.ws()
    for _ in range(10):
        before = len(pings(peer))
        for _ in range(30):
            if len(pings(peer)) == before:
                world.advance(1)
        assert world.now - peer.flow.last_rx <= 27
        peer.send(Pong(b"sipedge"))
    assert pings(peer) == [b"sipedge"] * 10
    assert all(isinstance(data, Ping) for data in pings(peer))
    assert peer.flow.alive


def test_a_peer_that_answers_no_ping_is_closed() -> None:
    world = silent_edge()
    peer = world.ws()
    world.advance(44)
    assert len(pings(peer)) == 1
    assert peer.flow.alive
    world.advance(7)
    assert not peer.flow.alive
    assert "ping was not answered" in world.closed[0][1]
    assert world.core.stats["websocket_pings_unanswered"] == 1


def test_an_answer_may_come_at_once() -> None:
    """By the same reading of the clock as the ping."""
    world = silent_edge()
    peer = world.ws()
    while not pings(peer):
        due = world.core.next_timer()
        assert due is not None
        world.advance(due - world.now)
    pinged = world.now = world.core.now
    peer.send(Pong(b"sipedge"))
    assert peer.flow.last_rx == pinged
    world.advance(30)
    assert peer.flow.alive


def test_anything_is_an_answer() -> None:
    world = silent_edge()
    peer = world.ws()
    world.advance(30)
    assert len(pings(peer)) == 1
    peer.send(request("OPTIONS", via=VIA))
    world.advance(19)
    assert peer.flow.alive


def test_who_talks_is_not_pinged() -> None:
    world = silent_edge()
    peer = world.ws()
    for _ in range(20):
        world.advance(15)
        peer.send(b"\r\n\r\n")
    assert pings(peer) == []
    assert peer.flow.alive


def test_pings_are_spread() -> None:
    world = silent_edge(timeout=100)
    peers = [world.ws(port=42000 + i) for i in range(200)]
    world.advance(79)
    assert not any(pings(peer) for peer in peers)
    world.advance(11)
    assert 40 < sum(bool(pings(peer)) for peer in peers) < 160
    world.advance(11)
    assert all(pings(peer) for peer in peers)


def test_pongs_that_nobody_asked_for() -> None:
    world = silent_edge(mechanism=2)
    peer = world.ws()
    world.advance(1000)
    assert 35 < len(pings(peer)) < 50
    assert all(isinstance(data, Pong) for data in pings(peer))
    assert peer.flow.alive


@pytest.mark.parametrize("mechanism", [0, 3])
def test_no_keep_alives(mechanism: int) -> None:
    world = silent_edge(mechanism=mechanism)
    peer = world.ws()
    world.advance(10000)
    assert peer.raw == []
    assert peer.flow.alive


def test_a_closed_connection_is_not_pinged() -> None:
    world = silent_edge()
    peer = world.ws()
    peer.close()
    world.advance(100)
    assert peer.raw == []


def test_tcp_is_not_pinged() -> None:
    world = silent_edge()
    peer = world.tcp()
    world.advance(1000)
    assert peer.raw == []
    assert list(flows(world.core)) == []


def test_defaults_keep_a_silent_browser() -> None:
    """The default of ``keepalive_timeout`` is shorter than that of ``tcp_connection_lifetime``."""
    world = sim()
    peer = world.ws()
    peer.send(request("OPTIONS", via=VIA))
    for _ in range(1200):
        seen = len(pings(peer))
        world.advance(1)
        if len(pings(peer)) > seen:
            peer.send(Pong(b"sipedge"))
    assert peer.flow.alive
    assert len(pings(peer)) > 15


# -- requests ----------------------------------------------------------------------------------


def http(target: str = "/", **headers: str) -> Request:
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Request(target, lines, ("192.0.2.1", 1), ("192.0.2.2", 2))


def test_path_and_query() -> None:
    one = http("/a%20b?token=x%2By&token=z&empty=")
    assert (one.path, one.query) == ("/a%20b", "token=x%2By&token=z&empty=")
    assert one.argument("token") == "x+y"
    assert one.argument("empty") == ""
    assert one.argument("nothing") is None
    assert http("/").argument("token") is None


def test_headers_of_the_same_name() -> None:
    lines = [("X-A", "1"), ("x-a", "2"), ("Cookie", "a=1"), ("cookie", "b=2")]
    one = Request("/", lines, ("192.0.2.1", 1), ("192.0.2.2", 2))
    assert one.header("X-a") == "1, 2"
    assert one.cookie("a") == "1"
    assert one.cookie("b") == "2"
    assert one.cookie("c") is None
    assert one.header("nothing") is None


def test_cookies_that_are_none() -> None:
    assert http(Cookie="\x01=;;==").cookie("a") is None
    assert http().cookie("a") is None


def test_refusing() -> None:
    one = http()
    assert one.refusal is None
    one.refuse(403)
    assert one.refusal == (403, "Forbidden", ())
    one.refuse(302, "there", [("Location", "https://example.com/")])
    assert one.refusal == (302, "there", (("Location", "https://example.com/"),))


@pytest.mark.parametrize("status", [101, 200, 299, 600, 499])
def test_what_refuses_nothing(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        http().refuse(status)


def test_headers_stay_on_their_line() -> None:
    with pytest.raises(ValueError, match="line end"):
        http().refuse(401, "", [("WWW-Authenticate", "x\r\nSet-Cookie: y")])


def test_close_frames() -> None:
    assert close_frame(1000, "ä") == Close(b"\x03\xe8\xc3\xa4")
    for status in (999, 1005, 1006, 1015, 2999, 5000):
        with pytest.raises(ValueError, match="status"):
            close_frame(status, "")
    with pytest.raises(ValueError, match="123"):
        close_frame(1000, "x" * 124)
