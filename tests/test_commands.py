"""The core's own commands, and calling any command by name."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.commands import Commands, address
from sipedge.config import load_source
from sipedge.core import Core
from sipedge.errors import ConfigError
from sipedge.flow import TCP, Listener
from sipedge.hookspecs import hookimpl
from sipedge.module import Command, CommandError, ModuleExports


def core_with_streams(count: int) -> Core:
    core = Core()
    core.now, core.wall_offset = 1000.0, 500.0
    listener = core.flows.add_listener(Listener(TCP, "127.0.0.1", 5060))
    for number in range(count):
        flow = core.flows.accept(listener, ("2001:db8::7", 4000 + number), ("127.0.0.1", 5060))
        core.flow_opened(flow, 1000.0)
    return core


def rows(answer: Any) -> tuple[list[Any], Any]:
    found = []
    while True:
        try:
            found.append(next(answer))
        except StopIteration as end:
            return found, end.value


def test_flows_are_listed_and_bounded() -> None:
    core = core_with_streams(5)
    core.now = 1002.5
    found, result = rows(Commands(core, {}).call("core.flows", [3]))
    assert result == {"shown": 3, "total": 5}
    flow = next(iter(core.flows.streams.values()))
    assert found[0] == {
        "transport": "tcp",
        "remote": "[2001:db8::7]:4000",
        "local": "127.0.0.1:5060",
        "listener": "tcp:127.0.0.1:5060",
        "connection_id": flow.conn_id.hex(),
        "direction": "in",
        "idle": 2.5,
    }
    assert len(found) == 3
    assert rows(Commands(core, {}).call("core.flows", []))[1] == {"shown": 5, "total": 5}
    assert rows(Commands(core, {}).call("core.flows", [-1]))[0] == []


def test_a_flow_that_closes_while_they_are_listed_is_left_out() -> None:
    core = core_with_streams(2)
    listing: Any = Commands(core, {}).call("core.flows", [])
    next(listing)
    for flow in list(core.flows.streams.values()):
        core.flow_closed(flow, "closed", 1001.0)
    assert rows(listing)[0] == []


def test_counters_and_times() -> None:
    core = core_with_streams(2)
    commands = Commands(core, {})
    core.now = 1060.0
    assert commands.call("core.stats", {}) == {"flows_opened": 2}
    assert commands.call("core.uptime", []) == {"now": 1560.0, "up_since": 1500.0, "uptime": 60.0}
    assert commands.call("tm.stats", []) == {"server_transactions": 0, "client_transactions": 0}


def test_whether_new_calls_are_welcome() -> None:
    core = core_with_streams(2)
    commands = Commands(core, {})
    wanted = {"status": "ready", "connections": 2, "transactions": 0}
    assert commands.call("core.status", []) == wanted
    core.draining = True
    assert commands.call("core.status", []) == {**wanted, "status": "draining"}


def test_commands_lists_those_of_modules_too() -> None:
    extra = Command("x.y", lambda: None, "does nothing")
    found, _ = rows(Commands(Core(), {"x.y": extra}).call("core.commands", []))
    assert {"name": "x.y", "doc": "does nothing"} in found
    assert [row["name"] for row in found] == sorted(row["name"] for row in found)
    assert all(row["doc"] for row in found)


def anything(a: object, b: Any = 1, c: str | None = None) -> list[object]:
    return [a, b, c]


def test_arguments_are_checked_by_annotation() -> None:
    commands = Commands(Core(), {"any": Command("any", anything)})
    assert commands.call("any", [[1], {}]) == [[1], {}, None]
    assert commands.call("any", {"a": 1, "c": None}) == [1, 1, None]
    with pytest.raises(CommandError, match=r"any: c: 7 is no str \| None"):
        commands.call("any", [1, 2, 7])


def test_addresses() -> None:
    assert address(("192.0.2.1", 5060)) == "192.0.2.1:5060"
    assert address(("::1", 5060)) == "[::1]:5060"


# modules


class WithCommand:
    params = None

    def __init__(self, name: str = "one", *commands: str) -> None:
        self.exports = ModuleExports(
            name, commands=tuple(Command(command, lambda: None) for command in commands)
        )

    @hookimpl
    def child_init(self, rank: int) -> None:
        """Nothing to do."""


SOURCE = """
listen("udp:127.0.0.1:5060")
loadmodule("one")
loadmodule("two")
def request_route(ksr, msg):
    pass
"""


def test_modules_export_commands() -> None:
    modules = {"one": lambda: WithCommand("one", "a.b"), "two": lambda: WithCommand("two", "c.d")}
    assert sorted(load_source(SOURCE, modules=modules).config.commands) == ["a.b", "c.d"]


def test_two_modules_cannot_have_the_same_command() -> None:
    modules = {"one": lambda: WithCommand("one", "a.b"), "two": lambda: WithCommand("two", "a.b")}
    with pytest.raises(ConfigError, match=r"command a\.b comes with one already") as caught:
        load_source(SOURCE, "edge.py", modules=modules)
    assert caught.value.line == 4


def test_nor_one_module_twice() -> None:
    modules = {"one": lambda: WithCommand("one", "a.b", "a.b"), "two": lambda: WithCommand("two")}
    with pytest.raises(ConfigError, match="stands twice"):
        load_source(SOURCE, modules=modules)
