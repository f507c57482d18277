"""What the harnesses share: hand one function and its seeds to atheris.

Where atheris is not installed (it has no version for the newest interpreters, and knows nothing of
what compiled code does), the seeds are changed at random instead.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def run(one_input: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Fuzz until libFuzzer's own limits (``-max_total_time``, ``-runs``) are reached or a crash.

    Options and corpus folders of the command line are libFuzzer's.
    """
    try:
        import atheris
    except ImportError:
        _at_random(one_input, list(seeds))
        return
    atheris.instrument_all()
    with tempfile.TemporaryDirectory(prefix="sipedge-fuzz-") as folder:
        for number, seed in enumerate(seeds):
            Path(folder, f"seed-{number}").write_bytes(seed)
        atheris.Setup([*sys.argv, folder], one_input)
        atheris.Fuzz()


def _at_random(one_input: Callable[[bytes], None], seeds: list[bytes]) -> None:
    """Until the time of ``-max_total_time`` is over; prints what it fails with."""
    options = dict(option.split("=") for option in sys.argv[1:] if option.startswith("-max_"))
    until = time.monotonic() + float(options.get("-max_total_time", "60"))
    pieces = [bytes((octet,)) for octet in range(256)]
    for seed in seeds:  # words of one seed in another
        pieces += seed.replace(b"\r\n", b" \r\n ").replace(b";", b" ;").split(b" ")
    runs = 0
    while time.monotonic() < until:
        data = bytearray(random.choice(seeds))
        for _ in range(random.randint(1, 4)):
            at = random.randint(0, len(data))
            data[at : at + random.choice((0, 0, 1, 2, 8))] = random.choice(pieces)
        try:
            one_input(bytes(data))
        except BaseException:
            print(f"failed with {bytes(data)!r}", file=sys.stderr)
            raise
        runs += 1
    print(f"{runs} inputs, no failure")
