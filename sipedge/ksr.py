"""``ksr``: what a route calls.  One namespace a module, built from the export tables.

Strategy: ``ksr.rr.record_route`` is the bare bound method of the module, two attribute look-ups
away; nothing is wrapped, so a call costs a call.  Unknown names, and functions in routes where they
are not legal, are what Kamailio finds when it reads its configuration; here ``check_calls`` finds
them in the syntax tree of the file before anything runs.  Part of stops 5 and 6 of a datagram.
"""

from __future__ import annotations

import ast
import difflib
import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sipedge.errors import ConfigError, ParseError
from sipedge.module import (
    BRANCH_FAILURE_ROUTE,
    BRANCH_ROUTE,
    FAIL,
    FAILURE_ROUTE,
    OK,
    REPLY_ROUTE,
    REQUEST_ROUTE,
    ROUTE_NAME,
    ModuleExports,
    Rc,
)
from sipedge.modules.args import as_bytes
from sipedge.sip.uri import parse_uri

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.sip.message import SipMessage

log = logging.getLogger("sipedge.route")

#: the functions of a configuration file that the host calls itself, and the kind of route they are
ROUTES: Final = {
    "request_route": REQUEST_ROUTE,
    "failure_route": FAILURE_ROUTE,
    "branch_route": BRANCH_ROUTE,
    "reply_route": REPLY_ROUTE,
    "branch_failure_route": BRANCH_FAILURE_ROUTE,
}


class Namespace:
    """The functions of one module: ``ksr.<module>``."""

    def __init__(self, exports: ModuleExports) -> None:
        self._exports = exports
        for function in exports.functions:
            setattr(self, function.name, function.call)

    def __getattr__(self, name: str) -> Any:
        # only for names that are not there; protocols of Python probe for _names
        if name.startswith("_"):
            raise AttributeError(name)
        raise ConfigError(_no_function(self._exports, name))


class Ksr:
    """The first argument of every route: the core's own functions, and a namespace a module.

    Texts may be ``bytes`` or ``str``.  Result codes are Kamailio's (``sipedge.module.Rc``).
    """

    def __init__(self, core: Core, tables: Iterable[ModuleExports]) -> None:
        self._core = core
        for exports in tables:
            setattr(self, exports.name, Namespace(exports))

    def __getattr__(self, name: str) -> Any:
        # only for names that are not there; protocols of Python probe for _names
        if name.startswith("_"):
            raise AttributeError(name)
        raise ConfigError(f"ksr.{name}: module {name} is not loaded; add loadmodule({name!r})")

    def drop(self, msg: SipMessage) -> Rc:
        """Do not forward this response; in a branch route, do not send this branch (``drop``).

        A request is dropped by leaving the route without an answer: just ``return``.
        """
        msg.drop = True
        return OK

    def setflag(self, msg: SipMessage, flag: int) -> Rc:
        """Set message flag 0..31 (``setflag``); -1 if there is no such flag."""
        if not 0 <= flag <= 31:
            return FAIL
        msg.flags |= 1 << flag
        return OK

    def resetflag(self, msg: SipMessage, flag: int) -> Rc:
        """Clear message flag 0..31 (``resetflag``); -1 if there is no such flag."""
        if not 0 <= flag <= 31:
            return FAIL
        msg.flags &= ~(1 << flag)
        return OK

    def isflagset(self, msg: SipMessage, flag: int) -> Rc:
        """1 if message flag 0..31 is set, else -1 (``isflagset``)."""
        return OK if 0 <= flag <= 31 and msg.flags >> flag & 1 else FAIL

    def seturi(self, msg: SipMessage, uri: bytes | str) -> Rc:
        """Give the request another Request-URI (``seturi``); -1 if it is none."""
        raw = as_bytes(uri)
        if not msg.is_request or not _is_uri(raw):
            return FAIL
        msg.ruri = raw
        msg.lines[0] = b"%s %s SIP/2.0" % (msg.method, raw)
        return OK

    def setdsturi(self, msg: SipMessage, uri: bytes | str) -> Rc:
        """Send the request to this URI, whatever Route, Request-URI or flow say (``setdsturi``).

        -1 if it is no URI.
        """
        raw = as_bytes(uri)
        if not _is_uri(raw):
            return FAIL
        msg.dst_uri = raw
        msg.dst_flow = None
        return OK

    def resetdsturi(self, msg: SipMessage) -> Rc:
        """Let Route and Request-URI decide again where the request goes (``resetdsturi``)."""
        msg.dst_uri = None
        msg.dst_flow = None
        return OK

    def is_myself(self, uri: bytes | str) -> bool:
        """Does this URI name us: a listener, what it advertises, or an alias (``is_myself``)?"""
        try:
            return self._core.is_myself(parse_uri(as_bytes(uri)))
        except ParseError:
            return False

    def dbg(self, text: str, *args: object) -> None:
        """Log ``text % args`` at DEBUG, as logger ``sipedge.route``."""
        log.debug(text, *args)

    def info(self, text: str, *args: object) -> None:
        """Log ``text % args`` at INFO."""
        log.info(text, *args)

    def warn(self, text: str, *args: object) -> None:
        """Log ``text % args`` at WARNING."""
        log.warning(text, *args)

    def err(self, text: str, *args: object) -> None:
        """Log ``text % args`` at ERROR."""
        log.error(text, *args)


@lru_cache(maxsize=1024)
def _is_uri(raw: bytes) -> bool:
    """A URI; ``parse_uri`` refuses white space and line ends, so a start line stays one line."""
    try:
        parse_uri(raw)
    except ParseError:
        return False
    return True


def check_calls(tree: ast.Module, tables: Mapping[str, ModuleExports], file: str) -> None:
    """Look for ``ksr.<module>.<function>`` in a configuration file, wherever it stands.

    Raises ``ConfigError`` at the line that names a module that is not loaded, a function that it
    does not have, or one that is not legal in the route where it stands.
    """
    for top in tree.body:
        kind = 0
        if isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef):
            kind = ROUTES.get(top.name, 0)  # of other functions nobody knows who calls them
        for node in ast.walk(top):
            if isinstance(node, ast.Attribute) and _is_ksr(node.value):
                problem = _core_problem(node.attr, tables)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Attribute)
                and _is_ksr(node.value.value)
            ):
                problem = _call_problem(tables.get(node.value.attr), node.attr, kind)
            else:
                continue
            if problem:
                raise ConfigError(problem, file, node.lineno)


def _is_ksr(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "ksr"


def _core_problem(name: str, tables: Mapping[str, ModuleExports]) -> str | None:
    if name in tables or (hasattr(Ksr, name) and not name.startswith("_")):
        return None
    return f"ksr.{name}: module {name} is not loaded; add loadmodule({name!r})"


def _call_problem(exports: ModuleExports | None, name: str, kind: int) -> str | None:
    if exports is None:
        return None  # the inner node says it: no module, or a function of the core
    for function in exports.functions:
        if function.name == name:
            legal = function.routes
            if not kind or legal & kind:
                return None
            where = ", ".join(text for bit, text in ROUTE_NAME.items() if legal & bit)
            return f"ksr.{exports.name}.{name} is not for a {ROUTE_NAME[kind]}; only for: {where}"
    return _no_function(exports, name)


def _no_function(exports: ModuleExports, name: str) -> str:
    names = [function.name for function in exports.functions]
    close = difflib.get_close_matches(name, names, 1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return (
        f"module {exports.name} has no function {name!r}{meant}; "
        f"it has: {', '.join(names) or 'none'}"
    )


__all__ = ["ROUTES", "Ksr", "Namespace", "check_calls"]
