"""The chapters of the manual beside the modules: what they list exists, and nothing is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sipedge.cli import app
from sipedge.config import Builder, load_source
from sipedge.core import Core
from sipedge.hookspecs import ModuleSpecs
from sipedge.ksr import ROUTES, Ksr
from sipedge.loader import Loader
from sipedge.settings import SETTINGS
from sipedge.sip.message import SipMessage
from tests.test_docs_modules import code_blocks, sections

ROOT = Path(__file__).resolve().parent.parent


def text(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def rows(chapter: str) -> list[list[str]]:
    """The rows of the tables in a text, cells stripped, without their heads."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in chapter.splitlines()
        if line.startswith("| ")
    ]
    return [cells for cells in found if cells[0].startswith("`") or cells[0][:1].isalpha()]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def public(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


def test_the_example_of_the_configuration_can_be_run(tmp_path: Path) -> None:
    key = tmp_path / "flow_token.key"
    key.write_bytes(b"0" * 20)
    key.chmod(0o600)
    source = code_blocks(text("configuration"))[0]
    edge = load_source(source, str(tmp_path / "edge.py"))
    assert list(edge.modules) == ["tm", "sl", "outbound", "rr", "registrar"]
    assert edge.loader.warnings == []


def test_all_injected_functions_are_described() -> None:
    chapter = sections(text("configuration"), "## ")[
        "Functions that are there while the file is read"
    ]
    stated = {heading.partition("(")[0] for heading in sections(chapter, "### ")}
    loader = Loader()
    names = set(Builder("x", loader, Core(), None).namespace())
    assert stated == {name for name in names if name.islower() and not name.startswith("_")}


def test_all_settings_of_the_core_are_described() -> None:
    stated = {
        quoted(cells[0])[0].removeprefix("core."): ast.literal_eval(quoted(cells[1])[0])
        for cells in rows(text("configuration"))
        if cells[0].startswith("`core.")
    }
    core = Core()
    assert stated == {param.name: getattr(core, param.name) for param in SETTINGS}


def test_all_routes_are_described() -> None:
    chapter = sections(text("configuration"), "## ")["Routes"]
    assert {quoted(cells[0])[0] for cells in rows(chapter) if "`" in cells[0]} == set(ROUTES)


def test_all_functions_of_ksr_are_described() -> None:
    chapter = sections(text("configuration"), "## ")["ksr"]
    stated = {
        name.removeprefix("ksr.").partition("(")[0]
        for cells in rows(chapter)
        for name in quoted(cells[0])
    }
    assert stated == public(Ksr)


def test_what_is_said_of_msg_exists() -> None:
    chapter = sections(text("configuration"), "## ")["msg"]
    stated = re.findall(r"`msg\.(\w+)", chapter)
    assert len(stated) > 20
    for name in stated:
        assert hasattr(SipMessage, name), name


def test_all_hooks_are_described() -> None:
    chapter = sections(text("writing_a_module"), "## ")["Hooks"]
    stated = [quoted(cells[0])[0].partition("(")[0] for cells in rows(chapter) if "`" in cells[0]]
    assert set(stated) == public(ModuleSpecs)


def test_all_commands_are_described() -> None:
    chapter = sections(text("operations"), "## ")["Commands"]
    stated = {quoted(cells[0])[0].split()[1] for cells in rows(chapter) if "`" in cells[0]}
    commands = {
        command.callback.__name__ for command in app.registered_commands if command.callback
    }
    groups = {str(group.name or group.typer_instance.info.name) for group in app.registered_groups}
    assert stated == commands | groups


def test_all_counters_are_described() -> None:
    chapter = sections(text("operations"), "## ")["Counters"]
    stated = {name for cells in rows(chapter) if "`" in cells[0] for name in quoted(cells[0])}
    counted: set[str] = set()
    for package in ("sipedge", "outbound_plugin", "path_plugin", "rr_plugin", "registrar_plugin"):
        for path in (ROOT / package).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            counted.update(re.findall(r"stats\[\"(\w+)\"\] \+=", source))
            counted.update(re.findall(r"\.count\(\"(\w+)\"", source))
    assert stated == counted


@pytest.mark.parametrize("path", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"])
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target.partition("#")[0]).exists(), target
