"""One wheel for all timers: ticks of 100 ms, cancelled by looking away.

Strategy: whoever waits is a ``Timed`` with one ``deadline``, the earliest of its timers.  It stands
in the list of one tick.  Moving the deadline later costs nothing: when its tick comes, it is put
into a later one.  Cancelling is ``deadline = NEVER``.  No heap, no handles, no per-timer objects.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

from mypy_extensions import mypyc_attr

TICKS: Final = 10  # per second
NEVER: Final = float("inf")
NO_TICK: Final = 1 << 62


@mypyc_attr(allow_interpreted_subclasses=True)  # of a compiled one, in modules that are not
class Timed:
    """Something with a deadline.  ``tick``: where it stands in the wheel, ``NO_TICK``: nowhere."""

    __slots__ = ("deadline", "tick")

    deadline: float
    tick: int

    def fire(self, now: float) -> None:
        """The deadline has come; set the next one by ``Wheel.at``, or none."""
        raise NotImplementedError


class Alarm(Timed):
    """Calls ``call(now)`` when its deadline has come: for whoever is no ``Timed`` itself."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[float], None]) -> None:
        self.deadline = NEVER
        self.tick = NO_TICK
        self._call = call

    def fire(self, now: float) -> None:
        self._call(now)


class Periodic(Timed):
    """Calls ``call(now)`` every ``interval_s`` seconds."""

    __slots__ = ("_call", "_interval_s", "_wheel")

    def __init__(self, wheel: Wheel, interval_s: float, call: Callable[[float], None]) -> None:
        self.deadline = NEVER
        self.tick = NO_TICK
        self._wheel = wheel
        self._interval_s = interval_s
        self._call = call

    def fire(self, now: float) -> None:
        self._wheel.at(self, now + self._interval_s)
        self._call(now)


class Wheel:
    """Deadlines by tick.  All times are seconds of one monotonic clock."""

    __slots__ = ("_next", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, list[Timed]] = {}
        self._next = NO_TICK

    def at(self, item: Timed, deadline: float) -> None:
        """Wake ``item`` at ``deadline`` (up to 100 ms later), instead of when it was due before."""
        item.deadline = deadline
        tick = ceil(deadline * TICKS)
        if tick / TICKS < deadline:
            tick += 1  # the product was rounded down
        if tick >= item.tick:
            return  # stands in an earlier tick and will be moved from there
        item.tick = tick
        slot = self._slots.get(tick)
        if slot is None:
            self._slots[tick] = [item]
            if tick < self._next:
                self._next = tick
        else:
            slot.append(item)

    def next_time(self) -> float | None:
        """When ``advance`` is due next; ``None``: nothing waits."""
        return self._next / TICKS if self._next != NO_TICK else None

    def advance(self, now: float) -> None:
        """Fire everything that is due at ``now``."""
        tick = int(now * TICKS)
        if tick < self._next:
            return
        slots = self._slots
        for due in sorted(t for t in slots if t <= tick):
            for item in slots.pop(due):
                if item.tick != due:
                    continue  # was moved to an earlier tick and has been there
                item.tick = NO_TICK
                deadline = item.deadline
                if deadline <= now:
                    item.deadline = NEVER
                    item.fire(now)
                elif deadline != NEVER:
                    self.at(item, deadline)
        self._next = min(slots, default=NO_TICK)


class TimerValues:
    """Durations in seconds (RFC 3261 §17.1.1.1 and table 4); ``modparam("tm", ...)`` sets them.

    ``fr`` is timers B, F and H (64*T1), ``fr_inv`` timer C, ``wait`` timers D, J, L and M,
    ``first_response`` the patience with a silent edge while another flow is left (RFC 5626 §7).
    """

    __slots__ = ("first_response", "fr", "fr_inv", "t1", "t2", "t4", "wait")

    def __init__(self) -> None:
        self.t1 = 0.5
        self.t2 = 4.0
        self.t4 = 5.0
        self.fr = 32.0
        self.fr_inv = 190.0
        self.wait = 32.0
        self.first_response = 4.0
