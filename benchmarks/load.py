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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

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

    def arguments(self, device: Device) -> list[str]:
        """Of the generator."""
        numbers = {"-p": device.port, "-n": self.outstanding, "-f": self.phones}
        return [self.name, *(str(word) for pair in numbers.items() for word in pair)]

    def heading(self) -> str:
        return f"{self.title}, {self.outstanding} outstanding, {self.phones} phones"


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


class AnyJob(Protocol):
    """What ``interleaved`` has to know of a job."""

    @property
    def name(self) -> str: ...
    def arguments(self, device: Device) -> list[str]: ...
    def heading(self) -> str: ...


def measure(seconds: float, rounds: int) -> dict[str, dict[str, Any]]:
    """Everything; returns ``{job: {device: figures}}``."""
    with tempfile.TemporaryDirectory() as directory:
        generator = rig.build_generator(Path(directory))
        found = interleaved(
            generator, JOBS, _devices("edge.py", wt_timer_ms=rig.WT_TIMER_MS), seconds, rounds
        )
        registrars = _devices("registrar.py", "-A", "WITH_REGISTRAR=1")
        found |= interleaved(generator, (SAVE,), registrars, seconds / 2, max(1, rounds // 2 + 1))
        # and with our own default, RFC 3261's 32 s: more transactions are alive at any time
        alone: list[Starter] = [partial(rig.sipedge, 5060, "edge.py")]
        for job, devices in interleaved(generator, JOBS, alone, 2 * seconds, 1).items():
            found[job]["sipedge, wt_timer 32 s"] = devices["sipedge"]
    return found


def _devices(config: str, *options: str, wt_timer_ms: int | None = None) -> list[Starter]:
    """Kamailio, and ours as it is and compiled; what is not installed is left out."""
    ours = partial(rig.sipedge, config=config, wt_timer_ms=wt_timer_ms)
    devices: list[Starter] = [partial(ours, 5060)]
    if rig.COMPILED_PYTHON.exists():
        devices.insert(0, partial(ours, 5062, compiled=True))
    if rig.kamailio_version() is not None:
        devices.insert(0, partial(rig.kamailio, 5061, options=options))
    return devices


def interleaved(
    generator: Path, jobs: Sequence[AnyJob], starters: list[Starter], seconds: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """All devices run; each round, each job meets each of them: ``{job: {device: figures}}``."""
    runs: dict[str, dict[str, list[Run]]] = {job.name: {} for job in jobs}
    with ExitStack() as stack:
        devices = [stack.enter_context(start()) for start in starters]
        for _ in range(rounds):
            for job in jobs:
                for device in devices:
                    run = generate(generator, job, device, seconds)
                    runs[job.name].setdefault(device.name, []).append(run)
                    time.sleep(_PAUSE_S)
    return {
        job: {device: _summary(these) for device, these in devices.items()}
        for job, devices in runs.items()
    }


def generate(generator: Path, job: AnyJob, device: Device, seconds: float) -> Run:
    """One run of the generator against one device."""
    command = [
        "taskset", "-c", str(rig.GENERATOR_CPU), str(generator), *job.arguments(device),
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
    return rows((*JOBS, SAVE), found, baseline, "rate/s")


def rows(
    jobs: Sequence[AnyJob], found: dict[str, dict[str, Any]], baseline: dict[str, Any], rate: str
) -> str:
    """The figures of jobs, as text; ``rate`` is the heading of that column."""
    text = [
        f"{'':26}{rate:>8}{'median':>8}{'CPU us':>8}{'user':>7}{'sys':>6}"
        f"{'p50 us':>8}{'p99 us':>8}{'worst':>9}{'lost':>6}{'bad':>5}  to baseline"
    ]
    for job in jobs:
        devices = found.get(job.name, {})
        text.append(job.heading())
        for name, one in devices.items():
            old = baseline.get(job.name, {}).get(name)
            delta = f"{100 * (one['rate'] / old['rate'] - 1):+10.0f} %" if old else ""
            text.append(
                f"  {name:24}{one['rate']:8.0f}{one['rate_median']:8.0f}{one['cpu_us']:8.1f}"
                f"{one['user_us']:7.1f}{one['system_us']:6.1f}{one['p50_us']:8.0f}"
                f"{one['p99_us']:8.0f}{one['max_us'] / 1000:6.1f} ms{one['lost']:6}{one['bad']:5}"
                f"{delta}"
            )
            if one["complaint"]:
                text.append(f"    {one['complaint']}")
        theirs = devices.get("Kamailio")
        for name in ("sipedge compiled", "sipedge"):
            if theirs is not None and name in devices:
                ours = devices[name]
                best = ours["rate"] / theirs["rate"]
                text.append(
                    f"  {name}, of Kamailio: {best:.2f} by best rates, "
                    f"{ours['rate_median'] / theirs['rate_median']:.2f} by the medians, "
                    f"{theirs['cpu_us'] / ours['cpu_us']:.2f} by CPU time"
                )
    return "\n".join(text)
