"""Stop 1 for WebSocket: the HTTP request that a connection begins with (RFC 6455 §4, RFC 7118 §4).

Strategy: ``websockets`` parses the request and checks what RFC 6455 says, we add RFC 7118, the
Origin policy and the operator's own, and answers that tell a human being what this port is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from websockets.datastructures import Headers
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from sipedge.flow import WSS, Address, Listener
from sipedge.net.layers import Layer
from sipedge.websocket import Request, Settings

log = logging.getLogger(__name__)
#: the library says at INFO what we say ourselves
_library_log: Final = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.WARNING)

SUBPROTOCOLS: Final = [Subprotocol("sip")]
VERSION: Final = "13"
_REQUEST_LINE: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r\n")
_LONGEST_METHOD: Final = 32
_ABOUT: Final = (
    "This port speaks SIP over WebSocket (RFC 7118).\n"
    "Point a SIP client at it: JsSIP, SIP.js, or whatever offers the sub-protocol sip.\n"
)


class Upgrade:
    """The handshake of one connection, sans IO."""

    __slots__ = ("_below", "_listener", "_remote", "_settings", "protocol", "reason", "request")

    def __init__(
        self, settings: Settings, listener: Listener, remote: Address, below: Sequence[Layer]
    ) -> None:
        """``remote``: who TCP says it is; ``below``: layers that may know more, and better."""
        self._settings = settings
        self._listener = listener
        self._remote = remote
        self._below = below
        #: what was accepted
        self.protocol: ServerProtocol | None = None
        self.request: Request | None = None
        #: why it was not, for logs
        self.reason = ""

    def problem(self, head: bytes | bytearray) -> bytes:
        """The answer to the beginning of a request that cannot become one, or b""."""
        line_end = head.find(b"\n") + 1
        if line_end or len(head) > self._settings.max_head_size:
            if line_end and not _REQUEST_LINE.fullmatch(head[:line_end]):
                return self._refused(400, "This is no HTTP request.\n" + _ABOUT)
            if len(head) > self._settings.max_head_size:
                return self._refused(431, "The head of the request is too long.\n")
        elif not head[:_LONGEST_METHOD].partition(b" ")[0].isalpha() or (
            len(head) >= _LONGEST_METHOD and b" " not in head[:_LONGEST_METHOD]
        ):
            return self._refused(400, "This is no HTTP request.\n" + _ABOUT)
        return b""

    def answer(self, head: bytes) -> bytes:
        """The answer to a whole head, its empty line included.

        101 if ``protocol`` and ``request`` are set afterwards.
        """
        protocol = ServerProtocol(subprotocols=SUBPROTOCOLS, logger=_library_log)
        try:
            return self._answer(protocol, head)
        finally:
            forget(protocol)

    def _answer(self, protocol: ServerProtocol, head: bytes) -> bytes:
        settings = self._settings
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events or not isinstance(events[0], HttpRequest):
            self.reason = (
                f"{protocol.handshake_exc}: {protocol.handshake_exc.__cause__}"
                if (protocol.handshake_exc)
                else "no HTTP request"
            )
            return b"".join(protocol.data_to_send()) or self._refused(400, "Bad request.\n")
        http = events[0]
        accepted = protocol.accept(http)
        if accepted.status_code != 101:
            return self._explained(http, accepted)
        request = self._request(http)
        refusal = self._refusal(request)
        if refusal is not None:
            return self._refused(*refusal)
        origin = request.origin
        if settings.cors_mode == 1:
            accepted.headers["Access-Control-Allow-Origin"] = "*"
        elif settings.cors_mode == 2 and origin is not None:
            accepted.headers["Access-Control-Allow-Origin"] = origin
        keep = settings.keep_headers
        request.headers = {name: text for name, text in request.headers.items() if name in keep}
        protocol.send_response(accepted)
        # a new one, as the parser of the old one holds on to the whole HTTP request
        self.protocol = ServerProtocol(
            state=OPEN, max_size=settings.max_message_size, logger=_library_log
        )
        self.request = request
        return b"".join(protocol.data_to_send())

    def _request(self, http: HttpRequest) -> Request:
        facts: dict[str, Any] = {}
        for layer in self._below:
            facts.update(layer.facts)
        listener = self._listener
        remote = facts.pop("remote", self._remote)
        local = facts.pop("local", (listener.host, listener.port))
        secure = listener.transport == WSS
        return Request(http.path, http.headers.raw_items(), remote, local, secure, facts)

    def _explained(self, http: HttpRequest, rejected: Response) -> bytes:
        """What ``websockets`` refuses, with what helps whoever asked."""
        status = rejected.status_code
        versions = http.headers.get_all("Sec-WebSocket-Version")
        if status == 405:
            return self._refused(405, _ABOUT, (("Allow", "GET"),))
        if status == 400 and len(versions) == 1 and versions[0].strip() != VERSION:
            # RFC 6455 §4.2.2 item 4
            return self._refused(
                426,
                f"This server speaks WebSocket version {VERSION}.\n",
                (("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)),
            )
        if status == 426:
            lines = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION))
            return self._refused(426, _ABOUT, lines)
        return self._refused(status, bytes(rejected.body).decode() + _ABOUT)

    def _refusal(self, request: Request) -> tuple[int, str, tuple[tuple[str, str], ...]] | None:
        """What we, and the operator, have against a request that RFC 6455 allows."""
        settings = self._settings
        if not settings.enabled:
            return 503, "New connections are not accepted now.\n", (("Retry-After", "30"),)
        if "host" not in request.headers:
            return 400, "The request has no Host header.\n", ()
        allowed = settings.allowed_origins
        if allowed is not None and (request.origin or "").lower() not in allowed:
            return 403, "Scripts from there may not connect.\n", ()
        if settings.policy is not None:
            try:
                settings.policy(request)
            except Exception:
                log.exception("websocket_request failed for %r", request)
                return 500, "Internal server error.\n", ()
        return request.refusal

    def _refused(self, status: int, text: str, lines: tuple[tuple[str, str], ...] = ()) -> bytes:
        """An HTTP response that ends the connection."""
        phrase = HTTPStatus(status).phrase
        self.reason = self.reason or f"answered {status} {phrase}"
        body = text.encode()
        headers = Headers(
            (
                ("Date", formatdate(usegmt=True)),
                ("Connection", "close"),
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(body))),
            )
        )
        for name, value in lines:
            headers[name] = value
        return Response(status, phrase, headers, body).serialize()


def forget(protocol: ServerProtocol) -> None:
    """Nobody needs it any more.

    Its parser (a generator) refers to it, and its exceptions do, to it and to the request.  Such
    cycles stay for ever if they are alive when the garbage collector looks (``net.process``).
    """
    exc: BaseException | None = protocol.handshake_exc
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__
    vars(protocol).clear()
