"""The compiled build: it is what is tested when it should be, and it does what the pure one does.

``make compiled`` makes it, ``make test-compiled`` runs all tests on it.  Here the two are compared:
the same messages, the same octets out.
"""

from __future__ import annotations

import ast
import importlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import messages
from tests import outcomes
from tests.builds import COMPILED
from tests.peers import need

ROOT = Path(__file__).resolve().parent.parent
COMPILED_PYTHON = ROOT / ".venv-compiled/bin/python"
C_MODULES = ("sipedge.sip._usual", "sipedge.net._mmsg")

SEEDS = [path.read_bytes() for path in sorted((ROOT / "tests/rfc").glob("torture*/*.dat"))]
_REGISTER = messages.register(7, 9)
_INVITE = messages.invite(3, 4, b"<sip:127.0.0.1:5060;lr>")
USUAL = [
    _REGISTER,
    _INVITE,
    messages.answer(_REGISTER, b"200 OK", b"Contact: <sip:a@h>;expires=60\r\n"),
    messages.answer(_INVITE, b"180 Ringing"),
]
PIECES = [
    b"", b"\r\n", b'"', b";", b",", b"<", b">", b":", b"\0", b"%", b" ", b"=", b"\r", b"\n", b"\t",
    b";TAG=1", b";tag=x", b"@", b"[::1]", b":5060", b":60000", b"*", b", ", b";branch=z9hG4bKabc",
    b"Via: ", b"\r\nv: ", b"\r\nExpires: 3", b"Record-Route: <sip:a>", b"\xff", b"\x7f", b"\\",
    b'"a" <sip:x>', b"999999999", b"1234567890",
]  # fmt: skip


def compiled_modules() -> list[str]:
    """As setup.py has them."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (patterns,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and "sipedge/core.py" in str(node.value)
    )
    paths = [path for pattern in str(patterns).split() for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT).as_posix()[:-3].replace("/", ".") for path in paths]


@pytest.mark.parametrize("name", compiled_modules())
def test_the_build_that_is_tested(name: str) -> None:
    """A test of the compiled build must not find the sources of the tree."""
    file = Path(str(importlib.import_module(name).__file__))
    assert file.is_relative_to(ROOT / ".venv-compiled") or not COMPILED
    assert (file.suffix == ".so") == COMPILED, file


def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a source file of ours, {} for modules that are none."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _imported_classes(module: str) -> dict[str, tuple[str, ast.ClassDef]]:
    """Classes of ours that a source file imports: module and definition."""
    found: dict[str, tuple[str, ast.ClassDef]] = {}
    for node in ast.walk(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            classes = _classes(node.module)
            found |= {
                name.asname or name.name: (node.module, classes[name.name])
                for name in node.names
                if name.name in classes
            }
    return found


SOURCES = sorted(
    path.relative_to(ROOT).as_posix()[:-3].replace("/", ".")
    for package in ("sipedge", *(path.name for path in ROOT.glob("*_plugin")))
    for path in (ROOT / package).rglob("*.py")
    if "templates" not in path.parts and path.name != "__init__.py"
)


@pytest.mark.parametrize("module", SOURCES)
def test_what_is_compiled_inherits_from_what_is_compiled(module: str) -> None:
    """And the other way round, if it does not say that it may be inherited from.

    mypyc finds the first only as a failure of its own, and the second shows when it runs.
    """
    compiled = compiled_modules()
    imported = _imported_classes(module)
    for name, cls in _classes(module).items():
        for base in cls.bases:
            origin, definition = imported.get(ast.unparse(base), (module, cls))
            if (origin in compiled) == (module in compiled) or origin == "sipedge.errors":
                continue  # exceptions are no classes of the compiled kind
            allowed = "allow_interpreted_subclasses=True" in " ".join(
                map(ast.unparse, definition.decorator_list)
            )
            assert module not in compiled, f"{module}.{name}: put {origin} into setup.py"
            assert allowed, f"{module}.{name}: put {module} into setup.py"


def test_programs_that_tests_start_are_of_that_build_too() -> None:
    show = "import sipedge.core; print(sipedge.core.__file__)"
    for arguments in (["-c", show], ["-m", "sipedge", "--version"]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        if arguments[0] == "-c":
            assert done.stdout.strip().endswith(".so") == COMPILED


@pytest.mark.skipif(not COMPILED, reason="the pure build has no modules in C")
@pytest.mark.parametrize("name", C_MODULES)
def test_modules_in_c_are_there(name: str) -> None:
    importlib.import_module(name)


def _compiled() -> str:
    """The interpreter of the compiled build, if that was made from the sources as they are."""
    need("compiled")
    if not COMPILED:
        made = (ROOT / ".venv-compiled/.compiled").stat().st_mtime
        sources = [
            ROOT / "setup.py",
            *ROOT.glob("sipedge/**/*.[pc]*"),
            *ROOT.glob("*_plugin/**/*.py"),
        ]
        if any(path.is_file() and path.suffix in (".py", ".c") and path.stat().st_mtime > made
               for path in sources):  # fmt: skip
            text = "the compiled build is older than the sources: make compiled"
            if os.environ.get("CI") == "true":
                pytest.fail(text, pytrace=False)
            pytest.skip(text)
    return str(COMPILED_PYTHON)


def _inputs() -> list[bytes]:
    """The messages of the RFCs and usual ones, as they are and with a few octets changed."""
    dice = random.Random(3261)
    found = [*SEEDS, *USUAL]
    for _ in range(600):
        data = bytearray(dice.choice(SEEDS if dice.random() < 0.3 else USUAL))
        for _ in range(dice.randint(1, 2)):
            at = dice.randint(0, len(data))
            piece = dice.choice(PIECES) if dice.random() < 0.8 else bytes([dice.randrange(256)])
            data[at : at + dice.choice((0, 0, 1, 2, 8))] = piece
        found.append(bytes(data))
    return found


def _outcomes(python: str, inputs: list[bytes], **environment: str) -> list[str]:
    """The lines that ``tests.outcomes`` prints in one build."""
    done = subprocess.run(
        [python, "-m", outcomes.__name__],
        input="".join(data.hex() + "\n" for data in inputs),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_both_builds_read_and_send_the_same() -> None:
    python, inputs = _compiled(), _inputs()
    compiled = _outcomes(python, inputs, PYTHONSAFEPATH="1")
    pure = _outcomes(sys.executable, inputs, PYTHONSAFEPATH="", PYTHONPATH=str(ROOT))
    assert len(compiled) == len(pure) == len(inputs)
    for data, one, other in zip(inputs, compiled, pure, strict=True):
        assert one == other, data
    # many of them get through, so that more is compared than refusals
    assert sum("z9hG4bKsEmagic" in line for line in pure) > 120
