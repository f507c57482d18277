"""Host names to addresses, for next hops that are not numeric (RFC 3263 §4.2, A and AAAA).

Strategy: ``getaddrinfo`` in the loop's threads; every answer is remembered for a minute, every
failure for some seconds; who asks for a name that is being asked for waits for the same answer.
Names come from the wire, so everything is bounded, and ``.invalid`` is never asked (RFC 6761 §6.4;
RFC 7118 §5.4: browsers put it into their Contact and Via).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sipedge.lookups import Lookup

log = logging.getLogger(__name__)

TTL: Final = 60.0  # seconds; getaddrinfo does not tell the record's own
NEGATIVE_TTL: Final = 5.0  # seconds
TIMEOUT: Final = 5.0  # seconds until a name counts as not found
NAMES: Final = 4096  # remembered
ASKING: Final = 256  # names asked for at once; more are answered "not found"

Deliver = Callable[["Lookup", list[str]], None]


class Resolver:
    """Answers the core's lookups, at once if it can, through ``deliver(lookup, addresses)``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        self._loop = loop
        self._deliver = deliver
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._asking: dict[str, list[Lookup]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, lookup: Lookup, now: float) -> None:
        """Answer one lookup; ``deliver`` gets no addresses if the name has none."""
        name = lookup.host.rstrip(".").lower()
        known = self._at_once(name, now)
        if known is not None:
            self._deliver(lookup, known)
        elif name in self._asking:
            self._asking[name].append(lookup)
        elif len(self._asking) >= ASKING:
            log.warning("too many names to resolve; not asking for %s", name)
            self._deliver(lookup, [])
        else:
            self._asking[name] = [lookup]
            task = self._loop.create_task(self._ask(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is being asked for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _at_once(self, name: str, now: float) -> list[str] | None:
        """What needs no asking: numbers, names that never resolve, fresh answers."""
        if name.endswith(".invalid") or name == "invalid":
            return []
        try:
            return [str(ipaddress.ip_address(name.strip("[]")))]
        except ValueError:
            pass
        expires, addresses = self._known.get(name, (now, []))
        return addresses if now < expires else None

    async def _ask(self, name: str) -> None:
        addresses: list[str] = []
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await self._loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            # the resolver's order is that of RFC 6724; a zone means link-local, of no use here
            hosts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
            addresses = [host for host in hosts if "%" not in host]
        except (OSError, UnicodeError, TimeoutError) as exc:  # UnicodeError: no IDNA name
            log.info("%s: not resolved: %s", name, exc)
        finally:
            waiting = self._asking.pop(name)
        self._remember(name, addresses)
        for lookup in waiting:
            self._deliver(lookup, addresses)

    def _remember(self, name: str, addresses: list[str]) -> None:
        self._known.pop(name, None)
        while len(self._known) >= NAMES:
            del self._known[next(iter(self._known))]  # the oldest
        ttl = TTL if addresses else NEGATIVE_TTL
        self._known[name] = monotonic() + ttl, addresses
