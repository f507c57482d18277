"""Our own program as a peer: ``sipedge run FILE`` with the files of ``examples/``.

Only the addresses in an example are changed, each exactly where it stands, so that what the tests
prove is true of the examples as people copy them.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sipedge.keyfile import new_key
from tests.peerlib.process import LOOPBACK, Crew, Program, free_port

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
_COMMAND: Final = Path(sysconfig.get_path("scripts")) / "sipedge"
#: the examples tell the core from phones by its address, so it has one of its own
CORE: Final = "127.0.0.2"


class Sipedge:
    """A running ``sipedge``; ``at`` is its (host, port) for UDP and TCP.

    ``changes`` says what is written in the example instead of what.
    """

    program: Program

    def __init__(
        self,
        crew: Crew,
        example: str,
        host: str,
        port: int,
        changes: Mapping[str, str],
        namespace: str | None = None,
    ) -> None:
        self.at = (host, port or free_port(host))
        self.address = f"{host}:{self.at[1]}"
        self._crew = crew
        self._namespace = namespace
        self.directory = crew.place(example)
        text = (_EXAMPLES / f"{example}.py").read_text()
        for old, new in changes.items():
            assert old in text, f"examples/{example}.py has no {old}"
            text = text.replace(old, new.replace("@here@", self.address))
        self.config = self.directory / f"{example}.py"
        self.config.write_text(text)
        key = self.directory / "flow_token.key"
        key.touch(mode=0o600)
        key.write_text(new_key() + "\n")
        self.start()

    def start(self) -> None:
        """Start it, with the same configuration and key as before if it ran before."""
        self.program = self._crew.start(
            self.directory, [str(_COMMAND), "run", str(self.config)], self._namespace
        )
        self.program.wait_output("sipedge is listening on ")

    def kill(self) -> None:
        """``kill -9``: no farewell, and nothing is written down."""
        self.program.kill()


def all_in_one(crew: Crew, host: str = LOOPBACK) -> Sipedge:
    """``examples/edge_and_registrar.py``."""
    return Sipedge(crew, "edge_and_registrar", host, 0, {"127.0.0.1:5060": "@here@"})


def registrar(crew: Crew, host: str = CORE, port: int = 0, namespace: str | None = None) -> Sipedge:
    """``examples/registrar.py``: registrar and home proxy for ``example.com``."""
    return Sipedge(crew, "registrar", host, port, {"127.0.0.2:5060": "@here@"}, namespace)


def edge(
    crew: Crew,
    home: str,
    host: str = LOOPBACK,
    port: int = 0,
    namespace: str | None = None,
    more: Mapping[str, str] | None = None,
) -> Sipedge:
    """``examples/edge.py`` before the registrar at ``home`` (host:port)."""
    changes = {
        "sip:127.0.0.2:5060": f"sip:{home}",
        '{"127.0.0.2"}': f'{{"{home.partition(":")[0]}"}}',
        "127.0.0.1:5060": "@here@",
        **(more or {}),
    }
    return Sipedge(crew, "edge", host, port, changes, namespace)
