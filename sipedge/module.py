"""What a module shows of itself (``ModuleExports``) and what it is given (``Context``).

A module is an instance of a class that an entry point of the group ``sipedge.modules`` names.  Its
whole face is one table, ``exports``, as in Kamailio: functions for routes, parameters,
pseudo-variables, and commands for the operator.  Its parameters live in ``params``, a slots
dataclass whose defaults are the defaults; ``modparam`` sets its attributes, ``mod_init`` checks and
uses them.  See ``hookspecs`` for the moments at which a module is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from sipedge.config import Config
    from sipedge.core import Core
    from sipedge.flow import FlowTable

# In which routes a function is legal; ``SipMessage.route_kind`` holds the one that runs.
REQUEST_ROUTE: Final = 1
FAILURE_ROUTE: Final = 2
BRANCH_ROUTE: Final = 4
REPLY_ROUTE: Final = 8
BRANCH_FAILURE_ROUTE: Final = 16
ANY_ROUTE: Final = 31
ROUTE_NAME: Final = {
    REQUEST_ROUTE: "request_route",
    FAILURE_ROUTE: "failure_route",
    BRANCH_ROUTE: "branch_route",
    REPLY_ROUTE: "reply_route",
    BRANCH_FAILURE_ROUTE: "branch_failure_route",
}


class Rc(int):
    """A result code of Kamailio: true if and only if it is greater than zero.

    ``if not ksr.rr.loose_route(msg)`` means what it says, and ``rc == -2`` still works.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return self > 0

    def __repr__(self) -> str:
        return f"Rc({int(self)})"


#: the codes that exist, made once: hot functions return these
RC: Final = {n: Rc(n) for n in range(-16, 17)}
OK: Final = RC[1]
FAIL: Final = RC[-1]
STOP: Final = RC[0]


@dataclass(slots=True, frozen=True)
class Function:
    """A function for routes: ``ksr.<module>.<name>(msg, ...)``.

    ``call`` is the bound method itself.  ``routes`` is a sum of the ``*_ROUTE`` constants.
    """

    name: str
    call: Callable[..., Any]
    routes: int = ANY_ROUTE


@dataclass(slots=True, frozen=True)
class Param:
    """A parameter for ``modparam``; its default is the attribute of that name in ``module.params``.

    ``type`` is the type, or the types, that a value must have exactly (a bool is no int, a str no
    number).  ``low`` and ``high`` bound an int; ``doc`` is one line for people.
    """

    name: str
    type: type | tuple[type, ...]
    doc: str = ""
    low: int | None = None
    high: int | None = None


@dataclass(slots=True, frozen=True)
class PseudoVariable:
    """A pseudo-variable: ``ksr.pv.get(msg, "$name")`` or ``"$name(key)"`` calls ``get(msg, key)``.

    ``key`` is what stands between the brackets, ``None`` if nothing does.  Returns bytes, int or
    None.
    """

    name: str
    get: Callable[[Any, str | None], bytes | int | None]


@dataclass(slots=True, frozen=True)
class Command:
    """A command of the control socket: ``ul.dump`` (Kamailio: an RPC).

    ``call`` gets what the operator sent, by position or by name; values are checked against its
    annotations first.  It returns something that is JSON, a ``Later`` of that, or an iterator of
    rows, which is run a few rows at a time between other events; what a generator returns is then
    the result.  It may be an ``async def``, with or without ``yield``.  It raises ``CommandError``
    for what cannot be done.  ``doc`` is a line for people.
    """

    name: str
    call: Callable[..., Any]
    doc: str = ""


class CommandError(Exception):
    """What the operator asked for cannot be done.

    ``code`` is that of a SIP response, as in Kamailio: 404 for what is not there, say.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Later:
    """The result of a command that has to wait for something; ``set`` it once."""

    __slots__ = ("_then", "_value")

    def __init__(self) -> None:
        self._value: list[Any] = []
        self._then: Callable[[Any], None] | None = None

    def set(self, value: object) -> None:
        """The result, or a ``CommandError``."""
        self._value.append(value)
        if self._then is not None:
            self._then(value)

    def then(self, call: Callable[[Any], None]) -> None:
        """For the host: call this with the result, now if it is there."""
        self._then = call
        if self._value:
            call(self._value[0])


@dataclass(slots=True, frozen=True)
class ModuleExports:
    """The face of a module on one screen (Kamailio: ``struct module_exports``)."""

    name: str
    functions: tuple[Function, ...] = ()
    params: tuple[Param, ...] = ()
    pseudo_variables: tuple[PseudoVariable, ...] = ()
    commands: tuple[Command, ...] = ()


class Module(Protocol):
    """What ``loadmodule`` makes an instance of; called without arguments."""

    exports: ModuleExports
    params: Any


class Context(Protocol):
    """What ``mod_init`` is given: the host, and the other modules by their exports."""

    core: Core
    flows: FlowTable
    config: Config
    #: the name of the module that is being initialised
    module: str

    def export(self, name: str, api: object) -> None:
        """Offer an API to modules that are loaded later (Kamailio: ``bind_*``)."""

    def find_export(self, name: str) -> object | None:
        """An API that a module loaded *before* this one has exported, else ``None``.

        A miss is remembered: when a later module exports that name, a warning names the two and
        the ``loadmodule`` line to move.
        """

    def param_error(self, name: str, message: str) -> Exception:
        """A ``ConfigError`` that points at the ``modparam`` line that set this parameter (or, when
        it was never set, at the ``loadmodule`` line); raise it."""
