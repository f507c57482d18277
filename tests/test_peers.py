"""``tests.peers``: a missing peer skips, or fails under CI; the summary says what was missing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import peers
from tests.conftest import pytest_terminal_summary


@pytest.fixture(autouse=True)
def _own_books(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(peers, "missing", {})
    monkeypatch.setattr(peers, "used", {})
    peers._look.cache_clear()
    yield
    peers._look.cache_clear()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)


@pytest.mark.usefixtures("nowhere")
def test_missing_peer_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs sipp: not installed"):
        peers.need("sipp")
    assert not peers.have("sipp")
    why, tests = peers.missing["sipp"]
    assert why == "not installed"
    assert tests == ["tests/test_peers.py::test_missing_peer_skips_on_a_laptop"]


@pytest.mark.usefixtures("nowhere")
def test_missing_peer_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs baresip"):
        peers.need("baresip")


def test_found_peer_is_booked_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sipp"
    program.write_text("#!/bin/sh\necho\necho ' SIPp v9.9.'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert peers.need("sipp") == str(program)
    assert peers.used == {"sipp": f"{program} (SIPp v9.9)"}
    assert peers.missing == {}


def test_a_peer_may_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "shutil.which", lambda name, path=None: "/b/chrome" if name == "google-chrome" else None
    )
    monkeypatch.setattr(peers, "_version", lambda name, path: "1")
    assert peers.need("chromium") == "/b/chrome"


def test_what_setup_makes_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "jssip.js"
    monkeypatch.setattr(peers, "_MADE", {"jssip": made})
    assert not peers.have("jssip")
    made.touch()
    peers._look.cache_clear()
    assert peers.need("jssip") == str(made)
    assert peers.used == {"jssip": str(made)}


def test_namespaces_take_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("shutil.which", lambda name, path=None: "/sbin/ip")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="take root"):
        peers.need("ip")


def test_unknown_peer_is_a_mistake_in_the_test() -> None:
    with pytest.raises(ValueError, match="unknown peer 'asterisk'"):
        peers.need("asterisk")


class _Reporter:
    def __init__(self) -> None:
        self.text = ""

    def section(self, title: str) -> None:
        self.text += f"== {title}\n"

    def write_line(self, line: str, **markup: bool) -> None:
        self.text += line + "\n"


def test_summary_names_missing_and_used() -> None:
    peers.used["sipp"] = "/usr/bin/sipp (SIPp v9.9)"
    peers.missing["kamailio"] = ("not installed", ["a", "b"])
    reporter = _Reporter()
    pytest_terminal_summary(reporter)  # type: ignore[arg-type]
    assert "== peers\n" in reporter.text
    assert "used     sipp: /usr/bin/sipp (SIPp v9.9)\n" in reporter.text
    assert "MISSING  kamailio: not installed; 2 test(s) did not run." in reporter.text
    assert "apt-get install kamailio" in reporter.text


def test_summary_is_silent_when_nobody_asked() -> None:
    reporter = _Reporter()
    pytest_terminal_summary(reporter)  # type: ignore[arg-type]
    assert reporter.text == ""
