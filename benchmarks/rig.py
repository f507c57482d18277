"""What a measurement stands on: the interpreter, the cores, a network of its own, the two devices.

Strategy: the benchmarks start themselves again inside a private network namespace, so that its
loopback is theirs and ends with them.  The device under test runs on one core, the generator on
another; every device is a context manager that knows its port and its processes.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
IN_NAMESPACE: Final = "SIPEDGE_BENCH_NAMESPACE"
#: transactions that have ended are kept so long by both, when they are compared: Kamailio's default
WT_TIMER_MS: Final = 5000
#: of the compiled build, if ``make compiled`` has made it
COMPILED_PYTHON: Final = HERE.parent / ".venv-compiled/bin/python"
_CPUS: Final = sorted(os.sched_getaffinity(0))
DEVICE_CPU: Final = _CPUS[-1]
GENERATOR_CPU: Final = _CPUS[0]
_START_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Device:
    """A proxy that runs: its UDP port on 127.0.0.1 and all of its processes."""

    name: str
    port: int
    pids: tuple[int, ...]


def enter_namespace() -> None:
    """Start this program again in a network namespace of its own, if the system lets us.

    Returns inside it, or outside with ``private_network()`` false.
    """
    if IN_NAMESPACE in os.environ:
        return
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("ip") is None:
        return
    command = [unshare, "--net"]
    if os.geteuid() != 0:
        command.append("--map-root-user")
    if subprocess.run([*command, "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
        return
    os.environ[IN_NAMESPACE] = "1"
    start = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
    os.execv(unshare, [*command, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *start])


def private_network() -> bool:
    return IN_NAMESPACE in os.environ


def optimised() -> bool:
    """Was this interpreter built with profile-guided optimisation?

    ``--enable-optimizations`` says so; packages of Debian and Fedora are built so without it, and
    are known by the place of their wheels.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "--enable-optimizations" in arguments or "/usr/share/python-wheels" in arguments


def describe() -> dict[str, str]:
    """What the figures depend on, for people."""
    build = "built with PGO" if optimised() else "built WITHOUT PGO: about 1.5 times slower"
    return {
        "cpu": f"{_cpu_model()}, {len(_CPUS)} available; device on {DEVICE_CPU}, "
        f"generator on {GENERATOR_CPU}" + (" (the same!)" if len(_CPUS) < 2 else ""),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {build}",
        "compiled": "measured too"
        if COMPILED_PYTHON.exists()
        else "not measured (make compiled, which takes a C compiler)",
        "kamailio": kamailio_version() or "not found: nothing to compare with",
        "network": "private namespace" if private_network() else "plain loopback (no namespace)",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _kamailio() -> str | None:
    return shutil.which("kamailio", path=os.environ.get("PATH", "") + ":/usr/sbin")


def kamailio_version() -> str | None:
    """``kamailio 5.6.3``; ``None`` if it is not installed."""
    program = _kamailio()
    if program is None:
        return None
    output = subprocess.run([program, "-v"], capture_output=True, text=True).stdout
    return " ".join(output.split()[1:3])


def build_generator(directory: Path, name: str = "udpgen", *libraries: str) -> Path:
    """Compile ``udpgen`` or ``streamgen``; ``libraries``: ``-lssl`` and the like."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("benchmarks: no C compiler; on Debian: apt-get install gcc")
    program = directory / name
    command = [compiler, "-O2", "-o", str(program), str(HERE / f"{name}.c"), *libraries]
    subprocess.run(command, check=True)
    return program


def kamailio_command(port: int, config: str, options: Sequence[str] = ()) -> list[str]:
    """The command line of ``kamailio``."""
    program = _kamailio()
    assert program is not None
    folders = sorted(Path("/usr").glob("lib*/**/kamailio/modules"))
    if not folders:
        raise SystemExit("benchmarks: Kamailio's modules are not below /usr/lib")
    return [
        program, "-f", str(HERE / config), "-L", str(folders[0]), "-m", "3000", "-M", "16",
        "-x", "tlsf", "-X", "tlsf", "-l", f"udp:127.0.0.1:{port}", "-DD", "-E", *options,
    ]  # fmt: skip


@contextmanager
def kamailio(
    port: int, *, config: str = "kamailio.cfg", options: Sequence[str] = ()
) -> Iterator[Device]:
    """Kamailio with one worker and its quickest allocator; with its default it is 5 times slower.

    3 GB of shared memory: with less it runs out of it, since ended transactions stay for a while.
    ``options``: of its command line, besides.
    """
    with _running("Kamailio", kamailio_command(port, config, options), port) as device:
        yield device


@contextmanager
def sipedge(
    port: int,
    config: str,
    *,
    wt_timer_ms: int | None = None,
    environment: Mapping[str, str] | None = None,
    compiled: bool = False,
) -> Iterator[Device]:
    """Our edge with a configuration of this directory, which reads the environment.

    ``compiled``: the compiled build, which never imports the sources of this directory.
    """
    python = str(COMPILED_PYTHON) if compiled else sys.executable
    command = [python, "-m", "sipedge", "run", "--log-level", "error", str(HERE / config)]
    extra = {"BENCH_PORT": str(port), **(environment or {})}
    if compiled:
        extra["PYTHONSAFEPATH"] = "1"
    if wt_timer_ms is not None:
        extra["BENCH_WT_TIMER"] = str(wt_timer_ms)
    with _running("sipedge compiled" if compiled else "sipedge", command, port, extra) as device:
        yield device


@contextmanager
def _running(
    name: str, command: list[str], port: int, environment: dict[str, str] | None = None
) -> Iterator[Device]:
    """A server on the device's core, until the block ends; ``port`` tells when it is ready."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(DEVICE_CPU), *command], stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        try:
            _wait_for(process, port, name, log.fileno())
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield Device(name, port, (process.pid, *map(int, children)))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, name: str, log: int) -> None:
    """Until the UDP port is bound and the workers had a moment to begin to read."""
    wanted = f":{port:04X} "
    until = time.monotonic() + _START_PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        if wanted in Path("/proc/net/udp").read_text():
            time.sleep(0.5)
            return
        time.sleep(0.1)
    os.lseek(log, 0, os.SEEK_SET)
    said = os.read(log, 4000).decode(errors="replace")
    raise SystemExit(f"benchmarks: {name} did not start:\n{said}")
