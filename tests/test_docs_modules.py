"""docs/modules: the manual and the export tables say the same.

Strategy: each page has the shape of Kamailio's module manuals, with facts at fixed places
(headings, ``Default:``, ``Range:``, ``Routes:``).  They are read back and compared with the tables,
both ways: everything that exists is documented, nothing is documented that does not exist.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from sipedge.ksr import Ksr
from sipedge.loader import value_problem
from sipedge.module import ANY_ROUTE, ROUTE_NAME, Function, ModuleExports, Param

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CHAPTERS = ["Overview", "Dependencies", "Parameters", "Functions", "Pseudo-variables", "Examples"]
NAMES = sorted(
    point.name
    for point in entry_points(group="sipedge.modules")
    if point.dist is not None and point.dist.name == "sipedge"
)
MANUALS = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]


@cache
def module(name: str) -> Any:
    (point,) = entry_points(group="sipedge.modules", name=name)
    return point.load()()


def exports(name: str) -> ModuleExports:
    table: ModuleExports = module(name).exports
    return table


@cache
def page(name: str) -> str:
    return (DOCS / "modules" / f"{name}.md").read_text(encoding="utf-8")


def sections(text: str, level: str) -> dict[str, str]:
    """Heading -> text below it, for headings of one level (``"## "``), in order."""
    parts = re.split(rf"^{level}(.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(name: str, chapter: str) -> dict[str, str]:
    return sections(sections(page(name), "## ")[chapter], "### ")


def one_line(text: str) -> str:
    return " ".join(text.split())


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_every_module_has_a_page_and_every_page_a_module() -> None:
    assert sorted(path.stem for path in (DOCS / "modules").glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_chapters(name: str) -> None:
    assert page(name).startswith(f"# {name}\n")
    assert list(sections(page(name), "## "))[: len(CHAPTERS)] == CHAPTERS


# parameters


def types(param: Param) -> str:
    names = [
        kind.__name__ for kind in ([param.type] if isinstance(param.type, type) else param.type)
    ]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    params = exports(name).params
    assert list(entries(name, "Parameters")) == [f"{p.name} ({types(p)})" for p in params]


ALL_PARAMS = [(name, param.name) for name in NAMES for param in exports(name).params]


@pytest.mark.parametrize(("name", "param_name"), ALL_PARAMS)
def test_default_range_and_example(name: str, param_name: str) -> None:
    param = next(p for p in exports(name).params if p.name == param_name)
    text = entries(name, "Parameters")[f"{param.name} ({types(param)})"]
    default = re.search(r"^Default: `(.+?)`", text, re.MULTILINE)
    assert default, "there is no line 'Default: `...`'"
    assert ast.literal_eval(default[1]) == getattr(module(name).params, param.name)
    wanted = None
    if param.low is not None or param.high is not None:
        low, high = ("" if x is None else str(x) for x in (param.low, param.high))
        wanted = f"{low}..{high}"
    stated = re.search(r"Range: (-?\d*\.\.\d*)", text)
    assert (stated and stated[1]) == wanted
    values = [value for called, value in modparams(text) if called == (name, param.name)]
    assert values, f"there is no example with modparam({name!r}, {param.name!r}, ...)"
    for value in values:
        try:
            literal = ast.literal_eval(value)
        except ValueError:
            continue  # keyfile(...)
        assert value_problem(param, literal) is None


def modparams(text: str) -> list[tuple[tuple[str, str], ast.expr]]:
    """All ``modparam`` calls in the code blocks of a text: (module, parameter), value."""
    found = []
    for block in code_blocks(text):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "modparam":
                module_name, param = (ast.literal_eval(arg) for arg in node.args[:2])
                found.append(((module_name, param), node.args[2]))
    return found


# functions


def signature(function: Function) -> str:
    """``name(msg, a, b=1)``, without types."""
    full = inspect.signature(function.call)
    bare = [p.replace(annotation=p.empty) for p in full.parameters.values()]
    return function.name + str(full.replace(parameters=bare, return_annotation=full.empty))


@pytest.mark.parametrize("name", NAMES)
def test_functions(name: str) -> None:
    assert list(entries(name, "Functions")) == [signature(f) for f in exports(name).functions]


ALL_FUNCTIONS = [(name, f.name) for name in NAMES for f in exports(name).functions]


@pytest.mark.parametrize(("name", "function_name"), ALL_FUNCTIONS)
def test_routes_and_results(name: str, function_name: str) -> None:
    function = next(f for f in exports(name).functions if f.name == function_name)
    text = entries(name, "Functions")[signature(function)]
    routes = ", ".join(route for bit, route in ROUTE_NAME.items() if function.routes & bit)
    wanted = "any" if function.routes == ANY_ROUTE else routes
    stated = re.search(r"^Routes: ([a-z_, ]+)\.", text, re.MULTILINE)
    assert stated, "there is no line 'Routes: ...'"
    assert stated[1] == wanted
    assert re.search(r"\bReturns\b", text), "it does not say what it returns"


@pytest.mark.parametrize(("name", "function_name"), ALL_FUNCTIONS)
def test_functions_are_methods_of_their_name(name: str, function_name: str) -> None:
    """``sipedge/script.pyi`` gives a module's class to editors as the type of its namespace."""
    function = next(f for f in exports(name).functions if f.name == function_name)
    method = getattr(type(module(name)), function_name, None)
    assert method is not None
    assert function.call.__func__ is method  # type: ignore[attr-defined]
    assert inspect.getdoc(method)


# pseudo-variables


@pytest.mark.parametrize("name", NAMES)
def test_pseudo_variables(name: str) -> None:
    """In headings or in the first column of tables: ``$name`` or ``$name(key)``."""
    chapter = sections(page(name), "## ")["Pseudo-variables"]
    stated = re.findall(r"^(?:### |\| )`?\$(\w+)(?:\([^)]*\))?", chapter, re.MULTILINE)
    assert list(dict.fromkeys(stated)) == [v.name for v in exports(name).pseudo_variables]


# whatever the manual shows as code


@pytest.mark.parametrize("path", MANUALS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_in_the_manual_names_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    known = {(n, p.name) for n in NAMES for p in exports(n).params}
    for called, _ in modparams(text):
        assert called in known or called[0] == "hello", f"modparam{called}"
    functions = {(n, f.name) for n in NAMES for f in exports(n).functions}
    for block in code_blocks(text):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("ksr."):
                parts = ast.unparse(node).split(".")
                if parts[1] in NAMES and len(parts) > 2:
                    assert (parts[1], parts[2]) in functions, ast.unparse(node)
                elif parts[1] not in NAMES and parts[1] != "hello":
                    assert callable(getattr(Ksr, parts[1], None)), ast.unparse(node)
