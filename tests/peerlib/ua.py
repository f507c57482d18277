"""A scripted phone, or home proxy, on one socket: for what no ready-made phone can be told to do.

Strategy: blocking sockets, text messages, one method a step, so that a test reads like a ladder.
It is no SIP stack: nothing is sent again, and nothing happens between two steps.
"""

from __future__ import annotations

import secrets
import socket
import time
from typing import Final

from tests.peerlib.netns import socket_in
from tests.peerlib.process import LOOPBACK, PATIENCE

DOMAIN: Final = "example.com"


class Message:
    """One SIP message, taken apart as far as the tests need it."""

    def __init__(self, text: str) -> None:
        head, _, self.body = text.partition("\r\n\r\n")
        self.start, *lines = head.split("\r\n")
        self.text = text
        self.headers = [(n.strip(), v.strip()) for n, _, v in (x.partition(":") for x in lines)]

    def all(self, name: str) -> list[str]:
        """The values of all header lines of that name, in order."""
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name: str) -> str:
        """The value of the first header line of that name; empty if there is none."""
        return next(iter(self.all(name)), "")

    @property
    def is_request(self) -> bool:
        return not self.start.startswith("SIP/2.0")

    @property
    def what(self) -> str:
        """The method of a request, the status code of a response."""
        return self.start.split(" ")[0 if self.is_request else 1]

    @property
    def uri(self) -> str:
        """The Request-URI."""
        return self.start.split(" ")[1]

    def __repr__(self) -> str:
        return f"<{self.start}>"


