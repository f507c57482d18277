"""Whoever waits for us to be ready: systemd, and a file.  At the rim, no stop.

Strategy: ready means that every listener has its port and new calls are welcome; it ends when
draining begins.  ``sipedge status`` says the same over the control socket.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sipedge.errors import ConfigError

if TYPE_CHECKING:
    from sipedge.config import Edge

log = logging.getLogger(__name__)


class Readiness:
    """``with Readiness(edge):`` is the time in which we are ready."""

    def __init__(self, edge: Edge) -> None:
        """``core.ready_file``: a path relative to the configuration file, or ""."""
        self._setting = edge.core.ready_file
        self._file = edge.config.file
        self._path = Path(self._file).absolute().parent / self._setting if self._setting else None

    def __enter__(self) -> Readiness:
        """Raises ``ConfigError`` if the file cannot be made."""
        if self._path is not None:
            try:
                self._path.write_text(f"{os.getpid()}\n")
            except OSError as exc:
                raise ConfigError(
                    f"core.ready_file: {self._path}: {exc.strerror}", self._file
                ) from exc
        notify("READY=1")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        notify("STOPPING=1")
        if self._path is not None:
            try:
                self._path.unlink()
            except OSError as exc:
                log.warning("%s: %s", self._path, exc.strerror)


def notify(state: str) -> None:
    """Tell systemd, if it started us with ``Type=notify`` (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address[0] == "@":  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as exc:
        log.warning("NOTIFY_SOCKET: %s", exc.strerror)
