"""An edge with real sockets in a thread of its own, for tests that talk to it from outside.

``running_edge(source)`` serves a configuration text on loopback; everything else (sockets of peers,
timeouts) is blocking and belongs to the test.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop

from sipedge.config import load_source
from sipedge.flow import TCP, UDP, Listener
from sipedge.net.mmsg import BatchIO, batch_io
from sipedge.net.server import Server

PATIENCE = 10.0  # seconds until a test gives up; nothing takes that long
Result = TypeVar("Result")

#: answers every request but ACK with 200
ANSWER_ALL = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
loadmodule("sl")
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, b"OK")
"""


class RunningEdge:
    """What ``running_edge`` yields."""

    def __init__(self, edge: Any, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        self.edge = edge
        self.core = edge.core
        self.loop = loop
        self.server = server

    def listener(self, transport: int, host: str | None = None) -> Listener:
        """The first listener of that transport (and address)."""
        listeners: list[Listener] = self.core.flows.listeners
        return next(x for x in listeners if x.transport == transport and host in (None, x.host))

    def address(self, transport: int, host: str | None = None) -> tuple[str, int]:
        listener = self.listener(transport, host)
        return listener.host, listener.port

    @property
    def udp(self) -> tuple[str, int]:
        return self.address(UDP)

    @property
    def tcp(self) -> tuple[str, int]:
        return self.address(TCP)

    def call(self, function: Callable[[], Result]) -> Result:
        """``function()`` in the thread of the edge."""

        async def inside() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(PATIENCE)


@contextmanager
def running_edge(
    source: str | Any = ANSWER_ALL,
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    io: Callable[[socket.AddressFamily], BatchIO] = batch_io,
) -> Iterator[RunningEdge]:
    """Serve a configuration text, or anything with a ``core``, until the block ends."""
    edge = load_source(source) if isinstance(source, str) else source
    box: dict[str, Any] = {}
    up = threading.Event()

    async def serve() -> None:
        box["stop"] = asyncio.Event()
        box["loop"] = asyncio.get_running_loop()
        async with Server(edge, io) as server:
            box["server"] = server
            up.set()
            await box["stop"].wait()

    def thread() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(serve())
        except BaseException as exc:
            box["error"] = exc
        finally:
            up.set()

    worker = threading.Thread(target=thread, name="edge")
    worker.start()
    try:
        assert up.wait(PATIENCE)
        if "error" in box:
            raise box["error"]
        yield RunningEdge(edge, box["loop"], box["server"])
    finally:
        if "loop" in box and worker.is_alive():
            box["loop"].call_soon_threadsafe(box["stop"].set)
        worker.join(PATIENCE)
    assert not worker.is_alive()
    if "error" in box:
        raise box["error"]


def udp_peer(host: str = "127.0.0.1", timeout: float = PATIENCE) -> socket.socket:
    """A bound UDP socket; use it with ``with``."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(timeout)
    return sock


def tcp_peer(to: tuple[str, int], source: str | None = None) -> socket.socket:
    """A TCP connection to ``to``; use it with ``with``."""
    sock = socket.create_connection(to, PATIENCE, (source, 0) if source else None)
    sock.settimeout(PATIENCE)
    return sock


def silent(sock: socket.socket, seconds: float = 0.3) -> bool:
    """Whether nothing comes in for that long (the end of a stream counts as something)."""
    before = sock.gettimeout()
    sock.settimeout(seconds)
    try:
        sock.recv(65536)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(before)
    return False


def receive(sock: socket.socket, count: int) -> bytes:
    """Exactly ``count`` octets of a stream."""
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        assert more, f"closed after {data!r}"
        data += more
    return data


def receive_message(sock: socket.socket) -> bytes:
    """One SIP message from a stream, by its Content-Length; leaves what follows it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        seen = sock.recv(65536, socket.MSG_PEEK)
        assert seen, f"closed after {head!r}"
        end = (head[-3:] + seen).find(b"\r\n\r\n")
        head += receive(sock, len(seen) if end < 0 else end + 4 - len(head[-3:]))
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() in (b"content-length", b"l"):
            return head + receive(sock, int(value))
    return head


def options(
    number: int = 1,
    *,
    via: str = "SIP/2.0/UDP 127.0.0.1:5060",
    method: str = "OPTIONS",
    rport: bool = True,
    headers: str = "",
    body: bytes = b"",
    content_length: str | None = "Content-Length: {}",
    uri: str = "sip:edge.example.com",
) -> bytes:
    """A small request that the edge answers itself; ``number`` makes it unique."""
    length = "" if content_length is None else content_length.format(len(body)) + "\r\n"
    return (
        f"{method} {uri} SIP/2.0\r\n"
        f"Via: {via};branch=z9hG4bK-n{number}{';rport' if rport else ''}\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=f\r\nTo: <sip:b@example.com>\r\n"
        f"Call-ID: n{number}@example.com\r\nCSeq: {number} {method}\r\n{headers}{length}\r\n"
    ).encode() + body
