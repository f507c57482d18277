"""Coroutines of the core, step by step."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from sipedge.net.routes import RouteRunner

EAGER = sys.version_info >= (3, 12)
Test = Callable[["Harness"], Coroutine[Any, Any, None]]


class Harness:
    """A runner that notes what happens around each step."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.runner = RouteRunner(
            asyncio.get_running_loop(),
            lambda: self.log.append("before"),
            lambda: self.log.append("after"),
        )

    async def until(self, last: str) -> None:
        async with asyncio.timeout(10):
            while last not in self.log or self.log[-1] not in (last, "after"):
                await asyncio.sleep(0.001)


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def main() -> None:
            await test(Harness())

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


Run = Callable[[Test], None]


def test_a_route_that_never_waits(run: Run) -> None:
    async def test(h: Harness) -> None:
        async def route() -> None:
            h.log.append("route")

        h.runner.spawn(route())
        if EAGER:  # done, and the caller of spawn sends
            assert h.log == ["before", "route"]
        else:
            await h.until("route")
            assert h.log == ["before", "route", "after"]

    run(test)


def test_each_step_is_framed(run: Run) -> None:
    async def test(h: Harness) -> None:
        future = asyncio.get_running_loop().create_future()

        async def route() -> None:
            h.log.append("one")
            h.log.append(await future)
            await asyncio.sleep(0)
            async with asyncio.timeout(5):  # which wants to know its task
                await asyncio.sleep(0.001)
            h.log.append("end")

        h.runner.spawn(route())
        await asyncio.sleep(0)
        future.set_result("two")
        await h.until("end")
        first = ["before", "one"] if EAGER else ["before", "one", "after"]
        assert h.log == [
            *first, "before", "two", "after", "before", "after", "before", "end", "after",
        ]  # fmt: skip

    run(test)


def test_what_an_awaited_future_raises_arrives_in_the_route(run: Run) -> None:
    async def test(h: Harness) -> None:
        future = asyncio.get_running_loop().create_future()

        async def route() -> None:
            try:
                await future
            except LookupError as exc:
                h.log.append(f"caught {exc}")

        h.runner.spawn(route())
        await asyncio.sleep(0)
        future.set_exception(LookupError("no"))
        await h.until("caught no")

    run(test)


def test_an_exception_that_escapes_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def test(h: Harness) -> None:
        async def route() -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        h.runner.spawn(route())
        async with asyncio.timeout(10):
            while not caplog.records:
                await asyncio.sleep(0.001)
        assert h.log[-1] == "after"

    run(test)
    assert "ZeroDivisionError" in caplog.text


def test_closing_cancels_what_waits(run: Run) -> None:
    async def test(h: Harness) -> None:
        async def route() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                h.log.append("cancelled")

        h.runner.spawn(route())
        await asyncio.sleep(0)
        await h.runner.close()
        assert "cancelled" in h.log

    run(test)


def test_a_route_may_spawn_another(run: Run) -> None:
    async def test(h: Harness) -> None:
        async def inner() -> None:
            h.log.append("inner")

        async def outer() -> None:
            await asyncio.sleep(0)
            h.runner.spawn(inner())
            await asyncio.sleep(0)
            h.log.append("outer")

        h.runner.spawn(outer())
        await h.until("outer")
        assert "inner" in h.log
        assert h.log[-1] == "after"

    run(test)


def test_routes_leave_no_cycles(run: Run) -> None:
    """The collector never looks at old objects again (server.tame_gc): cycles would stay."""

    async def test(h: Harness) -> None:
        futures: list[asyncio.Future[None]] = []

        async def route() -> None:
            try:
                await futures[-1]
            except LookupError:
                h.log.append("done")

        async def many(count: int) -> None:
            h.log.clear()
            for _ in range(count):
                futures.append(asyncio.get_running_loop().create_future())
                h.runner.spawn(route())
                await asyncio.sleep(0)
                futures.pop().set_exception(LookupError())
            async with asyncio.timeout(10):
                while h.log.count("done") < count:
                    await asyncio.sleep(0.001)

        await many(3)
        gc.collect()
        gc.disable()
        try:
            await many(200)
            assert gc.collect() < 200
        finally:
            gc.enable()

    run(test)


def test_settle_lets_routes_end_but_not_for_ever(run: Run) -> None:
    async def test(h: Harness) -> None:
        async def route(seconds: float) -> None:
            await asyncio.sleep(seconds)
            h.log.append(f"slept {seconds}")

        await h.runner.settle(10)  # there is none
        h.runner.spawn(route(0.05))
        h.runner.spawn(route(3600))
        await h.runner.settle(1)
        assert "slept 0.05" in h.log
        await h.runner.close()
        assert "slept 3600" not in h.log

    run(test)
