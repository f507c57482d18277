"""``sipedge demo``: two phones, real sockets, one edge in this process, the ladder of messages.

Strategy: the edge is ``examples/edge_and_registrar.py`` on free loopback ports with a key of its
own.  Each phone is a script over one socket: it sends, and it waits for the message that must come
next; anything else ends the demo with a failure.  Alice speaks UDP, Bob TCP.  He can be reached
only over the connection that he opened, because his phone listens nowhere (RFC 5626 §1).
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import uuid
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Final

from sipedge.config import Edge, load_config
from sipedge.errors import ParseError
from sipedge.keyfile import new_key
from sipedge.net.server import Server
from sipedge.sip.message import SipMessage, parse
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTACT, RECORD_ROUTE, REQUIRE
from sipedge.sip.reply import build_reply
from sipedge.sip.stream import StreamFramer

HOST: Final = "127.0.0.1"
PATIENCE: Final = 10.0  # seconds for a message that must come
COLUMN: Final = 38  # characters between two vertical lines of the ladder

Report = Callable[[str], None]


class DemoError(Exception):
    """Something else happened than what a working edge does."""


class Ladder:
    """Prints each message as an arrow between a phone and the edge that stands in the middle."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def title(self, text: str) -> None:
        self._report(f"\n{text}")

    def heads(self, left: str, middle: str, right: str) -> None:
        self._report(f"{left:<{COLUMN - 3}}{middle:^9}{right:>{COLUMN - 3}}")

    def arrow(self, phone: Phone, data: bytes, sent: bool) -> None:
        """One message between ``phone`` and the edge; ``sent`` by the phone."""
        first = data.split(b"\r\n", 1)[0].decode("utf-8", "replace")
        text = first[8:] if first.startswith("SIP/2.0 ") else _short(first)
        rightwards = sent == phone.is_left
        line = f" {text} ".ljust(COLUMN - 4, "-")[: COLUMN - 4]
        line = f"--{line}->" if rightwards else f"<-{line}--"
        empty = " " * COLUMN
        self._report(f"|{line}|{empty}|" if phone.is_left else f"|{empty}|{line}|")


def _short(start_line: str) -> str:
    """A request line without the version and without a flow token that nobody can read."""
    method, _, rest = start_line.partition(" ")
    return f"{method} {rest.removesuffix(' SIP/2.0').partition(';')[0]}"


class Phone(asyncio.DatagramProtocol):
    """One account on one flow; it knows just enough SIP to register, call and hang up."""

    def __init__(self, name: str, ladder: Ladder, is_left: bool) -> None:
        self.name = name
        self.is_left = is_left
        self.tag = secrets.token_hex(4).encode()
        self.instance = uuid.uuid4().urn.encode()
        self.local = (HOST, 0)
        self._ladder = ladder
        self._inbox: asyncio.Queue[SipMessage | ParseError] = asyncio.Queue()
        self._framer = StreamFramer()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def transport(self) -> bytes:
        return b"UDP" if self._udp is not None else b"TCP"

    async def open_udp(self, port: int) -> None:
        """A UDP socket that talks to the edge and nobody else."""
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=(HOST, 0), remote_addr=(HOST, port)
        )
        self.local = self._udp.get_extra_info("sockname")

    async def open_tcp(self, port: int) -> None:
        """A connection to the edge."""
        reader, self._tcp = await asyncio.open_connection(HOST, port)
        self.local = self._tcp.get_extra_info("sockname")
        self._reader = asyncio.create_task(self._read(reader))

    async def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None and self._reader is not None:
            self._tcp.close()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65536):
            for event in self._framer.feed(data, loop.time()):
                if isinstance(event, bytes):
                    self._received(event)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._received(data)

    def _received(self, data: bytes) -> None:
        self._ladder.arrow(self, data, sent=False)
        try:
            self._inbox.put_nowait(parse(data, self._tcp is not None))
        except ParseError as exc:
            self._inbox.put_nowait(exc)

    def send(self, data: bytes) -> None:
        self._ladder.arrow(self, data, sent=True)
        if self._udp is not None:
            self._udp.sendto(data)
        elif self._tcp is not None:
            self._tcp.write(data)

    async def expect(self, what: str) -> SipMessage:
        """The next message that is no 100: a request by its method or a response by its status."""
        while True:
            try:
                msg = await asyncio.wait_for(self._inbox.get(), PATIENCE)
            except TimeoutError:
                raise DemoError(f"{self.name} waited for {what}, and nothing came") from None
            if isinstance(msg, ParseError):
                raise DemoError(f"{self.name} waited for {what} and got no SIP: {msg}")
            got = msg.method.decode() if msg.is_request else str(msg.status)
            if got == what:
                return msg
            if got != "100":
                raise DemoError(f"{self.name} waited for {what} and got {msg.lines[0]!r}")

    # what a phone writes

    @property
    def aor(self) -> bytes:
        return b"<sip:%s@example.com>" % self.name.encode()

    @property
    def contact(self) -> bytes:
        tcp = b";transport=tcp" if self._tcp is not None else b""
        return b"<sip:%s@%s:%d%s;ob>" % (self.name.encode(), HOST.encode(), self.local[1], tcp)

    def request(self, method: bytes, uri: bytes, lines: list[bytes]) -> bytes:
        """A request with our Via on top; ``lines``: From, To, Call-ID, CSeq and all the rest."""
        via = b"Via: SIP/2.0/%s %s:%d;rport;branch=z9hG4bK%s" % (
            self.transport, HOST.encode(), self.local[1], secrets.token_hex(8).encode(),
        )  # fmt: skip
        head = [b"%s %s SIP/2.0" % (method, uri), via, b"Max-Forwards: 70", *lines]
        return b"\r\n".join([*head, b"Supported: path, outbound", b"Content-Length: 0\r\n\r\n"])

    async def register(self) -> None:
        """Register with outbound; the answer must say that outbound was applied (RFC 5626 §6)."""
        instance = b';+sip.instance="<%s>";reg-id=1' % self.instance
        lines = [
            b"From: %s;tag=%s" % (self.aor, self.tag),
            b"To: " + self.aor,
            b"Call-ID: " + secrets.token_hex(8).encode(),
            b"CSeq: 1 REGISTER",
            b"Contact: " + self.contact + instance,
            b"Expires: 600",
        ]
        self.send(self.request(b"REGISTER", b"sip:example.com", lines))
        answer = await self.expect("200")
        if b"outbound" not in answer.options(REQUIRE):
            raise DemoError("the registrar did not apply outbound")


