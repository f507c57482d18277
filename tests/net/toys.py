"""Layers that do next to nothing, to see what a connection does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipedge.flow import Address, Flow, Listener
from sipedge.net.layers import Layer
from tests.helpers_net import RunningEdge

HELLO, END, UP, DOWN = b"H", b".", b"^", b"v"


class Toy(Layer):
    """Begins with a greeting, ends with a dot; upwards each ``x`` becomes two chunks.

    What goes through it is marked with its name downwards: ``v<name>...``.
    """

    __slots__ = ("_out", "client", "log", "name")

    def __init__(self, name: bytes = b"1", log: list[Any] | None = None, client: bool = False):
        super().__init__()
        self.name = name
        self.client = client
        self.log = [] if log is None else log
        self._out = b""

    def start(self) -> None:
        self.log.append((self.name, "start"))
        if self.client:
            self._out += HELLO

    def receive(self, data: bytes) -> list[bytes]:
        assert not self.over
        self.log.append((self.name, data))
        if not self.established:
            if not data.startswith(HELLO):
                self._out, self.over = b"no", "no greeting"
                return []
            data = data[len(HELLO) :]
            self.established = True
            if not self.client:
                self._out += HELLO
        data, end, _ = data.partition(END)
        if end:
            self.over = "the end"
            self._out += b"bye"
        self.unfinished = data.endswith(b"-")
        if data == b"ping":
            self._out += b"pong"
            return []
        return [part for part in data.split(b"x") if part]

    def send(self, data: bytes) -> bytes:
        assert self.established
        return DOWN + self.name + data

    def outgoing(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def close(self) -> bytes:
        self.log.append((self.name, "close"))
        return b"close" + self.name


def stacked(server: RunningEdge, make: Callable[[], list[Layer]]) -> None:
    """Connections of ``server`` have these layers from now on."""

    class Toys:
        def accepted(self, listener: Listener, remote: Address) -> list[Layer]:
            return make()

        def dialed(self, flow: Flow) -> list[Layer]:
            return make()

    server.server._stacks = Toys()  # type: ignore[assignment]
