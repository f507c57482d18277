"""Forking and the choice of the answer: the response context of RFC 3261 §16.6 and §16.7.

Strategy: targets come in groups of falling q; the instances of a group ring in parallel, the flows
of one instance one after the other (RFC 5626 §7).  A branch that fails with 430, 408 or locally is
replaced by the next flow of its instance; any other final answer ends that instance.  When all
branches have ended, the next group starts, or the failure route runs and the best answer goes back.
"""

from __future__ import annotations

from sipedge.forward import Ask, Target
from sipedge.sip.message import SipMessage
from sipedge.sip.reply import build_reply
from sipedge.tm.answer import best_of, send_best
from sipedge.tm.branch import busy, start_branch
from sipedge.tm.breadth import divide
from sipedge.tm.client import ACCEPTED, CALLING, COMPLETED, DONE, ClientTx
from sipedge.tm.contacts import CONTACTS, ON_BRANCH_FAILURE
from sipedge.tm.server import PROCEEDING, TERMINATED, ServerTx


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
    if tx.status or tx.state != PROCEEDING or tx.no_more or tx.waits or not tx.branches:
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
        group = tx.groups.pop(0)
        shares = divide(tx, len(group))
        if len(shares) < len(group):
            tx.groups.insert(0, group[len(shares) :])  # RFC 5393 §5.3.3: serially, then
        for flows, share in zip(group, shares, strict=False):
            start_branch(tx, flows[0], flows[1:], share)
        if tx.undecided() or not shares:
            break
    tx.starting = False


# -- what became of a branch ---------------------------------------------------------------------


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
        stats = tx.tm.host.stats
        stats["branches_failed"] += 1
        if status == 430:
            stats["flows_failed"] += 1
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
    alternates, ctx.alternates = ctx.alternates, []
    go_on = not by_hand and not ctx.tried_next
    if callable(more):
        ask(tx, target, more, alternates if go_on else None)
    elif go_on:
        next_flow(tx, more + alternates)


def next_flow(tx: ServerTx, queue: list[Target]) -> None:
    if queue and not tx.no_more:
        start_branch(tx, queue[0], queue[1:])


def ask(tx: ServerTx, failed: Target, owner: Ask, alternates: list[Target] | None) -> None:
    """What replaces a target is known once ``owner`` has asked a store.

    Until then a branch that sends nothing holds the place.  ``alternates``: None if nothing is to
    be tried, whatever the answer is.
    """
    if alternates is None:
        owner(ignore)
        return
    place = ClientTx(tx.tm, tx, failed)
    tx.branches.append(place)

    def answered(more: list[Target]) -> None:
        if place.server is None or place.status or tx.state == TERMINATED:
            return  # cancelled meanwhile
        tx.branches.remove(place)
        place.server = None
        if not tx.status:
            next_flow(tx, more + alternates)
        check_done(tx)

    owner(answered)


def ignore(more: list[Target]) -> None:
    """Nobody waits for it."""


def response_in(ctx: ClientTx, msg: SipMessage) -> None:
    """A response that matched a branch (RFC 3261 §16.7)."""
    tx = ctx.server
    status = msg.status
    if status >= 300:
        msg.open()  # its rows will be needed
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
    if status == 503 and busy(tx, ctx, msg):
        return
    ended(tx, ctx, status, status in (408, 430))


def forward(tx: ServerTx, msg: SipMessage) -> None:
    """Hand a 1xx or 2xx back, unless the operator's reply route drops it (1xx only)."""
    if tx.tm.host.run_reply_routes(msg, tx.on_reply) and msg.status < 200:
        return
    if tx.status and not (tx.invite and msg.status < 300):
        return  # RFC 4320 §4.2: late, and nobody waits
    tx.pass_on(msg)


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
    if tx.undecided():
        return
    if tx.groups and not tx.no_more:
        start_group(tx)
        if tx.undecided() or (tx.groups and tx.pending()):
            return
    finish(tx)


def finish(tx: ServerTx) -> None:
    """Failure route, then the best answer (RFC 3261 §16.7 items 6 and 7)."""
    best = best_of(tx)
    if best is None:
        return
    route = tx.on_failure
    if route is not None and not tx.cancelled:
        tx.on_failure = None
        tx.request.via_branch = best
        tx.request.branches = None
        tx.waits += 1
        if not tx.tm.host.run_failure_route(route, tx.request):
            return  # it waits for something, and ends with ``failure_route_ended``
        tx.waits -= 1
        if tx.status or tx.undecided():
            return
    send_best(tx)


def failure_route_ended(tx: ServerTx) -> None:
    """An ``async def`` failure route is over: unless it has done something, the best answer."""
    tx.waits -= 1
    if not tx.waits and not tx.status and tx.state == PROCEEDING and not tx.undecided():
        send_best(tx)


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
