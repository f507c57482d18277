"""Memory: what one idle TCP flow, one UDP flow and one binding take, measured over 10,000 of each.

Strategy: a registrar in a process of its own says on request how much it has: the resident set, and
the sum of what Python allocated (tracemalloc, in a second process, as tracing takes memory itself).
The resident set includes what allocators round up.  What the kernel keeps for a socket is in
neither.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import subprocess
import sys
import time
import tracemalloc
from contextlib import ExitStack
from typing import Any, Final

from benchmarks import messages, rig

COUNT: Final = 10_000
PORT: Final = 5060
_WINDOW: Final = 50
_WARM_UP: Final = 500
_WT_TIMER_MS: Final = 500
_TRACE: Final = "--trace"


class Subject:
    """The process that is measured."""

    def __init__(self, trace: bool) -> None:
        command = [sys.executable, "-m", "benchmarks.memory", *([_TRACE] if trace else [])]
        extra = {"BENCH_PORT": str(PORT), "BENCH_WT_TIMER": str(_WT_TIMER_MS)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **extra}, cwd=rig.HERE.parent,
        )  # fmt: skip
        self._read()  # it listens

    def octets(self) -> int:
        """What it has now, once transactions have been forgotten."""
        time.sleep(_WT_TIMER_MS / 1000 + 3.0)
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._read())

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("benchmarks: the process whose memory is measured has ended")
        return json.loads(line)

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()


def measure() -> dict[str, dict[str, float]]:
    """Octets of each thing: ``{thing: {"rss": ..., "python": ...}}``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(COUNT, hard - 100)
    found: dict[str, dict[str, float]] = {}
    for kind, trace in (("rss", False), ("python", True)):
        subject = Subject(trace)
        try:
            with ExitStack() as stack:
                _bindings(0, _WARM_UP)
                _udp_flows(0, _WARM_UP)
                before = subject.octets()
                for name, step in (
                    ("binding", _bindings),
                    ("UDP flow", _udp_flows),
                    ("idle TCP flow", lambda at, n: _tcp_flows(n, stack)),
                ):
                    step(_WARM_UP, count)
                    after = subject.octets()
                    found.setdefault(name, {})[kind] = round((after - before) / count)
                    before = after
        finally:
            subject.close()
    return found


def _bindings(first: int, count: int) -> None:
    """Register phones, all over one flow, so that only the bindings are new."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", PORT))
        for start in range(first, first + count, _WINDOW):
            phones = range(start, min(start + _WINDOW, first + count))
            for phone in phones:
                sock.send(messages.register(phone, phone))
            for _ in phones:
                reply = sock.recv(65536)
                if not reply.startswith(b"SIP/2.0 200"):
                    raise SystemExit(f"benchmarks: no binding: {reply[:400]!r}")


def _udp_flows(first: int, count: int) -> None:
    """A keep-alive from that many addresses."""
    for number in range(first, first + count):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind((f"127.2.{number >> 8 & 255}.{number & 255}", 0))
            sock.sendto(b"\r\n\r\n", ("127.0.0.1", PORT))
        if number % _WINDOW == 0:
            time.sleep(0.01)


def _tcp_flows(count: int, stack: ExitStack) -> None:
    """Connections that have sent one keep-alive and stay."""
    for number in range(count):
        sock = stack.enter_context(socket.socket())
        sock.settimeout(5)
        sock.bind((f"127.3.{number >> 8 & 255}.{number & 255}", 0))
        sock.connect(("127.0.0.1", PORT))
        sock.sendall(b"\r\n\r\n")
        if sock.recv(16) != b"\r\n":
            raise SystemExit("benchmarks: no answer to a keep-alive")


def table(found: dict[str, dict[str, float]], baseline: dict[str, dict[str, float]]) -> str:
    """For people; ``baseline`` is an earlier result of ``measure``."""
    rows = [f"{'octets of one':24}{'resident':>10}{'in Python':>12}  to baseline"]
    for name, one in found.items():
        old = baseline.get(name)
        delta = f"{100 * (one['rss'] / old['rss'] - 1):+10.0f} %" if old else ""
        rows.append(f"{name:24}{one['rss']:10.0f}{one['python']:12.0f}{delta}")
    return "\n".join(rows)


def serve(trace: bool) -> None:
    """The process that is measured: answers each line on stdin with its octets."""
    import asyncio

    import psutil  # type: ignore[import-untyped]

    from sipedge.config import load_config
    from sipedge.net.interfaces import local_addresses
    from sipedge.net.process import run

    process = psutil.Process()

    def answer() -> None:
        if not os.read(0, 100):
            asyncio.get_running_loop().remove_reader(0)
            return
        gc.collect()
        octets = tracemalloc.get_traced_memory()[0] if trace else process.memory_info().rss
        print(octets, flush=True)

    def ready() -> None:
        asyncio.get_running_loop().add_reader(0, answer)
        print(0, flush=True)

    edge = load_config(str(rig.HERE / "registrar.py"), local_addresses=local_addresses)
    if trace:
        tracemalloc.start()
    run(edge, ready=ready)


if __name__ == "__main__":
    serve(_TRACE in sys.argv)
