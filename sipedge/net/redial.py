"""When a server that we could not talk to is dialed again.

Strategy: a flow that is wanted while its server is resting fails at once, and is never dialed; so
requests go to the next address or are answered, and a storm of them is not a
storm of connections.  The first retry comes at once, later ones after ever longer rests, bounded.
Time is an argument.  Part of stop 8.
"""

from __future__ import annotations

from typing import Final

from sipedge.flow import Flow

FIRST_REST: Final = 0.5  # seconds after the second failure in a row; doubled with each one
LONGEST_REST: Final = 30.0  # seconds
FORGET: Final = 120.0  # seconds after the last failure
MOST: Final = 1024  # servers that are remembered

_Key = tuple[int, str, int, str]


class Redial:
    """Failures in a row, by server."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: dict[_Key, tuple[int, float]] = {}

    def rest(self, flow: Flow, now: float) -> float:
        """Seconds until the server of a dialed flow may be tried again; 0 for now."""
        count, since = self._failures.get(_key(flow), (0, 0.0))
        if count < 2:
            return 0.0
        wait: float = min(FIRST_REST * 2 ** (count - 2), LONGEST_REST)
        return max(0.0, since + wait - now)

    def failed(self, flow: Flow, now: float) -> None:
        """It refused, did not answer, or closed without having said anything."""
        if self.rest(flow, now):
            return  # nobody has asked it: a rest must end however many requests come meanwhile
        key = _key(flow)
        count, since = self._failures.pop(key, (0, 0.0))
        if now - since > FORGET:
            count = 0
        if len(self._failures) >= MOST:  # the oldest stands first
            del self._failures[next(iter(self._failures))]
        self._failures[key] = (min(count + 1, 32), now)

    def worked(self, flow: Flow) -> None:
        """It has said something."""
        self._failures.pop(_key(flow), None)


def _key(flow: Flow) -> _Key:
    host, port = flow.remote
    return flow.transport, host, port, flow.server_name.lower()
