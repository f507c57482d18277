"""Stop 2, and the heart: bytes in, bytes out, time is an argument (RFC 3261 §16, §18).

Strategy, after aioquic: ``receive`` takes what came on a flow; afterwards the caller drains
``sends``, ``closes``, ``lookups`` and ``flows.dials`` and arms one timer for ``next_timer``.  No
socket, clock, task or queue in here.  STUN, keep-alive or SIP is decided in one place, and
``_failed`` is the only place that turns an error into a SIP answer.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from sipedge import streams
from sipedge.blocklist import Blocklist
from sipedge.errors import ParseError, SipError
from sipedge.flow import OPEN, Flow, FlowTable
from sipedge.forward import HopCache
from sipedge.identity import OwnNames
from sipedge.locate import Locator
from sipedge.lookups import Answer, Lookup, Lookups
from sipedge.module import BRANCH_ROUTE, FAILURE_ROUTE, REPLY_ROUTE, REQUEST_ROUTE
from sipedge.settings import Settings
from sipedge.sip import stun
from sipedge.sip.message import SipMessage, read
from sipedge.sip.names import PROXY_REQUIRE, VIA
from sipedge.sip.reply import REASONS, build_reply
from sipedge.sip.via import with_received
from sipedge.tm import relay
from sipedge.tm.host import Route
from sipedge.tm.table import Transactions
from sipedge.tm.timers import Periodic

if TYPE_CHECKING:
    from sipedge.tls_settings import Tls
    from sipedge.websocket import Settings as WebSocketSettings

log = logging.getLogger("sipedge")

#: ``msg.recall(LATER)``: the answer comes when something is done, even if the route is over
LATER: Final = "core.later"
#: no SIP message is shorter; what is, over UDP, is a keep-alive of some kind (requirement KA-15)
SHORTEST_MESSAGE: Final = 20
#: datagrams a second that are no SIP and get an answer and a line in the log
COMPLAINTS: Final = 100
Headers = tuple[tuple[bytes, bytes], ...] | list[tuple[bytes, bytes]]


class Core(Settings):
    """One edge.  ``stats`` counts events by name, ``now`` is the time of the event (seconds)."""

    def __init__(self, worker: int = 0) -> None:
        self.now = 0.0
        self.flows = FlowTable(worker)
        self.hops = HopCache()
        self.stats: Counter[str] = Counter()
        self.tm = Transactions(self)
        self.draining = False  # we are about to leave: net answers new requests 503
        #: set by the modules ``tls`` and ``websocket``
        self.tls: Tls | None = None
        self.websocket: WebSocketSettings | None = None
        # set by the loader
        self.ksr: Any = None
        self.request_route: Route | None = None
        self.reply_route: Route | None = None
        self.hooks_request_in: tuple[Callable[[SipMessage, float], bool | None], ...] = ()
        self.hooks_reply_in: tuple[Callable[[SipMessage, float], bool | None], ...] = ()
        self.hooks_branch_failed: tuple[Callable[[SipMessage, int], int | None], ...] = ()
        self.hooks_flow_opened: tuple[Callable[[Flow], None], ...] = ()
        self.hooks_flow_closed: tuple[Callable[[Flow, str], None], ...] = ()
        #: what makes seconds since 1970 of ``now``, for what outlives the process; net keeps it
        self.wall_offset = 0.0
        #: runs the rest of an ``async def`` route; net sets it
        self.spawn: Callable[[Coroutine[Any, Any, None]], None] = run_to_end
        #: calls from other threads, to be made here; without net, whoever drives the core does it
        self.posted: deque[Callable[[], None]] = deque()
        #: have something called in the thread of the core, soon; any thread may do so; net sets it
        self.post: Callable[[Callable[[], None]], None] = self.posted.append
        self._complaints = (0, 0)  # this second, and datagrams that were no SIP in it
        self._async_routes: dict[Route, bool] = {}
        self._sends: list[tuple[bytes, Flow]] = []
        self._closes: list[tuple[Flow, str]] = []
        self.blocklist = Blocklist()
        self.dns = Lookups(self)
        self.locator = Locator(self, self.dns, self.flows, self.blocklist)
        self.locate = self.locator.locate
        self.names = OwnNames()
        self.add_alias = self.names.add_alias
        self.is_myself = self.names.is_myself
        self.every(1.0, self.tm.sweep)

    def learn_own_addresses(self) -> None:
        """Call when the listeners have their ports."""
        self.names.learn(self.flows.listeners)

    # -- what net drains -------------------------------------------------------------------------

    def sends(self) -> list[tuple[bytes, Flow]]:
        """What is to be sent, in order; drained."""
        sends, self._sends = self._sends, []
        return sends

    def closes(self) -> list[tuple[Flow, str]]:
        """Streams to close once their sends are written; drained."""
        closes, self._closes = self._closes, []
        return closes

    def lookups(self) -> list[Lookup]:
        """Questions for DNS; drained.  Answer each with ``resolved``."""
        return self.dns.drain()

    def resolved(self, lookup: Lookup, answer: Answer, now: float) -> None:
        self.now = now
        self.dns.answer(lookup, answer)

    def next_timer(self) -> float | None:
        return self.tm.wheel.next_time()

    def on_timer(self, now: float) -> None:
        self.now = now
        self.tm.wheel.advance(now)

    def wall(self, moment: float | None = None) -> float:
        """``moment`` (default: now) of the monotonic clock as seconds since 1970."""
        return (self.now if moment is None else moment) + self.wall_offset

    def every(self, interval_s: float, call: Callable[[float], None]) -> None:
        """Call ``call(now)`` every ``interval_s`` seconds, first after one interval."""
        self.tm.wheel.at(Periodic(self.tm.wheel, interval_s, call), self.now + interval_s)

    # -- flows -----------------------------------------------------------------------------------

    def flow_opened(self, flow: Flow, now: float) -> None:
        """A stream was accepted, or a dialed one is established."""
        self.now = now
        flow.state = OPEN
        flow.last_rx = now
        self.stats["flows_opened"] += 1
        streams.opened(self, flow)
        for hook in self.hooks_flow_opened:
            hook(flow)

    def flow_closed(self, flow: Flow, reason: str, now: float) -> None:
        """A stream is gone: everything that waits on it fails now (requirement INC-14)."""
        self.now = now
        if not self.flows.closed(flow):
            return
        self.stats["flows_closed"] += 1
        log.info("flow closed: %s: %s", flow.name, reason)
        flow.framer = None
        self._flow_lost(flow, reason)

    def flow_unreachable(self, flow: Flow, now: float) -> None:
        """ICMP said that a UDP flow reaches nobody (requirements INC-13, TRN-17).

        Believed only while a request waits for its answer there: whoever forges ICMP must not be
        able to remove bindings at will.
        """
        self.now = now
        if not self.tm.waits_on(flow):
            self.stats["icmp_ignored"] += 1
            return
        self.stats["flows_unreachable"] += 1
        log.info("flow unreachable: %s", flow.name)
        self._flow_lost(flow, "unreachable")

    def _flow_lost(self, flow: Flow, reason: str) -> None:
        for hook in self.hooks_flow_closed:
            hook(flow, reason)
        self.tm.flow_lost(flow)

    def close(self, flow: Flow, reason: str) -> None:
        """Close a stream ourselves."""
        self._closes.append((flow, reason))
        self.flow_closed(flow, reason, self.now)

    def send(self, data: bytes, flow: Flow) -> bool:
        """Queue bytes for a flow; False, and nothing else, if the flow is gone (RFC 6026 §7.1)."""
        if not flow.alive:
            self.stats["sends_to_closed_flows"] += 1
            return False
        self._sends.append((data, flow))
        if flow.dialed:
            flow.last_rx = self.now  # our own connections live as long as either side uses them
        return True

    # -- receiving -------------------------------------------------------------------------------

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """A datagram, or a chunk of a stream, came on ``flow`` at ``now``.  Never raises."""
        self.now = flow.last_rx = now
        if flow.reliable:
            streams.receive(self, data, flow)
        elif data and data[0] < 4:
            answer = stun.answer(data, flow.remote)
            if answer is not None:
                self.stats["stun_answered"] += 1
                self._sends.append((answer, flow))
        elif len(data) < SHORTEST_MESSAGE:
            self.stats["keepalives"] += 1
        else:
            self.message(data, flow, False)

    def message(self, data: bytes, flow: Flow, stream: bool) -> None:
        """One whole message; ``stream``: it came over TCP or TLS, cut by its Content-Length."""
        try:
            msg = read(data, stream)
        except ParseError as exc:
            self.unparsable(exc, flow)
            return
        msg.flow = flow
        msg.now = self.now
        try:
            if msg.is_request:
                self._request(msg)
            else:
                self._response(msg)
        except Exception as exc:  # the one place: see _failed
            self._failed(exc, msg)

    def _request(self, msg: SipMessage) -> None:
        flow = msg.flow
        at = msg.ids.index(VIA)
        via = msg.via()
        line = with_received(via.raw, via, flow, self.force_rport)
        if line is not None:
            msg.lines[at] = b"Via: " + line
        tm = self.tm
        known = tm.find(msg)
        if known is not None and tm.matched(known, msg):
            return
        method = msg.method
        if method == b"CANCEL":
            self.reply(msg, 481, b"Call/Transaction Does Not Exist")  # requirement PXC-02
            return
        if method == b"ACK" and msg.to_tag.startswith(tm.magic):
            return  # it acknowledges an answer of ours that needed no transaction
        if PROXY_REQUIRE in msg.ids and method != b"ACK":
            wanted = b", ".join(msg.values(PROXY_REQUIRE))
            raise SipError(420, b"Bad Extension", ((b"unsupported", wanted),))
        if tm.is_loop(msg):
            raise SipError(482, b"Loop Detected")
        msg.loop_hash = tm.loop_hash(msg)
        for hook in self.hooks_request_in:
            if hook(msg, self.now):
                return
        if self.request_route is not None:
            self._run(self.request_route, REQUEST_ROUTE, msg)

    def _response(self, msg: SipMessage) -> None:
        ctx = self.tm.match_response(msg)
        if ctx is None:
            self.stats["responses_unmatched"] += 1  # RFC 6026 §8.2: not forwarded
            return
        msg.via_branch = ctx
        if not msg.drop_top_via():
            return  # RFC 3261 §16.7 item 3: meant for us alone
        relay.response_in(ctx, msg)

    # -- answering -------------------------------------------------------------------------------

    def reply(
        self, msg: SipMessage, status: int, reason: bytes = b"", headers: Headers = (),
        body: bytes = b"",
    ) -> bool:  # fmt: skip
        """Answer a request: by its transaction if it has one, else without.

        Never answers an ACK.  False if a final response has been sent before: there is one answer a
        request.  The answer to a non-INVITE is kept for retransmissions (RFC 3261 §17.2.2).
        """
        if msg.method == b"ACK" or msg.answered:
            return False
        reason = reason or REASONS.get(status, b"Unknown")
        if msg.tx is not None:
            return bool(msg.tx.reply(status, reason, headers, body))
        data = build_reply(
            msg, status, reason, self.tm.tag(msg) if status > 100 else b"", headers, body
        )
        flow = self.reply_flow(msg)
        self.send(data, flow)
        if status >= 200:
            msg.answered = True
            if msg.method not in (b"INVITE", b"CANCEL"):
                self.tm.answered(msg.key or self.tm.key(msg), data, flow.reliable)
        return True

    def reply_later(self, msg: SipMessage) -> None:
        """Who calls this calls ``reply`` when something is done; until then retransmissions of the
        request are absorbed."""
        self.new_transaction(msg)
        msg.remember(LATER, True)

    def reply_flow(self, msg: SipMessage) -> Flow:
        """RFC 3261 §18.2.2, RFC 3581 §4: back to the source; over UDP without rport to its port."""
        flow = msg.flow
        if flow.reliable or self.force_rport or flow.via is not None:
            return flow
        via = msg.via()
        port = via.port or 5060
        if via.has_rport or port == flow.remote[1] or via.get(b"rport"):
            return flow
        return self.flows.udp(flow.listener, (flow.remote[0], port))

    def unparsable(self, exc: ParseError, flow: Flow) -> None:
        """Bytes that are no SIP: answer what looks like a request, say why at INFO."""
        self.stats["parse_errors"] += 1
        partial = exc.partial
        if not flow.reliable and not self._may_complain():
            self.stats["parse_errors_unanswered"] += 1
            return
        log.info("rejected: %s from %s: %s", exc.status, flow.name, exc.why)
        if partial is None or not partial.is_request or partial.method == b"ACK":
            return
        partial.flow = flow
        partial.now = self.now
        try:
            at = partial.ids.index(VIA)
            line = with_received(partial.row_value(at), partial.via(), flow, self.force_rport)
            if line is not None:
                partial.lines[at] = b"Via: " + line
            tag = self.tm.tag(partial)
            self.send(build_reply(partial, exc.status, exc.reason, tag, exc.headers), flow)
        except (ParseError, ValueError):
            self.stats["parse_errors_unanswered"] += 1

    def _may_complain(self) -> bool:
        """Who sends garbage under forged addresses must not have us write to all of them, nor fill
        the log (requirement OPS-08)."""
        second = int(self.now)
        if second != self._complaints[0]:
            self._complaints = (second, 0)
        self._complaints = (second, self._complaints[1] + 1)
        return self._complaints[1] <= COMPLAINTS

    def _failed(self, exc: Exception, msg: SipMessage) -> None:
        """The peer's mistakes become their status, ours a 500; the next message is served."""
        msg.open()
        if isinstance(exc, SipError):
            log.info(
                "%s %s for %s from %s, Call-ID %s", exc.status, exc.reason.decode(),
                msg.method.decode("ascii", "replace"), msg.flow.name,
                msg.call_id.decode("ascii", "backslashreplace"),
            )  # fmt: skip
            status, reason, headers = exc.status, exc.reason, exc.headers
        else:
            self.stats["exceptions"] += 1
            log.error(
                "exception while handling %s from %s, Call-ID %s",
                msg.lines[0][:120] if msg.lines else b"", msg.flow.name,
                msg.call_id.decode("ascii", "backslashreplace"), exc_info=exc,
            )  # fmt: skip
            status, reason, headers = 500, b"Server Internal Error", ()
        if msg.is_request:
            try:
                self.reply(msg, status, reason, headers)
            except Exception:  # not even an answer could be made; nothing else may suffer
                log.exception("no answer could be made")

    # -- routes ----------------------------------------------------------------------------------

    def _run(self, route: Route, kind: int, msg: SipMessage) -> bool:
        """Run a route to its end; False if it is ``async def``: then that may come later."""
        msg.route_kind = kind
        is_async = self._async_routes.get(route)
        if is_async is None:
            is_async = self._async_routes[route] = inspect.iscoroutinefunction(route)
        if not is_async:
            route(self.ksr, msg)
            return True
        if kind == REQUEST_ROUTE and msg.method != b"ACK" and msg.tx is None:
            self.new_transaction(msg)  # retransmissions must not start a second route
        self.spawn(self._run_async(route, kind, msg))
        return False

    async def _run_async(self, route: Route, kind: int, msg: SipMessage) -> None:
        tx = msg.tx
        try:
            await route(self.ksr, msg)
        except Exception as exc:
            self._failed(exc, msg)
        if kind == FAILURE_ROUTE:
            relay.failure_route_ended(tx)
        if kind != REQUEST_ROUTE or tx is None or msg.recall(LATER):
            return
        if not tx.status and not tx.branches:
            tx.terminate()  # the route neither answered nor relayed: as if it had never come

    def new_transaction(self, msg: SipMessage) -> Any:
        """The server transaction of a request, made now if need be (Kamailio ``t_newtran``)."""
        if msg.tx is None:
            tx = self.tm.create(msg, self.reply_flow(msg))
            if tx.invite:
                tx.trying()
        return msg.tx

    def _guarded(self, route: Route, kind: int, msg: SipMessage) -> bool:
        try:
            return self._run(route, kind, msg)
        except Exception as exc:
            self._failed(exc, msg)
            return True

    def run_reply_routes(self, msg: SipMessage, on_reply: Route | None) -> bool:
        if not self.hooks_reply_in and self.reply_route is None and on_reply is None:
            return False
        msg.open()
        for hook in self.hooks_reply_in:
            if hook(msg, self.now):
                return True
        if self.reply_route is not None:
            self._guarded(self.reply_route, REPLY_ROUTE, msg)
        if on_reply is not None:
            self._guarded(on_reply, REPLY_ROUTE, msg)
        return msg.drop

    def run_failure_route(self, route: Route, msg: SipMessage, kind: int = FAILURE_ROUTE) -> bool:
        return self._guarded(route, kind, msg)

    def run_branch_route(self, route: Route, msg: SipMessage) -> None:
        self._guarded(route, BRANCH_ROUTE, msg)

    def branch_failed(self, msg: SipMessage, status: int) -> int:
        for hook in self.hooks_branch_failed:
            replaced = hook(msg, status)
            if replaced is not None:
                return int(replaced)
        return status


def run_to_end(coro: Coroutine[Any, Any, None]) -> None:
    """Without an event loop a route may be ``async def``, but nothing in it may wait."""
    try:
        coro.send(None)
    except StopIteration:
        return
    coro.close()
    raise RuntimeError("an async route waits, and there is no event loop to wait in")
