"""A ``sipedge run`` with a registrar, phones for it, and the command line beside it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30.0
CONFIG = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("registrar")
def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    elif ksr.registrar.lookup(msg, "location"):
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 404, "Not Found")
"""


class Server:
    """A running sipedge in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "edge.py"
        self.config.write_text(CONFIG)
        self.socket = directory / "edge.sock"
        self.directory = directory
        self._phones: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sipedge", "run", str(self.config)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            found = re.search(r"udp:127\.0\.0\.1:(\d+), tcp:127\.0\.0\.1:(\d+)", line)
            if found:
                self.udp, self.tcp = int(found[1]), int(found[2])
                return
        pytest.fail("".join(lines))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)

    def stop(self) -> None:
        for phone in self._phones:
            phone.close()
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)

    def phone(self, kind: socket.SocketKind = socket.SOCK_DGRAM) -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", self.udp if kind == socket.SOCK_DGRAM else self.tcp))
        self._phones.append(sock)
        return sock

    def register(self, phone: socket.socket, user: str, contact: str, path: str = "") -> None:
        transport = "UDP" if phone.type == socket.SOCK_DGRAM else "TCP"
        hop = f"SIP/2.0/{transport} 127.0.0.1:9;branch=z9hG4bKe{time.monotonic_ns()}, "
        phone.send(
            f"REGISTER sip:example.com SIP/2.0\r\n"
            f"Via: {hop if path else ''}SIP/2.0/{transport} 10.0.0.9"
            f";branch=z9hG4bK{time.monotonic_ns()};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{user}@example.com>;tag=f\r\n"
            f"To: <sip:{user}@example.com>\r\nCall-ID: {user}-{time.monotonic_ns()}\r\n"
            f"CSeq: 1 REGISTER\r\nContact: {contact}\r\nSupported: path, outbound\r\n"
            f"{f'Path: {path}' if path else 'X-No-Path: 1'}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert phone.recv(65535).startswith(b"SIP/2.0 200 ")

    def ask(self, *arguments: object, status: int = 0, at: str = "--socket") -> str:
        """What a command prints; ``at``: how it is told where the process is."""
        where = [at, str(self.socket if at == "--socket" else self.config)] if at else []
        done = sipedge(*arguments, *where)
        assert done.returncode == status, done.stdout + done.stderr
        self.stderr = done.stderr
        return done.stdout

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ask("ul", "dump", "--json").splitlines()]


def sipedge(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sipedge", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", **env},
        timeout=120,
        check=False,
    )
