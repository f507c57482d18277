"""Leaving without losing a call that is being set up (requirement OPS-02).  Around all stops.

Strategy: first nobody new: no connection is accepted, a request that begins something is answered
503, in a way that spreads those who come back.  Then the transactions that are under way get their
time.  Then the connections are closed, spread over seconds: each phone sees it at once and connects
somewhere, or here again, and ten thousand of them must not do so in one second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from sipedge.errors import SipError

if TYPE_CHECKING:
    from sipedge.net.server import Server
    from sipedge.sip.message import SipMessage

log = logging.getLogger(__name__)

LOOK: Final = 0.05  # seconds between two looks whether all transactions are over
QUICK: Final = 100  # connections a second that may come back whatever drain_spread says
RETRY_AFTER: Final = 5  # seconds at least until a client that was answered 503 tries here again


class Drain:
    """One drain of one server.  ``hurry``: when it is set, there is no time for any of this."""

    def __init__(self, server: Server, hurry: asyncio.Event) -> None:
        self._server = server
        self._core = server.core
        self._hurry = hurry

    async def run(self) -> None:
        """Returns when the server may be stopped: at once if nothing is going on."""
        core = self._core
        self._server.stop_accepting()
        core.draining = True
        core.hooks_request_in = (self._refuse, *core.hooks_request_in)
        until = monotonic() + core.drain_timeout
        while self._under_way() and monotonic() < until and not self._hurry.is_set():
            await self._sleep(LOOK)
        left = self._under_way()
        if left:
            log.warning("%d transactions are not over", left)
        await self._close_connections()
        await self._server.settle()  # before what runs is cancelled

    def _refuse(self, msg: SipMessage, now: float) -> bool:
        """Hook ``request_in``, before all others: 503 to what begins a dialog or a registration."""
        if msg.to_tag or msg.method == b"ACK":
            return False
        self._core.stats["refused_while_draining"] += 1
        spread = max(RETRY_AFTER, int(self._core.drain_spread))
        wait = RETRY_AFTER + random.randint(0, spread)
        raise SipError(503, b"Service Unavailable", ((b"Retry-After", b"%d" % wait),))

    def _under_way(self) -> int:
        """Requests that have no final answer yet."""
        servers = self._core.tm.servers.values()
        return sum(not isinstance(tx, bytes) and not tx.status for tx in servers)

    async def _close_connections(self) -> None:
        """One after the other, in no order, evenly over ``drain_spread`` seconds or less."""
        connections = [one for one in self._server.connections if one.accepted]
        random.shuffle(connections)
        spread = min(self._core.drain_spread, len(connections) / QUICK)
        begin = monotonic()
        for number, connection in enumerate(connections):
            ahead = begin + spread * number / len(connections) - monotonic()
            if ahead > 0 and not self._hurry.is_set():
                await self._sleep(ahead)
            connection.close("shutdown")

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
