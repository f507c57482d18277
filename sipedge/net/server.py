"""Stops 1 and 8: sockets, the clock and the event loop around one ``Core``.

Strategy, after aioquic: sockets hand bytes to the core; after each batch ``drain`` takes what the
core wants done (sends, closes, dials, lookups) until nothing is left, and arms one timer.  All of
that runs in one thread, inside callbacks of the loop; there is no queue and no task per message.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from time import monotonic, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from sipedge.errors import ConfigError
from sipedge.flow import UDP, Address, Flow, Listener
from sipedge.net.connection import Connection
from sipedge.net.control import ControlSocket
from sipedge.net.mmsg import BatchIO, batch_io
from sipedge.net.poller import Poller, new_poller
from sipedge.net.resolve import Resolver
from sipedge.net.routes import RouteRunner
from sipedge.net.stacks import Stacks
from sipedge.net.tcp import TcpListener, attach, dial, set_options
from sipedge.net.udp import UdpSocket

if TYPE_CHECKING:
    from sipedge.config import Edge
    from sipedge.lookups import Lookup

log = logging.getLogger(__name__)

STOP_PATIENCE: Final = 2.0  # seconds for connections to take what was written when we stop
YOUNG_OBJECTS: Final = 20_000  # containers made before the collector looks; see tame_gc
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
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf  # seconds, monotonic: what the timer is set for
        self._stopped = False

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
        self._resolver = Resolver(self.loop, self._resolved)
        self._routes = RouteRunner(self.loop, self._before_step, self._after_step)
        self._stacks = Stacks(self.core)
        core = self.core
        core.spawn = self._routes.spawn
        core.post = self._post
        ios = [self._io(family) for family in _FAMILIES]
        try:
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

    async def stop(self) -> None:
        """Close everything; connections get ``STOP_PATIENCE`` to take what was written to them."""
        if self._stopped:
            return
        self._stopped = True
        for listener in self._tcp:
            listener.close()
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
        try:
            set_options(sock)
            local = sock.getsockname()
        except OSError:  # reset before we looked
            sock.close()
            return
        layers = self._stacks.accepted(listener, _address(remote))
        connection = Connection(self, listener, _address(remote), _address(local), layers)
        self.connections.add(connection)
        self.attach(connection, sock, self.loop.connect_accepted_socket(lambda: connection, sock))

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
        """A chunk of a stream."""
        now = monotonic()
        self.guarded(self.core.receive, data, flow, now)
        self.drain(now)

    def ended(self, flow: Flow, reason: str) -> None:
        """A stream is over; called once for each.  What follows from it leaves soon."""
        now = monotonic()
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
        core = self.core
        flows = core.flows
        while True:
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
            for sock in self._udp:
                if sock.outbox:
                    sock.flush(now)
            closes = core.closes()
            for flow, reason in closes:
                if flow.io is not None:
                    flow.io.close(reason)
            lookups = core.lookups()
            for lookup in lookups:
                self._resolver.ask(lookup, now)
            if not (dials or sends or closes or lookups):
                break
        self._arm(core.next_timer())

    def _send_stream(self, data: bytes, flow: Flow) -> None:
        if flow.io is None:
            self.count("tcp_send_drops")
        else:
            flow.io.send(data)

    def _dial(self, flow: Flow) -> None:
        layers = self._stacks.dialed(flow)
        connection = Connection(self, flow.listener, flow.remote, flow.local, layers, flow)
        self.connections.add(connection)
        self._task(dial(connection, self), self._dialing)

    def _task(self, coro: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = self.loop.create_task(coro)
        tasks.add(task)  # the loop itself refers to tasks only weakly
        task.add_done_callback(tasks.discard)

    def _resolved(self, lookup: Lookup, addresses: list[str]) -> None:
        now = monotonic()
        self.guarded(self.core.resolved, lookup, addresses, now)
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


async def serve(edge: Edge, *, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.  ``ready`` is called once every listener has its port.

    Raises ``ConfigError`` if a listener cannot be bound or a module refuses to start.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Server(edge) as server, ControlSocket(server, edge):
        if ready is not None:
            ready()
        await stop.wait()
        log.info("stopping")


def run(edge: Edge, *, ready: Callable[[], None] | None = None) -> int:
    """``serve`` in an event loop of its own (uvloop if it is installed); returns the exit status.

    Raises ``ConfigError`` as ``serve`` does.
    """

    def started() -> None:
        tame_gc()
        if ready is not None:
            ready()

    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(edge, ready=started))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _raise_descriptor_limit() -> None:
    """A descriptor a connection: take as many as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as exc:  # macOS says unlimited and means something else
        log.debug("descriptor limit: %s", exc)


def tame_gc() -> None:
    """No long pauses: whatever survives a collection of young objects is never looked at again.

    Bindings and flows live long and by the hundred thousand; walking over them took 236 ms at worst
    while growing to a million, 0.3 ms so.  Reference counting frees frozen objects as ever; only a
    cycle that was alive in such a moment and dies later stays, and hot objects make no cycles.
    """

    def freeze(phase: str, _: dict[str, int]) -> None:
        if phase == "stop":
            gc.freeze()

    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.callbacks.append(freeze)
