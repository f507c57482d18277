"""Runs the configuration file and makes an ``Edge`` of it.

Strategy: the configuration is Python.  It is run once with a handful of injected functions
(listen, alias, loadmodule, modparam, keyfile, core), which only collect.  Then it is frozen: routes
are taken from its top-level functions, what they call is checked, the modules are initialised in
load order and the hot hooks become tuples.  Everything that is wrong is a ``ConfigError`` with the
operator's file and line; after the freeze the injected functions refuse to run.  No socket is
touched, so a test can drive ``edge.core`` by bytes.  This runs before stop 1 of the first datagram.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any

from sipedge.advice import timers
from sipedge.core import Core
from sipedge.errors import ConfigError
from sipedge.flow import Listener
from sipedge.keyfile import read_keyfile
from sipedge.ksr import ROUTES, Ksr, check_calls
from sipedge.listen import NEEDED, expand, parse_advertise, parse_alias, parse_listen, parse_proxies
from sipedge.loader import Loader, Place, value_problem
from sipedge.module import Command, Module, Param, PseudoVariable
from sipedge.settings import SETTINGS
from sipedge.sip.message import SipMessage

Route = Callable[..., Any]
LocalAddresses = Callable[[], list[str]]


@dataclass(slots=True, frozen=True)
class Config:
    """What the configuration file said; nothing changes it after it was read."""

    file: str
    listeners: tuple[Listener, ...]
    #: (host, port) of each ``alias``; port ``None`` stands for any
    aliases: tuple[tuple[str, int | None], ...]
    #: all top-level functions by name; ``request_route`` is always there
    routes: Mapping[str, Route]
    #: of all loaded modules, by name without the ``$``
    pseudo_variables: Mapping[str, PseudoVariable]
    #: of all loaded modules, by name
    commands: Mapping[str, Command]


class Edge:
    """A configured edge: everything but the sockets, which ``sipedge.net`` brings."""

    __slots__ = ("config", "core", "ksr", "loader", "modules")

    def __init__(self, core: Core, config: Config, loader: Loader, ksr: Ksr) -> None:
        self.core = core
        self.config = config
        self.loader = loader
        self.ksr = ksr
        #: the instances by name, in load order
        self.modules: dict[str, Module] = {
            name: loaded.instance for name, loaded in loader.modules.items()
        }

    def child_init(self, rank: int) -> None:
        """Tell the modules that worker ``rank`` (from 0) is about to serve."""
        self.loader.child_init(rank)

    def destroy(self) -> None:
        """Tell the modules that this is the end, in reverse load order."""
        self.loader.destroy()

    def report(self) -> str:
        """For people: listeners, aliases, modules in load order and who bound to whom, routes."""
        rows = [("configuration", self.config.file)]
        for listener in self.config.listeners:
            named = listener.uri_hostport.decode() if listener.advertise_host else ""
            rows.append(("listen", listener.name + (f", advertised as {named}" if named else "")))
        for host, port in self.config.aliases:
            rows.append(("alias", host if port is None else f"{host}:{port}"))
        for number, loaded in enumerate(self.loader.modules.values(), 1):
            bound = ", ".join(f"{api} of {owner}" for api, owner in loaded.bound.items())
            text = f"{number:2} {loaded.name}" + (f", bound to {bound}" if bound else "")
            rows.append(("module", text))
        for name, route in self.config.routes.items():
            if name in ROUTES:
                rows.append(("route", f"{name}, line {route.__code__.co_firstlineno}"))
        return "\n".join(f"{label:14}{text}" for label, text in rows)


class CoreSettings:
    """``core`` in a configuration file: the few attributes of the core that an operator may set."""

    __slots__ = ("_builder", "_core")

    def __init__(self, builder: Builder, core: Core) -> None:
        object.__setattr__(self, "_builder", builder)
        object.__setattr__(self, "_core", core)

    def __getattr__(self, name: str) -> Any:
        self._param(name)
        return getattr(self._core, name)

    def __setattr__(self, name: str, value: object) -> None:
        place = self._builder.place(f"core.{name}")
        problem = value_problem(self._param(name), value)
        if problem:
            raise ConfigError(f"core.{name}: {problem}", *place)
        setattr(self._core, name, value)

    def _param(self, name: str) -> Param:
        for param in SETTINGS:
            if param.name == name:
                return param
        names = ", ".join(param.name for param in SETTINGS)
        raise ConfigError(f"core has no setting {name!r}; it has: {names}", *self._builder.here())


class Builder:
    """Collects what the configuration file says; its methods are the injected functions."""

    def __init__(
        self, file: str, loader: Loader, core: Core, local_addresses: LocalAddresses | None
    ) -> None:
        self.file = file
        self.loader = loader
        self.core = core
        self.listeners: list[Listener] = []
        self.aliases: list[tuple[str, int | None]] = []
        self.frozen = False
        self._local_addresses = local_addresses

    def namespace(self) -> dict[str, Any]:
        """The globals that the configuration file starts with."""
        return {
            "__name__": "sipedge_config",
            "__file__": str(Path(self.file).absolute()),
            "Ksr": Ksr,  # for annotations
            "SipMessage": SipMessage,
            "alias": self.alias,
            "core": CoreSettings(self, self.core),
            "keyfile": self.keyfile,
            "listen": self.listen,
            "loadmodule": self.loadmodule,
            "modparam": self.modparam,
        }

    def here(self) -> Place:
        """The operator's line: the innermost frame of the configuration file."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename != self.file:
            frame = frame.f_back
        return self.file, frame.f_lineno if frame.f_code.co_filename == self.file else 1

    def place(self, what: str) -> Place:
        """``here``, if ``what`` may still be done."""
        place = self.here()
        if self.frozen:
            raise ConfigError(f"{what} works only while the configuration file is read", *place)
        return place

    def listen(
        self,
        address: str,
        advertise: str | None = None,
        proxy_protocol: str | list[str] | tuple[str, ...] = (),
    ) -> None:
        """Listen on ``transport:address:port``; ``advertise`` is ``host[:port]`` for others to use.

        ``0.0.0.0`` and ``::`` become one listener for each address of the machine.  From addresses
        in ``proxy_protocol`` (load balancers; networks or single ones) each connection, or UDP
        datagram, has to begin with a PROXY header (Kamailio: ``tcp_accept_haproxy``).
        """
        place = self.place("listen()")
        try:
            transport, host, port = parse_listen(address)
            named = None if advertise is None else parse_advertise(advertise)
            proxies = parse_proxies(proxy_protocol)
            hosts = self._concrete(host)
        except ConfigError as exc:
            raise ConfigError(exc.message, *place) from None
        for concrete in hosts:
            listener = Listener(transport, concrete, port, named, place, proxies)
            if port and any(other.name == listener.name for other in self.listeners):
                raise ConfigError(f"{listener.name} is listened on already", *place)
            self.listeners.append(listener)

    def _concrete(self, host: str) -> list[str]:
        if host not in ("0.0.0.0", "::"):
            return [host]
        if self._local_addresses is None:
            raise ConfigError(f"listen on {host}: the addresses of this machine are not known here")
        found = expand(host, self._local_addresses())
        if not found:
            raise ConfigError(f"listen on {host}: this machine has no such address")
        return found

    def alias(self, *names: str) -> None:
        """These hosts (``example.com``, ``example.com:5060``) are us, too (Kamailio: ``alias``)."""
        place = self.place("alias()")
        try:
            self.aliases.extend(parse_alias(name) for name in names)
        except ConfigError as exc:
            raise ConfigError(exc.message, *place) from None

    def loadmodule(self, name: str) -> None:
        """Load an installed module (Kamailio: ``loadmodule``); the order of these lines counts."""
        self.loader.loadmodule(name, self.place("loadmodule()"))

    def modparam(self, module: str, name: str, value: object) -> None:
        """Set a parameter of a module that was loaded above (Kamailio: ``modparam``)."""
        self.loader.modparam(module, name, value, self.place("modparam()"))

    def keyfile(self, path: str) -> tuple[bytes, ...]:
        """The 20-octet keys of a key file, the current one first (``sipedge keygen``).

        A relative path starts at the directory of the configuration file.
        """
        place = self.place("keyfile()")
        try:
            return read_keyfile(Path(self.file).absolute().parent / path)
        except ConfigError as exc:
            raise ConfigError(exc.message, *place) from exc.__cause__


