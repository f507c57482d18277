"""WebSocket frames, sans IO and against the ``websockets`` client on real sockets."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame
from websockets.http11 import Request as HttpRequest
from websockets.protocol import State
from websockets.server import ServerProtocol

from sipedge.flow import WS
from sipedge.net import websocket as net_websocket
from sipedge.net.websocket import WebSocketLayer
from sipedge.websocket import Close, Ping, Pong, Settings
from tests.helpers_net import PATIENCE, options, running_edge, tcp_peer
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
    new_layer,
    open_layer,
    sent_frames,
    upgrade_request,
    ws_peer,
)
from tests.net.fakes import eventually

MESSAGE = options(1, via="SIP/2.0/WS df7jal23ls0d.invalid")
LIMIT = 2048
SMALL = Settings(max_message_size=LIMIT)


# -- one message, one SIP message --------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_sizes(opcode: int, size: int) -> None:
    layer = open_layer()
    payload = bytes(65 + i % 26 for i in range(size))
    assert layer.receive(frame(opcode, payload)) == [payload]
    assert layer.receive(frame(opcode, payload, wide=True)) == [payload]
    assert not layer.over


def test_what_follows_the_request_at_once_is_read() -> None:
    layer = new_layer()
    assert layer.receive(upgrade_request() + frame(TEXT, MESSAGE)) == [MESSAGE]


def test_several_frames_in_one_segment() -> None:
    layer = open_layer()
    data = frame(TEXT, b"one") + frame(PING, b"p") + frame(BINARY, b"two")
    assert layer.receive(data) == [b"one", b"p", b"two"]
    assert sent_frames(layer.outgoing()) == [(PONG, b"p")]


def test_fragments_with_control_frames_between() -> None:
    layer = open_layer()
    assert layer.receive(frame(TEXT, MESSAGE[:7], fin=False)) == []
    assert layer.unfinished
    assert layer.receive(frame(PING, b"hello")) == [b"hello"]
    assert sent_frames(layer.outgoing()) == [(PONG, b"hello")]
    assert layer.receive(frame(CONT, b"", fin=False)) == []
    assert layer.receive(frame(PONG)) == [b""]
    assert layer.receive(frame(CONT, MESSAGE[7:])) == [MESSAGE]
    assert not layer.unfinished


def test_utf8_may_be_cut_anywhere() -> None:
    layer = open_layer()
    text = "Jiří ☎".encode()
    assert layer.receive(frame(TEXT, text[:4], fin=False)) == []
    assert layer.receive(frame(CONT, text[4:])) == [text]


def test_control_frames_have_classes_of_their_own() -> None:
    layer = open_layer()
    ping, pong = layer.receive(frame(PING, b"1") + frame(PONG, b"2"))
    assert isinstance(ping, Ping)
    assert isinstance(pong, Pong)


def test_a_half_frame_is_unfinished() -> None:
    layer = open_layer()
    data = frame(TEXT, MESSAGE)
    assert layer.receive(data[:1]) == []
    assert layer.unfinished
    assert layer.receive(data[1:]) == [MESSAGE]
    assert not layer.unfinished


# -- sending -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_text_is_one_frame_without_a_mask(size: int) -> None:
    layer = open_layer()
    assert sent_frames(layer.send(b"x" * size)) == [(TEXT, b"x" * size)]


def test_what_is_no_utf8_leaves_as_binary() -> None:
    layer = open_layer()
    assert sent_frames(layer.send("ü".encode())) == [(TEXT, "ü".encode())]
    assert sent_frames(layer.send(b"\xff\xfe")) == [(BINARY, b"\xff\xfe")]


def test_control_frames_are_sent() -> None:
    layer = open_layer()
    assert sent_frames(layer.send(Ping(b"a"))) == [(PING, b"a")]
    assert sent_frames(layer.send(Pong(b"b"))) == [(PONG, b"b")]
    assert sent_frames(layer.send(Close(b"\x0f\xa0bye"))) == [(CLOSE, b"\x0f\xa0bye")]
    assert layer.send(b"too late") == b""
    assert layer.close() == b""


def test_closing_says_that_we_go_away() -> None:
    layer = open_layer()
    assert close_code(layer.close()) == 1001
    assert layer.close() == b""


def test_nothing_is_sent_before_the_handshake() -> None:
    layer = new_layer()
    assert layer.send(b"x") == b""
    assert layer.close() == b""


# -- what is not allowed -----------------------------------------------------------------------

BAD = [
    (frame(TEXT, b"x", mask=None), 1002),
    (frame(TEXT, b"x" * 300, mask=None)[:4], 1002),  # refused on sight
    (frame(TEXT, b"x", rsv=4), 1002),  # compressed, which nobody agreed on
    (frame(TEXT, b"x", rsv=1), 1002),
    (frame(3, b"x"), 1002),
    (frame(11, b"x"), 1002),
    (frame(CONT, b"x"), 1002),
    (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    (frame(PING, b"x" * 126), 1002),
    (frame(PING, b"x", fin=False), 1002),
    (frame(CLOSE, b"x"), 1002),
    (frame(CLOSE, b"\x03\xed"), 1002),  # 1005 is never sent
    (frame(TEXT, b"\xc3"), 1007),
    (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("), 1007),
    (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    (frame(TEXT, b"x" * (LIMIT + 1))[:8], 1009),
    (frame(TEXT, b"x" * LIMIT, fin=False) + frame(CONT, b"y"), 1009),
    (b"\x82\xff" + (64 << 20).to_bytes(8, "big"), None),  # the mask is still to come
    (b"\x82\xff" + (64 << 20).to_bytes(8, "big") + b"mask", 1009),
    (b"\x82\xff" + b"\xff" * 8 + b"mask", 1009),
]


@pytest.mark.parametrize(("data", "status"), BAD)
def test_violations(data: bytes, status: int | None) -> None:
    layer = open_layer(SMALL)
    layer.receive(data)
    if status is None:
        assert not layer.over
        return
    assert close_code(layer.outgoing()) == status
    assert str(status) in layer.over
    assert layer.receive(frame(TEXT, b"more")) == []
    assert layer.send(b"more") == b""
    assert layer.outgoing() == layer.close() == b""


def test_what_came_before_a_violation_is_delivered() -> None:
    layer = open_layer()
    assert layer.receive(frame(TEXT, b"good") + frame(TEXT, b"\xff") + frame(TEXT, b"x")) == [
        b"good"
    ]
    assert close_code(layer.outgoing()) == 1007


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa0bye"])
def test_close_is_echoed(payload: bytes) -> None:
    layer = open_layer()
    assert layer.receive(frame(CLOSE, payload) + frame(TEXT, b"x")) == []
    assert sent_frames(layer.outgoing()) == [(CLOSE, payload)]
    assert "closed by the peer" in layer.over


def test_an_endless_frame_is_not_kept() -> None:
    """Nothing of a message that is refused is stored, whatever comes after it."""
    layer = open_layer()
    head = b"\x81\xff" + (64 << 20).to_bytes(8, "big") + b"mask"
    layer.receive(head)
    for _ in range(100):
        assert layer.receive(b"x" * 65536) == []
    assert not layer._chunks


# -- the short cut and the library say the same ------------------------------------------------


def library(data: bytes, limit: int) -> tuple[list[bytes], int | None]:
    """Messages and control frames, and the status of the Close frame, by ``websockets`` alone."""
    protocol = ServerProtocol(state=State.OPEN, max_size=limit)
    protocol.receive_data(data)
    found: list[bytes] = []
    parts, is_text = b"", False
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (PING, PONG):
            found.append(bytes(event.data))
        elif event.opcode in (CONT, TEXT, BINARY):
            if event.opcode != CONT:
                parts, is_text = b"", event.opcode == TEXT
            parts += event.data
            if event.fin:
                try:
                    assert not is_text or parts.decode() is not None
                except UnicodeDecodeError:
                    return found, 1007
                found.append(parts)
    return found, protocol.close_sent.code if protocol.close_sent else None


def fed(layer: WebSocketLayer, data: bytes, cuts: list[int]) -> tuple[list[bytes], int | None]:
    found: list[bytes] = []
    out = b""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, stop in pairwise(edges):
        found += layer.receive(data[start:stop])
        out += layer.outgoing()
    closed = [payload for opcode, payload in sent_frames(out) if opcode == CLOSE]
    code = None if not closed else int.from_bytes(closed[0][:2] or b"\x03\xed", "big")
    return found, code


payloads = st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode))
frames = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, TEXT, BINARY, CONT, PING, PONG, CLOSE]),
    payloads,
    fin=st.sampled_from([True, True, True, False]),
    mask=st.sampled_from([b"abcd", b"\0\0\0\0", b"\xff\1\2\3"]),
    wide=st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 5000), max_size=12))
def test_differential(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    assert fed(open_layer(SMALL), data, cuts) == library(data, LIMIT)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(frames, min_size=1, max_size=5),
    st.lists(st.integers(0, 3000), max_size=6),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=3),
)
def test_differential_broken(
    pieces: list[bytes], cuts: list[int], broken: list[tuple[int, int]]
) -> None:
    data = bytearray(b"".join(pieces))
    for at, octet in broken:
        data[at % len(data)] = octet
    layer = open_layer(SMALL)
    found, code = fed(layer, bytes(data), cuts)
    wanted, wanted_code = library(bytes(data), LIMIT)
    assert found == wanted
    # the library may refuse an opcode before the frame is all there
    assert code == wanted_code or (code is None and layer.unfinished)


def test_one_octet_at_a_time() -> None:
    layer = open_layer()
    messages = []
    data = frame(TEXT, MESSAGE) + frame(PING, b"p") + frame(BINARY, b"x" * 300)
    for i in range(len(data)):
        messages += layer.receive(data[i : i + 1])
    assert messages == [MESSAGE, b"p", b"x" * 300]


def test_masks_without_the_compiled_part() -> None:
    """The fallback of ``websockets`` takes what we hand to it."""
    from websockets.utils import apply_mask

    data = random.Random(7).randbytes(301)
    assert apply_mask(data, b"abcd") == net_websocket.apply_mask(data, b"abcd")


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        upgrade_request(),
        upgrade_request() + frame(TEXT, b"half", fin=False),
        upgrade_request() + frame(CLOSE, b"\x03\xe8"),
        upgrade_request() + frame(TEXT, b"x", mask=None),
        upgrade_request() + frame(TEXT, b"x" * (LIMIT + 1)),
    ],
)
def test_nothing_waits_for_the_garbage_collector(said: bytes) -> None:
    """It may never look at them (``net.process.tame_gc``)."""
    gc.collect()
    gc.disable()
    try:
        layer = new_layer(SMALL)
        layer.receive(said)
        layer.gone()
        del layer
        kinds = ServerProtocol, HttpRequest
        assert [one for one in gc.get_objects() if type(one) in kinds] == []
    finally:
        gc.enable()


# -- real sockets ------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_client_that_we_did_not_write(compression: str | None) -> None:
    with running_edge(ANSWER_ALL) as edge, ws_peer(edge, compression=compression) as client:
        assert client.subprotocol == "sip"
        assert not client.protocol.extensions
        client.send(MESSAGE.decode())
        reply = client.recv(PATIENCE)
        assert isinstance(reply, str)
        assert reply.startswith("SIP/2.0 200 OK\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=")
        client.send(MESSAGE.replace(b"n1@", b"n2@").replace(b"-n1", b"-n2"))  # binary
        assert "n2@" in str(client.recv(PATIENCE))
        third = MESSAGE.replace(b"n1@", b"n3@").replace(b"-n1", b"-n3").decode()
        client.send(iter([third[:10], third[10:20], third[20:]]))
        assert "n3@" in str(client.recv(PATIENCE))
        assert client.ping(b"are you there").wait(PATIENCE)


def test_close_ends_the_flow_at_once() -> None:
    with running_edge(ANSWER_ALL) as edge:
        with ws_peer(edge) as client:
            client.send(MESSAGE.decode())
            client.recv(PATIENCE)
        eventually(lambda: edge.core.stats["flows_closed"] == 1)
        assert not edge.core.flows.streams
        assert client.close_code == 1000


@pytest.mark.parametrize(
    "said",
    [
        upgrade_request() + frame(CLOSE, b"\x03\xe8bye\nERROR forged"),
        b"GET / HTTP/1.1\r\nHost: x\r\nA\x1b[31m forged\r\n\r\n",
    ],
)
def test_a_peer_writes_no_lines_into_our_log(caplog: pytest.LogCaptureFixture, said: bytes) -> None:
    caplog.set_level("INFO")
    with running_edge(ANSWER_ALL) as edge, tcp_peer(edge.address(WS)) as sock:
        sock.sendall(said)
        eventually(lambda: "forged" in caplog.text)
        (line,) = [x.getMessage() for x in caplog.records if "forged" in x.getMessage()]
        assert line.isprintable()


@pytest.mark.rfc("TRN-18")
def test_pings_between_fragments_win_no_time() -> None:
    source = ANSWER_ALL + "core.tcp_msg_read_timeout = 0.5\n"
    with running_edge(source) as edge, tcp_peer(edge.address(WS)) as sock:
        sock.sendall(upgrade_request())
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
        sock.sendall(frame(TEXT, MESSAGE[:100], fin=False))
        until = time.monotonic() + PATIENCE
        while not edge.core.stats["flows_closed"] and time.monotonic() < until:
            with contextlib.suppress(OSError):
                sock.sendall(frame(PING, b"x"))
            time.sleep(0.05)
        assert edge.core.stats["flows_closed"] == 1


def test_our_close_says_that_we_go_away() -> None:
    with running_edge(ANSWER_ALL) as edge, ws_peer(edge) as client:
        client.send(MESSAGE.decode())
        client.recv(PATIENCE)

        def close() -> None:
            flow = next(iter(edge.core.flows.streams.values()))
            edge.core.close(flow, "test")
            edge.server.drain(edge.core.now)

        edge.call(close)
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(PATIENCE)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001


def test_a_64_megabyte_frame_is_refused_on_sight() -> None:
    with running_edge(ANSWER_ALL) as edge, tcp_peer(edge.address(WS)) as sock:
        sock.sendall(upgrade_request())
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101 ")
        sock.sendall(b"\x81\xff" + (64 << 20).to_bytes(8, "big") + b"mask")
        assert close_code(sock.recv(65536)) == 1009
        assert sock.recv(65536) == b""  # no need to send the 64 MB


def test_the_request_is_in_the_facts_of_the_flow() -> None:
    seen: list[Any] = []
    with running_edge(ANSWER_ALL) as edge:
        edge.core.hooks_flow_opened = (lambda flow: seen.append(flow.facts["websocket"]),)
        with ws_peer(edge, WS, "/sip?token=1", origin="https://phone.example.com"):
            eventually(lambda: seen)
    request = seen[0]
    assert (request.path, request.query) == ("/sip", "token=1")
    assert request.origin == "https://phone.example.com"
    assert request.remote[0] == "127.0.0.1"
    assert "sec-websocket-key" not in request.headers
