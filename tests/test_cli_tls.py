"""``sipedge init --tls``, and ``sipedge tls`` against a running ``sipedge run``."""

from __future__ import annotations

import json
import re
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipedge.certificates import load_pair
from tests.certs import Authority, Pair
from tests.helpers_net import options
from tests.helpers_ul import PATIENCE, sipedge


class Running:
    """``sipedge run`` with what ``sipedge init --tls`` wrote, on free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "edge"
        done = sipedge("init", self.directory, "--kind", "edge_and_registrar", "--tls")
        assert done.returncode == 0, done.stderr
        self.config = self.directory / "edge_and_registrar.py"
        text = re.sub(r":50(60|61)\"", ':0"', self.config.read_text())
        self.config.write_text(text)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sipedge", "run", str(self.config)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            found = re.search(r"listening on .*tls:127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                self.log = "".join(lines)
                return
        pytest.fail("".join(lines))

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)

    def ask(self, *arguments: str, status: int = 0) -> str:
        done = sipedge("tls", *arguments, "--config", self.config)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def connect(self, trusts: Path) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(trusts)
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        return context.wrap_socket(sock, server_hostname="127.0.0.1")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    edge = Running(tmp_path)
    try:
        yield edge
    finally:
        edge.stop()


def options_answered(peer: ssl.SSLSocket) -> bool:
    uri = "sip:127.0.0.1"
    peer.sendall(options(time.monotonic_ns(), via="SIP/2.0/TLS 127.0.0.1:5061", uri=uri))
    return peer.recv(65536).startswith(b"SIP/2.0 ")


def test_what_init_wrote_is_an_edge_with_tls(running: Running) -> None:
    """Nothing to edit, and a client that checks certificates is content."""
    assert "will name" not in running.log
    with running.connect(running.directory / "tls.pem") as peer:
        assert options_answered(peer)
    (row,) = [json.loads(line) for line in running.ask("list", "--json").splitlines()]
    assert row["names"] == ["localhost", "127.0.0.1", "::1"]
    assert row["days_left"] in (364, 365)
    head, line = running.ask("list").splitlines()
    assert head.split() == ["PARAM", "CERTIFICATE", "NAMES", "ISSUER", "DAYS-LEFT"]
    assert str(running.directory / "tls.pem") in line


@pytest.mark.rfc("TRN-19")
def test_certificates_are_reloaded_with_live_connections_untouched(running: Running) -> None:
    old = running.connect(running.directory / "tls.pem")
    ca = Authority(running.directory)
    own = Pair(running.directory, "tls", *ca.sign(addresses=["127.0.0.1"]))
    assert running.ask("reload") == "1 certificates in use\n"
    with running.connect(ca.file) as new:
        assert options_answered(new)
    assert options_answered(old)
    own.private_key.write_text("broken")
    assert "the old certificates stay" in running.ask("reload", status=1)
    with running.connect(ca.file) as new:
        assert options_answered(new)
    old.close()


@pytest.mark.parametrize("kind", ["edge", "registrar", "edge_and_registrar"])
def test_init_with_tls(kind: str, tmp_path: Path) -> None:
    names = ["--name", "Edge.example.com", "--name", "192.0.2.7"]
    done = sipedge("init", tmp_path / "x", "--kind", kind, "--tls", *names)
    assert done.returncode == 0, done.stderr
    certificate, key = tmp_path / "x/tls.pem", tmp_path / "x/tls.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    found = load_pair(certificate, key)
    assert set(found.names) >= {"edge.example.com", "192.0.2.7", "localhost", "127.0.0.1", "::1"}
    config = tmp_path / f"x/{kind}.py"
    assert 'advertise="Edge.example.com"' in config.read_text()
    done = sipedge("check", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert "advertised as Edge.example.com:5061" in done.stdout


def test_init_with_names_that_are_none(tmp_path: Path) -> None:
    for name in ("a b", "edge.example.com:5061"):
        done = sipedge("init", tmp_path / "x", "--tls", "--name", name)
        assert done.returncode == 2
        assert name in done.stderr
    assert sipedge("init", tmp_path / "x", "--name", "x").returncode == 2
    assert not (tmp_path / "x").exists()


def test_init_never_overwrites_a_key(tmp_path: Path) -> None:
    (tmp_path / "tls.key").write_text("mine")
    done = sipedge("init", tmp_path, "--tls")
    assert done.returncode == 1
    assert "tls.key is there already; nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tls.key"]


def test_check_finds_what_run_would_not_start_with(tmp_path: Path) -> None:
    assert sipedge("init", tmp_path, "--tls").returncode == 0
    config = tmp_path / "edge.py"
    good = config.read_text()
    with config.open("a") as file:
        file.write('modparam("tls", "cipher_list", "NONSENSE")\n')
    done = sipedge("check", config)
    assert done.returncode == 2
    assert "OpenSSL knows none of 'NONSENSE'" in done.stderr
    config.write_text(good)
    certificate, key = Authority(tmp_path).sign(["localhost"], days=-1)
    (tmp_path / "tls.pem").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(key)
    done = sipedge("check", config)
    assert done.returncode == 2
    assert "tls.pem has expired" in done.stderr


def test_tls_without_a_listener_for_it(tmp_path: Path) -> None:
    assert sipedge("tls", "list", "--socket", tmp_path / "none").returncode == 1