def load_config(path: str | Path, *, local_addresses: LocalAddresses | None = None) -> Edge:
    """Read a configuration file; everything up to and including ``mod_init``.

    ``local_addresses`` returns the numeric addresses of this machine; needed for ``listen`` on
    ``0.0.0.0`` or ``::``.  Raises ``ConfigError`` and nothing else for whatever is wrong.
    """
    return load_source(_read(path), str(path), local_addresses=local_addresses)


def control_setting(path: str | Path, *, local_addresses: LocalAddresses | None = None) -> str:
    """``core.control_socket`` of a configuration file, without initialising any module.

    Raises ``ConfigError`` as ``load_config`` does.
    """
    core = Core()
    builder = Builder(str(path), Loader(), core, local_addresses)
    _run(_read(path), str(path), builder.namespace())
    return core.control_socket


def load_source(
    text: str | bytes,
    filename: str = "<config>",
    *,
    local_addresses: LocalAddresses | None = None,
    modules: Mapping[str, Callable[[], Module]] | None = None,
) -> Edge:
    """``load_config`` for a text; ``modules`` are found by name before the installed ones."""
    core = Core()
    loader = Loader(modules)
    builder = Builder(filename, loader, core, local_addresses)
    namespace = builder.namespace()
    tree = _run(text, filename, namespace)
    builder.frozen = True
    routes = _routes(namespace, filename)
    if not builder.listeners:
        raise ConfigError("nothing to listen on; add listen('udp:127.0.0.1:5060')", filename)
    _check_needed(builder)
    tables = [loaded.exports for loaded in loader.modules.values()]
    check_calls(tree, {exports.name: exports for exports in tables}, filename)
    for listener in builder.listeners:
        core.flows.add_listener(listener)
    for host, port in builder.aliases:
        core.add_alias(host, port)
    core.learn_own_addresses()
    config = Config(
        file=filename,
        listeners=tuple(builder.listeners),
        aliases=tuple(builder.aliases),
        routes=MappingProxyType(routes),
        pseudo_variables=MappingProxyType(loader.pseudo_variables()),
        commands=MappingProxyType(loader.commands()),
    )
    loader.register()
    core.hooks_request_in = loader.hot("request_in")
    core.hooks_reply_in = loader.hot("reply_in")
    core.hooks_branch_failed = loader.hot("branch_failed")
    core.hooks_flow_opened = loader.hot("flow_opened")
    core.hooks_flow_closed = loader.hot("flow_closed")
    core.ksr = ksr = Ksr(core, tables)
    core.request_route = routes["request_route"]
    core.reply_route = routes.get("reply_route")
    loader.init(core, config)
    params = [loaded.instance.params for loaded in loader.modules.values()]
    loader.warn(f"{filename}: {warning}" for warning in timers(core, params))
    return Edge(core, config, loader, ksr)


