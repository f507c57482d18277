"""Names for editors and mypy in a configuration file: see ``script.pyi`` beside this file.

    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        from sipedge.script import Ksr, SipMessage, listen, loadmodule, modparam

When the file runs, these names are given to it; nothing has to be imported.
"""

from __future__ import annotations

from sipedge.ksr import Ksr
from sipedge.sip.message import SipMessage

_GIVEN = ("alias", "core", "keyfile", "listen", "loadmodule", "modparam")


def __getattr__(name: str) -> object:
    if name in _GIVEN:
        raise ImportError(
            f"{name} is given to the configuration file; import it only under `if TYPE_CHECKING:`"
        )
    raise AttributeError(name)


__all__ = ["Ksr", "SipMessage"]
