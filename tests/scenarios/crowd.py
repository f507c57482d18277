"""Many idle connections, in a process of their own: ``python -m tests.scenarios.crowd ARGUMENTS``.

Arguments: transport (``tls`` or ``ws``), host and port of the edge, how many, and the file of the
certificates to trust.  Each connection sends one OPTIONS and reads its answer, then says nothing
more.  Prints ``ready N``; waits for the end of stdin; prints how many have ended meanwhile.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
from pathlib import Path

import uvloop

from tests.helpers_net import options
from tests.helpers_ws import TEXT, frame, upgrade_request

AT_ONCE = 50  # handshakes
PER_ADDRESS = 2500  # connections, each with a port of its own


class Client:
    """One of them."""

    def __init__(self, transport: str, number: int) -> None:
        self.transport = transport
        self.number = number

    async def connect(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        source = f"127.0.1.{1 + self.number // PER_ADDRESS}"
        self.reader, self.writer = await asyncio.open_connection(
            host,
            port,
            local_addr=(source, 0),
            ssl=context,
            server_hostname="edge.example.com" if context else None,
        )
        message = options(self.number, via="SIP/2.0/TCP 10.1.1.1:5060")
        if self.transport == "ws":
            self.writer.write(upgrade_request())
            assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            message = frame(TEXT, message)
        self.writer.write(message)
        assert b"SIP/2.0 200 " in await self.reader.readuntil(b"\r\n\r\n")

    @property
    def ended(self) -> bool:
        return self.reader.at_eof() or self.reader.exception() is not None


async def main(transport: str, host: str, port: int, count: int, trusted: Path) -> None:
    context = ssl.create_default_context(cafile=trusted) if transport == "tls" else None
    clients = [Client(transport, number) for number in range(count)]
    room = asyncio.Semaphore(AT_ONCE)

    async def one(client: Client) -> None:
        async with room:
            await client.connect(host, port, context)

    await asyncio.gather(*map(one, clients))
    print("ready", count, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(sum(client.ended for client in clients), flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kind, to, at, number, file = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(kind, to, int(at), int(number), Path(file)))
    sys.stdout.flush()
