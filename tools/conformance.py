"""Writes ``docs/conformance.md``: every requirement and the tests that prove it, or "open".

Strategy: ``docs/requirements.tsv`` holds the requirements.  A test names what it proves with
``@pytest.mark.rfc("INC-04", ...)``.  Test files are read with ``ast`` and never imported, so the
page does not depend on what is installed.  Marks count on functions, on classes, in a module's
``pytestmark`` and on ``pytest.param`` (also in a list of the module that ``parametrize`` names).

Usage: ``python tools/conformance.py`` writes the page; ``--check`` says with its exit status
whether the page is up to date.  Standard library only.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = "docs/requirements.tsv"
PAGE: Final = "docs/conformance.md"

SECTIONS: Final = {
    "B1": "Edge: REGISTER and Path (RFC 5626 §5.1, RFC 3327)",
    "B2": "Flow tokens (RFC 5626 §5.2)",
    "B3": "Edge: incoming requests over a flow (RFC 5626 §5.3, §5.3.1)",
    "B4": "Edge: outgoing requests (RFC 5626 §5.3.2)",
    "B5": "Keep-alives: CRLF, STUN, Flow-Timer, keep (RFC 5626, 6223, 8489)",
    "B6": "Registrar: outbound bindings (RFC 5626 §6)",
    "B7": "Registrar: RFC 3261 §10.3, Path, Service-Route",
    "B8": "Home proxy: forwarding to bindings (RFC 5626 §7, RFC 3327 §5.4)",
    "B9": "GRUU (RFC 5627)",
    "B10": "Digest authentication (RFC 3261 §22, 7616, 8760)",
    "B11": "Proxy core (RFC 3261 §16, 6026, 4320)",
    "B12": "Loops and breadth (RFC 5393)",
    "B13": "UAS side checks (RFC 3261 §8.2, §11)",
    "B14": "Transactions (RFC 3261 §17, 6026)",
    "B15": "Transport (RFC 3261 §18, 3581)",
    "B16": "Server location (RFC 3263)",
    "B17": "WebSocket (RFC 7118, 6455)",
    "B18": "TLS identity, alias, sips (RFC 5922, 5923, 5630)",
    "B19": "Parser and torture (RFC 3261 §7, §19, §25, 4475, 5118, 5954)",
    "B20": "IPv6, operations, security",
    "B21": "What user agents do, and servers must live with",
}

#: sections whose P0 rows must all be proven
GATED: Final = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B11", "B14", "B15", "B19")

HEAD: Final = """\
# Conformance

<!-- written by tools/conformance.py from docs/requirements.tsv and the tests; do not edit -->

What the standards ask of an edge proxy, a registrar and a home proxy with SIP Outbound, and the
tests that prove it. "open" means that no test proves it yet. A requirement without a level of the
RFC is marked PRACT: needed in practice, or implied by several RFCs together. `P0` rows are those
without which SIP Outbound breaks in real life, `P1` are needed for a claim of conformance, `P2`
complete it. Where RFCs clash or leave room, [rulings.md](rulings.md) says what was decided.

