"""Programs as children of a test: started in their own directory, stopped by pid, output kept.

Strategy: a ``Crew`` belongs to one test (or one module's fixture) and owns everything that was
started for it.  Nothing is ever looked up by name: a pid that we did not start is never touched.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
#: how long a program may take to do what it should; generous, since machines in CI are slow
PATIENCE: Final = 30.0
#: below the range that the kernel takes ephemeral ports from
PORTS: Final = range(20000, 32000)

#: ports given out, each with what keeps other test runs on this machine from taking it too
_given: dict[int, socket.socket | None] = {}


def free_port(host: str = LOOPBACK, count: int = 1) -> int:
    """The first of ``count`` ports in a row that are free for UDP and TCP and were never given."""
    for port in random.sample(PORTS, len(PORTS)):
        row = range(port, port + count)
        if all(p not in _given and _bindable(host, p) and _reserved(p) for p in row):
            return port
    raise RuntimeError(f"no {count} free ports in a row in {PORTS}")


def _bindable(host: str, port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with closing(socket.socket(socket.AF_INET, kind)) as sock:
            try:
                sock.bind((host, port))
            except OSError:
                return False
    return True


def _reserved(port: int) -> bool:
    """Take the port before any other test run: by a name that the kernel frees when we end."""
    if sys.platform != "linux":
        _given[port] = None
        return True
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0sipedge-test-port-{port}")
    except OSError:
        name.close()
        return False
    _given[port] = name
    return True


def wait_for(
    what: str, condition: Callable[[], bool], timeout: float = PATIENCE, step: float = 0.05
) -> None:
    """Poll until ``condition()``; ``TimeoutError`` naming ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(step)


class Program:
    """One running program.

    ``argv`` is its command line, ``directory`` where it runs and where its output goes
    (``output.txt``), ``namespace`` a network namespace to start it in.
    """

    def __init__(
        self, name: str, argv: list[str], directory: Path, namespace: str | None = None
    ) -> None:
        self.name = name
        self.argv = ["ip", "netns", "exec", namespace, *argv] if namespace else argv
        self.directory = directory
        self._output_file = directory / "output.txt"
        with self._output_file.open("ab") as out:
            self._output_start = out.tell()  # behind that of an earlier one in the same directory
            # `ip netns exec` replaces itself with the program, so this pid is the program's own
            self._process = subprocess.Popen(
                self.argv,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; ``None`` while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    @property
    def output(self) -> str:
        """Everything that it wrote to stdout and stderr so far."""
        with self._output_file.open("rb") as file:
            file.seek(self._output_start)
            return file.read().decode(errors="replace")

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it ends by itself; its exit status."""
        return self._process.wait(timeout)

    def wait_output(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until it wrote ``text``; fails at once when it ends without having done so."""

        def seen() -> bool:
            running = self.running  # asked first: what it wrote before it ended is in the file
            if text in self.output:
                return True
            if not running:
                raise AssertionError(f"{self.name} ended ({self.returncode}) before {text!r}")
            return False

        wait_for(f"{self.name} writes {text!r}", seen, timeout)

    def kill(self) -> None:
        """``kill -9``, this one process, and wait for its end."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """Ask it to end; after five seconds insist, towards everything that it started."""
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        # whatever it left behind in the session that we made for it
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class Crew(ExitStack):
    """All programs of one test, below one directory; a context manager that stops them.

    What was started or entered last ends first, so that a namespace outlives what runs in it.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.programs: list[Program] = []
        self._numbers: dict[str, int] = {}

    def start(self, directory: Path, argv: list[str], namespace: str | None = None) -> Program:
        """Start a program in ``directory``, a ``place`` or one where another program ran before."""
        program = Program(directory.name, argv, directory, namespace)
        self.programs.append(program)
        self.callback(program.stop)
        return program

    def place(self, name: str) -> Path:
        """A new directory for something called ``name`` (``name-2`` the second time)."""
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        place = self.directory / (name if number == 1 else f"{name}-{number}")
        place.mkdir(parents=True)
        return place

    def report(self) -> Iterator[tuple[str, str]]:
        """(title, text) of every program, for a test that failed; long output is cut in front."""
        for program in self.programs:
            state = "running" if program.running else f"ended with {program.returncode}"
            for file in sorted(program.directory.glob("*.txt")):
                text = file.read_text(errors="replace")
                if text:
                    yield f"{program.name} ({state}): {file.name}", text[-20_000:]
