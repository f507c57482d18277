"""The control socket: commands of an operator to the running process.  At the rim, no stop.

Strategy: a Unix socket, readable for its owner only, that takes a JSON object a line and answers
with lines:

    {"id": 1, "method": "ul.lookup", "params": ["location", "bob@example.com"]}
    {"id": 1, "result": {...}}  or  {"id": 1, "error": {"code": 404, "message": "..."}}

A command with many rows sends ``{"id": 1, "row": {...}}`` for each before its result.  Rows are
made a few at a time, between the turns of the loop: a million of them delay no call.  Requests,
clients and patience are bounded; for a client that does not read nothing is kept.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from sipedge.commands import BAD_REQUEST, Commands
from sipedge.errors import ConfigError
from sipedge.module import CommandError, Later

if TYPE_CHECKING:
    from sipedge.config import Edge
    from sipedge.net.server import Server

log = logging.getLogger(__name__)

MAX_REQUEST: Final = 64 * 1024  # octets
MAX_CLIENTS: Final = 16
SLICE: Final = 0.001  # seconds of work for one client in one turn of the loop
PATIENCE: Final = 300.0  # seconds with a client that neither asks nor reads
AUTO: Final = "auto"
_MAX_PATH: Final = 107  # octets, unix(7)


class _ClientGone(Exception):
    """It closed the connection, or does not read what it asked for."""


class ControlSocket:
    """``async with ControlSocket(server, edge):`` takes commands until the block ends."""

    def __init__(self, server: Server, edge: Edge) -> None:
        self._server = server
        self._core = edge.core
        self._commands = Commands(edge.core, edge.config.commands)
        self._setting = edge.core.control_socket
        self._file = edge.config.file
        self._clients: set[asyncio.Task[Any]] = set()
        self._listener: asyncio.Server | None = None
        #: where it is; None if there is none
        self.path: Path | None = None
        self._inode = 0

    async def __aenter__(self) -> ControlSocket:
        self.path = _choose(self._setting, self._file)
        if self.path is not None:
            sock = _bind(self.path, self._file)
            self._inode = self.path.stat().st_ino
            self._listener = await asyncio.start_unix_server(
                self._client, sock=sock, limit=MAX_REQUEST
            )
            log.info("taking commands on %s", self.path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is None or self.path is None:
            return
        self._listener.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        try:
            if self.path.stat().st_ino == self._inode:  # and not a successor's
                self.path.unlink()
        except OSError as exc:
            log.debug("%s: %s", self.path, exc)

    # -- clients

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # called by asyncio in a task of its own
        try:
            if len(self._clients) >= MAX_CLIENTS:
                writer.write(_line(None, error=CommandError(503, "too many clients")))
                return
            self._clients.add(task)
            await self._requests(reader, writer)
        except (_ClientGone, OSError, asyncio.IncompleteReadError) as exc:  # TimeoutError: idle
            log.debug("control client: %r", exc)
        except Exception:
            log.exception("a control client was given up")
            self._server.count("net_exceptions")
        finally:
            self._clients.discard(task)
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        until = monotonic() + SLICE
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    line = await reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                why = CommandError(BAD_REQUEST, f"a request has {MAX_REQUEST} octets at most")
                writer.write(_line(None, error=why))
                return
            if line.strip():
                writer.write(await self._answer(line, writer))
            if monotonic() > until:  # somebody asks without end
                await self._turn(writer)
                until = monotonic() + SLICE

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> bytes:
        """The last line of the answer to a request; rows are written on the way."""
        ident: object = None
        try:
            ident, method, params = _parse(line)
            self._core.now = monotonic()
            try:
                result = self._commands.call(method, params)
                if inspect.isawaitable(result):
                    result = await result
                if isinstance(result, Later):
                    result = await self._settled(result)
                elif isinstance(result, Iterator | AsyncIterator):
                    result = await self._rows(ident, result, writer)
                return _line(ident, result=result)
            finally:
                self._server.drain(monotonic())  # what the command wanted done
        except CommandError as exc:
            return _line(ident, error=exc)
        except _ClientGone:
            raise
        except Exception:
            log.exception("a command failed: %.200r", line)
            self._core.stats["command_exceptions"] += 1
            return _line(ident, error=CommandError(500, "the command failed; see the log"))

    async def _rows(
        self,
        ident: object,
        rows: Iterator[object] | AsyncIterator[object],
        writer: asyncio.StreamWriter,
    ) -> object:
        count = 0
        until = monotonic() + SLICE
        while True:
            try:
                row = next(rows) if isinstance(rows, Iterator) else await anext(rows)
            except StopIteration as end:
                return {"rows": count} if end.value is None else end.value
            except StopAsyncIteration:
                return {"rows": count}
            writer.write(_line(ident, row=row))
            count += 1
            if monotonic() > until:
                await self._turn(writer)
                self._core.now = monotonic()
                until = self._core.now + SLICE

    async def _settled(self, later: Later) -> object:
        future: asyncio.Future[object] = self._server.loop.create_future()

        def settle(value: object) -> None:
            if not future.done():  # else the client did not wait for it
                future.set_result(value)

        later.then(settle)
        result = await future
        if isinstance(result, CommandError):
            raise result
        return result

    async def _turn(self, writer: asyncio.StreamWriter) -> None:
        """Let everybody else have a turn, and a slow reader as many as it needs."""
        try:
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
        except OSError as exc:  # TimeoutError is one
            raise _ClientGone from exc
        await asyncio.sleep(0)


def _parse(line: bytes) -> tuple[object, str, object]:
    """Id, method and params of a request; raises ``CommandError``."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise CommandError(BAD_REQUEST, "a request is a JSON object in one line") from None
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        raise CommandError(
            BAD_REQUEST, 'a request is {"id": ..., "method": "...", "params": [...]}'
        )
    return request.get("id"), request["method"], request.get("params", [])


