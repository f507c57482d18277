"""Stop 2 for WebSocket (RFC 7118): messages and keep-alives, and what net and the module share.

Strategy: ``net.websocket`` brings whole messages, so that nothing has to be cut here.  What is no
message travels the same way, in order, as ``bytes`` of a class of its own: a ``Ping`` or ``Pong``
that came in, a ``Ping``, ``Pong`` or ``Close`` that is to be sent.  The module ``websocket`` leaves
``Settings`` at ``core.websocket``; nothing changes them, they are only ever replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from sipedge.flow import WS, WSS, Address
from sipedge.tm.timers import NEVER, NO_TICK, Timed

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.flow import Flow

# Kamailio's keepalive_mechanism.
NO_KEEPALIVE: Final = 0
SEND_PING: Final = 1
SEND_PONG: Final = 2
CHECK_CONNECTION: Final = 3  # the system does that for every connection

#: no SIP message is shorter; what is, is a keep-alive of some kind, as over UDP
SHORTEST_MESSAGE: Final = 20
#: pings of many connections that began together are spread over this share of the timeout
SPREAD: Final = 0.2


class Ping(bytes):
    """A Ping frame (RFC 6455 §5.5.2) that is to be sent, or that came and was answered."""


class Pong(bytes):
    """A Pong frame (RFC 6455 §5.5.3) that is to be sent, or that came."""


class Close(bytes):
    """A Close frame that is to be sent: two octets of status, and a reason (RFC 6455 §5.5.1)."""


class Request:
    """The HTTP request that began a WebSocket connection; ``flow.facts["websocket"]``.

    ``path`` and ``query`` are as the client wrote them, header names lower case.  Values of a
    header that came several times are joined by commas (RFC 9110 §5.3).
    """

    __slots__ = ("facts", "headers", "local", "path", "query", "refusal", "remote", "secure")

    def __init__(
        self,
        target: str,
        headers: Iterable[tuple[str, str]],
        remote: Address,
        local: Address,
        secure: bool = False,
        facts: dict[str, object] | None = None,
    ) -> None:
        """``target``: path and query; ``remote`` and ``local``: both ends of the connection;
        ``secure``: it came over TLS; ``facts``: what the layers below learned."""
        self.path, _, self.query = target.partition("?")
        self.headers: dict[str, str] = {}
        for name, value in headers:
            name = name.lower()
            have = self.headers.get(name)
            between = "; " if name == "cookie" else ", "
            self.headers[name] = value if have is None else have + between + value
        self.remote = remote
        self.local = local
        self.secure = secure
        #: what was learned below (the client's certificate), and whatever the policy adds
        self.facts: dict[str, object] = {} if facts is None else facts
        #: status, text and headers of the answer, once the policy has refused
        self.refusal: tuple[int, str, tuple[tuple[str, str], ...]] | None = None

    def refuse(self, status: int, text: str = "", headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer with this status instead of 101: 401, 403, 404, a redirection.

        ``text`` is the body; ``headers`` are more lines, ``WWW-Authenticate`` say.  Raises
        ``ValueError`` for what cannot stand in such an answer.
        """
        if not 300 <= HTTPStatus(status) <= 599:
            raise ValueError(f"{status} does not refuse anything; write 300 to 599")
        lines = tuple(headers)
        for name, value in lines:
            if any(c in "\r\n\0" for c in name + value):
                raise ValueError(f"header {name!r} has a line end in it")
        self.refusal = status, text or HTTPStatus(status).phrase, lines

    def header(self, name: str) -> str | None:
        """The value of a header, ``None`` if it did not come or was not kept."""
        return self.headers.get(name.lower())

    @property
    def origin(self) -> str | None:
        """Where the script in the browser came from (RFC 6454); other clients may say anything."""
        return self.headers.get("origin")

    def cookie(self, name: str) -> str | None:
        """The value of a cookie (RFC 7118 §7)."""
        try:
            morsel = SimpleCookie(self.headers.get("cookie", "")).get(name)
        except CookieError:
            return None
        return None if morsel is None else morsel.value

    def argument(self, name: str) -> str | None:
        """The first value of a name in the query, decoded: ``/sip?token=...``."""
        values = parse_qs(self.query, keep_blank_values=True).get(name)
        return values[0] if values else None

    def __repr__(self) -> str:
        return f"<Request {self.path} from {self.remote[0]}:{self.remote[1]}>"


