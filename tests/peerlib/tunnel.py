"""TLS for programs that have none: TCP in, TLS out (Debian builds SIPp without it)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path

from tests.peerlib.process import LOOPBACK, PATIENCE, Crew


class TlsTunnel:
    """Listens at ``at``; each connection goes on to ``to`` over TLS, whose certificate must be good
    for that address and signed by ``ca``.  Ends with the crew."""

    def __init__(self, crew: Crew, to: tuple[str, int], ca: Path) -> None:
        self._to = to
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(ca)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._carry, LOOPBACK, 0))
        self.at: tuple[str, int] = self._server.sockets[0].getsockname()
        crew.callback(self.close)

    def _call(self, coro: object) -> asyncio.Server:
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result(PATIENCE)  # type: ignore[arg-type]

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, forth = await asyncio.open_connection(*self._to, ssl=self._context)
        await asyncio.gather(_pump(near, forth), _pump(far, back))

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
    with contextlib.suppress(OSError):
        await sink.wait_closed()
