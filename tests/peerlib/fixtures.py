"""Fixtures for tests with peers; the ``conftest.py`` of a directory imports them from here."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.peerlib.process import Crew

_CREW = pytest.StashKey[Crew]()


@pytest.fixture
def crew(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crew]:
    """Starts programs for this test, stops them after it, shows their output if it fails."""
    with Crew(tmp_path) as everybody:
        request.node.stash[_CREW] = everybody
        yield everybody


@pytest.fixture(scope="module")
def module_crew(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    """The same for all tests of a module together."""
    with Crew(tmp_path_factory.mktemp("crew")) as everybody:
        request.node.stash[_CREW] = everybody
        yield everybody


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for node in item.listchain():
            everybody = node.stash.get(_CREW, None)
            if everybody is not None:
                report.sections.extend(everybody.report())
    return report
