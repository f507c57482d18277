"""Stops 1 and 8 for streams: TCP sockets, accepted and dialed; ``net.connection`` is what follows.

Strategy: accepting is ours (a loop's own ``accept`` gives up or closes connections when descriptors
run out), reading and writing is the loop's.

Only what the core put into ``flows.dials`` is ever dialed: servers, never a client's flow.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from sipedge.flow import Listener
from sipedge.net.interfaces import sockaddr

if TYPE_CHECKING:
    from sipedge.net.connection import Connection
    from sipedge.net.server import Server

log = logging.getLogger(__name__)

ACCEPTS: Final = 64  # connections per wake-up of a listener
ACCEPT_PAUSE: Final = 0.5  # seconds without accepting when descriptors have run out
BACKLOG: Final = 1024

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


def set_options(sock: socket.socket) -> None:
    """What every connection gets."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _USER_TIMEOUT)):
        option = getattr(socket, name, None)  # not on every system
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def dial(connection: Connection, server: Server) -> None:
    """Connect a flow that the core wants to a server, from the address of its listener."""
    listener = connection.listener
    sock = socket.socket(socket.AF_INET6 if listener.is_v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        set_options(sock)
        sock.bind(sockaddr(listener, listener.address, 0))
        async with asyncio.timeout(server.core.tcp_connect_timeout):
            to = sockaddr(listener, *connection.remote)
            await server.loop.sock_connect(sock, to)
        host, port = sock.getsockname()[:2]
    except OSError as exc:  # TimeoutError is one
        sock.close()
        why = os.strerror(exc.errno).lower() if exc.errno else "timed out"
        connection.ended(f"connecting failed: {why}")
    except BaseException:
        sock.close()
        raise
    else:
        connection.connected((host, port))
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
        sock.bind(sockaddr(listener, listener.address, listener.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