EP edge proxy, PX any proxy, HP home proxy, REG registrar, UA user agent, RR Record-Route,
CORE what stands behind the edge, `⇒` leads to.
"""


@dataclass(slots=True)
class Requirement:
    """One row of ``docs/requirements.tsv`` and the tests that carry its id."""

    id: str
    section: str
    priority: str
    rfc: str
    level: str
    text: str
    tests: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Marks:
    """All marks found: requirement id -> tests, and marks that say nothing, with the reason."""

    tests: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load_requirements(root: Path = ROOT) -> dict[str, Requirement]:
    """The rows by id, in the order of the file."""
    rows = (root / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    found: dict[str, Requirement] = {}
    for number, row in enumerate(rows[1:], 2):
        columns = row.split("\t")
        if len(columns) != 6 or columns[0] in found or columns[1] not in SECTIONS:
            raise ValueError(f"{REQUIREMENTS}:{number}: not a row of its own: {row!r}")
        name, section, priority, rfc, level, text = columns
        found[name] = Requirement(name, section, priority, rfc, level, text)
    return found


def collect(root: Path = ROOT) -> Marks:
    """Read all test files below ``root/tests``."""
    marks = Marks()
    for path in sorted((root / "tests").rglob("test_*.py")):
        name = path.relative_to(root).as_posix()
        _File(name, ast.parse(path.read_text(encoding="utf-8"), name), marks).collect()
    return marks


class _File:
    """One test file: hands the ids of its marks to the tests that they stand on."""

    def __init__(self, name: str, tree: ast.Module, marks: Marks) -> None:
        self.name = name
        self.tree = tree
        self.marks = marks
        self.seen: set[ast.Call] = set()
        #: values of the module's own names, for ``parametrize("case", CASES)``
        self.values: dict[str, ast.expr] = {}
        for node in tree.body:
            for target, value in _assignments(node):
                self.values[target] = value

    def collect(self) -> None:
        common = self.ids_in(self.values["pytestmark"]) if "pytestmark" in self.values else set()
        self.walk(self.tree.body, "", common)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and _is_rfc_mark(node) and node not in self.seen:
                self.problem(node, "the mark stands on no test")

    def walk(self, body: list[ast.stmt], prefix: str, inherited: set[str]) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            is_class = isinstance(node, ast.ClassDef)
            if not node.name.startswith("Test" if is_class else "test_"):
                continue
            ids = set(inherited)
            for decorator in node.decorator_list:
                ids |= self.ids_in(decorator)
            if is_class:
                self.walk(node.body, f"{prefix}{node.name}::", ids)
                continue
            for requirement in sorted(ids):
                tests = self.marks.tests.setdefault(requirement, [])
                tests.append(f"{self.name}::{prefix}{node.name}")

    def ids_in(self, expression: ast.expr) -> set[str]:
        """The ids of all marks in an expression, and in the module's lists that it names."""
        found: set[str] = set()
        for node in ast.walk(expression):
            if isinstance(node, ast.Name) and node.id in self.values:
                for inner in ast.walk(self.values[node.id]):
                    found |= self.ids_of(inner)
            found |= self.ids_of(node)
        return found

    def ids_of(self, node: ast.AST) -> set[str]:
        if not isinstance(node, ast.Call) or not _is_rfc_mark(node):
            return set()
        first_look = node not in self.seen
        self.seen.add(node)
        ids = [a.value for a in node.args if isinstance(a, ast.Constant) and a.value]
        if first_look and (not ids or len(ids) != len(node.args)):
            self.problem(node, "the ids of a mark are string literals, at least one")
        return {value for value in ids if isinstance(value, str)}

    def problem(self, node: ast.Call, why: str) -> None:
        self.marks.problems.append(f"{self.name}:{node.lineno}: {why}")


def _assignments(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """``name = value`` and ``name: type = value`` of a module."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value


def _is_rfc_mark(node: ast.Call) -> bool:
    """``pytest.mark.rfc(...)`` or ``mark.rfc(...)``."""
    func = node.func
    if not isinstance(func, ast.Attribute) or func.attr != "rfc":
        return False
    owner = func.value
    return (owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")) == "mark"


def proven(requirements: dict[str, Requirement], marks: Marks) -> list[str]:
    """Give the requirements their tests; returns complaints: unknown ids and useless marks."""
    complaints = list(marks.problems)
    for name, tests in sorted(marks.tests.items()):
        if name in requirements:
            requirements[name].tests = tests
        else:
            complaints.append(f"{tests[0]}: {name} is not in {REQUIREMENTS}")
    return complaints


def render(requirements: dict[str, Requirement]) -> str:
    """The page."""
    out = [
        HEAD,
        "| Section | Requirements | Proven | P0 | P0 proven |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = list(requirements.values())
    for section, title in SECTIONS.items():
        own = [row for row in rows if row.section == section]
        out.append(f"| {section} {title} | {_counts(own)} |")
    out.append(f"| **all** | {_counts(rows)} |")
    for section, title in SECTIONS.items():
        out += ["", f"## {section} {title}", ""]
        out += ["| Id | | RFC | Level | Requirement | Tests |", "|---|---|---|---|---|---|"]
        for row in rows:
            if row.section == section:
                tests = "<br>".join(f"`{test}`" for test in row.tests) or "open"
                cells = (row.id, row.priority, row.rfc, row.level, row.text, tests)
                out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(out) + "\n"


def _counts(rows: list[Requirement]) -> str:
    p0 = [row for row in rows if row.priority == "P0"]
    return " | ".join(
        str(count)
        for count in (
            len(rows),
            sum(bool(row.tests) for row in rows),
            len(p0),
            sum(bool(row.tests) for row in p0),
        )
    )


def gate(requirements: dict[str, Requirement]) -> list[str]:
    """Ids of P0 rows of the gated sections that no test proves."""
    return [
        row.id
        for row in requirements.values()
        if row.priority == "P0" and row.section in GATED and not row.tests
    ]


def main(arguments: list[str]) -> int:
    requirements = load_requirements()
    complaints = proven(requirements, collect())
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    page = ROOT / PAGE
    text = render(requirements)
    if arguments == ["--check"]:
        fresh = page.exists() and page.read_text(encoding="utf-8") == text
        print(f"{PAGE} is {'up to date' if fresh else 'stale: run python tools/conformance.py'}")
        return 0 if fresh and not complaints else 1
    page.write_text(text, encoding="utf-8")
    done = sum(bool(row.tests) for row in requirements.values())
    missing = " ".join(gate(requirements)) or "none"
    print(f"{PAGE}: {done} of {len(requirements)} proven; P0 rows that must not be open: {missing}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
