"""SIPp, driven through pysipp: one ``Agent`` is one SIPp process that plays one scenario file.

pysipp makes the command lines and judges the exit codes; its launcher is replaced by one that
starts SIPp as a program of the test's ``Crew``, so that SIPp's files stay in the test's directory.
"""

from __future__ import annotations

import importlib
import logging
import re
import shlex
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

import pluggy

from tests.peerlib.process import LOOPBACK, PATIENCE, Crew, Program, free_port, wait_for
from tests.peers import need


class _Manager(pluggy.PluginManager):
    """pysipp passes ``implprefix``, which pluggy 1.0 dropped; it marks all its hooks anyway."""

    def __init__(self, project_name: str, implprefix: str | None = None) -> None:
        super().__init__(project_name)


def _import_pysipp() -> Any:
    """pysipp 0.1.0, made for an older pluggy and for Pythons that had distutils and imp."""
    distutils = types.ModuleType("distutils")
    spawn = types.ModuleType("distutils.spawn")
    spawn.find_executable = shutil.which  # type: ignore[attr-defined]
    distutils.spawn = spawn  # type: ignore[attr-defined]
    gone = {"distutils": distutils, "distutils.spawn": spawn, "imp": types.ModuleType("imp")}
    before = {name: sys.modules.get(name) for name in gone}
    sys.modules.update(gone)
    try:
        with mock.patch.object(pluggy, "PluginManager", _Manager), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it compares strings by identity
            pysipp = importlib.import_module("pysipp")
        # it logs by a method that logging has deprecated, and only what the crew reports anyway
        log = logging.getLogger("pysipp")
        log.warn = log.debug  # type: ignore[method-assign]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return pysipp


pysipp: Final = _import_pysipp()
SIPpFailure: Final = pysipp.SIPpFailure


class _Streams(NamedTuple):
    stdout: str
    stderr: str


class _Process:
    """What pysipp looks at when an agent has ended."""

    def __init__(self, program: Program) -> None:
        self.returncode = program.returncode
        self.streams = _Streams("", program.output)


class _Runner:
    """The launcher that pysipp is given: starts one SIPp in the agent's own directory."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._command = ""

    def __call__(self, commands: Iterable[str], block: bool, timeout: float) -> None:
        (self._command,) = commands
        self._agent.program = self._agent.crew.start(
            self._agent.directory,
            [*shlex.split(self._command), "-nostdin"],
        )

    def get(self, timeout: float) -> dict[str, _Process]:
        program = self._agent.program
        try:
            program.wait(timeout)
        except subprocess.TimeoutExpired:
            program.stop()
            raise AssertionError(f"{program.name} did not end within {timeout:g} s") from None
        return {self._command: _Process(program)}


class Agent:
    """A SIPp that plays ``scenario`` (a file whose name holds ``uac`` or ``uas``) from now on.

    ``peer`` is the address that it talks to (none for a ``uas``), ``keys`` replace ``@key@`` in the
    scenario; ``transport`` is SIPp's (``u1`` UDP, ``t1`` TCP); further settings are pysipp's.

    SIPp finds the call of a message by its Call-ID alone, and has no scenario that registers and is
    then called.  So all agents of a test that are given the same ``call_id`` use that one, and to
    each of them everything that it sees is one call.
    """

    program: Program

    def __init__(
        self,
        crew: Crew,
        scenario: Path,
        peer: tuple[str, int] | None = None,
        keys: Mapping[str, str] | None = None,
        *,
        transport: str = "u1",
        local: tuple[str, int] | None = None,
        call_id: str = "",
        **settings: Any,
    ) -> None:
        self.crew = crew
        self.directory = crew.place(scenario.stem)
        self.local = local or (LOOPBACK, free_port())
        settings.setdefault("recv_timeout", int(PATIENCE * 1000))
        settings.setdefault("rate", 20)  # at one a second, even the first call waits a second
        settings.setdefault("deadcall_wait", "0")  # a string: pysipp leaves out what is false
        settings.update(
            bin_path=need("sipp"),
            scen_file=str(self._rendered(scenario, keys or {})),
            srcaddr=self.local,
            mediaaddr=(self.local[0], free_port(self.local[0], count=4)),  # audio, video, RTCP
            transport=transport,
            trace_error=True,
            error_file=str(self.directory / "errors.txt"),
            log_file=str(self.directory / "log.txt"),
            screen_file=str(self.directory / "screen.txt"),
        )
        if settings.get("call_count", 1) == 1:  # a flood would only fill the disk
            settings["trace_message"] = True
            settings["message_file"] = str(self.directory / "messages.txt")
        if call_id:
            settings["cid_str"] = call_id
        make = pysipp.server
        if peer:
            make, settings["remote_host"], settings["remote_port"] = pysipp.client, *peer
        scenario_of_one = pysipp.agent.Scenario([make(**settings)])
        self._finalize = scenario_of_one(block=False, runner=_Runner(self))

    def _rendered(self, scenario: Path, keys: Mapping[str, str]) -> Path:
        """The scenario with its keys filled in; SIPp itself could not do so in a ``response=``."""
        rendered = self.directory / scenario.name
        rendered.write_text(re.sub("@([a-z_]+)@", lambda m: keys[m[1]], scenario.read_text()))
        return rendered

    @property
    def address(self) -> str:
        """host:port that it listens on."""
        return f"{self.local[0]}:{self.local[1]}"

    def wait_log(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until the scenario logged ``text`` by its ``<log>`` action."""
        log = self.directory / "log.txt"

        def logged() -> bool:
            running = self.program.running
            if log.exists() and text in log.read_text(errors="replace"):
                return True
            if not running:
                raise AssertionError(f"{self.program.name} ended before it logged {text!r}")
            return False

        wait_for(f"{self.program.name} logs {text!r}", logged, timeout)

    def finish(self, timeout: float = 2 * PATIENCE) -> None:
        """Wait until it ends; raises pysipp's ``SIPpFailure`` unless all its calls succeeded."""
        self._finalize(timeout=timeout)

    @property
    def messages(self) -> str:
        """All messages that it sent and received so far."""
        return (self.directory / "messages.txt").read_text(errors="replace")

    @property
    def succeeded(self) -> int:
        """SIPp's own count of the calls that went as its scenario says; known once it has ended."""
        screen = (self.directory / "screen.txt").read_text(errors="replace")
        return int(re.findall(r"Successful call +\| +\d+ +\| +(\d+)", screen)[-1])
