"""Host names that requests wait for: one question a name, however many ask."""

from __future__ import annotations

import pytest

from sipedge.lookups import Lookups


def test_one_question_and_everybody_gets_the_answer() -> None:
    lookups = Lookups()
    got: list[tuple[str, list[str]]] = []
    lookups.ask("a.example", lambda found: got.append(("first", found)))
    lookups.ask("a.example", lambda found: got.append(("second", found)))
    lookups.ask("b.example", lambda found: got.append(("b", found)))
    a, b = lookups.drain()
    assert (a.host, b.host) == ("a.example", "b.example")
    assert lookups.drain() == []
    assert got == []
    lookups.answer(a, ["192.0.2.1", "192.0.2.2"])
    assert got == [("first", ["192.0.2.1", "192.0.2.2"]), ("second", ["192.0.2.1", "192.0.2.2"])]
    lookups.answer(b, [])
    assert got[-1] == ("b", [])


def test_a_name_is_asked_for_again_after_its_answer() -> None:
    lookups = Lookups()
    lookups.ask("a.example", lambda found: None)
    (first,) = lookups.drain()
    lookups.answer(first, [])
    lookups.ask("a.example", lambda found: None)
    (second,) = lookups.drain()
    assert second is not first


@pytest.mark.parametrize("host", ["", "x.invalid", "a" * 254])
def test_names_that_cannot_exist_are_never_asked_for(host: str) -> None:
    lookups = Lookups()
    got: list[list[str]] = []
    lookups.ask(host, got.append)
    assert got == [[]]
    assert lookups.drain() == []
