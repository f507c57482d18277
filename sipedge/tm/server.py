"""Server transactions: what a client sees (RFC 3261 §17.2, RFC 6026 §7.1, RFC 4320).

A non-INVITE transaction that has been answered is not kept as an object: only the bytes of its
response stay, under its key, for timer J.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipedge.sip.message import SipMessage
from sipedge.sip.reply import build_reply
from sipedge.tm import client
from sipedge.tm.fallback import reroute
from sipedge.tm.timers import NEVER, NO_TICK, Timed

if TYPE_CHECKING:
    from sipedge.flow import Flow
    from sipedge.forward import Target
    from sipedge.tm.client import ClientTx
    from sipedge.tm.host import Route
    from sipedge.tm.table import Transactions

PROCEEDING: Final = 1
ACCEPTED: Final = 2  # RFC 6026: a 2xx went out; retransmissions of the INVITE are absorbed
COMPLETED: Final = 3  # 300-699 went out; waits for the ACK
CONFIRMED: Final = 4
TERMINATED: Final = 5

_SETTLED: Final = SipMessage([], [])  # stands for the request of a transaction that was decided


class ServerTx(Timed):
    """One request of a client and the response context of RFC 3261 §16.7.

    ``flow`` is where responses go.  ``branches`` are all client transactions, ``groups`` the
    targets that were not tried yet (by descending q).  ``home``: the targets are our own bindings,
    so a 430 never reaches the caller (RFC 5626 §11.5).
    """

    __slots__ = (
        "branches", "cancelled", "flow", "groups", "home", "invite", "key",
        "last", "no_more", "on_branch", "on_failure", "on_reply", "request", "resend_at",
        "resend_s", "since", "starting", "state", "status", "tm", "to_tag", "waits",
    )  # fmt: skip

    def __init__(self, tm: Transactions, key: bytes, msg: SipMessage, flow: Flow) -> None:
        self.deadline = NEVER
        self.tick = NO_TICK
        self.tm = tm
        self.key = key
        self.request: SipMessage = msg
        self.flow = flow
        self.invite = msg.method == b"INVITE"
        self.state = PROCEEDING
        self.status = 0  # of the final response, 0 before
        self.last = b""  # sent again when the request is retransmitted
        self.to_tag = b""
        self.since = tm.host.now  # creation; once COMPLETED, when the final response went out
        self.resend_at = NEVER
        self.resend_s = 0.0
        self.branches: list[ClientTx] = []
        self.groups: list[list[list[Target]]] = []
        self.home = False
        self.cancelled = False
        self.no_more = False  # a 2xx, a 6xx or a CANCEL was seen: no new branches
        self.starting = False
        self.waits = 0  # failure routes that are not over
        self.on_failure: Route | None = None
        self.on_reply: Route | None = None
        self.on_branch: Route | None = None

    def reply(
        self,
        status: int,
        reason: bytes,
        headers: tuple[tuple[bytes, bytes], ...] | list[tuple[bytes, bytes]] = (),
        body: bytes = b"",
    ) -> bool:
        """Answer by ourselves; False if a final response has been sent before."""
        if self.status or self.state == TERMINATED:
            return False
        if status > 100 and not self.to_tag:
            self.to_tag = self.tm.tag(self.request)
        self.send(status, build_reply(self.request, status, reason, self.to_tag, headers, body))
        return True

    def pending(self) -> bool:
        """Does any branch wait for its final answer?"""
        for branch in self.branches:  # any() with a generator takes three times as long
            if not branch.status:
                return True
        return False

    def undecided(self) -> bool:
        """``pending``, but for branches that were left behind for another flow or server."""
        for branch in self.branches:
            if not (branch.status or branch.tried_next):
                return True
        return False

    def trying(self) -> None:
        """100 as the hop-by-hop answer that stops retransmissions (RFC 3261 §17.2.1, 4320 §4.1)."""
        if not self.status and not self.last:
            self.reply(100, b"Trying")

    def pass_on(self, response: SipMessage) -> None:
        """Send the response of somebody else."""
        if self.flow.reliable:
            response.ensure_length()
        self.send(response.status, response.to_bytes())

    def send(self, status: int, data: bytes) -> None:
        """Send a response and move on; repeated 2xx of an INVITE are just sent (RFC 6026 §7.1)."""
        tm = self.tm
        if not tm.host.send(data, self.flow) and status > 100:
            reroute(self, data)
        if status < 200:
            self.last = data
            return
        now = tm.host.now
        first = not self.status
        self.status = status
        self.request.answered = True
        if not self.invite:
            self.state = TERMINATED
            tm.answered(self.key, data, self.flow.reliable)
        elif status < 300:
            if first:
                self.state = ACCEPTED
                self.last = b""
                tm.wheel.at(self, now + tm.timers.wait)  # timer L
        elif first:
            self.state = COMPLETED
            self.last = data
            self.resend_s = tm.timers.t1
            self.resend_at = NEVER if self.flow.reliable else now + self.resend_s  # timer G
            self.since = now  # timer H counts from here
            tm.wheel.at(self, min(self.resend_at, now + tm.timers.fr))

    def retransmitted(self) -> None:
        """The request came again."""
        if self.last:
            self.tm.host.send(self.last, self.flow)

    def acked(self) -> None:
        """The ACK to our 300-699 (RFC 3261 §17.2.1)."""
        if self.state != COMPLETED:
            return
        self.state = CONFIRMED
        self.last = b""
        self.resend_at = NEVER
        if self.flow.reliable:
            self.terminate()
        else:
            self.tm.wheel.at(self, self.tm.host.now + self.tm.timers.t4)  # timer I

    def fire(self, now: float) -> None:
        if self.state == COMPLETED:
            end = self.since + self.tm.timers.fr
            if now < end:
                self.tm.host.send(self.last, self.flow)
                self.resend_s = min(self.resend_s * 2, self.tm.timers.t2)
                self.resend_at = max(self.resend_at + self.resend_s, now)
                self.tm.wheel.at(self, min(self.resend_at, end))
                return
        self.terminate()

    def settle(self) -> None:
        """All was decided: let go of what only a pending transaction needs (no cycles stay)."""
        for branch in self.branches:
            branch.response = None
            if branch.state != client.ACCEPTED:
                branch.server = None
        self.branches = []
        self.groups = []
        self.request.tx = None
        self.request = _SETTLED

    def terminate(self) -> None:
        self.deadline = NEVER
        self.state = TERMINATED
        self.tm.forget(self)
        self.settle()
