"""What the harnesses share: hand one function and its seeds to atheris."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def run(one_input: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Fuzz until libFuzzer's own limits (``-max_total_time``, ``-runs``) are reached or a crash.

    Options and corpus folders of the command line are libFuzzer's.
    """
    import atheris

    atheris.instrument_all()
    with tempfile.TemporaryDirectory(prefix="sipedge-fuzz-") as folder:
        for number, seed in enumerate(seeds):
            Path(folder, f"seed-{number}").write_bytes(seed)
        atheris.Setup([*sys.argv, folder], one_input)
        atheris.Fuzz()
