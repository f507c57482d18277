"""PJSIP as a phone that can be asked to register and to call; see ``pjsip_phone``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.peerlib.process import Crew, Program
from tests.peers import need

_SCRIPT: Final = Path(__file__).with_name("pjsip_phone.py")


class Pjsip:
    """One phone; ``edge`` is its outbound proxy, ``called`` whom it calls once registered."""

    program: Program

    def __init__(
        self,
        crew: Crew,
        user: str,
        edge: tuple[str, int],
        transport: str = "udp",
        password: str = "",
        called: str = "",
    ) -> None:
        need("pjsip")
        arguments = [
            edge[0],
            str(edge[1]),
            transport,
            user,
            password,
            *([called] if called else []),
        ]
        directory = crew.place(f"pjsip-{user}")
        self.program = crew.start(directory, [sys.executable, str(_SCRIPT), *arguments])

    def registered(self) -> None:
        self.program.wait_output("registration: 200 OK")

    def call_is(self, state: str) -> None:
        """Wait for a state of its call: CONFIRMED, DISCONNECTED, over."""
        self.program.wait_output(f"call: {state}")

    @property
    def messages(self) -> str:
        """What it sent and received, and what it thinks of it."""
        return self.program.output.replace("\r\n", "\n")
