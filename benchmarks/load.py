"""Load: what one core serves a second, and what each transaction costs it, beside Kamailio.

Strategy: both devices run all the time, on the same core; the generator takes them in turn, round
by round, so that whatever else the machine does meets both.  Of the rates the best and the median
count, of the costs the median; the worst latency is the worst of all rounds.  The generator checks
every message (``bad``) and counts what got lost.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import rig
from benchmarks.rig import Device

#: JSON of one run of the generator
Run = dict[str, Any]
_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """Something that both can do.  ``name`` is what the generator calls it."""

    name: str
    title: str
    outstanding: int
    phones: int = 10_000


JOBS: Final = (
    Job("register", "stateful REGISTER, Path with flow token", 32),
    Job("call", "stateful record-routed call (6 messages)", 16),
)
SAVE: Final = Job("save", "REGISTER answered by the registrar", 32)
#: printed above the table: what must be the same for both, and what is not
HOW: Final = (
    "Kamailio: one worker, -x tlsf -X tlsf, shm_force_alloc. Both keep ended transactions "
    f"{rig.WT_TIMER_MS / 1000:.0f} s\n(wt_timer; Kamailio's default; ours is RFC 3261's 32 s, "
    "in a line of its own). One core for all devices."
)
Starter = Callable[[], AbstractContextManager[Device]]


def measure(seconds: float, rounds: int) -> dict[str, dict[str, Any]]:
    """Everything; returns ``{job: {device: figures}}``."""
    with tempfile.TemporaryDirectory() as directory:
        generator = rig.build_generator(Path(directory))
        edge = partial(rig.sipedge, 5060, "edge.py", wt_timer_ms=rig.WT_TIMER_MS)
        found = _interleaved(generator, JOBS, _pair(edge, 5061), seconds, rounds)
        registrar = partial(rig.sipedge, 5060, "registrar.py")
        pair = _pair(registrar, 5061, registrar=True)
        found |= _interleaved(generator, (SAVE,), pair, seconds / 2, max(1, rounds // 2 + 1))
        # and with our own default, RFC 3261's 32 s: more transactions are alive at any time
        alone: list[Starter] = [partial(rig.sipedge, 5060, "edge.py")]
        for job, devices in _interleaved(generator, JOBS, alone, 2 * seconds, 1).items():
            found[job]["sipedge, wt_timer 32 s"] = devices["sipedge"]
    return found


def _pair(ours: Starter, port: int, *, registrar: bool = False) -> list[Starter]:
    if rig.kamailio_version() is None:
        return [ours]
    return [partial(rig.kamailio, port, registrar=registrar), ours]


def _interleaved(
    generator: Path, jobs: tuple[Job, ...], starters: list[Starter], seconds: float, rounds: int
) -> dict[str, dict[str, Any]]:
    runs: dict[str, dict[str, list[Run]]] = {job.name: {} for job in jobs}
    with ExitStack() as stack:
        devices = [stack.enter_context(start()) for start in starters]
        for _ in range(rounds):
            for job in jobs:
                for device in devices:
                    run = _generate(generator, job, device, seconds)
                    runs[job.name].setdefault(device.name, []).append(run)
                    time.sleep(_PAUSE_S)
    return {
        job: {device: _summary(these) for device, these in devices.items()}
        for job, devices in runs.items()
    }


def _generate(generator: Path, job: Job, device: Device, seconds: float) -> Run:
    """One run of the generator against one device."""
    command = [
        "taskset", "-c", str(rig.GENERATOR_CPU), str(generator), job.name,
        "-p", str(device.port), "-n", str(job.outstanding), "-f", str(job.phones),
        "-s", str(seconds), "-P", ",".join(map(str, device.pids)),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks: {job.name} against {device.name}: {done.stderr.strip()}")
    run: Run = json.loads(done.stdout)
    run["complaint"] = done.stderr.strip()
    return run


def _summary(runs: list[Run]) -> dict[str, Any]:
    """Best and median rate, median costs, worst latency, all losses of some runs."""
    figures: dict[str, Any] = {
        "rate": max(run["rate"] for run in runs),
        "rate_median": median(run["rate"] for run in runs),
    }
    for name in ("cpu_us", "user_us", "system_us", "p50_us", "p99_us", "generator_cpu"):
        figures[name] = round(median(run[name] for run in runs), 2)
    figures["max_us"] = max(run["max_us"] for run in runs)
    figures["lost"] = sum(run["lost"] for run in runs)
    figures["bad"] = sum(run["bad"] for run in runs)
    figures["complaint"] = next((run["complaint"] for run in runs if run["complaint"]), "")
    return figures


def table(found: dict[str, dict[str, Any]], baseline: dict[str, Any]) -> str:
    """For people; ``baseline`` is an earlier result of ``measure``."""
    rows = [
        f"{'':26}{'rate/s':>8}{'median':>8}{'CPU us':>8}{'user':>7}{'sys':>6}"
        f"{'p50 us':>8}{'p99 us':>8}{'worst':>9}{'lost':>6}{'bad':>5}  to baseline"
    ]
    for job in (*JOBS, SAVE):
        devices = found.get(job.name, {})
        rows.append(f"{job.title}, {job.outstanding} outstanding, {job.phones} phones")
        for name, one in devices.items():
            old = baseline.get(job.name, {}).get(name)
            delta = f"{100 * (one['rate'] / old['rate'] - 1):+10.0f} %" if old else ""
            rows.append(
                f"  {name:24}{one['rate']:8.0f}{one['rate_median']:8.0f}{one['cpu_us']:8.1f}"
                f"{one['user_us']:7.1f}{one['system_us']:6.1f}{one['p50_us']:8.0f}"
                f"{one['p99_us']:8.0f}{one['max_us'] / 1000:6.1f} ms{one['lost']:6}{one['bad']:5}"
                f"{delta}"
            )
            if one["complaint"]:
                rows.append(f"    {one['complaint']}")
        if "Kamailio" in devices and "sipedge" in devices:
            ours, theirs = devices["sipedge"], devices["Kamailio"]
            rows.append(
                f"  of Kamailio: {ours['rate'] / theirs['rate']:.2f} by the best rates, "
                f"{ours['rate_median'] / theirs['rate_median']:.2f} by the medians, "
                f"{theirs['cpu_us'] / ours['cpu_us']:.2f} by CPU time"
            )
    return "\n".join(rows)
