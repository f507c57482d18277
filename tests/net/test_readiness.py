"""Who is told that we are ready, and that we are not any more."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sipedge.errors import ConfigError
from sipedge.net.readiness import Readiness, notify


@pytest.fixture
def edge(tmp_path: Path) -> Any:
    return SimpleNamespace(
        core=SimpleNamespace(ready_file=""),
        config=SimpleNamespace(file=str(tmp_path / "edge.py")),
    )


@pytest.fixture(autouse=True)
def nobody_started_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


def test_without_a_file(edge: Any, tmp_path: Path) -> None:
    with Readiness(edge):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_is_there_while_we_are_ready(edge: Any, tmp_path: Path, absolute: bool) -> None:
    path = tmp_path / "ready"
    edge.core.ready_file = str(path) if absolute else "ready"
    with Readiness(edge):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_file_that_somebody_took_away(edge: Any, tmp_path: Path) -> None:
    edge.core.ready_file = "ready"
    with Readiness(edge):
        (tmp_path / "ready").unlink()


def test_a_file_that_cannot_be_made(edge: Any) -> None:
    edge.core.ready_file = "nowhere/ready"
    with pytest.raises(ConfigError, match=r"core\.ready_file: .*nowhere"):
        Readiness(edge).__enter__()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(
    edge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"sipedge-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name if abstract else name)
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        with Readiness(edge):
            assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1234", ""])
def test_a_socket_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
