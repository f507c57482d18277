"""Servers that failed lately, so that others of their list are tried first (RFC 3263 §4.3).

Strategy: a note of an address, with its end; bounded.  A server that did not answer is tried after
the others.  One that said 503 with Retry-After is left out for that time (RFC 3261 §21.5.4), unless
there is nobody else: one refused call must not make a single server unreachable for all.  Only
servers that were found by name get here; nothing of this touches flows.  Part of stop 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sipedge.forward import Hop

LONGEST_S: Final = 3600.0  # a Retry-After beyond that is not believed


class Blocklist:
    """Notes by (transport, address, port)."""

    MAX: Final = 4096

    def __init__(self) -> None:
        self._notes: dict[tuple[int, str, int], tuple[float, bool]] = {}

    def failed(self, hop: Hop, until: float) -> None:
        """This server did not take a request: others first until then (monotonic seconds)."""
        key = hop[:3]
        known = self._notes.get(key)
        if known is None or not known[1] or known[0] < until:
            self._note(key, until, False)

    def asked_to_wait(self, hop: Hop, now: float, seconds: float) -> None:
        """This server wants no requests for so many seconds."""
        self._note(hop[:3], now + min(seconds, LONGEST_S), True)

    def has(self, hop: Hop, now: float) -> bool:
        """Is there a note about this server?"""
        return self._state(hop[:3], now) > 0

    def arrange(self, hops: list[Hop], now: float) -> list[Hop]:
        """The servers in the order in which to try them."""
        if not self._notes or len(hops) < 2:
            return hops
        states = [self._state(hop[:3], now) for hop in hops]
        by_state: list[list[Hop]] = [[], [], []]
        for hop, state in zip(hops, states, strict=True):
            by_state[state].append(hop)
        good, failing, waiting = by_state
        return good + failing or waiting

    def flush(self) -> int:
        """Forget all; returns how many there were."""
        count = len(self._notes)
        self._notes.clear()
        return count

    def rows(self, now: float) -> list[tuple[tuple[int, str, int], float, bool]]:
        """(transport, address, port), end of the note, whether the server asked for it."""
        return [(key, *note) for key, note in self._notes.items() if now < note[0]]

    def __len__(self) -> int:
        return len(self._notes)

    def _note(self, key: tuple[int, str, int], until: float, waits: bool) -> None:
        self._notes.pop(key, None)
        while len(self._notes) >= self.MAX:
            del self._notes[next(iter(self._notes))]  # the oldest
        self._notes[key] = until, waits

    def _state(self, key: tuple[int, str, int], now: float) -> int:
        """0: good, 1: failed lately, 2: asked to wait."""
        note = self._notes.get(key)
        if note is None:
            return 0
        until, waits = note
        if now >= until:
            del self._notes[key]
            return 0
        return 1 + waits
