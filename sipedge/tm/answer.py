"""Which answer goes back when all branches have failed (RFC 3261 §16.7 items 6 and 7; stop 7).

Strategy: an order of statuses, and what is changed on the way: 430 and 503 are for proxies, a 408
ends where nobody waits for it, and challenges are gathered from all branches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipedge.sip.names import PROXY_AUTHENTICATE, WWW_AUTHENTICATE
from sipedge.sip.reply import REASONS

if TYPE_CHECKING:
    from sipedge.sip.message import SipMessage
    from sipedge.tm.client import ClientTx
    from sipedge.tm.server import ServerTx

#: RFC 3261 §16.7 item 6: preferred among the 4xx, as they tell the client what to change
_HELPFUL: Final = frozenset((401, 407, 415, 420, 484))


def best_of(tx: ServerTx) -> ClientTx | None:
    """The branch whose answer counts; None if no branch has ended."""
    over = [branch for branch in tx.branches if branch.status]
    return min(over, key=rank, default=None)


def send_best(tx: ServerTx) -> None:
    """Answer by the best branch, and forget the rest."""
    best = best_of(tx)
    assert best is not None  # an invariant of ours: all branches have ended
    status = best.status
    if tx.home and status == 430:
        status = 480  # RFC 5626 §11.5: endpoints never see 430 for a new dialog
    if status == 503:
        status = 500  # RFC 3261 §16.7 item 6
    if tx.cancelled and best.response is None:
        status = 487
    response = best.response
    if response is not None and response.status == status:
        gather_challenges(tx, response)
        tx.pass_on(response)
    elif status == 408 and not tx.invite:
        tx.terminate()  # RFC 4320 §4.2: never 408 to a non-INVITE
    else:
        tx.reply(status, REASONS.get(status, b"Request Failed"))
    if not tx.pending():
        tx.settle()


def rank(ctx: ClientTx) -> int:
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


def gather_challenges(tx: ServerTx, response: SipMessage) -> None:
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
