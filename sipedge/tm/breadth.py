"""Max-Breadth: how many branches a request may have at a time (RFC 5393 §5.3).  Part of stop 7.

Strategy: one branch takes all that came in, so that nearly every request is forwarded with what it
said.  Several branches share it equally; those for which nothing is left wait until others have
ended.  A branch that may be given up for another one while it is still open leaves half of its
share for that one.  A branch with share 0 has all there was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipedge.forward import breadth_of

if TYPE_CHECKING:
    from sipedge.tm.server import ServerTx


def spare(tx: ServerTx) -> int:
    """What no live branch uses (RFC 5393 §5.3.3.1: a final response gives it back)."""
    left = breadth_of(tx.request)
    for branch in tx.branches:
        if not branch.status:
            if not branch.breadth and branch.branch:
                return 0  # it was sent with all of it
            left -= branch.breadth
    return max(left, 0)


def divide(tx: ServerTx, count: int) -> list[int]:
    """Shares for up to ``count`` new branches, fewer if there is not enough for all; 0: all."""
    left = spare(tx)
    if not tx.pending() and (count == 1 or not left):
        return [0]  # with nothing to share at all the branch finds that out, and says 440
    count = min(count, left)
    if not count:
        return []
    each, rest = divmod(left, count)
    return [each + (at < rest) for at in range(count)]


def half(share: int) -> int:
    """What a branch takes that may have to leave room for another one; 1 at least."""
    return share - share // 2
