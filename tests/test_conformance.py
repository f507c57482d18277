"""``docs/conformance.md`` is what the marks say, and nothing that must work is unproven."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import conformance

REQUIREMENTS = conformance.load_requirements()
MARKS = conformance.collect()
COMPLAINTS = conformance.proven(REQUIREMENTS, MARKS)


def test_every_mark_names_a_requirement_and_stands_on_a_test() -> None:
    assert COMPLAINTS == []


def test_the_page_is_up_to_date() -> None:
    page = (conformance.ROOT / conformance.PAGE).read_text(encoding="utf-8")
    assert page == conformance.render(REQUIREMENTS), "run: python tools/conformance.py"


def test_no_p0_requirement_of_a_gated_section_is_open() -> None:
    assert conformance.gate(REQUIREMENTS) == []


def test_the_requirements_are_whole() -> None:
    assert len(REQUIREMENTS) == 333
    assert {row.section for row in REQUIREMENTS.values()} == set(conformance.SECTIONS)
    assert {row.priority for row in REQUIREMENTS.values()} == {"P0", "P1", "P2"}


def test_the_rulings_that_requirements_name_exist() -> None:
    rulings = (conformance.ROOT / "docs/rulings.md").read_text(encoding="utf-8")
    for row in REQUIREMENTS.values():
        for part in f"{row.rfc} {row.text}".split("ruling ")[1:]:
            name = part.split()[0].rstrip(").,;")
            assert f"## {name}:" in rulings, f"{row.id} names ruling {name}"


# the collector itself, on files of our own

SAMPLE = """
import pytest
from pytest import mark

pytestmark = [pytest.mark.rfc("KA-01")]
CASES = [pytest.param(1, marks=pytest.mark.rfc("TOK-02"))]

@pytest.mark.rfc("INC-04", "TOK-01")
def test_plain(): ...

@mark.rfc("PAR-01")
class TestClass:
    async def test_method(self): ...

@pytest.mark.parametrize("case", CASES)
def test_listed(case): ...

@pytest.mark.parametrize("case", [pytest.param(1, marks=mark.rfc("NOPE-1"))])
def test_inline(case): ...

@pytest.mark.rfc("OUT-01")
def helper(): ...

@pytest.mark.rfc(*CASES)
def test_dynamic(): ...
"""


@pytest.fixture
def sample(tmp_path: Path) -> conformance.Marks:
    (tmp_path / "tests" / "deep").mkdir(parents=True)
    (tmp_path / "tests" / "deep" / "test_sample.py").write_text(SAMPLE)
    (tmp_path / "tests" / "no_test.py").write_text(SAMPLE)
    return conformance.collect(tmp_path)


def test_collector_finds_marks_wherever_they_count(sample: conformance.Marks) -> None:
    file = "tests/deep/test_sample.py"
    assert sample.tests["INC-04"] == sample.tests["TOK-01"] == [f"{file}::test_plain"]
    assert sample.tests["PAR-01"] == [f"{file}::TestClass::test_method"]
    # test_dynamic also names CASES, though in a way that is complained about
    assert sample.tests["TOK-02"][0] == f"{file}::test_listed"
    assert sample.tests["NOPE-1"] == [f"{file}::test_inline"]
    assert len(sample.tests["KA-01"]) == 5, "pytestmark counts for every test of the file"


def test_collector_complains_about_marks_that_prove_nothing(sample: conformance.Marks) -> None:
    assert sample.problems == [
        "tests/deep/test_sample.py:24: the ids of a mark are string literals, at least one",
        "tests/deep/test_sample.py:21: the mark stands on no test",
    ]
    assert "OUT-01" not in sample.tests
    complaints = conformance.proven(conformance.load_requirements(), sample)
    assert "tests/deep/test_sample.py::test_inline: NOPE-1 is not in" in complaints[-1]


def test_render_and_gate(sample: conformance.Marks) -> None:
    rows = conformance.load_requirements()
    conformance.proven(rows, sample)
    page = conformance.render(rows)
    assert "| INC-04 | P0 |" in page
    assert "`tests/deep/test_sample.py::test_plain` |" in page
    open_row = next(line for line in page.splitlines() if line.startswith("| INC-03 "))
    assert open_row.endswith("| open |")
    assert "INC-03" in conformance.gate(rows)
    assert "INC-04" not in conformance.gate(rows)
    assert "RGO-12" in conformance.gate(rows)
    assert "WSK-01" not in conformance.gate(rows), "WebSocket is not gated yet"
