"""Nonces that carry their own time, and the window of nonce counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipedge.modules.auth.nonce import WINDOW, Nonces, Replays

NOW = 1_795_420_000_000
LIFE = 300_000
REALM = b"example.com"


def nonces(*keys: bytes) -> Nonces:
    return Nonces(list(keys or (b"k" * 20,)), LIFE)


def test_a_nonce_knows_its_time_for_its_life_and_no_longer() -> None:
    mine = nonces()
    nonce = mine.make(REALM, NOW)
    assert mine.issued(nonce, REALM, NOW) == NOW
    assert mine.issued(nonce, REALM, NOW + LIFE) == NOW
    assert mine.issued(nonce, REALM, NOW + LIFE + 1) is None
    # another process's clock may be ahead, but not by more
    assert mine.issued(nonce, REALM, NOW - LIFE) == NOW
    assert mine.issued(nonce, REALM, NOW - LIFE - 1) is None


def test_a_nonce_is_for_one_realm_and_one_key() -> None:
    nonce = nonces(b"a" * 20).make(REALM, NOW)
    assert nonces(b"a" * 20).issued(nonce, REALM, NOW) == NOW  # another process with the key
    assert nonces(b"b" * 20, b"a" * 20).issued(nonce, REALM, NOW) == NOW  # an older key
    assert nonces(b"b" * 20).issued(nonce, REALM, NOW) is None
    assert nonces(b"a" * 20).issued(nonce, b"example.org", NOW) is None


def test_no_two_nonces_are_the_same() -> None:
    mine = nonces()
    assert len({mine.make(REALM, NOW) for _ in range(1000)}) == 1000


@given(st.integers(0, 35), st.sampled_from(b"ABCxyz019-_"))
def test_one_changed_character_and_it_is_not_ours(at: int, octet: int) -> None:
    mine = nonces()
    nonce = mine.make(REALM, NOW)
    changed = nonce[:at] + bytes((octet,)) + nonce[at + 1 :]
    assert (mine.issued(changed, REALM, NOW) == NOW) == (changed == nonce)


@given(st.binary(max_size=60))
def test_whatever_comes_is_judged(text: bytes) -> None:
    assert nonces().issued(text, REALM, NOW) is None


def test_time_cannot_be_shifted_into_the_realm() -> None:
    mine = nonces()
    assert mine.issued(mine.make(b"x" + REALM, NOW), REALM, NOW) is None


# replays


def use(replays: Replays, count: int | None, nonce: bytes = b"n", made: int = NOW) -> bool:
    return replays.use(nonce, made, count, NOW)


@pytest.mark.rfc("AUT-07")
def test_each_count_once_in_any_order() -> None:
    replays = Replays(10, LIFE)
    assert [use(replays, n) for n in (1, 2, 4, 3)] == [True] * 4
    assert [use(replays, n) for n in (1, 2, 3, 4)] == [False] * 4
    assert use(replays, 5)


@pytest.mark.rfc("AUT-07")
def test_the_window_has_two_edges() -> None:
    replays = Replays(10, LIFE)
    assert use(replays, 1000)
    assert use(replays, 1000 - WINDOW + 1)
    assert not use(replays, 1000 - WINDOW + 1)
    assert not use(replays, 1000 - WINDOW)  # too old to know
    assert use(replays, 5000)
    assert not use(replays, 5000)
    assert use(replays, 4999)


@given(st.lists(st.integers(1, 200), max_size=60))
def test_nothing_is_ever_accepted_twice(counts: list[int]) -> None:
    replays = Replays(10, LIFE)
    accepted = [n for n in counts if use(replays, n)]
    assert len(accepted) == len(set(accepted))
    # and what is refused was seen, or is beyond the window
    highest = 0
    for n in counts:
        if n not in accepted:
            assert n <= max(counts) - WINDOW
        highest = max(highest, n)
    assert highest in accepted or not counts


@pytest.mark.rfc("AUT-05")
def test_without_counts_a_nonce_is_good_for_one_request() -> None:
    replays = Replays(10, LIFE)
    assert use(replays, None)
    assert not use(replays, None)
    assert not use(replays, 1)
    assert use(replays, 1, b"m")
    assert not use(replays, None, b"m")


@pytest.mark.rfc("AUT-07")
def test_what_had_to_be_forgotten_is_not_new() -> None:
    replays = Replays(2, LIFE)
    for age, nonce in enumerate((b"a", b"b", b"c")):
        assert use(replays, 1, nonce, NOW + age)
    assert len(replays) <= 2
    assert not use(replays, 1, b"a", NOW)
    assert not use(replays, 2, b"a", NOW)
    assert not use(replays, 1, b"c", NOW + 2)
    assert use(replays, 2, b"c", NOW + 2)


def test_memory_is_given_back_when_the_time_of_nonces_is_over() -> None:
    replays = Replays(1000, LIFE)
    for n in range(100):
        assert replays.use(b"%d" % n, NOW, 1, NOW)
    later = NOW + LIFE + 1
    for n in range(100):
        assert replays.use(b"later %d" % n, later, 1, later)
    assert len(replays) == 100
    # none of them had to go for want of room: an unknown one of that time is still new
    assert replays.use(b"new", NOW, 1, NOW)


@pytest.mark.rfc("AUT-06", "AUT-07")
def test_a_new_process_knows_nothing_of_older_nonces() -> None:
    replays = Replays(10, LIFE)
    replays.begin(NOW)
    assert not use(replays, 1, b"before", NOW - 1)
    assert use(replays, 1, b"after", NOW)


def test_a_clock_that_is_set_back_does_not_lock_everybody_out() -> None:
    replays = Replays(10, LIFE)
    replays.begin(NOW)
    hour = 3_600_000
    assert replays.use(b"n", NOW - hour, 1, NOW - hour)