class Dialog:
    """One end of a call, from the message that made it (RFC 3261 §12.1)."""

    def __init__(self, phone: Phone, local: bytes, remote: bytes, msg: SipMessage) -> None:
        """``msg`` is what the other end sent: the INVITE, or its 200."""
        self.phone = phone
        routes = msg.values(RECORD_ROUTE)
        self._lines = [
            *(b"Route: " + value for value in (routes if msg.is_request else reversed(routes))),
            b"From: " + local,
            b"To: " + remote,
            b"Call-ID: " + msg.call_id,
        ]
        self._target = parse_nameaddr(msg.first(CONTACT) or b"").uri

    def send(self, method: bytes, number: int) -> None:
        lines = [*self._lines, b"CSeq: %d %s" % (number, method)]
        self.phone.send(self.phone.request(method, self._target, lines))


async def call(caller: Phone, callee: Phone, caller_hangs_up: bool) -> None:
    """INVITE, 180, 200, ACK, then BYE from one of the two and its 200."""
    own = b"%s;tag=%s" % (caller.aor, secrets.token_hex(4).encode())
    lines = [
        b"From: " + own,
        b"To: " + callee.aor,
        b"Call-ID: " + secrets.token_hex(8).encode(),
        b"CSeq: 1 INVITE",
        b"Contact: " + caller.contact,
    ]
    caller.send(caller.request(b"INVITE", callee.aor.strip(b"<>"), lines))
    invite = await callee.expect("INVITE")
    headers = [(RECORD_ROUTE, value) for value in invite.values(RECORD_ROUTE)]
    headers.append((CONTACT, callee.contact))
    callee.send(build_reply(invite, 180, b"Ringing", callee.tag, headers))
    await caller.expect("180")
    callee.send(build_reply(invite, 200, b"OK", callee.tag, headers))
    answer = await caller.expect("200")

    theirs = b"%s;tag=%s" % (callee.aor, callee.tag)
    here = Dialog(caller, own, theirs, answer)
    there = Dialog(callee, theirs, own, invite)
    here.send(b"ACK", 1)
    await callee.expect("ACK")

    ends, other = (here, callee) if caller_hangs_up else (there, caller)
    ends.send(b"BYE", 2)
    bye = await other.expect("BYE")
    other.send(build_reply(bye, 200, b"OK"))
    await ends.phone.expect("200")


def configure(directory: Path) -> Edge:
    """The example as it stands, but on ports that the system chooses."""
    template = resources.files("sipedge").joinpath("templates", "edge_and_registrar.py")
    config = directory / "edge_and_registrar.py"
    config.write_text(template.read_text("utf-8").replace(f"{HOST}:5060", f"{HOST}:0"), "utf-8")
    keys = directory / "flow_token.key"
    keys.touch(0o600)
    keys.write_text(new_key() + "\n")
    return load_config(config)


async def play(edge: Edge, report: Report) -> None:
    """The whole demo against ``edge``; raises ``DemoError`` at the first thing that goes wrong."""
    ladder = Ladder(report)
    alice = Phone("alice", ladder, is_left=True)
    bob = Phone("bob", ladder, is_left=False)
    async with Server(edge):
        udp, tcp = (listener.port for listener in edge.config.listeners)
        try:
            await alice.open_udp(udp)
            await bob.open_tcp(tcp)
            report(f"the edge listens on {HOST}, UDP port {udp} and TCP port {tcp}")
            ladder.heads(
                f"alice, UDP port {alice.local[1]}", "edge", f"bob, TCP port {bob.local[1]}"
            )
            ladder.title("Both register, each over a flow of its own.")
            await alice.register()
            await bob.register()
            ladder.title("Alice calls Bob, over the connection that he opened, and hangs up.")
            await call(alice, bob, caller_hangs_up=True)
            ladder.title("Alice calls Bob once more, and he hangs up.")
            await call(alice, bob, caller_hangs_up=False)
            ladder.title("Bob calls Alice over her UDP flow, and she hangs up.")
            await call(bob, alice, caller_hangs_up=False)
        finally:
            await alice.close()
            await bob.close()


def run() -> int:
    """Play the demo on standard output; the exit status."""
    with tempfile.TemporaryDirectory(prefix="sipedge-demo-") as directory:
        try:
            asyncio.run(play(configure(Path(directory)), lambda line: print(line, flush=True)))
        except DemoError as exc:
            print(f"\nthe demo failed: {exc}", file=sys.stderr)
            return 1
    print("\nBoth phones were reached over the flows that they had opened: it works.")
    return 0
