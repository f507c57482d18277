"""The loader by itself: tiny modules, no configuration file, no core."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from sipedge.errors import ConfigError
from sipedge.flow import FlowTable
from sipedge.hookspecs import hookimpl
from sipedge.loader import Loader
from sipedge.module import Context, Function, ModuleExports, Param, PseudoVariable

FILE = "edge.py"
Factory = Callable[[], Any]


class Params:
    def __init__(self) -> None:
        self.size = 5
        self.label = "x"
        self.key: Any = None
        self.on = False


class Tiny:
    """A module with parameters that writes down when it is called."""

    def __init__(self, name: str = "tiny", journal: list[str] | None = None) -> None:
        self.params = Params()
        self.journal = journal if journal is not None else []
        self.exports = ModuleExports(
            name,
            functions=(Function("size", lambda msg: self.params.size),),
            params=(
                Param("size", int, low=0, high=31),
                Param("label", str),
                Param("key", (bytes, tuple)),
                Param("on", bool),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self.journal.append(f"init {ctx.module}")

    @hookimpl
    def child_init(self, rank: int) -> None:
        self.journal.append(f"child {self.exports.name} {rank}")

    @hookimpl
    def mod_destroy(self) -> None:
        self.journal.append(f"destroy {self.exports.name}")


class Giver(Tiny):
    """Exports ``bind_it``."""

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        ctx.export("bind_it", self)


class Taker(Tiny):
    """Wants ``bind_it``."""

    got: object = "not asked"

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self.got = ctx.find_export("bind_it")


def loader_of(**modules: Any) -> Loader:
    """A loader that has these instances loaded, one a line from line 1 on."""
    loader = Loader({name: (lambda it=it: it) for name, it in modules.items()})
    for line, name in enumerate(modules, 1):
        loader.loadmodule(name, (FILE, line))
    return loader


def init(loader: Loader) -> None:
    core: Any = SimpleNamespace(flows=FlowTable())
    config: Any = SimpleNamespace(file=FILE)
    loader.register()
    loader.init(core, config)


def refused(call: Callable[[], object], line: int | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    if line is not None:
        assert (caught.value.file, caught.value.line) == (FILE, line)
    return caught.value.message


# loadmodule


def test_unknown_module_lists_what_is_installed() -> None:
    message = refused(lambda: Loader().loadmodule("outbund", (FILE, 7)), 7)
    assert "'outbund'" in message
    assert "did you mean 'outbound'" in message
    assert "registrar" in message.partition("installed:")[2]


def test_every_module_of_ours_has_an_entry_point_that_names_it() -> None:
    ours = {name for name, points in Loader().installed().items() if points[0].dist}
    assert {"outbound", "path", "rr", "registrar", "tm", "sl", "maxfwd", "textops"} <= ours


def test_a_module_cannot_be_loaded_twice() -> None:
    loader = loader_of(tiny=Tiny())
    assert "already loaded in line 1" in refused(lambda: loader.loadmodule("tiny", (FILE, 9)), 9)


@pytest.mark.parametrize("name", [None, 5, b"tiny"])
def test_a_name_is_a_text(name: Any) -> None:
    refused(lambda: Loader().loadmodule(name, (FILE, 2)), 2)


def test_two_packages_with_a_module_of_one_name_are_refused() -> None:
    loader = Loader()
    loader.installed()["both"] = [
        EntryPoint("both", "a:A", "sipedge.modules"),
        EntryPoint("both", "b:B", "sipedge.modules"),
    ]
    assert "more than one package" in refused(lambda: loader.loadmodule("both", (FILE, 2)), 2)


def test_a_module_that_cannot_be_imported_is_the_operators_error() -> None:
    loader = Loader()
    loader.installed()["gone"] = [EntryPoint("gone", "no_such_package:X", "sipedge.modules")]
    message = refused(lambda: loader.loadmodule("gone", (FILE, 3)), 3)
    assert "no_such_package" in message


def _raising() -> Any:
    raise OSError("disk on fire")


def _wrong_name() -> Any:
    return Tiny("other")


def _no_default() -> Any:
    module = Tiny()
    del module.params.size
    return module


def _twice() -> Any:
    module = Tiny()
    module.exports = ModuleExports("tiny", params=(Param("size", int), Param("size", int)))
    return module


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (_raising, "disk on fire"),
        (object, "no exports table"),
        (_wrong_name, "'other'"),
        (_no_default, "no default for size"),
        (_twice, "stands twice"),
    ],
)
def test_a_broken_module_is_refused_with_the_line(factory: Factory, words: str) -> None:
    loader = Loader({"tiny": factory})
    assert words in refused(lambda: loader.loadmodule("tiny", (FILE, 4)), 4)


# modparam


def test_modparam_sets_the_attribute_and_the_last_value_wins() -> None:
    tiny = Tiny()
    loader = loader_of(tiny=tiny)
    loader.modparam("tiny", "size", 7, (FILE, 2))
    assert tiny.params.size == 7
    loader.modparam("tiny", "size", 9, (FILE, 3))
    assert tiny.params.size == 9
    assert loader.modules["tiny"].params_at["size"] == (FILE, 3)


def test_modparam_before_loadmodule_names_the_line_to_write() -> None:
    loader = Loader({"tiny": Tiny})
    message = refused(lambda: loader.modparam("tiny", "size", 7, (FILE, 2)), 2)
    assert "loadmodule('tiny') above this line" in message


@pytest.mark.parametrize("pattern", ["a|b", "A|B", "[ab]", ".*"])
def test_modparam_takes_an_anchored_regular_expression(pattern: str) -> None:
    a, b = Tiny("a"), Tiny("b")
    loader_of(a=a, b=b).modparam(pattern, "size", 7, (FILE, 3))
    assert (a.params.size, b.params.size) == (7, 7)


def test_the_pattern_is_anchored_at_both_ends() -> None:
    ab = Tiny("ab")
    loader = loader_of(ab=ab)
    for pattern in ("a", "b", "x|a", "a|x"):
        refused(lambda pattern=pattern: loader.modparam(pattern, "size", 7, (FILE, 3)), 3)
    assert ab.params.size == 5


def test_nothing_is_set_if_one_of_the_matches_has_no_such_parameter() -> None:
    a, b = Tiny("a"), Tiny("b")
    b.exports = ModuleExports("b")
    loader = loader_of(a=a, b=b)
    assert "b has no parameter 'size'" in refused(
        lambda: loader.modparam("a|b", "size", 7, (FILE, 3)), 3
    )
    assert a.params.size == 5


def test_a_bad_pattern_is_refused() -> None:
    loader = loader_of(tiny=Tiny())
    assert "regular expression" in refused(lambda: loader.modparam("(", "size", 7, (FILE, 2)), 2)


def test_an_unknown_parameter_lists_those_that_exist() -> None:
    loader = loader_of(tiny=Tiny())
    message = refused(lambda: loader.modparam("tiny", "sise", 7, (FILE, 2)), 2)
    assert "did you mean 'size'" in message
    assert "size, label, key, on" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "7"),
        ("size", True),
        ("size", 7.0),
        ("size", None),
        ("size", -1),
        ("size", 32),
        ("label", 7),
        ("label", b"x"),
        ("key", "secret of twenty oct"),
        ("key", 5),
        ("on", 1),
    ],
)
def test_types_and_ranges_are_strict(name: str, value: object) -> None:
    tiny = Tiny()
    loader = loader_of(tiny=tiny)
    before = getattr(tiny.params, name)
    assert f"tiny: {name}: " in refused(lambda: loader.modparam("tiny", name, value, (FILE, 2)), 2)
    assert getattr(tiny.params, name) is before


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 0), ("size", 31), ("label", ""), ("key", b"k"), ("key", (b"k",)), ("on", True)],
)
def test_values_that_fit_are_taken(name: str, value: object) -> None:
    tiny = Tiny()
    loader_of(tiny=tiny).modparam("tiny", name, value, (FILE, 2))
    assert getattr(tiny.params, name) is value


def test_an_error_about_a_key_does_not_print_the_key() -> None:
    tiny = Tiny()
    tiny.exports = ModuleExports("tiny", params=(Param("key", tuple),))
    loader = loader_of(tiny=tiny)
    message = refused(lambda: loader.modparam("tiny", "key", b"topsecrettopsecretab", (FILE, 2)))
    assert "topsecret" not in message


# mod_init, child_init, mod_destroy


def test_hooks_run_in_load_order_and_destroy_in_reverse() -> None:
    journal: list[str] = []
    loader = loader_of(**{name: Tiny(name, journal) for name in ("b", "a", "c")})
    init(loader)
    loader.child_init(2)
    loader.destroy()
    assert journal == [
        *("init b", "init a", "init c"),
        *("child b 2", "child a 2", "child c 2"),
        *("destroy c", "destroy a", "destroy b"),
    ]


class Bad(Tiny):
    @hookimpl
    def mod_destroy(self) -> None:
        raise RuntimeError("no")


def test_all_mod_destroy_run_whatever_one_raises(caplog: pytest.LogCaptureFixture) -> None:
    journal: list[str] = []
    loader = loader_of(a=Tiny("a", journal), bad=Bad("bad", journal), c=Tiny("c", journal))
    init(loader)
    loader.destroy()
    assert journal[-2:] == ["destroy c", "destroy a"]
    assert "mod_destroy of bad failed" in caplog.text
    loader.destroy()
    assert journal.count("destroy a") == 1


class Refusing(Tiny):
    error: Exception = ConfigError("no key")

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        raise self.error


def test_mod_init_refuses_to_start_and_those_before_are_destroyed() -> None:
    journal: list[str] = []
    bad = Refusing("bad", journal)
    loader = loader_of(a=Tiny("a", journal), bad=bad, c=Tiny("c", journal))
    assert refused(lambda: init(loader), 2) == "no key"
    assert journal == ["init a", "destroy a"]


def test_any_exception_of_mod_init_is_a_config_error_at_its_loadmodule_line() -> None:
    bad = Refusing("bad")
    bad.error = ZeroDivisionError("boom")
    loader = loader_of(a=Tiny("a"), bad=bad)
    assert "ZeroDivisionError: boom" in refused(lambda: init(loader), 2)


def test_any_exception_of_child_init_is_a_config_error() -> None:
    class Late(Tiny):
        @hookimpl
        def child_init(self, rank: int) -> None:
            raise ZeroDivisionError("boom")

    loader = loader_of(a=Tiny("a"), late=Late("late"))
    init(loader)
    assert "boom" in refused(lambda: loader.child_init(0), 2)


def test_param_error_points_at_the_modparam_line_or_the_loadmodule_line() -> None:
    class Picky(Tiny):
        @hookimpl
        def mod_init(self, ctx: Context) -> None:
            raise ctx.param_error("size", "must be odd")

    loader = loader_of(a=Tiny("a"), picky=Picky("picky"))
    assert refused(lambda: init(loader), 2) == "picky: size: must be odd"
    loader = loader_of(a=Tiny("a"), picky=Picky("picky"))
    loader.modparam("picky", "size", 4, (FILE, 17))
    refused(lambda: init(loader), 17)


# binding order


def test_bound_when_loaded_before(caplog: pytest.LogCaptureFixture) -> None:
    giver, taker = Giver("giver"), Taker("taker")
    loader = loader_of(giver=giver, taker=taker)
    init(loader)
    assert taker.got is giver
    assert loader.modules["taker"].bound == {"bind_it": "giver"}
    assert loader.warnings == []
    assert not caplog.records


def test_not_bound_when_loaded_after_and_the_line_to_move_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    giver, taker = Giver("giver"), Taker("taker")
    loader = loader_of(taker=taker, giver=giver)
    init(loader)
    assert taker.got is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    assert text.startswith(f"{FILE}:1: ")
    assert "move loadmodule('giver') (line 2) above loadmodule('taker') (line 1)" in text
    assert loader.warnings == [text]


def test_not_bound_when_absent(caplog: pytest.LogCaptureFixture) -> None:
    taker = Taker("taker")
    loader = loader_of(taker=taker)
    init(loader)
    assert taker.got is None
    assert loader.warnings == []
    assert not caplog.records


def test_one_name_is_exported_once() -> None:
    loader = loader_of(one=Giver("one"), two=Giver("two"))
    assert "already exported by one" in refused(lambda: init(loader), 2)


# hot hooks


class Hot(Tiny):
    answer: bool | None = None

    @hookimpl
    def request_in(self, msg: Any, now: float) -> bool | None:
        self.journal.append(f"{self.exports.name} {msg} {now}")
        return self.answer


def test_a_hot_hook_is_a_tuple_of_bound_methods_in_load_order() -> None:
    journal: list[str] = []
    loader = loader_of(b=Hot("b", journal), tiny=Tiny(), a=Hot("a", journal))
    init(loader)
    calls = loader.hot("request_in")
    assert isinstance(calls, tuple)
    for call in calls:
        call("msg", 1.5)
    assert journal[2:] == ["b msg 1.5", "a msg 1.5"]
    assert loader.hot("reply_in") == ()


class Fewer(Tiny):
    @hookimpl
    def request_in(self, msg: Any) -> bool | None:
        return None


class Swapped(Tiny):
    @hookimpl
    def request_in(self, now: float, msg: Any) -> bool | None:
        return None


class Defaulted(Tiny):
    @hookimpl
    def request_in(self, msg: Any, now: float = 0.0) -> bool | None:
        return None


@pytest.mark.parametrize("kind", [Fewer, Swapped, Defaulted])
def test_a_hot_hook_with_other_arguments_is_refused(kind: type[Tiny]) -> None:
    loader = loader_of(a=Tiny("a"), bad=kind("bad"))
    loader.register()
    assert "exactly (msg, now)" in refused(lambda: loader.hot("request_in"), 2)


class MoreArguments(Tiny):
    @hookimpl
    def request_in(self, msg: Any, now: float, more: int) -> bool | None:
        return None


class Misspelt(Tiny):
    @hookimpl
    def requets_in(self, msg: Any, now: float) -> bool | None:
        return None


class First(Tiny):
    @hookimpl(tryfirst=True)
    def request_in(self, msg: Any, now: float) -> bool | None:
        return None


@pytest.mark.parametrize(
    ("kind", "words"),
    [(MoreArguments, "more"), (Misspelt, "requets_in"), (First, "order of its own")],
)
def test_a_hook_that_breaks_the_contract_is_refused(kind: type[Tiny], words: str) -> None:
    loader = loader_of(a=Tiny("a"), bad=kind("bad"))
    assert words in refused(loader.register, 2)


# pseudo-variables


def test_pseudo_variables_are_collected_and_unique() -> None:
    def value(msg: Any, key: str | None) -> int:
        return 5

    one, two = Tiny("one"), Tiny("two")
    one.exports = ModuleExports("one", pseudo_variables=(PseudoVariable("five", value),))
    loader = loader_of(one=one, two=two)
    assert loader.pseudo_variables()["five"].get(None, None) == 5
    two.exports = ModuleExports("two", pseudo_variables=(PseudoVariable("five", value),))
    assert "comes with one" in refused(loader_of(one=one, two=two).pseudo_variables, 2)


def test_two_edges_share_nothing() -> None:
    a, b = Taker("m"), Giver("m")
    first, second = loader_of(m=a), loader_of(m=b)
    init(first)
    init(second)
    assert a.got is None
    assert first.warnings == second.warnings == []