class Phone:
    """A user agent with one socket, or something that plays a home proxy.

    ``edge`` is where it sends to, ``transport`` ``udp`` or ``tcp``; ``host`` and ``port`` are its
    own address (any port by default), in a network ``namespace`` if one is given.
    """

    def __init__(
        self,
        user: str,
        edge: tuple[str, int] | None,
        transport: str = "udp",
        host: str = LOOPBACK,
        port: int = 0,
        namespace: str | None = None,
        reg_id: int = 1,
    ) -> None:
        self.user = user
        self.aor = f"sip:{user}@{DOMAIN}"
        self.edge = edge
        self.transport = transport
        self.reg_id = reg_id
        self.instance = f"urn:uuid:00000000-0000-4000-8000-{secrets.token_hex(6)}"
        self.call_id = secrets.token_hex(8)
        self.tag = secrets.token_hex(4)
        self.cseq = 0
        self._buffer = b""
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self.socket = socket_in(namespace, kind)
        if transport == "tcp":  # the address may have been another phone's a moment ago
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port))
        if transport == "tcp" and edge:
            self.socket.settimeout(PATIENCE)
            self.socket.connect(edge)
        self.host, self.port = self.socket.getsockname()[:2]
        self.address = f"{self.host}:{self.port}"
        self.contact = f"sip:{user}@{self.address};transport={transport};ob"

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    # --- what it sends ---

    def send(self, text: str, to: tuple[str, int] | None = None) -> None:
        """Send a message as it stands (lines may end in a bare newline)."""
        data = text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
        if self.transport == "udp":
            self.socket.sendto(data, to or self.edge or ("", 0))
        else:
            self.socket.sendall(data)

    def request(
        self, method: str, uri: str, *headers: str, cseq: int = 0, body: str = "", branch: str = ""
    ) -> None:
        """Send a request with ``headers`` (whole lines, From and To among them)."""
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport.upper()} {self.address}"
            f";branch={branch or 'z9hG4bK' + secrets.token_hex(6)};rport",
            "Max-Forwards: 70",
            f"CSeq: {cseq or self.next_cseq()} {method}",
            *headers,
        ]
        if not any(line.startswith("Call-ID:") for line in headers):
            lines.append(f"Call-ID: {self.call_id}")
        self.send("\n".join([*lines, f"Content-Length: {len(body)}", "", body]))

    def next_cseq(self) -> int:
        self.cseq += 1
        return self.cseq

    def register(self, expires: int = 600) -> Message:
        """Register its flow; the 200."""
        self.send_register(expires)
        return self.expect("200")

    def send_register(self, expires: int = 600) -> None:
        """The same, without waiting for the answer."""
        self.request(
            "REGISTER",
            f"sip:{DOMAIN}",
            f"From: <{self.aor}>;tag={self.tag}",
            f"To: <{self.aor}>",
            f'Contact: <{self.contact}>;+sip.instance="<{self.instance}>";reg-id={self.reg_id}'
            f";expires={expires}",
            "Supported: path, outbound",
        )

    def bindings(self) -> list[str]:
        """What the registrar has for its address of record: one Contact value each."""
        self.request(
            "REGISTER",
            f"sip:{DOMAIN}",
            f"From: <{self.aor}>;tag={self.tag}",
            f"To: <{self.aor}>",
            "Supported: path, outbound",
        )
        answer = self.expect("200")
        return [c.strip() for v in answer.all("Contact") for c in v.split(",<")]

    def invite(self, uri: str, *headers: str) -> str:
        """Send an INVITE to ``uri``; returns its branch, which a CANCEL or an ACK needs."""
        branch = "z9hG4bK" + secrets.token_hex(6)
        self.request(
            "INVITE",
            uri,
            f"From: <{self.aor}>;tag={self.tag}",
            f"To: <{uri.partition(';')[0]}>",
            f"Contact: <{self.contact}>",
            "Supported: outbound",
            *headers,
            branch=branch,
        )
        return branch

    def ack_failure(self, uri: str, branch: str, answer: Message, *headers: str) -> None:
        """The ACK of a final answer of 300 and more: it belongs to the INVITE's transaction."""
        self.request(
            "ACK",
            uri,
            f"From: {answer.get('From')}",
            f"To: {answer.get('To')}",
            *headers,
            cseq=int(answer.get("CSeq").split()[0]),
            branch=branch,
        )

    def respond(self, request: Message, status: int, reason: str, *headers: str) -> None:
        """Answer a request: Via, Record-Route and the rest copied, a tag put on To."""
        copied = [
            f"{name}: {value}"
            for name, value in request.headers
            if name.lower() in ("via", "record-route", "from", "call-id", "cseq")
        ]
        to = request.get("To")
        if ";tag=" not in to:
            to += f";tag={self.tag}"
        lines = [f"SIP/2.0 {status} {reason}", *copied, f"To: {to}", f"Contact: <{self.contact}>"]
        self.send("\n".join([*lines, *headers, "Content-Length: 0", "", ""]))

    # --- what it hears ---

    def expect(self, *what: str, timeout: float = PATIENCE) -> Message:
        """The next message, which must be one of ``what``; ``100`` is passed over."""
        while True:
            message = self.receive(timeout)
            if message.what in what:
                return message
            if message.what != "100":
                raise AssertionError(f"{self.user} expected {what}, got\n{message.text}")

    def receive(self, timeout: float = PATIENCE) -> Message:
        """The next message, whatever it is; ``TimeoutError`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            message = self._framed()
            if message is not None:
                return message
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.socket.recv(65536)
            if not data and self.transport == "tcp":
                raise ConnectionResetError(f"the edge closed the connection of {self.user}")
            self._buffer += data

    def silence(self, seconds: float) -> None:
        """Fails if anything arrives within ``seconds``."""
        try:
            message = self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"{self.user} expected silence, got\n{message.text}")

    def _framed(self) -> Message | None:
        """One message off the buffer; a datagram is one message."""
        if self.transport == "udp":
            data, self._buffer = self._buffer, b""
            return Message(data.decode()) if data.strip() else None
        self._buffer = self._buffer.lstrip(b"\r\n")
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return None
        length = int(Message(head.decode()).get("Content-Length") or 0)
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Message((head + blank + rest[:length]).decode())
