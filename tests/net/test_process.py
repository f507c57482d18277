"""A configuration as a process: signals, readiness, drain, garbage."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers_net import (
    ANSWER_ALL,
    PATIENCE,
    options,
    receive,
    tcp_peer,
    udp_peer,
)

PROCESS = """
import sys
from sipedge.config import load_config
from sipedge.net.process import run
edge = load_config(sys.argv[1])
def ready():
    print(*(x.port for x in edge.config.listeners), flush=True)
sys.exit(run(edge, ready=ready))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process(tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "edge.py"
    config.write_text(ANSWER_ALL)
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(config)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        udp, tcp = map(int, process.stdout.readline().split())
        with udp_peer() as peer, tcp_peer(("127.0.0.1", tcp)) as stream:
            peer.sendto(options(), ("127.0.0.1", udp))
            assert peer.recv(9999).startswith(b"SIP/2.0 200 OK\r\n")
            stream.sendall(options(2) + b"\r\n\r\n")
            assert receive(stream, 16) == b"SIP/2.0 200 OK\r\n"
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0


def test_the_collector_is_tamed() -> None:
    code = """
import gc
from sipedge.net.process import YOUNG_OBJECTS, tame_gc
tame_gc()
assert gc.get_threshold()[0] == YOUNG_OBJECTS
before = gc.get_freeze_count()
kept = [[i] for i in range(3 * YOUNG_OBJECTS)]
assert gc.get_freeze_count() > before + YOUNG_OBJECTS
assert len(gc.get_objects()) < 2 * YOUNG_OBJECTS
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
