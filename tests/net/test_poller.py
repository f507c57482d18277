"""Readiness of our own sockets, with epoll of our own and without."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

import pytest
import uvloop

from sipedge.net.poller import EpollPoller, LoopPoller, Poller, new_poller

KINDS = [LoopPoller, EpollPoller] if hasattr(select, "epoll") else [LoopPoller]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Callable[[asyncio.AbstractEventLoop], Poller]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return request.param  # type: ignore[no-any-return]


Kind = Callable[[asyncio.AbstractEventLoop], Poller]
Loop = Callable[[], asyncio.AbstractEventLoop]


def test_reading_writing_and_neither(kind: Kind, loop: Loop) -> None:
    seen: list[str] = []

    async def main() -> None:
        poller = kind(asyncio.get_running_loop())
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)

            def readable() -> None:
                seen.append(a.recv(2).decode())

            def writable() -> None:
                seen.append("writable")
                poller.wait_writable(a.fileno(), None)

            poller.add(a.fileno(), readable)
            b.send(b"onetwo")  # three times two octets: called as long as something is left
            await until(lambda: seen == ["on", "et", "wo"])
            poller.wait_writable(a.fileno(), writable)
            await until(lambda: seen[3:] == ["writable"])
            b.send(b"x")
            await until(lambda: seen[4:] == ["x"])
            poller.remove(a.fileno())
            poller.remove(a.fileno())
            b.send(b"y")
            await asyncio.sleep(0.1)
            assert seen[5:] == []
            poller.add(a.fileno(), readable)
            await until(lambda: seen[5:] == ["y"])
            poller.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="no epoll here")
def test_a_handler_may_remove_another_that_is_ready(loop: Loop) -> None:
    seen: list[str] = []

    async def main() -> None:
        poller = new_poller(asyncio.get_running_loop())
        assert isinstance(poller, EpollPoller)
        pairs = [socket.socketpair() for _ in range(2)]

        def handler(name: str, other: int) -> Callable[[], None]:
            def readable() -> None:
                seen.append(name)
                poller.remove(pairs[other][0].fileno())
                pairs[1 - other][0].recv(1)

            return readable

        for i, (a, b) in enumerate(pairs):
            poller.add(a.fileno(), handler(str(i), 1 - i))
            b.send(b"x")
        await until(lambda: seen)
        await asyncio.sleep(0.1)
        assert len(seen) == 1
        poller.close()
        for a, b in pairs:
            a.close()
            b.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