def _line(ident: object, **what: Any) -> bytes:
    error = what.get("error")
    if isinstance(error, CommandError):
        what["error"] = {"code": error.code, "message": error.message}
    return json.dumps({"id": ident, **what}, separators=(",", ":")).encode() + b"\n"


# -- where it is


def candidates(setting: str, config: str | Path) -> list[Path]:
    """Where the socket of a configuration may be, best first; ``setting``: core.control_socket."""
    if not setting:
        return []
    file = Path(config).absolute()
    if setting != AUTO:
        return [file.parent / setting]
    found = [file.with_suffix(".sock")]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        found.append(Path(runtime) / f"sipedge-{file.stem}.sock")
    return found


def _choose(setting: str, config: str) -> Path | None:
    """The path to bind; None if there shall be none, or "auto" finds no place."""
    paths = candidates(setting, config)
    if setting != AUTO:
        return paths[0] if paths else None
    if not Path(config).is_file():
        return None  # a text that a program made
    for path in paths:
        if len(os.fsencode(path)) <= _MAX_PATH and os.access(path.parent, os.W_OK | os.X_OK):
            return path
    log.warning(
        "no control socket: it cannot be made as %s; set core.control_socket to a path",
        " or as ".join(map(str, paths)),
    )
    return None


def _bind(path: Path, config: str) -> socket.socket:
    """A listening socket that only its owner can use; raises ``ConfigError``."""
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ConfigError(
            f"core.control_socket: {path} is too long, a socket has {_MAX_PATH} octets at most",
            config,
        )
    sock = socket.socket(socket.AF_UNIX)
    try:
        try:
            sock.bind(str(path))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path, config)
            sock.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen
        sock.listen(MAX_CLIENTS)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise ConfigError(f"core.control_socket: {path}: {exc.strerror}", config) from exc
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path, config: str) -> None:
    """Remove the socket of a process that is dead; raises ``ConfigError`` if it is not."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError(
            f"core.control_socket: {path} is there and is no socket; use another path", config
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            log.info("%s was left behind by a process that is gone; replaced", path)
            return
        except (TimeoutError, BlockingIOError):
            pass  # somebody listens and is busy
    raise ConfigError(
        f"core.control_socket: another process answers on {path}: stop it, or set "
        "core.control_socket to another path",
        config,
    )
