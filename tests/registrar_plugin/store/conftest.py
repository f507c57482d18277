"""Closes what a test left open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registrar_plugin.store.disk import Disk


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    while Disk.alive:
        Disk.alive.pop().database.close()
