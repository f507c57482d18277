"""One branch: where it goes, what it carries, and the next server when one fails.  Part of stop 7.

Strategy: a flow is used or it is dead; nothing is ever dialed for it (RFC 5626 §5.3.1).  Everything
else is located (RFC 3263 §4), and the branch has a list of addresses.  When one fails, by its
transport, by silence or by 503, the same request goes to the next one in a new client transaction
(§4.3), and the server is remembered for a while.  What the end of a branch means for the request is
``relay``'s business.

Silence counts sooner than RFC 3263 says while another server is left: after ``fr_first_timer``, as
with flows (requirement HPX-15).  The old transaction stays open for a late answer.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from sipedge.errors import SipError
from sipedge.flow import CLOSED, TCP, TLS, UDP, Flow
from sipedge.forward import Hop, Place, Target, build_branch, is_sips, next_hop_uri
from sipedge.sip.message import SipMessage
from sipedge.sip.names import RETRY_AFTER
from sipedge.sip.values import number
from sipedge.tm import breadth
from sipedge.tm.client import CALLING, ClientTx
from sipedge.tm.contacts import MORE_MAY_JOIN
from sipedge.tm.server import PROCEEDING, ServerTx
from sipedge.tm.timers import NEVER

if TYPE_CHECKING:
    from sipedge.tm.table import Transactions

log = logging.getLogger("sipedge")


def start_branch(tx: ServerTx, target: Target, alternates: list[Target], share: int = 0) -> None:
    """One branch towards one target; failures end in ``relay.branch_failed`` like any other.

    ``share`` is its part of Max-Breadth; 0: all that no other branch uses.
    """
    ctx = ClientTx(tx.tm, tx, target)
    ctx.alternates = alternates
    leaves_room = bool(alternates) or tx.request.recall(MORE_MAY_JOIN) is not None
    if share or leaves_room or tx.branches:
        share = share or breadth.spare(tx)
        if not share and tx.pending():
            tx.groups.insert(0, [[target, *alternates]])  # when another branch has ended
            return
        ctx.breadth = breadth.half(share) if leaves_room else share
    tx.branches.append(ctx)
    flow = target.flow
    if flow is not None:
        if flow.state == CLOSED:
            tx.tm.branch_failed(ctx, 430)  # before anything is sent (RFC 5626 §5.3.1)
        else:
            send_branch(ctx, flow, True)
        return
    host = tx.tm.host
    try:
        hop = host.hops.of_uri(next_hop_uri(tx.request, target), is_sips(target.uri))
    except SipError as exc:
        tx.tm.branch_failed(ctx, exc.status, False)
        return
    if isinstance(hop, Place):
        ctx.breadth = ctx.breadth or breadth.spare(tx)  # kept while the search goes on
        host.locate(hop, partial(located, ctx))
        return
    flow = flow_to(tx.tm, tx.request, hop)
    if flow is None:
        tx.tm.branch_failed(ctx, 503)
    else:
        ctx.hop = hop
        send_branch(ctx, flow, False)


def located(ctx: ClientTx, hops: list[Hop]) -> None:
    """The answer to a search for a branch; many seconds may have passed."""
    tx = ctx.server
    if tx is None or ctx.status or tx.state != PROCEEDING:
        return
    if tx.no_more:
        tx.tm.branch_failed(ctx, 487, False)
        return
    if not hops:
        tx.tm.host.stats["servers_not_found"] += 1
    elif len(hops) > 1:
        ctx.breadth = breadth.half(ctx.breadth)
    ctx.hops = hops
    next_hop(ctx)


def next_hop(ctx: ClientTx) -> None:
    """RFC 3261 §16.6 item 7: the addresses of a list in order, the first that we can send to."""
    tx = ctx.server
    assert tx is not None  # an invariant of ours: the branch is pending
    while ctx.hops:
        hop = ctx.hops.pop(0)
        flow = flow_to(ctx.tm, tx.request, hop)
        if flow is not None:
            ctx.hop = hop
            send_branch(ctx, flow, False)
            return
    ctx.tm.branch_failed(ctx, 503)


def flow_to(tm: Transactions, msg: SipMessage, hop: Hop) -> Flow | None:
    """A flow to a numeric address, from the listener that fits; None if none does.

    Nobody dials a WebSocket: a browser is reached over the connection that it opened (RFC 7118).
    """
    transport, host, port, name = hop
    flows = tm.host.flows
    listener = flows.towards(transport, host, msg.listener or msg.flow.listener)
    if listener is None or transport not in (UDP, TCP, TLS):
        tm.host.stats["no_listener_for_hop"] += 1
        return None
    remote = (host, port)
    return flows.udp(listener, remote) if transport == UDP else flows.dial(listener, remote, name)


def send_branch(ctx: ClientTx, flow: Flow, on_flow: bool) -> None:
    """Build the branch's own copy of the request and send it."""
    tx = ctx.server
    assert tx is not None  # an invariant of ours: the branch is pending
    msg, target, tm = tx.request, ctx.target, tx.tm
    if tx.on_branch is not None:
        msg = branch_copy(msg, target, ctx)
        tm.host.run_branch_route(tx.on_branch, msg)
        if msg.drop:
            tm.branch_failed(ctx, 478, False)
            return
        target = (
            Target(msg.ruri, msg.dst_uri, flow, target.path) if msg.ruri != target.uri else target
        )
    branch = tm.new_branch(tx.request.loop_hash)
    try:
        data = build_branch(msg, target, flow, on_flow, branch, ctx.breadth)
        if not on_flow and not flow.reliable and 0 < tm.host.udp_mtu < len(data):
            wide = wider(ctx, flow)
            if wide is not None:
                flow = wide
                data = build_branch(msg, target, flow, on_flow, branch, ctx.breadth)
    except SipError as exc:
        tm.branch_failed(ctx, exc.status, False)
        return
    ctx.start(flow, data, branch, on_flow)


