"""The fuzz harnesses accept their own seeds, so they cannot rot unnoticed."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest

import fuzz
from fuzz import fuzz_message, fuzz_proxy, fuzz_stream, fuzz_stun, fuzz_token, fuzz_websocket

HARNESSES = [fuzz_message, fuzz_proxy, fuzz_stream, fuzz_stun, fuzz_token, fuzz_websocket]

PIECES = [b"", b"\r\n", b'"', b";", b",", b"<", b">", b":", b"\0", b"%", b" ", b"="]


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.__name__)
def test_seeds(harness: ModuleType) -> None:
    assert len(harness.SEEDS) > 3
    for seed in harness.SEEDS:
        harness.one_input(seed)


@pytest.mark.rfc("PAR-13")
@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.__name__)
def test_mutated_seeds(harness: ModuleType) -> None:
    """A few hundred of the mutations that ``make fuzz`` makes by the million; always the same."""
    dice = random.Random(5626)
    for _ in range(300):
        data = bytearray(dice.choice(harness.SEEDS))
        for _ in range(dice.randint(1, 4)):
            at = dice.randint(0, len(data))
            piece = dice.choice(PIECES) or bytes([dice.randrange(256)])
            data[at : at + dice.randint(0, 3)] = piece
        harness.one_input(bytes(data))


def test_every_harness_is_run_here() -> None:
    names = {path.stem for path in Path(fuzz.__file__).parent.glob("fuzz_*.py")}
    assert names == {harness.__name__.rpartition(".")[2] for harness in HARNESSES}
