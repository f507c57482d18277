"""Stops 1 and 8: sockets, the clock and the event loop around one ``Core``.

Strategy, after aioquic: sockets hand bytes to the core; after each batch ``drain`` takes what the
core wants done (sends, closes, dials, lookups) until nothing is left, and arms one timer.  All of
that runs in one thread, inside callbacks of the loop; there is no queue and no task per message.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from time import monotonic, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from sipedge.errors import ConfigError
from sipedge.flow import UDP, Address, Flow, Listener
from sipedge.net.admission import Admission
from sipedge.net.connection import Connection
from sipedge.net.mmsg import BatchIO, batch_io
from sipedge.net.poller import Poller, new_poller
from sipedge.net.redial import Redial
from sipedge.net.resolve import Resolver
from sipedge.net.routes import RouteRunner
from sipedge.net.stacks import Stacks
from sipedge.net.tcp import TcpListener, attach, dial, set_options
from sipedge.net.udp import UdpSocket

if TYPE_CHECKING:
    from sipedge.config import Edge
    from sipedge.lookups import Answer, Lookup

log = logging.getLogger(__name__)

STOP_PATIENCE: Final = 2.0  # seconds for connections to take what was written when we stop
WALL_CLOCK_S: Final = 60.0  # seconds between two looks at the wall clock
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Server:
    """Serves one edge: ``async with Server(edge): ...``, or ``start`` and ``stop``."""

    loop: asyncio.AbstractEventLoop
    poller: Poller

    def __init__(
        self, edge: Edge, io: Callable[[socket.AddressFamily], BatchIO] = batch_io
    ) -> None:
        """``io`` makes the batch functions of an address family; see ``sipedge.net.mmsg``."""
        self._edge = edge
        self.core = edge.core
        self._io = io
        self._udp: list[UdpSocket] = []
        self._tcp: list[TcpListener] = []
        #: all streams until the loop has let go of them
        self.connections: set[Connection] = set()
        self._dialing: set[asyncio.Task[None]] = set()
        self._attaching: set[asyncio.Task[None]] = set()
        self._redial = Redial()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf  # seconds, monotonic: what the timer is set for
        self._stopped = False
        self._flushes = False  # soon: datagrams of streams wait to be sent together

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind every listener, tell the modules, then begin to read.

        Raises ``ConfigError`` for an address that cannot be bound, with the line of its ``listen``.
        """
        self.loop = asyncio.get_running_loop()
        self.poller = new_poller(self.loop)
        self._resolver = Resolver(self.loop, self.core, self._resolved)
        self._routes = RouteRunner(self.loop, self._before_step, self._after_step)
        self.admission = Admission(self.core)
        core = self.core
        core.spawn = self._routes.spawn
        core.post = self._post
        ios = [self._io(family) for family in _FAMILIES]
        try:
            self._stacks = Stacks(core)
            for wanted in core.flows.listeners:
                self._bind(wanted, ios[wanted.is_v6])
            core.learn_own_addresses()
            core.now = monotonic()
            self._set_wall(core.now)
            core.every(WALL_CLOCK_S, self._set_wall)
            self._edge.child_init(0)
        except BaseException:
            await self.stop()
            raise
        for sock in self._udp:
            sock.start()
        for listener in self._tcp:
            listener.start()
        self.drain(monotonic())

    def _set_wall(self, now: float) -> None:
        """Wall clocks are set, monotonic ones are not: look again now and then."""
        self.core.wall_offset = time() - monotonic()

    def stop_accepting(self) -> None:
        """No connections from now on."""
        listeners, self._tcp = self._tcp, []
        for listener in listeners:
            listener.close()

    async def settle(self) -> None:
        """Let modules do what the end of connections means to them, for ``STOP_PATIENCE``."""
        await self._routes.settle(STOP_PATIENCE)

    async def stop(self) -> None:
        """Close everything; connections get ``STOP_PATIENCE`` to take what was written to them."""
        if self._stopped:
            return
        if self._flushes:
            self._flush()
        self._stopped = True
        self.stop_accepting()
        await self._routes.close()
        await self._resolver.close()
        for task in tuple(self._dialing):
            task.cancel()
        await asyncio.gather(*self._dialing, return_exceptions=True)
        await asyncio.gather(*self._attaching)
        for connection in tuple(self.connections):
            connection.close("shutdown")
        await self._until_closed(STOP_PATIENCE)
        for connection in tuple(self.connections):
            connection.abort()
        await self._until_closed(STOP_PATIENCE)
        if self._timer is not None:
            self._timer.cancel()
        for sock in self._udp:
            sock.close()
        self.poller.close()
        # modules may have something to do for closed connections, and may leave with a farewell
        await self._routes.settle(STOP_PATIENCE)
        self._edge.destroy()
        await self._routes.settle(STOP_PATIENCE)
        await self._routes.close()

    async def _until_closed(self, seconds: float) -> None:
        until = monotonic() + seconds
        while self.connections and monotonic() < until:
            await asyncio.sleep(0.005)

    def _bind(self, listener: Listener, io: BatchIO) -> None:
        try:
            if listener.transport == UDP:
                self._udp.append(UdpSocket(listener, self, io))
            else:
                self._tcp.append(TcpListener(listener, self))
        except OSError as exc:
            raise _bind_error(listener, exc) from exc

    # -- called by connections -------------------------------------------------------------------

    def accepted(self, listener: Listener, sock: socket.socket, remote: tuple[Any, ...]) -> None:
        """A TCP connection came in: let the loop read it."""
        peer = _address(remote)
        # behind a load balancer the PROXY header will say who it is
        counted = None if listener.is_proxy(peer[0]) else peer[0]
        if not self.admission.enter(counted, monotonic()):
            sock.close()
            return
        try:
            set_options(sock)
            local = sock.getsockname()
        except OSError:  # reset before we looked
            self.admission.leave(counted)
            sock.close()
            return
        layers = self._stacks.accepted(listener, peer)
        connection = Connection(self, listener, peer, _address(local), layers)
        connection.counted = counted
        self.connections.add(connection)
        self.attach(connection, sock, self.loop.connect_accepted_socket(lambda: connection, sock))

    def gone(self, connection: Connection) -> None:
        """The loop has let go of a connection; may be told twice."""
        if connection in self.connections:
            self.connections.remove(connection)
            if connection.accepted:
                self.admission.leave(connection.counted)

    def attach(
        self, connection: Connection, sock: socket.socket, takes_over: Awaitable[Any]
    ) -> None:
        """Let the loop read and write a connected socket."""
        self._task(attach(connection, sock, takes_over), self._attaching)

    def opened(self, flow: Flow) -> None:
        now = monotonic()
        self.guarded(self.core.flow_opened, flow, now)
        self.drain(now)

    def received(self, data: bytes, flow: Flow) -> None:
        """A chunk of a stream.

        Datagrams that follow from it leave when every connection that is ready has been read: all
        in one system call.
        """
        now = monotonic()
        self.guarded(self.core.receive, data, flow, now)
        while not self._stopped and self._carry_out(now):
            pass
        if not self._flushes:
            self._flushes = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        self.drain(monotonic())

    def ended(self, flow: Flow, reason: str) -> None:
        """A stream is over; called once for each.  What follows from it leaves soon."""
        now = monotonic()
        if flow.dialed and flow.spoke:
            self._redial.worked(flow)
        elif flow.dialed:
            self._redial.failed(flow, now)
        self.guarded(self.core.flow_closed, flow, reason, now)
        self.loop.call_soon(self.drain, now)  # soon, because this may run inside a drain

    # -- called by all of net --------------------------------------------------------------------

    def count(self, name: str, by: int = 1) -> None:
        self.core.stats[name] += by

    def guarded(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call the core.  It does not raise; if it does, one event is lost and not the server."""
        try:
            call(*arguments)
        except Exception:
            log.exception("an event was lost")
            self.count("net_exceptions")

    # -- what the core wants ---------------------------------------------------------------------

    def drain(self, now: float) -> None:
        """Do everything that the core wants done, and arm the timer."""
        if self._stopped:
            return
        busy = True
        while busy:
            busy = self._carry_out(now)
            for sock in self._udp:
                if sock.outbox:
                    sock.flush(now)
                    busy = True  # a peer may turn out not to be reachable
        self._arm(self.core.next_timer())

    def _carry_out(self, now: float) -> bool:
        """Do what the core wants done by now, but put datagrams into the outboxes of their sockets;
        returns whether there was anything, and so may be more."""
        core = self.core
        flows = core.flows
        dials, flows.dials = flows.dials, []
        for flow in dials:  # first: what is to be sent on them is already waiting
            self._dial(flow)
        sends = core.sends()
        for item in sends:
            flow = item[1]
            if flow.reliable:
                self._send_stream(*item)
            else:
                flow.listener.io.outbox.append(item)
        closes = core.closes()
        for flow, reason in closes:
            if flow.io is not None:
                flow.io.close(reason)
        lookups = core.lookups()
        for lookup in lookups:
            self._resolver.ask(lookup)
        return bool(dials or sends or closes or lookups)

    def _send_stream(self, data: bytes, flow: Flow) -> None:
        if flow.io is None:
            self.count("tcp_send_drops")
        else:
            flow.io.send(data)

    def _dial(self, flow: Flow) -> None:
        layers = self._stacks.dialed(flow)
        connection = Connection(self, flow.listener, flow.remote, flow.local, layers, flow)
        self.connections.add(connection)
        if self._redial.rest(flow, monotonic()):
            self.count("dials_rested")
            # soon, because what is to be sent on it has not been drained yet
            self.loop.call_soon(connection.ended, "not connected: it failed a moment ago")
            return
        self._task(dial(connection, self), self._dialing)

    def _task(self, coro: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = self.loop.create_task(coro)
        tasks.add(task)  # the loop itself refers to tasks only weakly
        task.add_done_callback(tasks.discard)

    def _resolved(self, lookup: Lookup, answer: Answer) -> None:
        now = monotonic()
        self.guarded(self.core.resolved, lookup, answer, now)
        self.loop.call_soon(self.drain, now)

    # -- steps of asynchronous routes ------------------------------------------------------------

    def _before_step(self) -> None:
        self.core.now = monotonic()

    def _after_step(self) -> None:
        self.drain(self.core.now)

    # -- calls from other threads ----------------------------------------------------------------

    def _post(self, call: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(self._posted, call)

    def _posted(self, call: Callable[[], None]) -> None:
        self.core.now = now = monotonic()
        self.guarded(call)
        self.drain(now)

    # -- the timer -------------------------------------------------------------------------------

    def _arm(self, wanted: float | None) -> None:
        """One loop timer, moved only when the core wants to be woken earlier than it is set."""
        if wanted is None or wanted >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wanted
        # a millisecond on top: loops round to milliseconds, and too early would be for nothing
        delay = max(0.0, wanted - monotonic()) + 0.001
        self._timer = self.loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, inf
        now = monotonic()
        self.guarded(self.core.on_timer, now)
        self.drain(now)


def _address(sockaddr: tuple[Any, ...]) -> Address:
    """Host and port of any family; the zone of a link-local address is of no use to others."""
    return str(sockaddr[0]).partition("%")[0], int(sockaddr[1])


def _bind_error(listener: Listener, exc: OSError) -> ConfigError:
    reason = {
        errno.EADDRINUSE: "the address is in use; is another server running there?",
        errno.EADDRNOTAVAIL: "this machine has no such address",
        errno.EACCES: "not allowed; ports below 1024 need CAP_NET_BIND_SERVICE",
    }.get(exc.errno or 0, exc.strerror or str(exc))
    file, line = listener.source or (None, None)
    return ConfigError(f"cannot listen on {listener.name}: {reason}", file, line)
