"""Stops 1 and 8 for datagrams: one socket per UDP listener.

Strategy: one wake-up takes what waits, at most 64 datagrams, reads the clock once, finds the flow
of each by its raw address in a dictionary and hands it to the core.  What the core wants to send
is collected per socket and leaves in one call, from the socket that the flow belongs to, so its
source is the address that the peer knows (RFC 5626 §7, RFC 3581 §4).

A datagram that cannot be sent never takes others with it.  ICMP errors are read from the error
queue (``IP_RECVERR``), where the kernel says which peer each is about; without it, an error of one
peer would surface in a call that concerns another.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sipedge.flow import Flow, Listener
from sipedge.net.interfaces import sockaddr
from sipedge.net.mmsg import BATCH, BatchIO
from sipedge.net.proxy_protocol import ProxyError, parse

if TYPE_CHECKING:
    from sipedge.net.server import Server

log = logging.getLogger(__name__)

FLOWS: Final = 65536  # raw addresses remembered, per generation; see FlowTable.UDP_CACHE
WAITING: Final = 4096  # datagrams kept while the socket takes none; more are dropped
SOCKET_BUFFER: Final = 4 << 20  # octets each way; the kernel may grant less

# linux/in.h, linux/in6.h; the socket module of Python 3.11 does not have them
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT = 10, 23, 0
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOCK_EXTENDED_ERR: Final = struct.Struct("=IBBBBII")  # linux/errqueue.h: errno, origin, type, code
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_FRAGMENTATION_NEEDED: Final = 4  # a code of ICMP "destination unreachable"
#: EINVAL: a link-local peer that nothing has come from, so that its link is not known
_UNREACHABLE: Final = frozenset(
    (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EINVAL)
)


class UdpSocket:
    """The socket of one listener; ``listener.io`` refers to it."""

    def __init__(self, listener: Listener, server: Server, io: BatchIO) -> None:
        """Binds; raises OSError."""
        #: what ``flush`` sends; filled by the server
        self.outbox: list[tuple[bytes, Flow]] = []
        self._listener = listener
        self._server = server
        self._core = server.core
        self._io = io
        #: datagrams go where ``flow.remote`` says, in two words
        self._plain = not (listener.is_v6 or listener.proxies)
        self._new: dict[Any, Flow] = {}
        self._old: dict[Any, Flow] = {}
        self._waiting: deque[tuple[bytes, Flow]] = deque()
        self._sock = _bind(listener)
        self._fd = self._sock.fileno()
        listener.bound(self._sock.getsockname()[1])
        listener.io = self

    def start(self) -> None:
        """Begin to read."""
        behind = self._listener.proxies
        self._server.poller.add(self._fd, self._on_readable_behind if behind else self._on_readable)

    def close(self) -> None:
        self._server.poller.remove(self._fd)
        self._sock.close()
        self._waiting.clear()

    def _on_readable(self) -> None:
        try:
            batch = self._io.receive(self._sock)
        except OSError:  # a pending error; the error queue says more
            batch = []
        now = monotonic()
        if not batch:
            self._read_errors(now)
        find = self._new.get
        receive = self._core.receive
        for data, key in batch:
            try:
                receive(data, find(key) or self._flow_of(key), now)
            except Exception:
                self._lost(data)
        self._server.drain(now)

    def _on_readable_behind(self) -> None:
        """The same for a listener that load balancers send to."""
        try:
            batch = self._io.receive(self._sock)
        except OSError:
            batch = []
        now = monotonic()
        if not batch:
            self._read_errors(now)
        for data, key in batch:
            try:
                flow = self._new.get(key)
                start = 0
                if flow is None:
                    flow, start = self._behind(data, key, now)
                if flow is not None:
                    self._core.receive(data[start:], flow, now)
            except Exception:
                self._lost(data)
        self._server.drain(now)

    def _behind(self, data: bytes, key: Any, now: float) -> tuple[Flow | None, int]:
        """The flow of a datagram, and where its payload begins; no flow: drop it.

        From a load balancer each datagram has to have a PROXY header, and nobody else is believed.
        """
        host, port = self._io.sockaddr(key)[:2]
        host = host.partition("%")[0]
        if not self._listener.is_proxy(host):
            return self._flow_of(key), 0
        try:
            header = parse(data, False)
        except ProxyError:
            header = None
        if header is None:
            self._server.count("proxy_headers_bad")
            return None, 0
        if header.remote is None:  # the load balancer itself looks whether we live
            flow = self._core.flows.udp(self._listener, (host, port))
        else:
            behind = self._core.flows.behind
            flow, over = behind.seen(self._listener, (host, port), header.remote)
            for old in over:
                self._server.guarded(self._core.flow_closed, old, "its port is another's", now)
        flow.io = key
        return flow, header.size

    def _lost(self, data: bytes) -> None:
        log.exception("a datagram of %d octets was lost", len(data))
        self._server.count("net_exceptions")

    def _flow_of(self, key: Any) -> Flow:
        """The flow of an address that is not in the young generation."""
        flow = self._old.get(key)
        if flow is None:
            host, port = self._io.sockaddr(key)[:2]
            # the scope of a link-local address stays in the key, which is what is sent to
            flow = self._core.flows.udp(self._listener, (host.partition("%")[0], port))
            flow.io = key
        if len(self._new) >= FLOWS:
            self._old, self._new = self._new, {}
        self._new[key] = flow
        return flow

    def flush(self, now: float) -> None:
        """Send everything in ``outbox``."""
        out, self.outbox = self.outbox, []
        if self._waiting:
            self._wait(out)
            return
        at, count = 0, len(out)
        while at < count:
            try:
                if count == 1 and self._plain:  # quicker for one than a batch of one
                    self._sock.sendto(out[0][0], out[0][1].remote)
                    return
                at += self._send_batch(out[at : at + BATCH])
            except (BlockingIOError, InterruptedError):
                self._wait(out[at:])
                return
            except OSError:
                # It is about the first datagram, or it was the pending error of another peer.
                self._send_one(*out[at], now)
                at += 1

    def _send_batch(self, batch: list[tuple[bytes, Flow]]) -> int:
        keys = [flow.io or self._key(flow) for _, flow in batch]
        return self._io.send(self._sock, [data for data, _ in batch], keys)

    def _key(self, flow: Flow) -> Any:
        """The address key of a flow that was made from a token or a URI."""
        flow.io = self._io.key(sockaddr(self._listener, *flow.remote))
        return flow.io

    def _send_one(self, data: bytes, flow: Flow, now: float) -> None:
        """Try again what failed, without the pending errors in the way."""
        self._read_errors(now)
        try:
            self._sock.sendto(data, self._io.sockaddr(flow.io or self._key(flow)))
        except (BlockingIOError, InterruptedError):
            self._wait([(data, flow)])
        except OSError as exc:
            log.info("udp: %s: %d octets not sent: %s", flow.name, len(data), exc.strerror)
            self._server.count("udp_send_errors")
            if exc.errno in _UNREACHABLE:
                self._server.guarded(self._core.flow_unreachable, flow, now)

    def _wait(self, batch: list[tuple[bytes, Flow]]) -> None:
        """The socket takes nothing now: keep what there is room for, in order."""
        room = WAITING - len(self._waiting)
        if len(batch) > room:
            self._server.count("udp_send_drops", len(batch) - room)
        self._waiting.extend(batch[:room])
        self._server.poller.wait_writable(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        self._server.poller.wait_writable(self._fd, None)
        waiting, self._waiting = self._waiting, deque()
        self.outbox.extend(waiting)
        self._server.drain(monotonic())

    def _read_errors(self, now: float) -> None:
        """Empty the error queue, and tell the core which flows' peers cannot be reached.

        RFC 3261 §18.4: host, network, port and protocol unreachable count; TTL exceeded and the
        like are ignored.  Reading also clears the pending error of the socket.
        """
        self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if sys.platform != "linux":
            return
        for _ in range(BATCH):  # if there are more, the poller will say so again
            try:
                _, control, _, address = self._sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:  # nothing more
                return
            if address and any(_is_unreachable(*item) for item in control):
                host, port = address[0].partition("%")[0], address[1]
                flows = self._core.flows
                flow = flows.behind.at(self._listener, (host, port))
                flow = flow or flows.udp(self._listener, (host, port))
                self._server.count("udp_unreachable")
                self._server.guarded(self._core.flow_unreachable, flow, now)


def _is_unreachable(level: int, kind: int, data: bytes) -> bool:
    """Whether an ancillary item says that the destination is unreachable."""
    if (level, kind) not in (
        (socket.IPPROTO_IP, _IP_RECVERR),
        (socket.IPPROTO_IPV6, _IPV6_RECVERR),
    ):
        return False
    _, origin, icmp_type, code, _, _, _ = _SOCK_EXTENDED_ERR.unpack_from(data)
    if origin == _ORIGIN_ICMP:
        return bool(icmp_type == 3 and code != _FRAGMENTATION_NEEDED)  # RFC 792
    return bool(origin == _ORIGIN_ICMP6 and icmp_type == 1)  # RFC 4443 §3.1


def _bind(listener: Listener) -> socket.socket:
    family = socket.AF_INET6 if listener.is_v6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if listener.is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for plain, forced in (
            (socket.SO_RCVBUF, _SO_RCVBUFFORCE),
            (socket.SO_SNDBUF, _SO_SNDBUFFORCE),
        ):
            sock.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BUFFER)
            _try_option(sock, socket.SOL_SOCKET, forced, SOCKET_BUFFER)  # beyond net.core.*mem_max
        if listener.is_v6:
            _try_option(sock, socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            _try_option(sock, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
        else:
            _try_option(sock, socket.IPPROTO_IP, _IP_RECVERR, 1)
            # Large messages stay on their UDP flow (ruling A4): routers may fragment them, as with
            # Kamailio's default pmtu_discovery=0, instead of the first one being lost.
            _try_option(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        sock.bind(sockaddr(listener, listener.address, listener.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _try_option(sock: socket.socket, level: int, option: int, value: int) -> None:
    """An option of Linux that the process may not be allowed to set."""
    if sys.platform != "linux":
        return
    try:
        sock.setsockopt(level, option, value)
    except OSError as exc:
        log.debug("socket option %d/%d: %s", level, option, exc.strerror)
