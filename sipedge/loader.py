"""The loader: finds modules, sets their parameters, initialises and binds them.

Strategy, in the order of a start:

* ``loadmodule`` finds the entry point, makes the instance, checks its export table;
* ``modparam`` checks the type strictly and sets the attribute of ``module.params``;
* ``register`` gives the instances to pluggy, which compares their hooks with the specs; ``hot``
  turns a hook into a tuple of bound methods: a call through pluggy costs a microsecond;
* ``init`` calls ``mod_init`` in load order, with a ``Context`` through which modules offer and find
  APIs.  An export exists only once its owner's ``mod_init`` has run; whoever asked too early is
  named in a warning with the line to move.

Every error is a ``ConfigError`` with the operator's file and line.  No stop of a datagram: the
loader has done its work before the first one arrives.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

import pluggy

from sipedge import hookspecs
from sipedge.errors import ConfigError
from sipedge.module import Command, Module, ModuleExports, Param, PseudoVariable

if TYPE_CHECKING:
    from sipedge.config import Config
    from sipedge.core import Core
    from sipedge.flow import FlowTable

log = logging.getLogger("sipedge.loader")

GROUP: Final = "sipedge.modules"
Place = tuple[str, int]  # file and line of the operator's


class Loaded:
    """One module that was loaded: the instance, and what the operator wrote about it."""

    __slots__ = ("bound", "instance", "name", "params_at", "place")

    def __init__(self, name: str, instance: Module, place: Place) -> None:
        self.name = name
        self.instance = instance
        self.place = place
        self.params_at: dict[str, Place] = {}  # the modparam line that counts
        self.bound: dict[str, str] = {}  # name of the API -> module that exported it

    @property
    def exports(self) -> ModuleExports:
        return self.instance.exports


class ModuleContext:
    """What ``mod_init`` is given (``sipedge.module.Context``)."""

    __slots__ = ("_loader", "config", "core", "flows", "module")

    def __init__(self, loader: Loader, module: str, core: Core, config: Config) -> None:
        self._loader = loader
        self.module = module
        self.core: Core = core
        self.flows: FlowTable = core.flows
        self.config: Config = config

    def export(self, name: str, api: object) -> None:
        self._loader.export(self.module, name, api)

    def find_export(self, name: str) -> object | None:
        return self._loader.find_export(self.module, name)

    def param_error(self, name: str, message: str) -> ConfigError:
        loaded = self._loader.modules[self.module]
        place = loaded.params_at.get(name, loaded.place)
        return ConfigError(f"{self.module}: {name}: {message}", *place)


class Loader:
    """The modules of one edge, in load order; no state outside of the instance."""

    def __init__(self, extra: Mapping[str, Callable[[], Module]] | None = None) -> None:
        """``extra``: modules by name that are found before the installed ones (for tests)."""
        self.modules: dict[str, Loaded] = {}
        #: what was logged about the order of modules, and about settings
        self.warnings: list[str] = []
        self._extra = extra or {}
        self._installed: dict[str, list[EntryPoint]] | None = None
        self._exports: dict[str, tuple[str, object]] = {}
        self._misses: dict[str, list[str]] = {}
        self._pm = pluggy.PluginManager(hookspecs.PROJECT)
        self._pm.add_hookspecs(hookspecs.ModuleSpecs)
        self._initialised: list[str] = []

    # loadmodule

    def installed(self) -> dict[str, list[EntryPoint]]:
        """The installed modules by name, read once."""
        if self._installed is None:
            self._installed = {}
            for point in entry_points(group=GROUP):
                self._installed.setdefault(point.name, []).append(point)
        return self._installed

    def loadmodule(self, name: str, place: Place) -> None:
        """Make an instance of the module called ``name`` (Kamailio: ``loadmodule``).

        Raises ``ConfigError``: unknown, loaded before, ambiguous, cannot be imported, bad table.
        """
        if not isinstance(name, str):
            raise ConfigError(f"loadmodule takes a name in quotes, not {name!r}", *place)
        if name in self.modules:
            line = self.modules[name].place[1]
            raise ConfigError(f"module {name} was already loaded in line {line}", *place)
        factory = self._find(name, place)
        try:
            instance = factory()
        except ConfigError:
            raise
        except Exception as exc:
            raise ConfigError(
                f"cannot make module {name}: {type(exc).__name__}: {exc}", *place
            ) from exc
        problem = _table_problem(name, instance)
        if problem:
            raise ConfigError(f"module {name} is broken: {problem}", *place)
        self.modules[name] = Loaded(name, instance, place)

    def _find(self, name: str, place: Place) -> Callable[[], Module]:
        if name in self._extra:
            return self._extra[name]
        points = self.installed().get(name, [])
        if not points:
            names = sorted({*self.installed(), *self._extra})
            raise ConfigError(
                f"no module {name!r} is installed{_meant(name, names)}; installed: "
                f"{', '.join(names) or 'none'}",
                *place,
            )
        if len({point.value for point in points}) > 1:
            owners = ", ".join(sorted(point.dist.name for point in points if point.dist))
            raise ConfigError(
                f"more than one package brings a module {name!r} ({owners}); uninstall all but one",
                *place,
            )
        try:
            factory: Callable[[], Module] = points[0].load()
        except Exception as exc:
            raise ConfigError(
                f"cannot import module {name} ({points[0].value}): {type(exc).__name__}: {exc}",
                *place,
            ) from exc
        return factory

    # modparam

    def modparam(self, pattern: str, name: str, value: object, place: Place) -> None:
        """Set a parameter of every loaded module that ``pattern`` matches (Kamailio: ``modparam``).

        ``pattern`` is a regular expression, anchored at both ends, upper and lower case the same:
        ``"rr|path"``.  Types are strict.  The last value wins.  Raises ``ConfigError``.
        """
        if not isinstance(pattern, str) or not isinstance(name, str):
            raise ConfigError("modparam takes the module and the parameter in quotes", *place)
        try:
            matches = re.compile(pattern, re.IGNORECASE).fullmatch
        except re.error as exc:
            raise ConfigError(
                f"modparam: {pattern!r} is no regular expression: {exc}", *place
            ) from exc
        chosen = [loaded for loaded in self.modules.values() if matches(loaded.name)]
        if not chosen:
            raise ConfigError(
                f"modparam: no loaded module matches {pattern!r}; {self._load_first(pattern)}",
                *place,
            )
        params = [_checked(loaded, name, value, place) for loaded in chosen]
        for loaded, param in zip(chosen, params, strict=True):
            setattr(loaded.instance.params, param.name, value)
            loaded.params_at[param.name] = place

    def _load_first(self, pattern: str) -> str:
        known = {*self.installed(), *self._extra}
        if pattern in known:
            return f"write loadmodule({pattern!r}) above this line"
        return f"loaded so far: {', '.join(self.modules) or 'none'}"

    # hooks

    def register(self) -> None:
        """Compare the hooks of all modules with ``hookspecs``; before ``hot`` and ``init``.

        Raises ``ConfigError`` for a module that breaks the contract.
        """
        # pluggy calls the last registered first: in reverse, call order is load order
        for loaded in reversed(self.modules.values()):
            try:
                self._pm.register(loaded.instance, loaded.name)
                self._pm.check_pending()
            except pluggy.PluginValidationError as exc:
                raise ConfigError(f"module {loaded.name} is broken: {exc}", *loaded.place) from exc
            for caller in self._pm.get_hookcallers(loaded.instance) or ():
                for impl in caller.get_hookimpls():
                    if impl.tryfirst or impl.trylast or impl.wrapper or impl.hookwrapper:
                        raise ConfigError(
                            f"module {loaded.name} is broken: {caller.name} wants an order of its "
                            "own; the order of the loadmodule lines decides",
                            *loaded.place,
                        )

    def hot(self, hook: str) -> tuple[Callable[..., Any], ...]:
        """The implementations of ``hook`` in load order, to be called with positional arguments.

        Raises ``ConfigError`` if one of them does not take exactly the arguments of the spec.
        """
        caller: pluggy.HookCaller = getattr(self._pm.hook, hook)
        assert caller.spec is not None  # all specs are in hookspecs
        wanted = caller.spec.argnames
        calls = []
        for impl in reversed(caller.get_hookimpls()):
            if tuple(impl.argnames) != tuple(wanted) or impl.kwargnames:
                raise ConfigError(
                    f"module {impl.plugin_name} is broken: {hook} must take exactly "
                    f"({', '.join(wanted)})",
                    *self.modules[impl.plugin_name].place,
                )
            calls.append(impl.function)
        return tuple(calls)

    # mod_init, binding

    def init(self, core: Core, config: Config) -> None:
        """``mod_init`` of every module in load order; ``ConfigError`` refuses the start."""
        for name in self.modules:
            context = ModuleContext(self, name, core, config)
            try:
                self._call(name, "mod_init", {"ctx": context})
            except Exception as exc:
                self.destroy()
                raise self._init_error(name, exc) from exc
            self._initialised.append(name)

    def _init_error(self, name: str, exc: Exception) -> ConfigError:
        place = self.modules[name].place
        if not isinstance(exc, ConfigError):
            return ConfigError(f"{name}: mod_init failed: {type(exc).__name__}: {exc}", *place)
        if exc.file is None:
            return ConfigError(exc.message, *place)
        return exc

    def export(self, owner: str, name: str, api: object) -> None:
        """``Context.export``."""
        if name in self._exports:
            raise ConfigError(f"{owner}: {name} is already exported by {self._exports[name][0]}")
        self._exports[name] = (owner, api)
        at = self.modules[owner].place
        for early in self._misses.pop(name, ()):
            file, line = self.modules[early].place
            warning = (
                f"{file}:{line}: {early} runs without {owner}, which is loaded after it: move "
                f"loadmodule({owner!r}) (line {at[1]}) above loadmodule({early!r}) (line {line})"
            )
            self.warn((warning,))

    def warn(self, warnings: Iterable[str]) -> None:
        """Something that the operator should know, and that can be lived with."""
        for warning in warnings:
            self.warnings.append(warning)
            log.warning("%s", warning)

    def find_export(self, module: str, name: str) -> object | None:
        """``Context.find_export``."""
        found = self._exports.get(name)
        if found is None:
            misses = self._misses.setdefault(name, [])
            if module not in misses:
                misses.append(module)
            return None
        self.modules[module].bound[name] = found[0]
        return found[1]

    def child_init(self, rank: int) -> None:
        """``child_init`` of every module in load order; an exception stops the start."""
        for name in self.modules:
            try:
                self._call(name, "child_init", {"rank": rank})
            except ConfigError:
                raise
            except Exception as exc:
                raise ConfigError(
                    f"{name}: child_init failed: {type(exc).__name__}: {exc}",
                    *self.modules[name].place,
                ) from exc

    def destroy(self) -> None:
        """``mod_destroy`` in reverse load order; all run, errors are logged."""
        while self._initialised:
            name = self._initialised.pop()
            try:
                self._call(name, "mod_destroy", {})
            except Exception:
                log.exception("mod_destroy of %s failed", name)

    def _call(self, name: str, hook: str, arguments: dict[str, object]) -> None:
        """Call the implementation of one module, if it has one."""
        caller: pluggy.HookCaller = getattr(self._pm.hook, hook)
        for impl in caller.get_hookimpls():
            if impl.plugin_name == name:
                impl.function(*(arguments[argument] for argument in impl.argnames))

    def pseudo_variables(self) -> dict[str, PseudoVariable]:
        """All pseudo-variables by name; raises ``ConfigError`` if two modules claim one."""
        found: dict[str, tuple[PseudoVariable, str]] = {}
        for loaded in self.modules.values():
            for pv in loaded.exports.pseudo_variables:
                if pv.name in found:
                    raise ConfigError(
                        f"${pv.name} comes with {found[pv.name][1]} already", *loaded.place
                    )
                found[pv.name] = (pv, loaded.name)
        return {name: pv for name, (pv, _) in found.items()}

    def commands(self) -> dict[str, Command]:
        """All commands by name; raises ``ConfigError`` if two modules claim one."""
        found: dict[str, tuple[Command, str]] = {}
        for loaded in self.modules.values():
            for command in loaded.exports.commands:
                if command.name in found:
                    raise ConfigError(
                        f"command {command.name} comes with {found[command.name][1]} already",
                        *loaded.place,
                    )
                found[command.name] = (command, loaded.name)
        return {name: command for name, (command, _) in found.items()}


def _table_problem(name: str, instance: object) -> str | None:
    """What is wrong with the export table of a new module, if anything."""
    exports = getattr(instance, "exports", None)
    if not isinstance(exports, ModuleExports):
        return "it has no exports table (sipedge.module.ModuleExports)"
    if exports.name != name:
        return f"its exports table says {exports.name!r}"
    for table in (exports.functions, exports.params, exports.commands):
        names = [row.name for row in table]
        if len(set(names)) != len(names):
            return f"a name stands twice in its exports table: {', '.join(names)}"
    params = getattr(instance, "params", None)
    missing = [p.name for p in exports.params if not hasattr(params, p.name)]
    if missing:
        return f"params has no default for {', '.join(missing)}"
    return None


def _checked(loaded: Loaded, name: str, value: object, place: Place) -> Param:
    """The parameter of that name, if the value fits it."""
    params = {param.name: param for param in loaded.exports.params}
    param = params.get(name)
    if param is None:
        raise ConfigError(
            f"{loaded.name} has no parameter {name!r}{_meant(name, params)}; "
            f"it has: {', '.join(params) or 'none'}",
            *place,
        )
    problem = value_problem(param, value)
    if problem:
        raise ConfigError(f"{loaded.name}: {name}: {problem}", *place)
    return param


def value_problem(param: Param, value: object) -> str | None:
    """What is wrong with a value for ``param``, if anything; types are strict, a bool is no int."""
    types = param.type if isinstance(param.type, tuple) else (param.type,)
    if type(value) not in types:
        wanted = " or ".join(t.__name__ for t in types)
        about = f"; {param.doc}" if param.doc else ""
        return f"wants {wanted}, not {type(value).__name__} ({_shown(value)}){about}"
    if isinstance(value, int | float):
        if param.low is not None and value < param.low:
            return f"{value} is too small; the least is {param.low}"
        if param.high is not None and value > param.high:
            return f"{value} is too big; the most is {param.high}"
    return None


def _shown(value: object) -> str:
    """A value for an error message; long ones and secrets of bytes are not printed."""
    if isinstance(value, bytes | bytearray | tuple):
        return f"{len(value)} long"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
