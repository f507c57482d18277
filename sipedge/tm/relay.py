"""Forking and the choice of the answer: the response context of RFC 3261 §16.6 and §16.7.

Strategy: targets come in groups of falling q; the instances of a group ring in parallel, the flows
of one instance one after the other (RFC 5626 §7).  A branch that fails with 430, 408 or locally is
replaced by the next flow of its instance; any other final answer ends that instance.  When all
branches have ended, the next group starts, or the failure route runs and the best answer goes back.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sipedge.errors import SipError
from sipedge.flow import CLOSED, UDP, Flow
from sipedge.forward import Hop, Target, build_branch, is_numeric, next_hop_uri
from sipedge.sip.message import SipMessage
from sipedge.sip.names import PROXY_AUTHENTICATE, WWW_AUTHENTICATE
from sipedge.sip.reply import REASONS, build_reply
from sipedge.tm.client import ACCEPTED, CALLING, COMPLETED, DONE, ClientTx
from sipedge.tm.contacts import CONTACTS, ON_BRANCH_FAILURE
from sipedge.tm.server import PROCEEDING, ServerTx

if TYPE_CHECKING:
    from sipedge.tm.table import Transactions

#: RFC 3261 §16.7 item 6: preferred among the 4xx, as they tell the client what to change
_HELPFUL = frozenset((401, 407, 415, 420, 484))


def group_targets(targets: list[Target]) -> list[list[list[Target]]]:
    """By falling q, then by instance: ``[q group][instance][flow]`` (RFC 5626 §7).

    A flow of a known instance with lower q does not ring twice: it joins the first one's list.
    """
    if len(targets) == 1:
        return [[targets]]
    groups: dict[float, list[list[Target]]] = {}
    by_instance: dict[bytes, list[Target]] = {}
    for target in sorted(targets, key=lambda t: -t.q):
        if target.instance and target.instance in by_instance:
            by_instance[target.instance].append(target)
            continue
        flows = [target]
        if target.instance:
            by_instance[target.instance] = flows
        groups.setdefault(target.q, []).append(flows)
    return list(groups.values())


def relay(tx: ServerTx, targets: list[Target]) -> bool:
    """Start branches for the targets; False when all of them failed at once."""
    if len(targets) == 1 and not tx.groups:  # nearly always
        tx.starting = True
        start_branch(tx, targets[0], [])
        tx.starting = False
    else:
        tx.groups.extend(group_targets(targets))
        start_group(tx)
    if not tx.status:
        check_done(tx)
    return not tx.status or tx.status < 300


def more_branches(tx: ServerTx, targets: list[Target]) -> None:
    """Branches from a branch-failure route; whoever runs that looks at the outcome afterwards."""
    for target in targets:
        start_branch(tx, target, [])


def join(tx: ServerTx, target: Target) -> bool:
    """One more target for a pending request (RFC 3261 §16.5); False if it may not have it.

    A UA rings once: again only if nothing of that ever reached it.
    """
    if tx.status or tx.state != PROCEEDING or tx.no_more or not tx.branches:
        return False
    if tx.request.recall(CONTACTS) is not None:
        return False  # a route drives it by hand
    later = [one for group in tx.groups for flows in group for one in flows]
    for ctx in tx.branches:
        later += ctx.alternates
        if _same_ua(ctx.target, target) and ctx.status not in (408, 430):
            return False
    if any(_same_ua(one, target) for one in later):
        return False
    if any(not ctx.status and ctx.target.q > target.q for ctx in tx.branches):
        tx.groups.append([[target]])
        tx.groups.sort(key=lambda group: -group[0][0].q)
    else:
        start_branch(tx, target, [])
    return True


def _same_ua(a: Target, b: Target) -> bool:
    return a.instance == b.instance if a.instance or b.instance else a.uri == b.uri


def start_group(tx: ServerTx) -> None:
    """The next q group that has a branch that does not fail at once."""
    tx.starting = True  # a branch that fails at once is no reason to call it a day
    while tx.groups and not tx.no_more:
        for flows in tx.groups.pop(0):
            start_branch(tx, flows[0], flows[1:])
        if tx.pending():
            break
    tx.starting = False


def start_branch(tx: ServerTx, target: Target, alternates: list[Target]) -> None:
    """One branch towards one target; failures end in ``branch_failed`` like any other."""
    ctx = ClientTx(tx.tm, tx, target)
    ctx.alternates = alternates
    tx.branches.append(ctx)
    flow = target.flow
    if flow is not None:
        if flow.state == CLOSED:
            branch_failed(ctx, 430)  # before anything is sent (RFC 5626 §5.3.1)
        else:
            send_branch(ctx, flow, True)
        return
    host = tx.tm.host
    try:
        hop = host.hops.of_uri(next_hop_uri(tx.request, target))
    except SipError as exc:
        branch_failed(ctx, exc.status, local=False)
        return
    if is_numeric(hop[1]):
        start_hop(ctx, hop)
    else:
        host.lookup(hop[1], partial(resolved, ctx, hop))


def resolved(ctx: ClientTx, hop: Hop, addresses: list[str]) -> None:
    """The answer to a look-up for a branch; many seconds may have passed."""
    tx = ctx.server
    if tx is None or ctx.status or tx.state != PROCEEDING:
        return
    if tx.no_more:
        branch_failed(ctx, 487, local=False)
        return
    ctx.hops = [(hop[0], address, hop[2]) for address in addresses]
    next_address(ctx)


def next_address(ctx: ClientTx) -> None:
    """RFC 3261 §16.6 item 7: the addresses of a name in order, each with a new branch."""
    if ctx.hops:
        start_hop(ctx, ctx.hops.pop(0))
    else:
        branch_failed(ctx, 503)


def start_hop(ctx: ClientTx, hop: Hop) -> None:
    assert ctx.server is not None  # an invariant of ours: the branch is pending
    flow = flow_to(ctx.tm, ctx.server.request, hop)
    if flow is None:
        next_address(ctx)
    else:
        send_branch(ctx, flow, False)


def flow_to(tm: Transactions, msg: SipMessage, hop: Hop) -> Flow | None:
    """A flow to a numeric address, from the listener that fits; None if none does."""
    transport, host, port = hop
    flows = tm.host.flows
    listener = flows.towards(transport, host, msg.listener or msg.flow.listener)
    if listener is None:
        tm.host.stats["no_listener_for_hop"] += 1
        return None
    remote = (host, port)
    return flows.udp(listener, remote) if transport == UDP else flows.dial(listener, remote)


def send_branch(ctx: ClientTx, flow: Flow, on_flow: bool) -> None:
    """Build the branch's own copy of the request and send it."""
    tx = ctx.server
    assert tx is not None  # an invariant of ours: the branch is pending
    msg, target, tm = tx.request, ctx.target, tx.tm
    if tx.on_branch is not None:
        msg = branch_copy(msg, target, ctx)
        tm.host.run_branch_route(tx.on_branch, msg)
        if msg.drop:
            branch_failed(ctx, 478, local=False)
            return
        target = (
            Target(msg.ruri, msg.dst_uri, flow, target.path) if msg.ruri != target.uri else target
        )
    branch = tm.new_branch(tx.request.loop_hash)
    try:
        data = build_branch(msg, target, flow, on_flow, branch)
    except SipError as exc:
        branch_failed(ctx, exc.status, local=False)
        return
    ctx.start(flow, data, branch, on_flow)


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


