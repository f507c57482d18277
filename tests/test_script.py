"""Names for editors: importable where type checkers look, and nowhere else.

That every function is typed is shown by ``tests/examples``.
"""

from __future__ import annotations

import pytest

from sipedge.config import load_source
from sipedge.errors import ConfigError

GOOD = 'listen("udp:127.0.0.1:5060")\ndef request_route(ksr, msg): pass\n'


def test_under_type_checking_nothing_is_imported() -> None:
    text = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from sipedge.script import Ksr, core, listen\n"
    )
    assert load_source(text + GOOD).core.request_route is not None


def test_types_can_be_imported_for_real() -> None:
    assert load_source("from sipedge.script import Ksr, SipMessage\n" + GOOD).config.listeners


@pytest.mark.parametrize("name", ["alias", "core", "keyfile", "listen", "loadmodule", "modparam"])
def test_what_is_given_to_the_file_cannot_be_imported(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^edge\.py:1: ImportError: {name} .* TYPE_CHECKING"):
        load_source(f"from sipedge.script import {name}\n" + GOOD, "edge.py")


def test_other_names_are_unknown() -> None:
    with pytest.raises(ConfigError, match="cannot import name 'lisn'"):
        load_source("from sipedge.script import lisn\n" + GOOD)
