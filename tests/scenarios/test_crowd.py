"""10,000 idle connections in one edge, and phones that call each other meanwhile.

What a connection takes of memory is printed; what calls take of time is measured by ``make bench``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.certs import Authority
from tests.peerlib.process import LOOPBACK, Crew, Program, free_port
from tests.peerlib.sipedge import PROGRAM
from tests.peerlib.ua import Phone

COUNT = 10_000
RESERVE = 300  # descriptors of the edge that are no connections
PATIENCE = 300.0
ROOT = Path(__file__).parents[2]

EDGE = """
listen("udp:127.0.0.1:{udp}")
listen("tcp:127.0.0.1:{udp}")
listen("tls:127.0.0.1:{tls}")
listen("ws:127.0.0.1:{ws}")
alias("example.com")
core.tcp_connection_lifetime = 0
core.tcp_accept_iplimit = 0
loadmodule("tm")
loadmodule("sl")
loadmodule("tls")
loadmodule("websocket")
loadmodule("outbound")
loadmodule("rr")
loadmodule("registrar")
modparam("tls", "certificate", "{pair.certificate}")
modparam("tls", "private_key", "{pair.private_key}")
modparam("websocket", "keepalive_mechanism", 0)
modparam("outbound", "flow_token_key", b"johndoessecretphrase")
def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    elif msg.method == b"OPTIONS":
        ksr.sl.send_reply(msg, 200, "OK")
    elif ksr.registrar.lookup(msg, "location"):
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 404, "Not Found")
"""


@contextmanager
def crowd(transport: str, port: int, count: int, trusted: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.scenarios.crowd", transport, LOOPBACK]
    command += [str(port), str(count), str(trusted)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def resident(program: Program) -> int:
    return int(psutil.Process(program.pid).memory_info().rss)


def call(alice: Phone, bob: Phone) -> None:
    """bob rings, and is busy."""
    branch = alice.invite(bob.aor)
    bob.respond(bob.expect("INVITE"), 486, "Busy Here")
    alice.ack_failure(bob.aor, branch, alice.expect("486"))
    bob.expect("ACK")


@pytest.mark.parametrize("transport", ["tls", "ws"])
def test_calls_among_ten_thousand(
    crew: Crew, tmp_path: Path, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("edge", "edge.example.com")
    udp = free_port(LOOPBACK, 3)
    ports = {"tls": udp + 1, "ws": udp + 2}
    directory = crew.place("edge")
    (directory / "edge.py").write_text(EDGE.format(udp=udp, pair=pair, **ports))
    edge = crew.start(directory, [str(PROGRAM), "run", "edge.py", "--log-level", "warning"])
    edge.wait_output("sipedge is listening on ")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = COUNT if hard == resource.RLIM_INFINITY else min(COUNT, hard - RESERVE)
    at = (LOOPBACK, udp)
    with Phone("alice", at, "tcp") as alice, Phone("bob", at, "tcp") as bob:
        alice.register()
        bob.register()
        call(alice, bob)
        with crowd(transport, ports[transport], 50, authority.file) as warm_up:
            assert warm_up.stdout is not None
            assert warm_up.stdout.readline() == "ready 50\n"
        before = resident(edge)
        with crowd(transport, ports[transport], count, authority.file) as clients:
            assert clients.stdout is not None
            call(alice, bob)  # while they come
            assert clients.stdout.readline() == f"ready {count}\n"
            each = (resident(edge) - before) / count
            for _ in range(20):
                call(alice, bob)
            late(transport, ports[transport], authority.file)
            assert clients.communicate("", PATIENCE)[0] == "0\n", "none of them was closed"
        call(alice, bob)
    with capsys.disabled():
        less = "" if count == COUNT else f" (descriptors allow no more than {count})"
        print(f"\n{count} idle connections over {transport}{less}: {each / 1024:.1f} KiB each")


def late(transport: str, port: int, trusted: Path) -> None:
    """Somebody who comes last is served, too."""
    with crowd(transport, port, 1, trusted) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready 1\n"