# -- what became of a branch ---------------------------------------------------------------------


def branch_lost(ctx: ClientTx) -> None:
    """The transport said that nothing can arrive: 430 for a UA's flow, else like a 503 (A3)."""
    if not ctx.on_flow and ctx.hops:
        ctx.tm.clients.pop(ctx.branch, None)
        next_address(ctx)
        return
    branch_failed(ctx, 430 if ctx.on_flow else 503)


def branch_silent(ctx: ClientTx) -> None:
    """A timer of the branch ran out."""
    tx = ctx.server
    if tx is None or ctx.status:
        ctx.terminate()
        return
    now = ctx.tm.host.now
    give_up = tx.since + ctx.tm.timers.fr
    if ctx.state == CALLING and ctx.invite and ctx.alternates and now < give_up:
        # RFC 5626 §7, requirement HPX-15: an edge that says nothing; a late 2xx is still welcome
        ctx.tried_next = ctx.cancel_wanted = True
        ctx.resend_at = float("inf")
        ctx.end_at = give_up
        ctx.tm.wheel.at(ctx, give_up)
        alternates, ctx.alternates = ctx.alternates, []
        start_branch(tx, alternates[0], alternates[1:])
        return
    if ctx.state != CALLING and ctx.invite and not ctx.cancel_wanted:
        ctx.timed_out = True
        ctx.send_cancel()  # timer C (RFC 3261 §16.8)
        return
    ctx.timed_out = True
    if not ctx.on_flow and ctx.hops and ctx.state == CALLING and ctx.invite:
        ctx.tm.clients.pop(ctx.branch, None)
        next_address(ctx)
        return
    branch_failed(ctx, 430 if ctx.on_flow and ctx.state == CALLING else 408)


