"""``python -m benchmarks``: all benchmarks, or those that are named, beside the committed figures.

See README.md in this directory for the method.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any, Final

from benchmarks import load, memory, micro, rig

PARTS: Final = ("load", "memory", "micro")
BASELINE: Final = rig.HERE / "baseline.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run of load (4)")
    parser.add_argument("--rounds", type=int, default=5, help="of load; the best counts (5)")
    parser.add_argument("--save", action="store_true", help="make the figures the baseline")
    options = parser.parse_args()
    parts = options.part or list(PARTS)
    if not set(parts) <= set(PARTS):
        parser.error(f"there are {', '.join(PARTS)}")
    rig.enter_namespace()
    about = rig.describe()
    for name, text in about.items():
        print(f"{name:10}{text}")
    baseline: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if baseline:
        print(f"{'baseline':10}{baseline['about']['date']}: {baseline['about']['cpu']}")
    found: dict[str, Any] = {}
    for part in parts:
        print(f"\n== {part}", flush=True)
        old = baseline.get(part, {})
        if part == "load":
            print(load.HOW, flush=True)
            found[part] = load.measure(options.seconds, options.rounds)
            print(load.table(found[part], old))
        elif part == "memory":
            found[part] = memory.measure()
            print(memory.table(found[part], old))
        else:
            os.sched_setaffinity(0, {rig.DEVICE_CPU})
            found[part] = micro.measure()
            print(micro.table(found[part], old))
    if options.save:
        about["date"] = time.strftime("%Y-%m-%d")
        BASELINE.write_text(json.dumps({**baseline, "about": about, **found}, indent=1) + "\n")
        print(f"\nwrote {BASELINE}")


if __name__ == "__main__":
    main()
