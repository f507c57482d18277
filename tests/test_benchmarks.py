"""The stream benchmarks: the generator says what happens, and both configurations do the job."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import connections, rig, streams
from sipedge.flow import TRANSPORT_BY_NAME
from tests.helpers_net import PATIENCE, RunningEdge, running_edge
from tests.peerlib.process import free_port
from tests.peers import need

#: answers itself, with no Path: nothing that the generator should take for a registration
WRONG = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
loadmodule("sl")
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, b"OK")
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@pytest.fixture(scope="module")
def generator(directory: Path) -> Path:
    need("gcc")
    return streams.build(directory)


@pytest.fixture(scope="module")
def certificate(directory: Path) -> tuple[Path, Path]:
    need("openssl")
    return streams.make_certificate(directory)


@pytest.fixture
def registrar() -> int:
    """A port for the registrar that the generator plays."""
    return free_port()


@pytest.fixture
def edge(
    certificate: tuple[Path, Path], registrar: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningEdge]:
    monkeypatch.setenv("BENCH_PORT", str(free_port(count=4)))
    monkeypatch.setenv("BENCH_REGISTRAR", str(registrar))
    monkeypatch.setenv("BENCH_CERTIFICATE", str(certificate[0]))
    monkeypatch.setenv("BENCH_PRIVATE_KEY", str(certificate[1]))
    with running_edge((rig.HERE / "edge_streams.py").read_text()) as running:
        yield running


@contextmanager
def generate(
    generator: Path, job: str, transport: str, port: int, registrar: int, *options: str
) -> Iterator[subprocess.Popen[str]]:
    command = [
        str(generator),
        job,
        "-t",
        transport,
        "-p",
        str(port),
        "-R",
        str(registrar),
        *options,
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def measured(generator: Path, transport: str, port: int, registrar: int) -> dict[str, Any]:
    """The result of a short run; three connections with two transactions on each."""
    options = ("-c", "3", "-n", "2", "-s", "0.2", "-w", "0.1")
    with generate(generator, "register", transport, port, registrar, *options) as process:
        output, complaint = process.communicate(timeout=PATIENCE)
    result: dict[str, Any] = json.loads(output)
    return {**result, "complaint": complaint}


@pytest.mark.parametrize("transport", streams.TRANSPORTS)
def test_registrations_over_each_transport(
    generator: Path, edge: RunningEdge, registrar: int, transport: str
) -> None:
    port = edge.listener(TRANSPORT_BY_NAME[transport]).port
    result = measured(generator, transport, port, registrar)
    assert result["complaint"] == ""
    assert (result["bad"], result["lost"], result["connections"]) == (0, 0, 3)
    assert result["done"] > 0
    assert 0 < result["p50_us"] <= result["p99_us"] <= result["max_us"]
    secure = transport in ("tls", "wss")
    assert result["tls"] == ("TLSv1.3 TLS_AES_128_GCM_SHA256" if secure else "")


@pytest.mark.parametrize("transport", streams.TRANSPORTS)
def test_idle_connections_stay(
    generator: Path, edge: RunningEdge, registrar: int, transport: str
) -> None:
    port = edge.listener(TRANSPORT_BY_NAME[transport]).port
    with generate(generator, "idle", transport, port, registrar, "-c", "20") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["done"], first["bad"], first["connections"]) == (20, 0, 20)
        assert len(edge.call(lambda: dict(edge.core.flows.streams))) == 20
        output, _ = process.communicate(timeout=PATIENCE)
    assert json.loads(output) == {"connections": 20}


def test_answers_that_are_none_count_as_bad(generator: Path, registrar: int) -> None:
    with running_edge(WRONG) as edge:
        result = measured(generator, "tcp", edge.tcp[1], registrar)
    assert result["bad"] > 0
    assert result["done"] == 0
    assert "unexpected at the phone" in result["complaint"]


def test_a_connection_that_ends_ends_the_run(generator: Path, registrar: int) -> None:
    with running_edge(WRONG) as edge:  # TCP alone: a TLS handshake gets nowhere
        options = ("-c", "2", "-s", "1")
        port = edge.tcp[1]
        with generate(generator, "register", "ws", port, registrar, *options) as process:
            output, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert output == ""
    assert "ended on its way up; 0 had come up" in complaint


def test_kamailio_takes_its_configuration(certificate: tuple[Path, Path]) -> None:
    need("kamailio")
    options = streams.kamailio_options(certificate, rig.WT_TIMER_MS, "-c")
    command = rig.kamailio_command(free_port(), "kamailio_streams.cfg", options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_figures_are_per_message() -> None:
    figures = {
        "rate": 10_000.0, "rate_median": 9_000.0, "cpu_us": 50.0, "user_us": 30.0,
        "system_us": 20.0, "p50_us": 900, "p99_us": 1900, "max_us": 2900, "lost": 0, "bad": 0,
        "generator_cpu": 0.2, "complaint": "",
    }  # fmt: skip
    ours = streams.per_message(figures)
    assert (ours["rate"], ours["cpu_us"], ours["p99_us"]) == (20_000.0, 25.0, 1900)
    found = {"tls 200x1": {"Kamailio": {**ours, "rate": 40_000.0}, "sipedge": ours}}
    text = streams.table(found, {"tls 200x1": {"sipedge": {"rate": 16_000.0}}})
    assert "tls: 200 connections, 1 outstanding on each" in text
    assert re.search(r"sipedge, of Kamailio: 0\.50 by .*best rates, 1\.00 by the medians", text)
    assert "+25 %" in text


def test_connections_say_when_they_are_fewer() -> None:
    one = {
        "connections": 1000, "octets": 3000, "setup_us": 250.0, "lost": 0,
        "alone_p50_us": 800, "alone_p99_us": 1900, "among_p50_us": 810, "among_p99_us": 1950,
    }  # fmt: skip
    text = connections.table({"tcp": {"sipedge": one}}, {"tcp": {"sipedge": {"octets": 2000}}})
    assert "+50 %" in text
    assert "fewer than 10000" in text
    many = {"tcp": {"sipedge": {**one, "connections": connections.COUNT}}}
    assert "fewer" not in connections.table(many, {})
