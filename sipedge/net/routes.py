"""``async def`` routes: the one place where the core's work meets tasks (between stops 5 and 8).

Strategy: the core starts a coroutine with ``core.spawn``.  It runs in a task of its own, but each
step of it, from one await to the next, is driven here: before a step the core's clock is set, after
it the core's sends leave.  A route that never really waits is done before ``spawn`` returns, where
Python can start tasks eagerly (3.12); its sends leave with those of the batch.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

log = logging.getLogger(__name__)


class RouteRunner:
    """Runs coroutines of the core; ``before`` and ``after`` frame each step."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        before: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._before = before
        self._after = after
        self._starting = False
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Run ``coro``; its result is dropped.  It deals with its own exceptions."""
        starting, self._starting = self._starting, True
        try:
            if sys.version_info >= (3, 12):
                task = asyncio.Task(self._run(coro), loop=self._loop, eager_start=True)
            else:
                task = self._loop.create_task(self._run(coro))
        finally:
            self._starting = starting
        if not task.done():
            self._tasks.add(task)  # the loop itself refers to tasks only weakly
            task.add_done_callback(self._tasks.discard)

    async def settle(self, seconds: float) -> None:
        """Let what still runs come to its end, for ``seconds`` at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def close(self) -> None:
        """Cancel what still runs."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, coro: Coroutine[Any, Any, Any]) -> None:
        try:
            await self._steps(coro)
        except Exception:
            log.exception("an asynchronous route was left with an exception")

    @types.coroutine
    def _steps(self, coro: Coroutine[Any, Any, Any]) -> Generator[Any, Any, None]:
        """``await coro``, with ``before`` and ``after`` around each of its steps."""
        value: Any = None
        error: BaseException | None = None
        while True:
            self._before()
            try:
                waits_for = coro.send(value) if error is None else coro.throw(error)
            except StopIteration:
                return
            finally:
                # A traceback refers to this frame.  A reference back would be a cycle, also by
                # way of the future that raised the exception.
                value = error = None
                if not self._starting:  # else whoever called spawn sends, in its own time
                    self._after()
            try:
                value = yield waits_for
            except BaseException as exc:  # a cancellation, or what the awaited future raised
                error = exc
            waits_for = None