def wider(ctx: ClientTx, flow: Flow) -> Flow | None:
    """RFC 3261 §18.1.1: a connection for a request that is too big for a datagram.

    Where nobody listens on TCP the request comes back to UDP; that is remembered.
    """
    host, hop = ctx.tm.host, ctx.hop
    if ctx.resized or hop is None:
        return None
    over_tcp: Hop = (TCP, *hop[1:])
    listeners = [one for one in host.flows.listeners if one.transport == TCP]
    same = next((one for one in listeners if one.host == flow.listener.host), None)
    listener = host.flows.towards(TCP, hop[1], same)
    if listener is None or host.blocklist.has(over_tcp, host.now):
        return None
    ctx.resized = True
    ctx.hops = [hop, *ctx.hops]
    ctx.hop = over_tcp
    host.stats["requests_too_big_for_udp"] += 1
    return host.flows.dial(listener, flow.remote, hop[3])


def branch_copy(msg: SipMessage, target: Target, ctx: ClientTx) -> SipMessage:
    """What a branch route sees and edits: this branch only."""
    copy = SipMessage(msg.lines.copy(), msg.ids.copy())
    same = ("method", "cseq_method", "flow", "now", "flags", "tx", "listener", "max_forwards_done")
    for name in same:
        setattr(copy, name, getattr(msg, name))
    copy.late = list(msg.late) if msg.late else None
    copy.memo = dict(msg.memo) if msg.memo else None
    copy.ruri = target.uri
    copy.lines[0] = b"%s %s SIP/2.0" % (msg.method, target.uri)
    copy.dst_uri = target.dst_uri
    copy.dst_flow = target.flow
    copy.via_branch = ctx
    return copy


# -- the next server -----------------------------------------------------------------------------


def branch_lost(ctx: ClientTx) -> None:
    """The transport said that nothing can arrive: 430 for a UA's flow, else like a 503 (A3)."""
    tx = ctx.server
    if tx is None or ctx.on_flow:
        ctx.tm.branch_failed(ctx, 430)
        return
    remember_failure(ctx)
    if ctx.hops and not tx.no_more:
        replace(tx, ctx, 503)
    else:
        ctx.tm.branch_failed(ctx, 503)


