"""The other end of the control socket, for the command line: blocking, one connection.

Strategy: one request after the other, but for ``each``, which sends a few at once so that a million
rows do not wait a million times.  See ``control`` for what is on the wire.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from sipedge.module import CommandError

TIMEOUT: Final = 60.0  # seconds of silence
BATCH: Final = 64  # requests at once; their answers fit into any socket buffer


class Unreachable(Exception):
    """No process answers there; says what to do."""


class ControlClient:
    """A connection to the control socket at ``path``; use it with ``with``."""

    def __init__(self, path: Path) -> None:
        """Raises ``Unreachable``."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(str(path))
        except OSError as exc:
            self._socket.close()
            raise Unreachable(_advice(path, exc)) from exc
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def call(self, method: str, *params: object) -> Any:
        """The result of a command without rows; raises ``CommandError`` and ``Unreachable``."""
        self._send([{"method": method, "params": params}])
        return self._result()

    def rows(self, method: str, *params: object) -> Generator[dict[str, Any], None, Any]:
        """The rows of a command as they come; the generator returns the result."""
        self._send([{"method": method, "params": params}])
        while True:
            answer = self._read()
            if "row" not in answer:
                return _result(answer)
            yield answer["row"]

    def each(
        self, method: str, many: Iterable[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Call a command once for each object of arguments; the object, and the result or a
        ``CommandError``."""
        rest = iter(many)
        while batch := list(islice(rest, BATCH)):
            self._send([{"method": method, "params": params} for params in batch])
            for params in batch:
                try:
                    yield params, self._result()
                except CommandError as exc:
                    yield params, exc

    def _result(self) -> Any:
        return _result(self._read())

    def _send(self, requests: list[dict[str, Any]]) -> None:
        try:
            self._socket.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in requests))
        except OSError as exc:
            raise Unreachable(_broken(self._path, exc)) from exc

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as exc:
            raise Unreachable(_broken(self._path, exc)) from exc
        if not line:
            raise Unreachable(_broken(self._path, None))
        answer: dict[str, Any] = json.loads(line)
        return answer


def _result(answer: dict[str, Any]) -> Any:
    error = answer.get("error")
    if error is not None:
        raise CommandError(error["code"], error["message"])
    return answer["result"]


def _advice(path: Path, exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return f"{path}: not allowed; run this as the user that sipedge runs as"
    if isinstance(exc, FileNotFoundError | ConnectionRefusedError):
        return (
            f"no sipedge answers on {path}: start it with `sipedge run FILE`, or say where the "
            "running one has its socket: --socket PATH or --config FILE"
        )
    return f"{path}: {exc.strerror or exc}; name another socket with --socket PATH"


def _broken(path: Path, exc: OSError | None) -> str:
    why = "closed the connection" if exc is None else str(exc.strerror or exc)
    return f"the sipedge on {path} did not answer to the end ({why}); look at its log and try again"
