"""The resolver, with a loop whose ``getaddrinfo`` is the test's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sipedge.lookups import Lookup
from sipedge.net import resolve
from sipedge.net.resolve import Resolver

Answer = Callable[[str], Awaitable[list[str]]]


class Asked:
    """A resolver, the names that the system was asked for, and what was delivered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
        self.names: list[str] = []
        self.got: list[tuple[str, list[str]]] = []
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host: str, port: None, **_: Any) -> list[Any]:
            self.names.append(host)
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
                for address in await answer(host)
            ]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
        self.resolver = Resolver(
            loop, lambda lookup, addresses: self.got.append((lookup.host, addresses))
        )

    async def ask(self, *hosts: str, now: float = 0.0) -> None:
        expected = len(self.got) + len(hosts)
        for host in hosts:
            self.resolver.ask(Lookup(host), now)
        async with asyncio.timeout(10):
            while len(self.got) < expected:
                await asyncio.sleep(0)


async def two(host: str) -> list[str]:
    return ["192.0.2.1", "2001:db8::1", "192.0.2.1", "fe80::1%eth0"]


async def not_found(host: str) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "not known")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "monotonic", lambda: 100.0)


@pytest.mark.usefixtures("clock")
def test_answers_are_remembered_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asked = Asked(monkeypatch, two)
        await asked.ask("a.example", now=100.0)
        assert asked.got == [("a.example", ["192.0.2.1", "2001:db8::1"])]
        await asked.ask("A.example.", now=159.9)
        assert asked.names == ["a.example"]
        await asked.ask("a.example", now=160.1)
        assert asked.names == ["a.example"] * 2
        assert len(asked.got) == 3

    asyncio.run(main())


@pytest.mark.usefixtures("clock")
def test_failures_are_remembered_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asked = Asked(monkeypatch, not_found)
        await asked.ask("no.example", now=100.0)
        await asked.ask("no.example", now=104.9)
        assert asked.got == [("no.example", [])] * 2
        assert asked.names == ["no.example"]
        await asked.ask("no.example", now=105.1)
        assert asked.names == ["no.example"] * 2

    asyncio.run(main())


def test_numbers_and_invalid_names_are_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asked = Asked(monkeypatch, two)
        await asked.ask("x1y2.invalid", "INVALID.", "[2001:DB8:0::1]", "192.0.2.7")
        assert [addresses for _, addresses in asked.got] == [[], [], ["2001:db8::1"], ["192.0.2.7"]]
        assert asked.names == []

    asyncio.run(main())


def test_who_asks_meanwhile_gets_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asked = Asked(monkeypatch, two)
        await asked.ask("a.example", "a.example", "b.example", "a.example")
        assert sorted(asked.names) == ["a.example", "b.example"]
        assert len(asked.got) == 4

    asyncio.run(main())


def test_a_resolver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str) -> list[str]:
        await asyncio.sleep(3600)
        return []

    async def main() -> None:
        monkeypatch.setattr(resolve, "TIMEOUT", 0.05)
        asked = Asked(monkeypatch, never)
        await asked.ask("slow.example")
        assert asked.got == [("slow.example", [])]

    asyncio.run(main())


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(resolve, "NAMES", 10)
        monkeypatch.setattr(resolve, "ASKING", 5)
        asked = Asked(monkeypatch, two)
        await asked.ask(*(f"{i}.example" for i in range(8)))
        assert len(asked.names) == 5
        assert asked.got[:3] == [("5.example", []), ("6.example", []), ("7.example", [])]
        for i in range(10, 30):
            await asked.ask(f"{i}.example")
        assert len(asked.resolver._known) == 10

    asyncio.run(main())


def test_names_that_no_resolver_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real getaddrinfo: labels that are too long, NUL, not ASCII."""

    async def main() -> None:
        got: list[list[str]] = []
        resolver = Resolver(asyncio.get_running_loop(), lambda _, found: got.append(found))
        names = ["x" * 70 + ".invalid-label.test", "a\0b", "\udcff", "a..b", ""]
        for name in names:
            resolver.ask(Lookup(name), 0.0)
        async with asyncio.timeout(30):
            while len(got) < len(names):
                await asyncio.sleep(0.01)
        assert got == [[]] * len(names)

    asyncio.run(main())


def test_closing_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str) -> list[str]:
        await asyncio.sleep(3600)
        return []

    async def main() -> None:
        asked = Asked(monkeypatch, never)
        asked.resolver.ask(Lookup("slow.example"), 0.0)
        await asyncio.sleep(0)
        await asked.resolver.close()
        assert asked.got == []

    asyncio.run(main())