def branch_failed(ctx: ClientTx, status: int, local: bool = True) -> None:
    """A branch ended without a response from outside; ``local``: because nothing got through."""
    tx = ctx.server
    if tx is None:
        return
    if local and not tx.status:
        before = tx.request.via_branch
        tx.request.via_branch = ctx
        status = tx.tm.host.branch_failed(tx.request, status)
        tx.request.via_branch = before
        tx.tm.host.stats["branches_failed"] += 1
    silent = ctx.timed_out
    ctx.status = status
    ctx.completed(status, None)
    # a request other than INVITE is never sent twice on mere silence: it may have arrived
    ended(tx, ctx, status, local and (tx.invite or not silent))


def ended(tx: ServerTx, ctx: ClientTx, status: int, failover: bool) -> None:
    """A branch ended without success: its route, the next flow, and what that means for all."""
    run = tx.request.recall(ON_BRANCH_FAILURE)
    if run is not None and not tx.status and not tx.cancelled:
        msg = tx.request
        before = msg.route_kind, msg.via_branch
        msg.via_branch, msg.branches = ctx, None
        run(msg)
        msg.route_kind, msg.via_branch = before
    if failover:
        retry(tx, ctx, status)
    check_done(tx)


def retry(tx: ServerTx, ctx: ClientTx, status: int) -> None:
    """The next flow of this instance (RFC 5626 §7); the binding's owner hears of the dead one."""
    target = ctx.target
    by_hand = tx.request.recall(CONTACTS) is not None
    more = target.on_failed(target, status) if target.on_failed is not None else []
    queue = more + ctx.alternates
    ctx.alternates = []
    if queue and not by_hand and not tx.no_more and not ctx.tried_next:
        start_branch(tx, queue[0], queue[1:])


def response_in(ctx: ClientTx, msg: SipMessage) -> None:
    """A response that matched a branch (RFC 3261 §16.7)."""
    tx = ctx.server
    status = msg.status
    if ctx.status:
        if ctx.state == COMPLETED and status >= 300:
            ctx.ack(msg)  # a repeated final: the ACK got lost
        elif ctx.state == ACCEPTED and 200 <= status < 300 and tx is not None:
            forward(tx, msg)  # RFC 6026 §7.2: a repeated or a forked 2xx
        return
    if tx is None:
        return
    msg.tx = tx  # a reply route may ask about the request; settle() unties it
    if status < 200:
        ctx.provisional()
        # RFC 3261 §16.7 item 5: 100 ends here; RFC 4320 §4.1: no other 1xx for a non-INVITE
        if status > 100 and ctx.invite and not tx.status and not ctx.tried_next:
            forward(tx, msg)
        return
    if status < 300:
        ctx.completed(status, msg)
        tx.no_more = True
        forward(tx, msg)
        cancel_branches(tx)
        if not ctx.invite or not tx.pending():
            tx.settle()
        return
    ctx.response = msg
    ctx.completed(status, msg)
    if tx.tm.host.run_reply_routes(msg, tx.on_reply):
        tx.tm.host.stats["replies_dropped_by_route"] += 1
    if status >= 600:
        tx.no_more = True  # RFC 3261 §16.7 item 5: no new branches
        cancel_branches(tx)
    ended(tx, ctx, status, status in (408, 430))


