"""Leaving without losing a call: what SIGTERM does to those who are here and to those who come."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers_net import PATIENCE, options, receive, receive_message, tcp_peer, udp_peer
from tests.net.test_process import PROCESS

#: what is for 127.0.0.9 has nobody to answer it
RELAY = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
core.ready_file = "ready"
core.drain_timeout = 20
core.drain_spread = SPREAD
loadmodule("tm")
loadmodule("sl")
def request_route(ksr, msg):
    if msg.ruri == b"sip:edge.example.com":
        ksr.sl.send_reply(msg, 200, "OK")
    else:
        ksr.tm.t_relay(msg)
"""


class Process:
    """A running configuration."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        assert process.stdout is not None
        self.process = process
        self.directory = directory
        udp, tcp = map(int, process.stdout.readline().split())
        self.udp, self.tcp = ("127.0.0.1", udp), ("127.0.0.1", tcp)

    @property
    def ready(self) -> bool:
        return (self.directory / "ready").exists()

    def status(self) -> tuple[int, str]:
        """Exit status and output of ``sipedge status``."""
        command = [sys.executable, "-m", "sipedge", "status", "--json"]
        command += ["--socket", str(self.directory / "edge.sock")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)["status"] if done.stdout else ""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def drains(self) -> None:
        """Wait until it does."""
        until = time.monotonic() + PATIENCE
        while self.ready:
            assert time.monotonic() < until
            time.sleep(0.01)


@contextmanager
def running(tmp_path: Path, source: str) -> Iterator[Process]:
    config = tmp_path / "edge.py"
    config.write_text(source)
    command = [sys.executable, "-c", PROCESS, str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Process(process, tmp_path)
        finally:
            process.kill()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Process]:
    with running(tmp_path, RELAY.replace("SPREAD", "10")) as process:
        yield process


def invite(number: int, to: socket.socket) -> bytes:
    host, port = to.getsockname()
    return options(number, method="INVITE", uri=f"sip:bob@{host}:{port}")


def final(sock: socket.socket) -> bytes:
    """The next response that is not 100."""
    while (data := sock.recv(65536)).startswith(b"SIP/2.0 100"):
        pass
    return data


def answer(request: bytes, status: int) -> bytes:
    """A response with the headers that count."""
    names = (b"via", b"from", b"call-id", b"cseq")
    lines = request.split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].lower() in names]
    kept += [line + b";tag=t" for line in lines if line.startswith(b"To:")]
    head = b"SIP/2.0 %d X" % status
    return b"\r\n".join((head, *kept, b"Content-Length: 0", b"", b""))


@pytest.mark.rfc("OPS-02")
def test_draining_lets_calls_be_set_up_and_takes_nobody_new(edge: Process) -> None:
    assert edge.ready
    assert edge.status() == (0, "ready")
    with udp_peer() as caller, udp_peer() as phone, udp_peer() as other, tcp_peer(edge.tcp) as tcp:
        caller.sendto(invite(1, phone), edge.udp)
        ringing, source = phone.recvfrom(65536)
        assert ringing.startswith(b"INVITE ")
        edge.stop()
        edge.drains()
        assert edge.status() == (1, "draining")
        # nobody new
        with pytest.raises(ConnectionRefusedError):
            tcp_peer(edge.tcp)
        for number, method in enumerate(("INVITE", "REGISTER", "OPTIONS"), 2):
            other.sendto(options(number, method=method), edge.udp)
            refusal = final(other)
            assert refusal.startswith(b"SIP/2.0 503 ")
            seconds = re.search(rb"\r\nRetry-After: (\d+)\r\n", refusal)
            assert seconds is not None
            assert 5 <= int(seconds[1]) <= 15
        # those who are here: within a dialog, by keep-alive, and what is under way
        bye = options(9, method="BYE", uri="sip:edge.example.com")
        tcp.sendall(bye.replace(b"To: <sip:b@example.com>", b"To: <sip:b@example.com>;tag=t"))
        assert receive_message(tcp).startswith(b"SIP/2.0 200 ")
        tcp.sendall(b"\r\n\r\n")
        assert receive(tcp, 2) == b"\r\n"
        phone.sendto(answer(ringing, 200), source)
        assert final(caller).startswith(b"SIP/2.0 200 ")
        assert tcp.recv(10) == b"", "a FIN, so that the phone connects again"
        assert edge.process.wait(PATIENCE) == 0


@pytest.mark.rfc("OPS-02")
def test_without_traffic_it_is_gone_at_once(edge: Process) -> None:
    with tcp_peer(edge.tcp) as phone:
        phone.sendall(options(1))
        assert receive_message(phone).startswith(b"SIP/2.0 200 ")
        begin = time.monotonic()
        edge.stop()
        assert phone.recv(1) == b""
    assert edge.process.wait(PATIENCE) == 0
    assert time.monotonic() - begin < 5, "although drain_spread and drain_timeout are longer"
    assert not edge.ready


@pytest.mark.rfc("OPS-02")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_in_a_hurry(edge: Process, number: signal.Signals) -> None:
    with udp_peer() as caller, udp_peer() as phone:
        caller.sendto(invite(1, phone), edge.udp)
        assert phone.recv(65536).startswith(b"INVITE ")
        edge.stop()
        edge.drains()
        begin = time.monotonic()
        edge.stop(number)
        assert edge.process.wait(PATIENCE) == 0
        assert time.monotonic() - begin < 10, "half of drain_timeout"


@pytest.mark.rfc("OPS-02")
def test_what_does_not_end_has_so_much_time(tmp_path: Path) -> None:
    source = RELAY.replace("SPREAD", "10").replace("drain_timeout = 20", "drain_timeout = 0.5")
    with running(tmp_path, source) as edge, udp_peer() as caller, udp_peer() as phone:
        caller.sendto(invite(1, phone), edge.udp)
        assert phone.recv(65536).startswith(b"INVITE ")
        edge.stop()
        assert edge.process.wait(PATIENCE) == 0


@pytest.mark.rfc("OPS-02")
def test_connections_are_closed_one_after_the_other(tmp_path: Path) -> None:
    """300 of them over 2 s: some early, some late, and served until then."""
    with running(tmp_path, RELAY.replace("SPREAD", "2")) as edge:
        peers = [tcp_peer(edge.tcp) for _ in range(300)]
        peers[-1].sendall(options(1))
        assert receive_message(peers[-1]).startswith(b"SIP/2.0 200 ")  # all are accepted
        edge.stop()
        begin = time.monotonic()
        ends = []
        for peer in peers:
            peer.setblocking(False)
        while peers:
            for peer in peers[:]:
                try:
                    assert peer.recv(10) == b""
                except BlockingIOError:
                    continue
                ends.append(time.monotonic() - begin)
                peers.remove(peer)
                peer.close()
            assert time.monotonic() - begin < PATIENCE
            time.sleep(0.01)
        assert edge.process.wait(PATIENCE) == 0
    # evenly: no tenth of the time has much more than its share
    first = ends[0]
    assert ends[-1] - first > 1.5
    crowd = max(sum(at <= end < at + 0.5 for end in ends) for at in ends)
    assert crowd < 200
