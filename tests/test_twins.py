"""``sipedge.twins``: calls of functions that have a twin, found in the code of routes."""

from __future__ import annotations

from typing import Any

from sipedge.twins import find_calls


def route(ksr: Any, msg: Any) -> None:
    ksr.auth.check(msg)
    ksr.other.check(msg)
    msg.check()
    ksr.auth.check_async(msg)

    def inner() -> None:
        ksr.auth.look(msg)

    inner()


def other(ksr: Any, msg: Any) -> Any:
    return ksr.auth, msg.check, getattr(ksr.auth, "check")  # noqa: B009


def test_calls_are_found_with_their_lines() -> None:
    first = route.__code__.co_firstlineno
    found = list(find_calls([route, other], "auth", ("check", "look")))
    assert found == [("check", __file__, first + 1), ("look", __file__, first + 7)]
