"""Functions with a twin for ``async def`` routes: find the calls of the one that cannot work.

Strategy: ``ksr.auth.auth_check`` cannot ask a database without keeping everybody waiting, so there
is ``ksr.auth.auth_check_async``.  Which of the two a route needs depends on parameters; the module
that knows asks here for calls of the wrong one, before somebody's phone makes them.  The names are
looked for in the code of the routes.  Runs before stop 1 of the first datagram.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Collection, Iterable, Iterator
from types import CodeType
from typing import Any


def find_calls(
    routes: Iterable[Callable[..., Any]], module: str, names: Collection[str]
) -> Iterator[tuple[str, str, int]]:
    """Each ``<anything>.<module>.<name>`` in the routes: name, file and line."""
    for route in routes:
        for code in _codes(route.__code__):
            before = None
            for step in dis.get_instructions(code):
                if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    before = None
                    continue
                if before == module and step.argval in names:
                    line = step.positions.lineno if step.positions else None
                    yield step.argval, code.co_filename, line or code.co_firstlineno
                before = step.argval


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
