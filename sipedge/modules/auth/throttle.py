"""Stop 6, auth: who fails too often is not listened to for a while (requirement AUT-14).

Strategy: failures are counted by source address in fixed periods, in a bounded table.  An IPv6
network of 64 bits is one source: whoever has one address of it has them all.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Final

#: sources that are remembered; more, and the oldest is forgotten
SOURCES: Final = 10_000


class Throttle:
    """``limit`` failures within ``period_s`` seconds are allowed; 0: any number."""

    __slots__ = ("_failures", "_limit", "_period_s")

    def __init__(self, limit: int, period_s: int) -> None:
        self._limit = limit
        self._period_s = period_s
        #: source -> [failures, when the first of them was]
        self._failures: dict[str, list[float]] = {}

    def blocked(self, host: str, now: float) -> float:
        """Seconds for which this address is not listened to; 0 if it is.  ``now``: monotonic."""
        if not self._limit:
            return 0.0
        failures = self._failures.get(_source(host))
        if failures is None or failures[0] < self._limit:
            return 0.0
        return max(0.0, failures[1] + self._period_s - now)

    def failed(self, host: str, now: float) -> None:
        """An answer from this address was wrong."""
        if not self._limit:
            return
        source = _source(host)
        failures = self._failures.get(source)
        if failures is not None and now - failures[1] < self._period_s:
            failures[0] += 1
            return
        self._failures.pop(source, None)
        if len(self._failures) >= SOURCES:
            del self._failures[next(iter(self._failures))]
        self._failures[source] = [1, now]


def _source(host: str) -> str:
    return str(int(IPv6Address(host)) >> 64) if ":" in host else host
