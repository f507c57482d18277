"""Redis and PostgreSQL as children of a test: own directory, own port, stopped by pid.

Strategy: everything that a server that was killed has stored must be there when it is started
again, so Redis writes each change to its file before it answers, as PostgreSQL always does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

from tests.peerlib.process import LOOPBACK, Crew, Program, free_port, wait_for
from tests.peers import need


class Database(Protocol):
    """A server; ``url`` is what ``db_url`` takes."""

    url: str
    program: Program

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Redis:
    """A Redis server that appends each change to its file and waits for the disk."""

    def __init__(self, crew: Crew) -> None:
        self._program = need("redis-server")
        self._crew = crew
        self._place = crew.place("redis")
        self.port = free_port()
        self.url = f"redis://{LOOPBACK}:{self.port}/0"
        self.start()

    def start(self) -> None:
        self.program = self._crew.start(
            self._place,
            [
                self._program, "--port", str(self.port), "--bind", LOOPBACK,
                "--dir", str(self._place), "--appendonly", "yes", "--appendfsync", "always",
            ],
        )  # fmt: skip
        self.program.wait_output("Ready to accept connections")

    def kill(self) -> None:
        """``kill -9``."""
        self.program.kill()


class Postgres:
    """A PostgreSQL cluster; ``sync=False`` for tests in which nothing crashes."""

    def __init__(self, crew: Crew, sync: bool = True) -> None:
        self._programs = Path(need("postgres")).resolve().parent
        self._crew = crew
        self._sync = sync
        # not below the directory of the tests, which other users than root cannot enter
        self._data = Path(tempfile.mkdtemp(prefix="sipedge-postgres-"))
        crew.callback(shutil.rmtree, self._data)
        if os.geteuid() == 0:
            shutil.chown(self._data, "postgres")
        self.port = free_port()
        self.url = f"postgresql://sip@{LOOPBACK}:{self.port}/postgres"
        command = self._command("initdb", "-D", str(self._data), "-U", "sip", "-A", "trust", "-N")
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=120)
        self.start()

    def _command(self, name: str, *arguments: str) -> list[str]:
        command = [str(self._programs / name), *arguments]
        if os.geteuid() != 0:
            return command
        user = pwd.getpwnam("postgres")  # PostgreSQL refuses to run as root
        who = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        return ["setpriv", *who, *command]

    def start(self) -> None:
        self.program = self._crew.start(
            self._crew.place("postgres"),
            self._command(
                "postgres", "-D", str(self._data), "-p", str(self.port), "-h", LOOPBACK,
                "-k", "", "-c", f"fsync={'on' if self._sync else 'off'}",
            ),
        )  # fmt: skip
        self._crew.callback(self._stop, self.program)
        self.program.wait_output("ready to accept connections")

    @staticmethod
    def _stop(program: Program) -> None:
        """``SIGTERM``, which ``Program.stop`` sends, would wait for the clients."""
        if program.running:
            os.kill(program.pid, signal.SIGINT)

    def kill(self) -> None:
        """``kill -9`` of the process that restarts the others, and of those."""
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        self.program.kill()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it noticed by itself
        _until_gone(pids)


def _until_gone(pids: list[int]) -> None:
    """A new server does not start while one of the old ones has the shared memory."""
    wait_for("the end of its children", lambda: not any(map(_runs, pids)))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
