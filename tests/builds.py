"""What differs between the builds: the compiled one has its constants built in."""

from __future__ import annotations

import os
from typing import Final

import pytest

#: set by ``make test-compiled``
COMPILED: Final = os.environ.get("SIPEDGE_COMPILED") == "1"


def change(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: object) -> None:
    """Another value for a constant of a module or a class; the compiled build cannot have one."""
    if COMPILED:
        pytest.skip(f"{name} is built into compiled code")
    monkeypatch.setattr(owner, name, value)
