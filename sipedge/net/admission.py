"""Stop 1 for streams: how many connections clients may have, each and all together.

Strategy: counters.  A connection counts from the moment it is accepted, long before it is a flow: a
half-open handshake costs a descriptor, too.  Behind a load balancer the address that counts is the
one in the PROXY header.  An attacker decides how often we refuse: a burst is one line in the log.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sipedge.core import Core

log = logging.getLogger(__name__)

QUIET: Final = 60.0  # seconds between two lines about refused connections

#: who connects: an IPv4 address, or the first eight octets of an IPv6 one
Source = str | bytes


class Admission:
    """Counts accepted connections; limits are the settings of ``core``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_source: dict[Source, int] = {}
        self._total = 0
        self._refused = 0  # since the last line in the log
        self._logged = float("-inf")

    def enter(self, host: str | None, now: float) -> bool:
        """A connection was accepted; False: it is one too many, close it.

        ``host``: a numeric address; None: a PROXY header will say.  ``now``: seconds, monotonic.
        """
        limit = self._core.tcp_max_connections
        if limit and self._total >= limit:
            self._refuse(f"there are {limit} connections already (core.tcp_max_connections)", now)
            return False
        if host is not None and not self.enter_from(host, now):
            return False
        self._total += 1
        return True

    def enter_from(self, host: str, now: float) -> bool:
        """One that entered is from ``host``; False: that has too many, close it."""
        source = source_of(host)
        count = self._by_source.get(source, 0)
        limit = self._core.tcp_accept_iplimit
        if limit and count >= limit:
            self._refuse(f"{host} has {limit} connections already (core.tcp_accept_iplimit)", now)
            return False
        self._by_source[source] = count + 1
        return True

    def leave(self, host: str | None) -> None:
        """One that entered is gone; ``host``: as whom it entered, if as anybody."""
        self._total -= 1
        if host is None:
            return
        source = source_of(host)
        count = self._by_source[source] - 1
        if count:
            self._by_source[source] = count
        else:
            del self._by_source[source]

    def _refuse(self, why: str, now: float) -> None:
        self._core.stats["connections_refused"] += 1
        self._refused += 1
        if now - self._logged >= QUIET:
            log.warning("%d connections refused; the last one because %s", self._refused, why)
            self._logged = now
            self._refused = 0


def source_of(host: str) -> Source:
    """Whom a numeric address stands for: a network of IPv6 gives its users a /64 or more each."""
    if ":" not in host:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    if packed.startswith(bytes(10) + b"\xff\xff"):  # IPv4-mapped
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return packed[:8]