def _check_needed(builder: Builder) -> None:
    """TLS and WebSocket come with modules, which hold their parameters."""
    for listener in builder.listeners:
        for name in NEEDED.get(listener.transport, ()):
            if name not in builder.loader.modules:
                raise ConfigError(
                    f"listen {listener.name!r} takes the module {name}; write loadmodule({name!r})",
                    *(listener.source or (None, None)),
                )


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read the configuration: {exc.strerror}", str(path)) from exc


def _run(text: str | bytes, file: str, namespace: dict[str, Any]) -> ast.Module:
    """Run the file in ``namespace``, return its syntax tree; any exception is a ``ConfigError``."""
    try:
        tree = ast.parse(text, file)
        code = compile(tree, file, "exec", dont_inherit=True)
    except SyntaxError as exc:
        raise ConfigError(f"{type(exc).__name__}: {exc.msg}", file, exc.lineno or 1) from exc
    except ValueError as exc:  # a NUL in the text
        raise ConfigError(str(exc), file, 1) from exc
    try:
        exec(code, namespace)
    except ConfigError as exc:
        if exc.file is not None:
            raise
        raise ConfigError(exc.message, file, _line_of(exc, file)) from exc
    except (Exception, SystemExit) as exc:
        raise ConfigError(f"{type(exc).__name__}: {exc}", file, _line_of(exc, file)) from exc
    return tree


def _line_of(exc: BaseException, file: str) -> int | None:
    """The innermost line of the configuration file that an exception passed through."""
    line = None
    step = exc.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _routes(namespace: dict[str, Any], file: str) -> dict[str, Route]:
    """The top-level functions; the four that the host calls must take (ksr, msg)."""
    routes: dict[str, Route] = {
        name: value for name, value in namespace.items() if isinstance(value, FunctionType)
    }
    if "request_route" not in routes:
        raise ConfigError("there is no request_route; write: def request_route(ksr, msg):", file)
    for name in ROUTES:
        if name in namespace and name not in routes:
            raise ConfigError(f"{name} must be a function: def {name}(ksr, msg):", file)
        if name in routes:
            _check_route(name, routes[name], file)
    return routes


def _check_route(name: str, route: Route, file: str) -> None:
    code = route.__code__
    problem = None
    if inspect.isgeneratorfunction(route) or inspect.isasyncgenfunction(route):
        problem = "has a yield"
    try:
        inspect.signature(route).bind(None, None)
    except TypeError:
        problem = "does not take two arguments"
    if problem:
        line = code.co_firstlineno if code.co_filename == file else None
        raise ConfigError(f"{name} {problem}; write: def {name}(ksr, msg):", file, line)