def branch_silent(ctx: ClientTx) -> None:
    """A timer of the branch ran out."""
    tx, tm = ctx.server, ctx.tm
    if tx is None or ctx.status:
        ctx.terminate()
        return
    now = tm.host.now
    if ctx.state == CALLING and not ctx.tried_next:
        remember_failure(ctx)
        if ctx.has_next() and not ctx.timed_out and now < tx.since + tm.timers.fr:
            if breadth.spare(tx) and not tx.no_more:
                leave_behind(ctx)
                return
            ctx.timed_out = True  # no second branch at a time: wait until this one is over
            ctx.end_at = now + max(tm.timers.fr - tm.timers.first_response, 0.0)
            tm.wheel.at(ctx, min(ctx.end_at, ctx.resend_at))
            return
    if ctx.state != CALLING and ctx.invite and not ctx.cancel_wanted:
        ctx.timed_out = True
        ctx.send_cancel()  # timer C (RFC 3261 §16.8)
        return
    ctx.timed_out = True
    late = now >= tx.since + 2 * tm.timers.fr  # nobody waits for ever
    if ctx.invite and ctx.hops and ctx.state == CALLING and not (late or tx.no_more):
        replace(tx, ctx, 408)
        return
    tm.branch_failed(ctx, 430 if ctx.on_flow and ctx.state == CALLING else 408)


def busy(tx: ServerTx, ctx: ClientTx, response: SipMessage) -> bool:
    """A 503 came (RFC 3263 §4.3): is the request on its way to the next server?

    RFC 3261 §21.5.4: with Retry-After this one is left alone for so long.  Only a server that was
    found by name is meant: behind a Path or a flow it may be a UA that says so.
    """
    hop = ctx.hop
    if hop is None or hop[1] == hop[3]:
        return False
    value = (response.first(RETRY_AFTER) or b"").replace(b";", b" ").replace(b"(", b" ").split()
    seconds = number(value[0]) if value else None
    host = ctx.tm.host
    if seconds and not ctx.target.path:
        host.blocklist.asked_to_wait(hop, host.now, seconds)
    if not ctx.hops or tx.no_more or tx.status or ctx.tried_next:
        return False
    replace(tx, ctx, 503)
    return True


def remember_failure(ctx: ClientTx) -> None:
    """Others first for a while; of addresses in URIs only that TCP is of no use there."""
    host, hop = ctx.tm.host, ctx.hop
    if hop is None or host.dst_blocklist_expire <= 0:
        return
    if hop[1] != hop[3] or ctx.resized:
        host.blocklist.failed(hop, host.now + host.dst_blocklist_expire)


def leave_behind(ctx: ClientTx) -> None:
    """Go on elsewhere although this branch is open; a late 2xx is still welcome, and a late 1xx is
    answered by CANCEL (RFC 5626 §7, requirement HPX-15)."""
    tx, tm = ctx.server, ctx.tm
    assert tx is not None  # an invariant of ours: the branch is pending
    ctx.tried_next = ctx.cancel_wanted = True
    ctx.resend_at = NEVER
    ctx.end_at = max(tx.since + tm.timers.fr, tm.host.now + tm.timers.t4)
    tm.wheel.at(ctx, ctx.end_at)
    if ctx.hops:
        move_on(tx, ctx)
        return
    alternates, ctx.alternates = ctx.alternates, []
    start_branch(tx, alternates[0], alternates[1:])


def replace(tx: ServerTx, ctx: ClientTx, status: int) -> None:
    """This branch ended, by itself or with ``status``; the next server takes its place."""
    tx.branches.remove(ctx)
    if not ctx.status:
        ctx.status = status
        ctx.completed(status, None)
    ctx.server = None
    move_on(tx, ctx)


def move_on(tx: ServerTx, before: ClientTx) -> None:
    """The same request to the next address, as a new client transaction (RFC 3263 §4.3)."""
    ctx = ClientTx(tx.tm, tx, before.target)
    ctx.alternates, before.alternates = before.alternates, []
    ctx.hops, before.hops = before.hops, []
    ctx.resized = before.resized
    spare = breadth.spare(tx)
    ctx.breadth = breadth.half(spare) if len(ctx.hops) > 1 else spare
    tx.branches.append(ctx)
    tx.tm.host.stats["server_failovers"] += 1
    log.info("trying the next server for %s", before.target.uri.decode("ascii", "replace"))
    next_hop(ctx)
