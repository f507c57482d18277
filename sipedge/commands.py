"""Commands: the core's own, and how one is called with what an operator sent.

Strategy: a ``Command`` is a plain function; its signature says which arguments it takes, and its
annotations of which type.  So a command needs no code for arguments that make no sense.  No socket
in here: ``sipedge.net.control`` brings the requests.  No stop of a datagram.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin, get_type_hints

from sipedge.dns_commands import DnsCommands
from sipedge.flow import TRANSPORT_NAME
from sipedge.module import Command, CommandError

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.flow import Flow

#: codes of SIP, as Kamailio uses them for its RPCs
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404


class Commands:
    """All commands of an edge by name: those of the core, and those of its modules."""

    def __init__(self, core: Core, of_modules: Mapping[str, Command]) -> None:
        self._core = core
        self._started = core.now
        own = (
            Command("core.commands", self.commands, "the commands that there are"),
            Command("core.flows", self.flows, "live connections: (limit=1000)"),
            Command("core.stats", self.stats, "all counters"),
            Command("core.status", self.status, "are new calls welcome?"),
            Command("core.uptime", self.uptime, "how long the process has served"),
            Command("tm.stats", self.transactions, "transactions that are under way"),
            *DnsCommands(core).table,
        )
        self.by_name: Mapping[str, Command] = MappingProxyType(
            {**of_modules, **{command.name: command for command in own}}
        )
        self._faces: dict[str, tuple[inspect.Signature, dict[str, Any]]] = {}

    def call(self, name: str, arguments: object) -> object:
        """What the command returns, see ``Command``; ``arguments``: a list, or a dict by name.

        Raises ``CommandError`` if there is no such command, if it does not take these arguments, or
        if it says so itself.
        """
        command = self.by_name.get(name)
        if command is None:
            raise CommandError(
                NOT_FOUND, f"no command {name!r} (is its module loaded?); core.commands lists them"
            )
        signature, hints = self._face(command)
        try:
            if isinstance(arguments, dict):
                bound = signature.bind(**arguments)
            elif isinstance(arguments, list):
                bound = signature.bind(*arguments)
            else:
                raise TypeError("params is no list and no object")
        except TypeError as exc:
            raise CommandError(BAD_REQUEST, f"{name}: {exc}") from None
        for argument, value in bound.arguments.items():
            hint = hints.get(argument, object)
            if not _fits(value, hint):
                wanted = getattr(hint, "__name__", str(hint))
                raise CommandError(BAD_REQUEST, f"{name}: {argument}: {value!r:.40} is no {wanted}")
        return command.call(*bound.args, **bound.kwargs)

    def _face(self, command: Command) -> tuple[inspect.Signature, dict[str, Any]]:
        face = self._faces.get(command.name)
        if face is None:
            face = inspect.signature(command.call), get_type_hints(command.call)
            self._faces[command.name] = face
        return face

    # -- the core's own

    def commands(self) -> Iterator[dict[str, str]]:
        """A row for each command."""
        for name, command in sorted(self.by_name.items()):
            yield {"name": name, "doc": command.doc}

    def stats(self) -> dict[str, int]:
        """The counters by name (``docs/operations.md``)."""
        return dict(sorted(self._core.stats.items()))

    def status(self) -> dict[str, Any]:
        """``ready``, or ``draining``: we are about to leave and take nobody new."""
        core = self._core
        return {
            "status": "draining" if core.draining else "ready",
            "connections": len(core.flows.streams),
            "transactions": len(core.tm.servers),
        }

    def transactions(self) -> dict[str, int]:
        """Of requests, answered ones that wait for retransmissions included; of their branches."""
        tm = self._core.tm
        return {
            "server_transactions": len(tm.servers),
            "client_transactions": len(tm.clients),
        }

    def uptime(self) -> dict[str, float]:
        """Seconds; ``up_since`` and ``now`` since 1970 (Kamailio: ``core.uptime``)."""
        core = self._core
        return {
            "now": round(core.wall(), 3),
            "up_since": round(core.wall(self._started), 3),
            "uptime": round(core.now - self._started, 3),
        }

    def flows(self, limit: int = 1000) -> Generator[dict[str, Any], None, dict[str, int]]:
        """A row for each live connection, ``limit`` at most; the result says how many there are."""
        streams = self._core.flows.streams
        shown = list(islice(streams.values(), max(0, limit)))
        total = len(streams)
        for flow in shown:
            if flow.alive:
                yield self._flow(flow)
        return {"shown": len(shown), "total": total}

    def _flow(self, flow: Flow) -> dict[str, Any]:
        return {
            "transport": TRANSPORT_NAME[flow.transport],
            "remote": address(flow.remote),
            "local": address(flow.local),
            "listener": flow.listener.name,
            "connection_id": flow.conn_id.hex(),
            "direction": "out" if flow.dialed else "in",
            "idle": round(max(0.0, self._core.now - flow.last_rx), 1),
        }


def address(at: tuple[str, int]) -> str:
    """``host:port`` as people write it."""
    host, port = at
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fits(value: object, hint: Any) -> bool:
    """Strict, as for ``modparam``: a bool is no int.  But JSON has one kind of numbers."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    kind = get_origin(hint) or hint
    if kind in (object, Any):
        return True
    return type(value) is kind or (kind is float and type(value) is int)