def forward(tx: ServerTx, msg: SipMessage) -> None:
    """Hand a 1xx or 2xx back, unless the operator's reply route drops it (1xx only)."""
    if tx.tm.host.run_reply_routes(msg, tx.on_reply) and msg.status < 200:
        return
    if tx.status and not (tx.invite and msg.status < 300):
        return  # RFC 4320 §4.2: late, and nobody waits
    tx.send(msg.status, msg.to_bytes())


def cancel_branches(tx: ServerTx) -> None:
    """CANCEL whatever still rings (RFC 3261 §16.7 item 10)."""
    tx.groups.clear()
    for ctx in tx.branches:
        ctx.cancel()


def check_done(tx: ServerTx) -> None:
    """All branches ended: next group, else the answer."""
    if tx.starting:
        return
    if tx.status or tx.state != PROCEEDING:
        if not tx.pending():
            tx.settle()
        return
    if tx.pending():
        return
    if tx.groups and not tx.no_more:
        start_group(tx)
        if tx.pending():
            return
    finish(tx)


def finish(tx: ServerTx) -> None:
    """Failure route, then the best answer (RFC 3261 §16.7 items 6 and 7)."""
    best = min(tx.branches, key=_rank, default=None)
    if best is None:
        return
    route = tx.on_failure
    if route is not None and not tx.cancelled:
        tx.on_failure = None
        tx.request.via_branch = best
        tx.request.branches = None
        tx.tm.host.run_failure_route(route, tx.request)
        if tx.status or tx.pending():
            return
        best = min(tx.branches, key=_rank)
    status = best.status
    if tx.home and status == 430:
        status = 480  # RFC 5626 §11.5: endpoints never see 430 for a new dialog
    if status == 503:
        status = 500  # RFC 3261 §16.7 item 6
    if tx.cancelled and best.response is None:
        status = 487
    response = best.response
    if response is not None and response.status == status:
        _gather_challenges(tx, response)
        tx.send(status, response.to_bytes())
    elif status == 408 and not tx.invite:
        tx.terminate()  # RFC 4320 §4.2: never 408 to a non-INVITE
    else:
        tx.reply(status, REASONS.get(status, b"Request Failed"))
    tx.settle()


def _rank(ctx: ClientTx) -> int:
    """RFC 3261 §16.7 item 6: 6xx, then the lowest class; 430 last (requirement PXP-04)."""
    status = ctx.status
    if status >= 600:
        return 0
    if status == 430:
        return 9000
    if status >= 500:
        return 8000 + (status == 503)
    if ctx.response is None:
        return 7000  # our own 408
    return (status // 100) * 1000 + (status not in _HELPFUL) * 500


def _gather_challenges(tx: ServerTx, response: SipMessage) -> None:
    """RFC 3261 §16.7 item 7: a 401 or 407 carries the challenges of all branches."""
    if response.status not in (401, 407):
        return
    for ctx in tx.branches:
        other = ctx.response
        if other is None or other is response or other.status not in (401, 407):
            continue
        for name in (WWW_AUTHENTICATE, PROXY_AUTHENTICATE):
            for value in other.rows(name):
                response.append(name, value)


def cancelled(tx: ServerTx, msg: SipMessage) -> None:
    """A CANCEL for this INVITE (RFC 3261 §9.2, §16.10): 200 at once, then the branches."""
    host = tx.tm.host
    tag = tx.to_tag = tx.to_tag or tx.tm.tag(tx.request)
    host.send(build_reply(msg, 200, b"OK", tag), msg.flow)
    if tx.status or tx.state != PROCEEDING:
        return
    tx.cancelled = tx.no_more = True
    cancel_branches(tx)
    for ctx in list(tx.branches):
        if not ctx.status and ctx.state not in (CALLING, DONE) and ctx.flow is None:
            branch_failed(ctx, 487, local=False)  # still waits for a name: nothing was sent
    if not tx.branches:
        tx.reply(487, b"Request Terminated")
