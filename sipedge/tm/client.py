"""Client transactions: one branch of a request that we forwarded (RFC 3261 §17.1, RFC 6026 §7.2).

A non-INVITE branch is forgotten with its final response: a proxy drops what matches nothing (RFC
6026 §8.2), so there is no need to wait for timer K.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipedge.sip.message import SipMessage, parse
from sipedge.sip.names import CALL_ID, FROM, MAX_FORWARDS, ROUTE, TO, VIA
from sipedge.tm.timers import NEVER, NO_TICK, Timed

if TYPE_CHECKING:
    from sipedge.flow import Flow
    from sipedge.forward import Hop, Target
    from sipedge.tm.server import ServerTx
    from sipedge.tm.table import Transactions

CALLING: Final = 1
PROCEEDING: Final = 2
COMPLETED: Final = 3  # 300-699 to an INVITE: ACKs repetitions, timer D
ACCEPTED: Final = 4  # RFC 6026: 2xx to an INVITE: forwards repetitions, timer M
DONE: Final = 5
RESOLVING: Final = 6  # waits for a name

#: RFC 4320 §4.1: a non-INVITE request may be answered with 100 when timer E has reached T2
NON_INVITE_100_S: Final = 3.5

#: never sent to a second server because the first is silent: it may have arrived, and once counts
ONCE: Final = frozenset((b"MESSAGE", b"INFO", b"REFER", b"NOTIFY"))

_ACK_ROWS: Final = frozenset((FROM, CALL_ID, ROUTE, MAX_FORWARDS))


class ClientTx(Timed):
    """One branch.  ``on_flow``: it goes to a UA over its flow; ``alternates``: other flows of the
    same instance; ``hop``: the server that it goes to; ``hops``: those that are left; ``resized``:
    it left UDP for being too big; ``breadth``: its part of Max-Breadth, 0 for all of it."""

    __slots__ = (
        "alternates", "branch", "breadth", "cancel_wanted", "data", "end_at", "flow", "hop", "hops",
        "invite", "method", "on_flow", "resend_at", "resend_s", "resized", "response", "server",
        "state", "status", "target", "timed_out", "tm", "tried_next",
    )  # fmt: skip

    def __init__(self, tm: Transactions, server: ServerTx, target: Target) -> None:
        self.deadline = NEVER
        self.tick = NO_TICK
        self.tm = tm
        self.server: ServerTx | None = server
        self.target = target
        self.branch = b""
        self.method = server.request.method
        self.invite = server.invite
        self.flow: Flow | None = None
        self.on_flow = False
        self.data = b""
        self.state = RESOLVING
        self.status = 0  # of the final answer, 0 while pending
        self.response: SipMessage | None = None  # the final one, until the best is chosen
        self.timed_out = False
        self.tried_next = False  # another flow was started although this branch is still open
        self.cancel_wanted = False
        self.resend_at = NEVER
        self.resend_s = 0.0
        self.end_at = NEVER
        self.alternates: list[Target] = []
        self.hop: Hop | None = None
        self.hops: list[Hop] = []
        self.resized = False
        self.breadth = 0

    def start(self, flow: Flow, data: bytes, branch: bytes, on_flow: bool) -> None:
        """Send the request and wait (timers A and B, or E and F)."""
        tm = self.tm
        now = tm.host.now
        self.flow = flow
        self.on_flow = on_flow
        self.data = data
        self.branch = branch
        self.state = CALLING
        tm.clients[branch] = self
        tm.pending_on(flow, self)
        tm.host.send(data, flow)
        self.resend_s = tm.timers.t1
        if not flow.reliable:
            self.resend_at = now + self.resend_s
        elif not self.invite:
            self.resend_at = now + NON_INVITE_100_S
        self.end_at = now + tm.timers.fr
        if (self.hops or self.alternates) and self.has_next():
            self.end_at = now + min(tm.timers.first_response, tm.timers.fr)
        tm.wheel.at(self, min(self.resend_at, self.end_at))

    def has_next(self) -> bool:
        """Is silence a reason to go on to another flow or server?  (Requirements HPX-15, DNS-05)"""
        if self.invite:
            return bool(self.hops or self.alternates)
        return bool(self.hops) and self.method not in ONCE

    def lost(self) -> None:
        """The transport said that nothing can arrive."""
        self.tm.branch_lost(self)

    def provisional(self) -> None:
        """A 1xx came (RFC 3261 §17.1.1.2, §16.6 item 11)."""
        tm = self.tm
        first = self.state == CALLING
        self.state = PROCEEDING
        if self.invite:
            self.resend_at = NEVER
            self.end_at = tm.host.now + tm.timers.fr_inv  # timer C
            tm.wheel.at(self, self.end_at)
            if self.cancel_wanted and first:
                self.send_cancel()
        elif first and self.server is not None:
            self.end_at = max(self.end_at, self.server.since + tm.timers.fr)  # it is there

    def cancel(self) -> None:
        """RFC 3261 §9.1: CANCEL only once a provisional response has come."""
        if self.status or not self.invite:
            return
        if self.state == PROCEEDING and not self.cancel_wanted:
            self.send_cancel()
        self.cancel_wanted = True

    def send_cancel(self) -> None:
        """The CANCEL of this branch, and at most timer F more patience with the INVITE."""
        self.cancel_wanted = True
        if self.flow is None:
            return
        now = self.tm.host.now
        Cancel(self.tm, self, now)
        self.end_at = now + self.tm.timers.fr
        self.tm.wheel.at(self, self.end_at)

    def ack(self, response: SipMessage) -> None:
        """RFC 3261 §17.1.1.3: the ACK to a 300-699, same branch, same flow."""
        sent = parse(self.data)
        lines = [b"ACK %s SIP/2.0" % sent.ruri, sent.lines[sent.ids.index(VIA)]]
        lines += [
            line for line, name in zip(sent.lines, sent.ids, strict=True) if name in _ACK_ROWS
        ]
        lines.append(response.lines[response.ids.index(TO)])
        lines.append(b"CSeq: %d ACK" % sent.cseq()[0])
        lines += [b"Content-Length: 0", b"", b""]
        if self.flow is not None:
            self.tm.host.send(b"\r\n".join(lines), self.flow)

    def completed(self, status: int, response: SipMessage | None) -> None:
        """A final answer: the transport work of it; what it means is ``relay``'s business."""
        tm = self.tm
        self.status = status
        self.resend_at = NEVER
        if not self.invite:
            self.terminate()
        elif status < 300:
            self.state = ACCEPTED
            self.data = b""
            tm.wheel.at(self, tm.host.now + tm.timers.wait)
        elif response is not None:
            self.state = COMPLETED
            self.ack(response)
            if self.flow is None or self.flow.reliable:
                self.terminate()  # timer D is 0 for streams
            else:
                tm.wheel.at(self, tm.host.now + tm.timers.wait)
        else:
            self.terminate()

    def fire(self, now: float) -> None:
        tm = self.tm
        if self.state in (COMPLETED, ACCEPTED):
            self.terminate()
        elif now >= self.end_at:
            tm.branch_silent(self)
        elif now >= self.resend_at:
            self.resend_s = min(self.resend_s * 2, NEVER if self.invite else tm.timers.t2)
            if self.state == PROCEEDING:
                self.resend_s = tm.timers.t2  # non-INVITE after a 1xx: every T2
            self.resend_at = max(self.resend_at + self.resend_s, now)
            if self.flow is not None and not self.flow.reliable:
                tm.host.send(self.data, self.flow)
            server = self.server
            if (
                not self.invite
                and server is not None
                and now - server.since >= NON_INVITE_100_S - 0.05
            ):
                server.trying()
            tm.wheel.at(self, min(self.resend_at, self.end_at))
        else:
            tm.wheel.at(self, min(self.resend_at, self.end_at))

    def terminate(self) -> None:
        """Forget the branch; nothing that points elsewhere stays."""
        self.deadline = NEVER
        self.state = DONE
        self.tm.clients.pop(self.branch, None)
        self.data = b""
        self.flow = None
        if self.status:
            self.server = None


