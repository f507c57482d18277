"""``python -m benchmarks``: all benchmarks, or those that are named, beside the committed figures.

See README.md in this directory for the method.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any, Final

from benchmarks import connections, load, location, memory, micro, rig, streams

PARTS: Final = ("load", "streams", "connections", "location", "memory", "micro")
BASELINE: Final = rig.HERE / "baseline.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run of load (4)")
    parser.add_argument("--rounds", type=int, default=5, help="of load; the best counts (5)")
    parser.add_argument(
        "--connections", type=int, default=connections.COUNT, help="idle ones (10000)"
    )
    parser.add_argument(
        "--bindings", type=int, default=location.BINDINGS, help="of location (1000000)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="--seconds 1 --rounds 1 --connections 1000 --bindings 20000",
    )
    parser.add_argument("--save", action="store_true", help="make the figures the baseline")
    options = parser.parse_args()
    parts = options.part or list(PARTS)
    if not set(parts) <= set(PARTS):
        parser.error(f"there are {', '.join(PARTS)}")
    if options.quick:
        options.seconds, options.rounds, options.connections = 1.0, 1, 1000
        options.bindings = 20_000
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
        elif part == "streams":
            print(streams.HOW, flush=True)
            found[part] = streams.measure(options.seconds / 2, max(1, options.rounds // 2 + 1))
            print(streams.table(found[part], old))
        elif part == "connections":
            found[part] = connections.measure(options.connections)
            print(connections.table(found[part], old))
        elif part == "location":
            print(location.HOW, flush=True)
            found[part] = location.measure(options.bindings)
            print(location.table(found[part], old))
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
