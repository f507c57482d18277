"""Host names that requests wait for.  The core asks, ``net.resolve`` answers (stop 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LONGEST_NAME: Final = 253  # RFC 1035 §2.3.4

Resolved = Callable[[list[str]], None]


class Lookup:
    """One host name, and who waits for its addresses."""

    __slots__ = ("host", "waiting")

    def __init__(self, host: str) -> None:
        self.host = host
        self.waiting: list[Resolved] = []


class Lookups:
    """Pending lookups: one question a name, however many ask."""

    __slots__ = ("_new", "_pending")

    def __init__(self) -> None:
        self._pending: dict[str, Lookup] = {}
        self._new: list[Lookup] = []

    def ask(self, host: str, done: Resolved) -> None:
        """Call ``done`` with the addresses of ``host``; at once, with none, for names that cannot
        exist (RFC 7118 §8.1: ``.invalid`` is never asked for)."""
        if not host or host.endswith(".invalid") or len(host) > LONGEST_NAME:
            done([])
            return
        pending = self._pending.get(host)
        if pending is None:
            pending = self._pending[host] = Lookup(host)
            self._new.append(pending)
        pending.waiting.append(done)

    def drain(self) -> list[Lookup]:
        """What was asked for since the last call."""
        new, self._new = self._new, []
        return new

    def answer(self, lookup: Lookup, addresses: list[str]) -> None:
        self._pending.pop(lookup.host, None)
        for done in lookup.waiting:
            done(addresses)
