"""Connections: what an idle one takes of memory, and to set up, by transport, beside Kamailio.

Strategy: each device starts anew for each transport and gets a few connections, so that what is
made once is there.  Then come 10,000, each from an address of its own, at a bounded rate so that
few transactions are alive at any time; each registers once and says no more.  The transactions end,
and the proportional set size of all processes of the device (what they share counts once) is
compared.  What the kernel keeps for a socket is not in it.  Twenty other connections register, one
at a time each, while the idle ones are there and when they have gone: latency should be the same.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import rig, streams
from benchmarks.load import generate
from benchmarks.rig import Device

COUNT: Final = 10_000
_WARM_UP: Final = 50
_PER_SECOND: Final = 1000
_WT_TIMER_MS: Final = 500
_BUSY: Final = 20  # connections whose registrations are timed
_BUSY_S: Final = 2.0
_RESERVE: Final = 200  # descriptors that are no connections
_QUIET_S: Final = _WT_TIMER_MS / 1000 + 2.0


def possible(wanted: int = COUNT) -> int:
    """So many connections do the descriptors allow, of each process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - _RESERVE)


def measure(wanted: int = COUNT) -> dict[str, dict[str, dict[str, float]]]:
    """``{transport: {device: figures}}``; ``wanted`` connections, or as many as there can be."""
    count = possible(wanted)
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        generator = streams.build(directory)
        for transport in streams.TRANSPORTS:
            found[transport] = {}
            for start in streams.starters(directory, _WT_TIMER_MS):
                with start() as device:
                    found[transport][device.name] = _one(generator, transport, device, count)
    return found


def _one(generator: Path, transport: str, device: Device, count: int) -> dict[str, float]:
    with _idle(generator, transport, device, _WARM_UP):
        pass
    job = streams.StreamJob(transport, _BUSY, 1)
    time.sleep(_QUIET_S)
    before = resident(device)
    with _idle(generator, transport, device, count) as run:
        time.sleep(_QUIET_S)
        after = resident(device)
        among = generate(generator, job, device, _BUSY_S)
    time.sleep(_QUIET_S)
    alone = generate(generator, job, device, _BUSY_S)
    return {
        "connections": count,
        "octets": round((after - before) / count),
        "setup_us": run["cpu_us"],
        "alone_p50_us": alone["p50_us"],
        "alone_p99_us": alone["p99_us"],
        "among_p50_us": among["p50_us"],
        "among_p99_us": among["p99_us"],
        "lost": sum(one["lost"] + one["bad"] for one in (run, alone, among)) + count - run["left"],
    }


@contextmanager
def _idle(generator: Path, transport: str, device: Device, count: int) -> Iterator[dict[str, Any]]:
    """Connections that have registered once; when the block has ended, ``left`` says how many there
    still were."""
    command = [
        "taskset", "-c", str(rig.GENERATOR_CPU), str(generator), "idle", "-t", transport,
        "-p", str(streams.port_of(device, transport)), "-c", str(count),
        "-r", str(_PER_SECOND), "-P", ",".join(map(str, device.pids)),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            said = process.stderr.read().strip()
            raise SystemExit(f"benchmarks: idle {transport} on {device.name}: {said}")
        run: dict[str, Any] = json.loads(line)
        yield run
        output, _ = process.communicate()  # ends its standard input, and so the wait
        run["left"] = json.loads(output)["connections"]


def resident(device: Device) -> int:
    """Octets of memory of all processes; what they share counts once."""
    total = 0
    for pid in device.pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        match = re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
        assert match is not None
        total += int(match[1]) * 1024
    return total


def table(
    found: dict[str, dict[str, dict[str, float]]],
    baseline: dict[str, dict[str, dict[str, float]]],
) -> str:
    """For people; ``baseline`` is an earlier result of ``measure``."""
    text = [
        f"{'idle connections':24}{'count':>8}{'octets each':>13}{'set-up CPU us':>15}"
        f"{'p50, p99 us without':>21}{'with them':>13}{'lost':>6}"
        "  to baseline"
    ]
    for transport, devices in found.items():
        for name, one in devices.items():
            old = baseline.get(transport, {}).get(name)
            delta = f"{100 * (one['octets'] / old['octets'] - 1):+10.0f} %" if old else ""
            text.append(
                f"  {transport:4} {name:17}{one['connections']:8.0f}{one['octets']:13.0f}"
                f"{one['setup_us']:15.0f}{one['alone_p50_us']:15.0f}{one['alone_p99_us']:6.0f}"
                f"{one['among_p50_us']:7.0f}{one['among_p99_us']:6.0f}{one['lost']:6.0f}{delta}"
            )
    fewest = min(one["connections"] for both in found.values() for one in both.values())
    if fewest < COUNT:
        text.append(f"  fewer than {COUNT}: asked for, or all that descriptors allow (ulimit -n)")
    return "\n".join(text)