class Cancel(Timed):
    """A CANCEL on its way (RFC 3261 §9.1): repeated over UDP until answered or given up."""

    __slots__ = ("_data", "_end_at", "_flow", "_resend_s", "_tm", "_tx")

    def __init__(self, tm: Transactions, tx: ClientTx, now: float) -> None:
        assert tx.flow is not None  # an invariant of ours: the INVITE was sent on it
        self.deadline = NEVER
        self.tick = NO_TICK
        self._tm = tm
        self._tx = tx
        self._flow = tx.flow
        self._data = cancel_of(tx.data)
        self._resend_s = tm.timers.t1
        self._end_at = now + tm.timers.fr
        tm.cancels[tx.branch] = self
        tm.host.send(self._data, self._flow)
        tm.wheel.at(self, self._end_at if self._flow.reliable else now + self._resend_s)

    def fire(self, now: float) -> None:
        if now >= self._end_at or self._tx.status:
            self.answered()
            return
        self._tm.host.send(self._data, self._flow)
        self._resend_s = min(self._resend_s * 2, self._tm.timers.t2)
        self._tm.wheel.at(self, min(now + self._resend_s, self._end_at))

    def answered(self) -> None:
        self.deadline = NEVER
        self._tm.cancels.pop(self._tx.branch, None)


def cancel_of(invite: bytes) -> bytes:
    """RFC 3261 §9.1: same Request-URI, top Via, Route, To, From, Call-ID and CSeq number."""
    sent = parse(invite)
    keep = (VIA, ROUTE, FROM, TO, CALL_ID, MAX_FORWARDS)
    lines = [b"CANCEL %s SIP/2.0" % sent.ruri]
    vias = 0
    for line, name in zip(sent.lines, sent.ids, strict=True):
        if name == VIA:
            vias += 1
        if name in keep and not (name == VIA and vias > 1):
            lines.append(line)
    lines.append(b"CSeq: %d CANCEL" % sent.cseq()[0])
    return b"\r\n".join([*lines, b"Content-Length: 0", b"", b""])
