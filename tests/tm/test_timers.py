"""The wheel: nothing fires early, nothing is lost, cancelling is looking away."""

from __future__ import annotations

from math import nextafter

from hypothesis import given
from hypothesis import strategies as st

from sipedge.tm.timers import NEVER, TICKS, Alarm, Periodic, Wheel


class Watched:
    """An alarm, and when it rang."""

    def __init__(self) -> None:
        self.fired: list[float] = []
        self.timer = Alarm(self.fired.append)


def run(wheel: Wheel, until: float) -> None:
    """Let time pass as the driver does: advance when ``next_time`` says so."""
    while (due := wheel.next_time()) is not None and due <= until:
        wheel.advance(due)


def test_fires_once_and_at_most_a_tick_late() -> None:
    wheel, alarm = Wheel(), Watched()
    wheel.at(alarm.timer, 1000.03)
    assert wheel.next_time() == 1000.1
    wheel.advance(1000.02)
    assert alarm.fired == []
    run(wheel, 1010.0)
    assert alarm.fired == [1000.1]
    assert wheel.next_time() is None


def test_later_costs_nothing_and_earlier_works() -> None:
    wheel, alarm = Wheel(), Watched()
    wheel.at(alarm.timer, 1001.0)
    wheel.at(alarm.timer, 1005.0)
    run(wheel, 1004.9)
    assert alarm.fired == []
    wheel.at(alarm.timer, 1004.95)
    run(wheel, 1020.0)
    assert alarm.fired == [1005.0]


def test_cancelled_is_never_fired() -> None:
    wheel, alarm = Wheel(), Watched()
    wheel.at(alarm.timer, 1001.0)
    alarm.timer.deadline = NEVER
    run(wheel, 1020.0)
    assert alarm.fired == []
    wheel.at(alarm.timer, 1021.0)
    run(wheel, 1022.0)
    assert alarm.fired == [1021.0]


def test_a_deadline_that_is_rounded_down_to_a_tick() -> None:
    """The product with ``TICKS`` is 10006.0, but 1000.6 is before it."""
    wheel, alarm = Wheel(), Watched()
    deadline = nextafter(1000.6, 2000)
    wheel.at(alarm.timer, deadline)
    wheel.advance(1000.6)
    assert alarm.fired == []
    assert wheel.next_time() == 1000.7
    run(wheel, 1001.0)
    assert alarm.fired == [1000.7]


def test_periodic() -> None:
    wheel = Wheel()
    seen: list[float] = []
    wheel.at(Periodic(wheel, 2.0, seen.append), 1002.0)
    run(wheel, 1009.0)
    assert seen == [1002.0, 1004.0, 1006.0, 1008.0]


def test_set_again_while_it_fires() -> None:
    wheel = Wheel()
    fired: list[float] = []

    def again(now: float) -> None:
        fired.append(now)
        if len(fired) < 3:
            wheel.at(alarm, now)  # due at once: at the next look

    alarm = Alarm(again)
    wheel.at(alarm, 1000.0)
    for _ in range(5):
        wheel.advance(1000.0)
    assert fired == [1000.0] * 3


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.floats(0, 30, allow_nan=False)), min_size=1, max_size=40
    )
)
def test_the_last_deadline_counts(moves: list[tuple[int, float]]) -> None:
    wheel = Wheel()
    alarms = [Watched() for _ in range(5)]
    wanted: dict[int, float] = {}
    for index, seconds in moves:
        wanted[index] = 1000.0 + seconds
        wheel.at(alarms[index].timer, wanted[index])
    run(wheel, 1100.0)
    for index, alarm in enumerate(alarms):
        if index not in wanted:
            assert alarm.fired == []
            continue
        (fired,) = alarm.fired
        assert wanted[index] <= fired <= wanted[index] + 2 / TICKS
