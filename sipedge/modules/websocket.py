"""Module websocket: what WebSocket listeners do (RFC 7118, RFC 6455); no stop of a datagram.

Strategy: parameters, with Kamailio's names, meaning and range, become one ``Settings`` object at
``core.websocket``, which ``sipedge.websocket`` and ``net`` read.  What Kamailio leaves to
``event_route[xhttp:request]`` is a function ``websocket_request(ksr, request)`` in the
configuration file; there is no ``handle_handshake`` to call, as whatever it does not refuse is
accepted.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sipedge import websocket
from sipedge.errors import ConfigError
from sipedge.flow import WS, WSS, Flow
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    FAIL,
    OK,
    Command,
    CommandError,
    Context,
    Function,
    ModuleExports,
    Param,
    PseudoVariable,
    Rc,
)
from sipedge.modules.args import Text, as_bytes, as_text
from sipedge.sip.message import SipMessage

if TYPE_CHECKING:
    from sipedge.core import Core

log = logging.getLogger(__name__)

POLICY: Final = "websocket_request"
#: bits of sub_protocols
SIP: Final = 1
NORMAL: Final = 1000  # RFC 6455 §7.4.1


@dataclass(slots=True)
class WebsocketParams:
    keepalive_mechanism: int = websocket.SEND_PING
    keepalive_timeout: int = 60
    ping_application_data: str = "sipedge"
    sub_protocols: int = SIP
    cors_mode: int = 0
    allowed_origins: list[str] = field(default_factory=list)
    max_message_size: int = 65536
    max_head_size: int = 16384
    keep_headers: str = "Authorization, Cookie, Host, Origin, User-Agent, X-Forwarded-For"


class WebsocketModule:
    """Kamailio's module websocket, for SIP."""

    _core: Core

    def __init__(self) -> None:
        self.params = WebsocketParams()
        self.exports = ModuleExports(
            "websocket",
            functions=(
                Function("close", self.close),
                Function("close_reason", self.close_reason),
                Function("ws_close", self.close_reason),
            ),
            params=(
                Param("keepalive_mechanism", int, "0 nothing, 1 ping, 2 pong, 3 TCP's own", 0, 3),
                Param("keepalive_timeout", int, "silent seconds until a ping", 1, 3600),
                Param("ping_application_data", str, "what is in a ping, 1 to 125 octets"),
                Param("sub_protocols", int, "1: SIP", 1, 3),
                Param("cors_mode", int, "Access-Control-Allow-Origin: 0 no, 1 *, 2 Origin", 0, 2),
                Param("allowed_origins", list, "Origins that may connect; empty: any"),
                Param("max_message_size", int, "octets of a message", 1024, 1 << 24),
                Param("max_head_size", int, "octets of the HTTP request", 1024, 1 << 20),
                Param("keep_headers", str, "headers of the request that are kept"),
            ),
            pseudo_variables=(
                PseudoVariable("ws_conid", _conid),
                PseudoVariable("ws_path", _path),
                PseudoVariable("ws_query", _query),
                PseudoVariable("ws_origin", _origin),
                PseudoVariable("ws_header", _header),
            ),
            commands=(
                Command("ws.dump", self.dump, "WebSocket connections: (limit=50)"),
                Command("ws.close", self.close_by_id, "close a connection: (id)"),
                Command("ws.ping", self.ping_by_id, "send a Ping: (id)"),
                Command("ws.pong", self.pong_by_id, "send a Pong: (id)"),
                Command("ws.enable", self.enable, "accept new connections"),
                Command("ws.disable", self.disable, "answer new connections 503"),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self._core = ctx.core
        ctx.core.websocket = self._settings(ctx)

    def _settings(self, ctx: Context) -> websocket.Settings:
        params = self.params
        if not params.sub_protocols & SIP:
            raise ctx.param_error("sub_protocols", "there is SIP only; write 1")
        data = params.ping_application_data.encode()
        if not 1 <= len(data) <= 125:
            raise ctx.param_error(
                "ping_application_data", f"it has {len(data)} octets; write 1 to 125"
            )
        for origin in params.allowed_origins:
            if not isinstance(origin, str) or (origin != "null" and "://" not in origin):
                raise ctx.param_error(
                    "allowed_origins", f"{origin!r} is no origin; write 'https://example.com'"
                )
        origins = frozenset(origin.lower().rstrip("/") for origin in params.allowed_origins)
        return websocket.Settings(
            keepalive_mechanism=params.keepalive_mechanism,
            keepalive_timeout=params.keepalive_timeout,
            ping_application_data=data,
            cors_mode=params.cors_mode,
            allowed_origins=origins or None,
            max_message_size=params.max_message_size,
            max_head_size=params.max_head_size,
            keep_headers=frozenset(
                name.strip().lower() for name in params.keep_headers.split(",") if name.strip()
            ),
            policy=_policy(ctx),
        )

    # Functions.

    def close(self, msg: SipMessage) -> Rc:
        """Close the WebSocket connection that ``msg`` came on, once what was sent has gone.

        Returns 1; -1 if it came by something else or the connection is gone.
        """
        return self.close_reason(msg, NORMAL, "Normal closure")

    def close_reason(self, msg: SipMessage, status: int = NORMAL, reason: Text = "") -> Rc:
        """``close`` with a status (RFC 6455 §7.4) and a reason of up to 123 octets."""
        frame = websocket.close_frame(status, as_text(as_bytes(reason)))
        return OK if self._close(msg.flow, frame, "closed by a route") else FAIL

    ws_close = close_reason  # the name that Kamailio's configuration language has for it

    def _close(self, flow: Flow, frame: websocket.Close, reason: str) -> bool:
        if flow.transport not in (WS, WSS) or not flow.alive:
            return False
        self._core.send(frame, flow)
        self._core.close(flow, reason)
        return True

    # Commands.

    def dump(self, limit: int = 50) -> Iterator[dict[str, Any]]:
        """WebSocket connections (Kamailio: ``ws.dump``), at most ``limit``."""
        now = self._core.now
        for _, flow in zip(range(limit), list(websocket.flows(self._core)), strict=False):
            request = _request(flow)
            yield {
                "id": flow.conn_id.hex(),
                "flow": flow.name,
                "path": request.path if request else "",
                "origin": request.origin if request else None,
                "idle": round(now - flow.last_rx, 1),
            }

    def close_by_id(self, id: str) -> str:
        """Close a connection of ``ws.dump`` (Kamailio: ``ws.close``)."""
        frame = websocket.close_frame(NORMAL, "Normal closure")
        self._close(self._find(id), frame, "closed by the operator")
        return "closed"

    def ping_by_id(self, id: str) -> str:
        """Send a Ping (Kamailio: ``ws.ping``)."""
        return self._send(id, websocket.Ping)

    def pong_by_id(self, id: str) -> str:
        """Send a Pong (Kamailio: ``ws.pong``)."""
        return self._send(id, websocket.Pong)

    def _send(self, id: str, frame: type[bytes]) -> str:
        settings = self._core.websocket or websocket.Settings()
        self._core.send(frame(settings.ping_application_data), self._find(id))
        return "sent"

    def enable(self) -> str:
        """Accept new connections again (Kamailio: ``ws.enable``)."""
        return self._enabled(True)

    def disable(self) -> str:
        """Answer new connections 503; those that are there stay (Kamailio: ``ws.disable``)."""
        return self._enabled(False)

    def _enabled(self, enabled: bool) -> str:
        core = self._core
        core.websocket = replace(core.websocket or websocket.Settings(), enabled=enabled)
        return "enabled" if enabled else "disabled"

    def _find(self, id: str) -> Flow:
        try:
            flow = self._core.flows.streams.get(bytes.fromhex(id))
        except ValueError:
            flow = None
        if flow is None or flow.transport not in (WS, WSS):
            raise CommandError(404, f"there is no WebSocket connection {id!r}; ws.dump lists them")
        return flow


def _policy(ctx: Context) -> websocket.Policy | None:
    """The operator's ``websocket_request``, called with what routes are called with."""
    route = ctx.config.routes.get(POLICY)
    if route is None:
        return None
    problem = "is async; it has to answer at once" if inspect.iscoroutinefunction(route) else ""
    try:
        inspect.signature(route).bind(None, None)
    except TypeError:
        problem = "does not take two arguments"
    if problem:
        place = route.__code__.co_filename, route.__code__.co_firstlineno
        raise ConfigError(f"{POLICY} {problem}; write: def {POLICY}(ksr, request):", *place)
    return partial(route, ctx.core.ksr)


# Pseudo-variables.


def _request(flow: Flow) -> websocket.Request | None:
    return flow.facts.get("websocket") if flow.facts else None


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "replace")


def _conid(msg: SipMessage, key: str | None) -> bytes | None:
    """The id of the connection, as ``ws.dump`` writes it."""
    flow = msg.flow
    return flow.conn_id.hex().encode() if flow.transport in (WS, WSS) else None


def _path(msg: SipMessage, key: str | None) -> bytes | None:
    request = _request(msg.flow)
    return _text(request.path) if request else None


def _query(msg: SipMessage, key: str | None) -> bytes | None:
    request = _request(msg.flow)
    if request is None:
        return None
    return _text(request.query if key is None else request.argument(key))


def _origin(msg: SipMessage, key: str | None) -> bytes | None:
    request = _request(msg.flow)
    return _text(request.origin) if request else None


def _header(msg: SipMessage, key: str | None) -> bytes | None:
    request = _request(msg.flow)
    return _text(request.header(key)) if request and key else None
