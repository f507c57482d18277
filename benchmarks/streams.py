"""Streams: messages a second over TCP, TLS, WebSocket and secure WebSocket, beside Kamailio.

Strategy: that of ``load``; the job is the stateful REGISTER with a Path token, over connections
towards the phones and UDP towards the registrar.  A message is one that the edge received and
passed on, so a registration is two: rates and costs are per message.  The generator offers one TLS
version, cipher and curve, so that both devices do the same work; the certificate is made here.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from benchmarks.load import Starter, interleaved, rows
from benchmarks.rig import Device

TRANSPORTS: Final = ("tcp", "tls", "ws", "wss")
#: connections, and transactions outstanding on each: many phones, and one busy trunk
SHAPES: Final = ((200, 1), (1, 32))
MESSAGES: Final = 2  # a registration: the REGISTER and its answer
OUR_PORT: Final = 5060
THEIR_PORT: Final = 5070
COMPILED_PORT: Final = 5080
HOW: Final = (
    "A message is one that was received and passed on: a REGISTER, or its 200. TLS 1.3,\n"
    "TLS_AES_128_GCM_SHA256, P-256. Kamailio: one worker for UDP, one for streams, tcp_main;\n"
    "-x tlsf -X tlsf, shm_force_alloc. All processes of both devices share one core."
)


def port_of(device: Device, transport: str) -> int:
    """Where that transport is; both configurations have the same order."""
    return device.port + TRANSPORTS.index(transport)


@dataclass(frozen=True, slots=True)
class StreamJob:
    """REGISTERs over some connections."""

    transport: str
    connections: int
    outstanding: int

    @property
    def name(self) -> str:
        return f"{self.transport} {self.connections}x{self.outstanding}"

    def arguments(self, device: Device) -> list[str]:
        """Of the generator."""
        return [
            "register", "-t", self.transport, "-p", str(port_of(device, self.transport)),
            "-c", str(self.connections), "-n", str(self.outstanding),
        ]  # fmt: skip

    def heading(self) -> str:
        many = "connections" if self.connections > 1 else "connection"
        return (
            f"{self.transport}: {self.connections} {many}, {self.outstanding} outstanding on each"
        )


JOBS: Final = tuple(StreamJob(transport, *shape) for transport in TRANSPORTS for shape in SHAPES)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate with an ECDSA key: the files of both."""
    program = shutil.which("openssl")
    if program is None:
        raise SystemExit("benchmarks: no openssl; on Debian: apt-get install openssl")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = [
        program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "365",
        "-subj", "/CN=edge.example.com",
        "-addext", "subjectAltName=DNS:edge.example.com,IP:127.0.0.1",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def build(directory: Path) -> Path:
    """Compile ``streamgen``."""
    return rig.build_generator(directory, "streamgen", "-lssl", "-lcrypto")


def kamailio_options(certificate: tuple[Path, Path], wt_timer_ms: int, *more: str) -> list[str]:
    """What kamailio_streams.cfg needs on the command line; ``certificate`` and its key."""
    options = ["-A", f"WT_TIMER={wt_timer_ms}", *more]
    for name, path in zip(("CERTIFICATE", "PRIVATE_KEY"), certificate, strict=True):
        options += ["-A", f'{name}="{path}"']
    for offset, kind in enumerate(("tcp", "tls", "tcp", "tls")):  # WebSocket is asked for by HTTP
        options += ["-l", f"{kind}:127.0.0.1:{THEIR_PORT + offset}"]
    return options


def starters(directory: Path, wt_timer_ms: int, *more: str) -> list[Starter]:
    """The devices, which keep ended transactions that long; ``more``: options for Kamailio.

    What is not installed is left out.
    """
    certificate = make_certificate(directory)
    files = dict(
        zip(("BENCH_CERTIFICATE", "BENCH_PRIVATE_KEY"), map(str, certificate), strict=True)
    )
    ours = partial(
        rig.sipedge, config="edge_streams.py", wt_timer_ms=wt_timer_ms, environment=files
    )
    devices: list[Starter] = [partial(ours, OUR_PORT)]
    if rig.COMPILED_PYTHON.exists():
        devices.insert(0, partial(ours, COMPILED_PORT, compiled=True))
    if rig.kamailio_version() is not None:
        options = kamailio_options(certificate, wt_timer_ms, *more)
        theirs = partial(rig.kamailio, THEIR_PORT, config="kamailio_streams.cfg", options=options)
        devices.insert(0, theirs)
    return devices


def measure(seconds: float, rounds: int) -> dict[str, dict[str, Any]]:
    """Everything; returns ``{job: {device: figures}}``, per message."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        devices = starters(directory, rig.WT_TIMER_MS, "-A", "WITH_FORCED_SHM=1")
        found = interleaved(build(directory), JOBS, devices, seconds, rounds)
    return {
        job: {device: per_message(figures) for device, figures in both.items()}
        for job, both in found.items()
    }


def per_message(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures of registrations as figures of messages; latencies stay those of registrations."""
    one = dict(figures)
    for name in ("rate", "rate_median"):
        one[name] = round(figures[name] * MESSAGES, 1)
    for name in ("cpu_us", "user_us", "system_us"):
        one[name] = round(figures[name] / MESSAGES, 2)
    return one


def table(found: dict[str, dict[str, Any]], baseline: dict[str, Any]) -> str:
    """For people; ``baseline`` is an earlier result of ``measure``."""
    return rows(JOBS, found, baseline, "msg/s")
