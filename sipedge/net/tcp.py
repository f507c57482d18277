"""Stops 1 and 8 for streams: TCP connections, accepted and dialed.

Strategy: accepting is ours (a loop's own ``accept`` gives up or closes connections when descriptors
run out), reading and writing is the loop's (uvloop is good at it).  One ``Connection`` is one
``Flow``; bytes go to the core as they come, the core cuts them into messages.  A connection ends
once, whoever ends it, and the core hears of it at once, so that a request for that flow is answered
430 (RFC 5626 §5.3.1) and not written into a void.

Only what the core put into ``flows.dials`` is ever dialed: servers, never a client's flow.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, cast

from sipedge.flow import Flow, Listener

if TYPE_CHECKING:
    from sipedge.net.server import Server

log = logging.getLogger(__name__)

ACCEPTS: Final = 64  # connections per wake-up of a listener
ACCEPT_PAUSE: Final = 0.5  # seconds without accepting when descriptors have run out
BACKLOG: Final = 1024
CONNECT_TIMEOUT: Final = 5.0  # seconds (requirement TRN-17)
LINGER: Final = 2.0  # seconds for the peer to read our last words after we closed our side
WRITE_LIMIT: Final = 1 << 20  # octets that wait for a peer that does not read (requirement INC-15)

# Half-open connections end in bounded time (requirement KA-27): probes after a minute of silence,
# and written data that the peer's system does not acknowledge within 30 s.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_USER_TIMEOUT: Final = 30_000  # milliseconds
_OUT_OF_RESOURCES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class TcpListener:
    """The listening socket of one listener; ``listener.io`` refers to it."""

    def __init__(self, listener: Listener, server: Server) -> None:
        """Binds; raises OSError."""
        self._listener = listener
        self._server = server
        self._pause: asyncio.TimerHandle | None = None
        self._short = False  # of descriptors, and it was said
        self._sock = _bind(listener)
        listener.bound(self._sock.getsockname()[1])
        listener.io = self

    def start(self) -> None:
        """Begin to accept."""
        self._pause = None
        self._server.poller.add(self._sock.fileno(), self._on_acceptable)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._server.poller.remove(self._sock.fileno())
        self._sock.close()

    def _on_acceptable(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, remote = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _OUT_OF_RESOURCES:
                    self._rest(exc)
                    return
                continue  # that one connection failed before we got it, accept(2)
            self._short = False
            self._server.accepted(self._listener, sock, remote)

    def _rest(self, exc: OSError) -> None:
        """Do not spin on a connection that cannot be taken now; it waits in the backlog."""
        if not self._short:
            self._short = True
            log.warning("%s: accept: %s; pausing", self._listener.name, exc.strerror)
        self._server.count("tcp_accept_pauses")
        self._server.poller.remove(self._sock.fileno())
        self._pause = self._server.loop.call_later(ACCEPT_PAUSE, self.start)


class Connection(asyncio.Protocol):
    """One stream; ``flow.io`` refers to it until it ends."""

    __slots__ = (
        "_attached", "_flow", "_linger", "_over", "_pending", "_pending_size", "_server",
        "_transport",
    )  # fmt: skip

    def __init__(self, flow: Flow, server: Server) -> None:
        self._flow = flow
        self._server = server
        self._attached = False
        self._over = False  # the core knows that this connection has ended
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []  # to be written when there is a transport
        self._pending_size = 0
        self._linger: asyncio.TimerHandle | None = None
        flow.io = self

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # not isinstance: uvloop's transports are no subclasses of asyncio's
        self._transport = cast(asyncio.Transport, transport)
        if self._over:  # while the loop was busy with it; ``attached`` will abort
            return
        pending, self._pending = self._pending, []
        self._server.opened(self._flow)
        for data in pending:
            self.send(data)

    def data_received(self, data: bytes) -> None:
        if not self._over:  # else we only wait for the peer to close
            self._server.received(data, self._flow)

    def eof_received(self) -> None:
        self.ended("closed by the peer")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._transport = None
        self.ended(f"lost: {exc}" if exc else "closed by the peer")
        self._server.connections.discard(self)

    # Called by the rest of net.

    def attached(self) -> None:
        """The loop has taken over the socket entirely; from now on it may be aborted."""
        self._attached = True
        if self._over and self._linger is None:
            self.abort()

    def send(self, data: bytes) -> None:
        """Write, or keep until connected.  A peer that does not read loses the connection."""
        transport = self._transport
        if transport is None:
            self._pending.append(data)
            self._pending_size += len(data)
            waiting = self._pending_size
        else:
            transport.write(data)
            waiting = transport.get_write_buffer_size()
        if waiting > WRITE_LIMIT:
            self.ended("the peer does not read")
            self.abort()

    def close(self, reason: str) -> None:
        """Close after what was written has gone.

        Our side first: closing a socket with unread bytes in it would be a reset, and a reset
        overtakes our last answer (say, the 513 to somebody who is still sending).
        """
        self.ended(reason)
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._linger = self._server.loop.call_later(LINGER, self.abort)
        if transport.can_write_eof():
            transport.write_eof()

    def abort(self) -> None:
        if self._transport is not None and self._attached:
            self._transport.abort()

    def ended(self, reason: str) -> None:
        """Tell the core, once.  No more is sent or received, whatever the transport still does."""
        if self._over:
            return
        self._over = True
        self._flow.io = None
        self._pending.clear()
        if self._transport is None:
            self._server.connections.discard(self)
        self._server.ended(self._flow, reason)


def set_options(sock: socket.socket) -> None:
    """What every connection gets."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _USER_TIMEOUT)):
        option = getattr(socket, name, None)  # not on every system
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def dial(connection: Connection, flow: Flow, server: Server) -> None:
    """Connect a flow that the core wants to a server, from the address of its listener."""
    family = socket.AF_INET6 if flow.listener.is_v6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        set_options(sock)
        sock.bind((flow.listener.host, 0))
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await server.loop.sock_connect(sock, flow.remote)
        host, port = sock.getsockname()[:2]
    except OSError as exc:  # TimeoutError is one
        sock.close()
        why = os.strerror(exc.errno).lower() if exc.errno else "timed out"
        connection.ended(f"connecting failed: {why}")
    except BaseException:
        sock.close()
        raise
    else:
        flow.local = (host, port)
        taking_over = server.loop.create_connection(lambda: connection, sock=sock)
        server.attach(connection, sock, taking_over)


async def attach(connection: Connection, sock: socket.socket, takes_over: Awaitable[Any]) -> None:
    """Wait until the loop has taken over a connected socket.

    Never cancelled, and nothing is aborted before it is done: uvloop would close the descriptor
    behind the back of the socket object, which closes it once more when it may be another's.
    """
    try:
        await takes_over
    except OSError as exc:
        sock.close()
        connection.ended(f"lost: {exc}")
    else:
        connection.attached()


def _bind(listener: Listener) -> socket.socket:
    family = socket.AF_INET6 if listener.is_v6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listener.host, listener.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