#: decides about a request: ``request.refuse(...)``, or nothing to accept
Policy = Callable[[Request], None]


@dataclass(slots=True, frozen=True)
class Settings:
    """What the parameters of the module say."""

    keepalive_mechanism: int = SEND_PING
    keepalive_timeout: int = 60  # seconds
    ping_application_data: bytes = b"sipedge"
    cors_mode: int = 0
    #: lower case; ``None``: any, and none at all
    allowed_origins: frozenset[str] | None = None
    max_message_size: int = 65536  # octets
    max_head_size: int = 16384  # octets
    #: of the headers of a request, those that ``flow.facts`` keeps; lower case
    keep_headers: frozenset[str] = field(default_factory=frozenset)
    policy: Policy | None = None
    #: new connections are accepted
    enabled: bool = True


def flows(core: Core) -> Iterator[Flow]:
    """The WebSocket connections that are open."""
    return (flow for flow in core.flows.streams.values() if flow.transport in (WS, WSS))


class Keepalive(Timed):
    """Pings a silent peer, and closes when that is not answered either (requirement KA-25).

    A browser cannot ping by itself, and what stands between may forget a silent connection.
    """

    __slots__ = ("_core", "_flow", "_pinged")

    def __init__(self, core: Core, flow: Flow) -> None:
        self.deadline = NEVER
        self.tick = NO_TICK
        self._core = core
        self._flow = flow
        self._pinged = NEVER  # when we sent a Ping that was not answered yet

    def fire(self, now: float) -> None:
        core, flow = self._core, self._flow
        settings = core.websocket
        if settings is None or not flow.alive:
            return
        if self._pinged != NEVER:
            if flow.last_rx < self._pinged:
                core.stats["websocket_pings_unanswered"] += 1
                core.close(flow, "silent, and a WebSocket ping was not answered")
                return
            self._pinged = NEVER
        due = flow.last_rx + self.patience(settings)
        if due <= now:
            due = now + settings.keepalive_timeout
            self._send(settings, now)
        core.tm.wheel.at(self, due)

    def patience(self, settings: Settings) -> float:
        """Seconds of silence before a ping: ``keepalive_timeout`` at most, not the same for all."""
        return settings.keepalive_timeout * (1 - SPREAD * self._flow.conn_id[-1] / 255)

    def _send(self, settings: Settings, now: float) -> None:
        core = self._core
        core.stats["websocket_pings_sent"] += 1
        if settings.keepalive_mechanism == SEND_PONG:
            core.send(Pong(settings.ping_application_data), self._flow)
        else:
            self._pinged = now
            core.send(Ping(settings.ping_application_data), self._flow)


def opened(core: Core, flow: Flow) -> None:
    """A connection begins."""
    settings = core.websocket
    if settings is not None and settings.keepalive_mechanism in (SEND_PING, SEND_PONG):
        timer = Keepalive(core, flow)
        core.tm.wheel.at(timer, core.now + timer.patience(settings))


def receive(core: Core, data: bytes, flow: Flow) -> None:
    """A whole message, or a control frame, came on a WebSocket connection.

    RFC 7118 §5: one SIP message in each, so that Content-Length may be left out.  What is no SIP is
    counted and ignored (requirement WSK-14).
    """
    if len(data) >= SHORTEST_MESSAGE and data.__class__ is bytes:
        flow.spoke = True
        core.message(data, flow, False)
    elif data.__class__ is Pong:
        core.stats["websocket_pongs_received"] += 1
    elif data.__class__ is Ping:
        core.stats["websocket_pings_answered"] += 1
    elif data == b"\r\n\r\n":  # RFC 5626 §4.4.1 in a message (requirement KA-24)
        core.stats["pings_answered"] += 1
        core.send(b"\r\n", flow)


def close_frame(status: int, reason: str) -> Close:
    """A Close frame; raises ``ValueError`` for a status that must not be sent (RFC 6455 §7.4) or a
    reason that is too long."""
    if not (status in (1000, 1001, 1008, 1011, 1012, 1013) or 3000 <= status <= 4999):
        raise ValueError(f"{status} is no status to close a WebSocket with")
    text = reason.encode()
    if len(text) > 123:
        raise ValueError("the reason has more than 123 octets")
    return Close(status.to_bytes(2, "big") + text)
