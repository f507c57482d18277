"""The house stays as it was laid out: arrows, size of files, tests for everything, nothing private.

Strategy: source files are read with ``ast``; what they import is compared with what their place
allows.  See the README for the eight stops, which are these arrows seen from a datagram.
"""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ("outbound_plugin", "path_plugin", "rr_plugin", "registrar_plugin")
MAX_LINES = 450

#: packages of the host, lowest first: each may import itself and those before it
ARROWS = ("sipedge.sip", "sipedge.tm", "sipedge.core", "sipedge.net")
#: what the lower layers may always import: values without behaviour
VALUES = ("sipedge.errors", "sipedge.flow", "sipedge.forward")
#: clocks, sockets and loops belong to the rim
RIM = ("sipedge.net", "sipedge.cli", "sipedge.cli_control", "sipedge.__main__", "sipedge.demo")
IO = {"asyncio", "select", "selectors", "socket", "ssl", "time", "threading", "uvloop"}
#: what talks to a database may wait for it; nobody else may
STORES = ("registrar_plugin.store", "sipedge.modules.auth.postgres")

SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("sipedge", *PLUGINS)
    for path in (ROOT / package).rglob("*.py")
    if "templates" not in path.parts
)


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@cache
def imports(path: str, at_runtime: bool = True) -> frozenset[str]:
    """The absolute names of modules that a file imports; without those for type checkers only."""
    found: set[str] = set()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if at_runtime and id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            found.add(module)
            for name in node.names:
                if (ROOT / f"{module.replace('.', '/')}/{name.name}.py").exists():
                    found.add(f"{module}.{name.name}")
    return frozenset(found)


def is_package_or_values(name: str) -> bool:
    return name in ("sipedge", "sipedge.sip", "sipedge.tm", "sipedge.net") or within(name, *VALUES)


def layer_of(path: str) -> int:
    """Index in ``ARROWS``; -1 for what is no layer of the stack."""
    module = module_of(path)
    return next((i for i, name in enumerate(ARROWS) if within(module, name)), -1)


@pytest.mark.parametrize("path", [path for path in SOURCES if layer_of(path) >= 0])
def test_arrows_of_the_host(path: str) -> None:
    """``sip <- tm <- core <- net``; ``sip`` knows nothing of the edge at all."""
    layer = layer_of(path)
    allowed = ARROWS[: layer + 1]
    for name in imports(path):
        if not within(name, "sipedge") or is_package_or_values(name):
            continue
        is_stack = within(name, *ARROWS)
        assert within(name, *allowed) or (layer >= 2 and not is_stack), f"{path} imports {name}"


def test_sip_knows_only_itself() -> None:
    for path in SOURCES:
        if within(module_of(path), "sipedge.sip"):
            foreign = {
                name
                for name in imports(path)
                if within(name, "sipedge", *PLUGINS)
                and not within(name, "sipedge.sip", "sipedge.errors", "sipedge.flow")
                and name != "sipedge"
            }
            assert not foreign, f"{path} imports {foreign}"


INSIDE = [path for path in SOURCES if not within(module_of(path), *RIM)]


@pytest.mark.parametrize("path", [p for p in INSIDE if not within(module_of(p), *STORES)])
def test_io_and_clocks_stay_at_the_rim(path: str) -> None:
    used = {name.partition(".")[0] for name in imports(path)} & IO
    assert not used, f"{path} imports {used}: time is an argument, bytes go through Core"


@pytest.mark.parametrize("path", INSIDE)
def test_only_the_rim_imports_net(path: str) -> None:
    assert not [name for name in imports(path, False) if within(name, "sipedge.net")]


@pytest.mark.parametrize("path", SOURCES)
def test_modules_meet_through_their_api(path: str) -> None:
    module = module_of(path)
    own = next((plugin for plugin in PLUGINS if within(module, plugin)), None)
    if own is None:
        for name in imports(path):
            assert not within(name, *PLUGINS), f"{path}: the host knows nothing of {name}"
        return
    for name in imports(path, False):
        other = next((plugin for plugin in PLUGINS if within(name, plugin)), own)
        # "from rr_plugin import api" also names the package
        if other != own and name != other:
            assert within(name, f"{other}.api"), f"{path} imports {name}"


def test_small_modules_do_not_import_each_other() -> None:
    names = {f"sipedge.modules.{name}" for name in host_modules()}
    for path in SOURCES:
        module = module_of(path)
        if module in names:
            assert not (imports(path, False) & names) - {module}, path


def host_modules() -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["sipedge.modules"].split("\n")
    return [line.split("=")[0].strip() for line in lines if "sipedge.modules" in line]


@pytest.mark.parametrize("path", SOURCES)
def test_files_are_read_in_one_sitting(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{path} has {lines} lines"


@pytest.mark.parametrize("path", [path for path in SOURCES if (ROOT / path).stat().st_size])
def test_each_file_says_what_it_is(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"


@cache
def imported_by_tests() -> frozenset[str]:
    """All modules of ours that some test imports."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for name in imports(path.relative_to(ROOT).as_posix(), False):
            found.add(name)
    return frozenset(found)


#: nothing in them runs: package files, the call of main(), a Protocol
NO_TEST = ("__init__.py", "__main__.py", "sipedge/tm/host.py")


@pytest.mark.parametrize("path", [path for path in SOURCES if not path.endswith(NO_TEST)])
def test_each_file_has_a_test(path: str) -> None:
    """A mirrored test file (``sipedge/sip/via.py``: ``tests/sip/test_via.py``), or a test that
    imports it."""
    folder, _, name = path.removeprefix("sipedge/").rpartition("/")
    mirrored = ROOT / "tests" / folder / f"test_{name}"
    assert mirrored.exists() or module_of(path) in imported_by_tests(), (
        f"no test imports {module_of(path)} and there is no {mirrored.relative_to(ROOT)}"
    )


def test_packages_are_listed() -> None:
    """setup.cfg names every package, so that an installed sipedge is a whole one."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    present = {module_of(path) for path in SOURCES if path.endswith("__init__.py")}
    assert present <= listed


def test_test_folders_are_packages() -> None:
    """Two files called test_plugin.py would shadow each other otherwise."""
    for folder in {path.parent for path in (ROOT / "tests").rglob("test_*.py")}:
        assert (folder / "__init__.py").exists(), folder


def tracked() -> list[Path]:
    """What belongs to the repository: tracked files, and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name.decode() for name in listed.split(b"\0") if name]


def test_no_path_of_somebody_s_machine() -> None:
    """The repository stands alone: no absolute path of a developer's directory."""
    private = re.compile(rb"(?<![\w./])/(?:work|home|root|Users)/\w+")
    for path in tracked():
        if path.is_file() and path.suffix not in (".dat", ".png"):
            found = private.search(path.read_bytes())
            assert found is None, f"{path.relative_to(ROOT)}: {found[0]!r}"
