"""Stop 4: which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3, RFC 6026).

Two dicts: server transactions by branch, sent-by and method of the top Via; client transactions by
the branch that we wrote.  Answered non-INVITE transactions are just the bytes of their response.
"""

from __future__ import annotations

import base64
import os
from collections import deque
from typing import TYPE_CHECKING, Final

from sipedge.sip.names import CALL_ID, CSEQ, ROUTE, VIA
from sipedge.tm import branch, relay
from sipedge.tm.server import ACCEPTED, ServerTx
from sipedge.tm.timers import TimerValues, Wheel

if TYPE_CHECKING:
    from sipedge.flow import Flow
    from sipedge.sip.message import SipMessage
    from sipedge.tm.client import Cancel, ClientTx
    from sipedge.tm.fallback import Rerouted
    from sipedge.tm.host import Host

COOKIE: Final = b"z9hG4bK"
_AS_INVITE: Final = frozenset((b"INVITE", b"ACK", b"CANCEL"))
LINGER_STEP_S: Final = 1.0


class Transactions:
    """All transactions of one edge, with the wheel that their timers turn on."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.wheel = Wheel()
        self.timers = TimerValues()
        self.servers: dict[bytes, ServerTx | bytes] = {}
        self.clients: dict[bytes, ClientTx] = {}
        self.cancels: dict[bytes, Cancel] = {}
        #: in every branch and tag that we write; nobody else has it
        self.magic: bytes = b"sE" + base64.urlsafe_b64encode(os.urandom(6)).replace(b"_", b".")
        self._head = COOKIE + self.magic
        self._count = 0
        self._lingering: deque[tuple[float, list[bytes]]] = deque()

    # -- names ---------------------------------------------------------------------------------

    def new_branch(self, loop_hash: int) -> bytes:
        """Globally unique; its second part is the loop hash of RFC 5393 §4.2."""
        self._count += 1
        return b"%s%x.%x" % (self._head, self._count, loop_hash)

    def tag(self, msg: SipMessage) -> bytes:
        """A To tag that is the same for every answer to the same request (RFC 3261 §8.2.6.2)."""
        via = msg.via()
        return b"%s%x" % (
            self.magic,
            hash((msg.call_id, msg.from_tag, via.branch, via.sent_by)) & 0xFFFFFFFFFFFF,
        )

    @staticmethod
    def loop_hash(msg: SipMessage) -> int:
        """RFC 5393 §4.2.1: what routing depends on, as the request came in."""
        lines, ids = msg.lines, msg.ids
        routes = (
            b"".join(line for line, name in zip(lines, ids, strict=True) if name == ROUTE)
            if ROUTE in ids
            else b""
        )
        return (
            hash((msg.ruri, routes, lines[ids.index(CALL_ID)], lines[ids.index(CSEQ)])) & 0xFFFFFFFF
        )

    def is_loop(self, msg: SipMessage) -> bool:
        """RFC 5393 §4.2.2: one of the Vias is ours and was written for this very request."""
        if msg.ids.count(VIA) == 1 and not msg.via().rest:
            return False
        head = b"branch=" + self._head
        if not any(
            name == VIA and head in line for line, name in zip(msg.lines, msg.ids, strict=True)
        ):
            return False
        mine = b"%x" % self.loop_hash(msg)
        for value in msg.values(VIA):
            _, found, rest = value.partition(head)
            if found and rest.partition(b";")[0].rpartition(b".")[2] == mine:
                return True
        return False

    @staticmethod
    def key(msg: SipMessage) -> bytes:
        """RFC 3261 §17.2.3: branch, sent-by and method; ACK and CANCEL find their INVITE."""
        via = msg.via()
        branch = via.branch
        method = b"" if msg.method in _AS_INVITE else msg.method
        if branch.startswith(COOKIE) and len(branch) > 7:
            return branch + via.sent_by + method
        # RFC 2543 clients: no unique branch, so everything that identifies the request; an ACK
        # differs in its To tag only, which is left out
        number = b"%d" % msg.cseq()[0]
        return b"\n".join((via.raw, msg.call_id, msg.from_tag, number, method))

    # -- server side ---------------------------------------------------------------------------

    def find(self, msg: SipMessage) -> ServerTx | bytes | None:
        """The transaction that a request belongs to; remembers its key, before any edit."""
        key = msg.key = self.key(msg)
        return self.servers.get(key)

    def create(self, msg: SipMessage, flow: Flow) -> ServerTx:
        """A new server transaction; ``flow`` is where its responses go."""
        key = msg.key or self.key(msg)
        tx = ServerTx(self, key, msg, flow)
        self.servers[key] = tx
        msg.tx = tx
        return tx

    def answered(self, key: bytes, response: bytes, reliable: bool) -> None:
        """Keep the response to a non-INVITE for its retransmissions: timer J (0 for streams)."""
        if reliable:
            self.servers.pop(key, None)
            return
        self.servers[key] = response
        until = self.host.now + self.timers.wait
        lingering = self._lingering
        if not lingering or until - lingering[-1][0] > LINGER_STEP_S:
            lingering.append((until, [key]))
        else:
            lingering[-1][1].append(key)

    def sweep(self, now: float) -> None:
        """Drop responses whose timer J is over.  Called about once a second."""
        lingering = self._lingering
        while lingering and lingering[0][0] + LINGER_STEP_S < now:
            for key in lingering.popleft()[1]:
                if type(self.servers.get(key)) is bytes:
                    del self.servers[key]

    def forget(self, tx: ServerTx) -> None:
        if self.servers.get(tx.key) is tx:
            del self.servers[tx.key]

    def matched(self, tx: ServerTx | bytes, msg: SipMessage) -> bool:
        """A request that belongs to a known transaction; False: an ACK that is to be routed."""
        if type(tx) is bytes:
            self.host.stats["retransmissions"] += 1
            self.host.send(tx, msg.flow)
            return True
        assert isinstance(tx, ServerTx)
        if msg.method == b"ACK":
            if tx.state == ACCEPTED:
                return False  # RFC 6026 §7.1: the ACK to a 2xx goes to the TU
            tx.acked()
        elif msg.method == b"CANCEL":
            relay.cancelled(tx, msg)
        else:
            self.host.stats["retransmissions"] += 1
            tx.retransmitted()
        return True

    # -- client side ---------------------------------------------------------------------------

    def match_response(self, msg: SipMessage) -> ClientTx | None:
        """RFC 3261 §17.1.3; the answer to a CANCEL ends here."""
        branch = msg.branch()
        tx = self.clients.get(branch)
        method = msg.cseq_method
        if method == b"CANCEL" and (tx is None or tx.method != b"CANCEL"):
            cancel = self.cancels.get(branch)
            if cancel is not None and msg.status >= 200:
                cancel.answered()
            return None
        if tx is None or method != tx.method or tx.flow is None:
            return None
        if not msg.sent_by(tx.flow.listener):
            return None  # RFC 3261 §18.1.2
        return tx

    def pending_on(self, flow: Flow, tx: ClientTx | Rerouted) -> None:
        """Remember who waits for an answer on a flow, to fail them when it is lost."""
        pending = flow.pending
        pending.append(tx)
        if len(pending) > flow.pending_limit:
            flow.pending = [waiting for waiting in pending if waiting.flow is flow]
            flow.pending_limit = 2 * len(flow.pending) + 64

    @staticmethod
    def waits_on(flow: Flow) -> bool:
        """Does any branch wait for an answer on that flow?"""
        return any(tx.flow is flow and not tx.status for tx in flow.pending)

    def flow_lost(self, flow: Flow) -> None:
        """A connection closed, or ICMP: everybody who waits on that flow fails at once (INC-14)."""
        pending, flow.pending = flow.pending, []
        for tx in pending:
            if tx.flow is flow and not tx.status:
                tx.lost()

    def branch_lost(self, tx: ClientTx) -> None:
        """The flow of a branch is gone."""
        branch.branch_lost(tx)

    def branch_silent(self, tx: ClientTx) -> None:
        """Timer B, C or F, or the patience with a silent edge, is over."""
        branch.branch_silent(tx)

    def branch_failed(self, tx: ClientTx, status: int, local: bool = True) -> None:
        """A branch ended without a response from outside (``relay.branch_failed``)."""
        relay.branch_failed(tx, status, local)
