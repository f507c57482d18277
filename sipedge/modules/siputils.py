"""Module siputils: small questions about a message and its Request-URI (stop 6).

Strategy: each function answers one question from the parsed parts that the message remembers, and
has no state.  ``options_reply`` answers the OPTIONS of monitoring programs (RFC 3261 §11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipedge.core import Core
from sipedge.errors import ParseError
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    FAIL,
    OK,
    RC,
    REQUEST_ROUTE,
    Context,
    Function,
    ModuleExports,
    Param,
    Rc,
)
from sipedge.modules.args import Text, as_bytes
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import RECORD_ROUTE, SUPPORTED
from sipedge.sip.uri import Uri, parse_uri, uri_equal

#: RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903, 6086
_METHODS: Final = frozenset(
    b"ACK BYE CANCEL INFO INVITE MESSAGE NOTIFY OPTIONS PRACK PUBLISH REFER REGISTER SUBSCRIBE "
    b"UPDATE".split()
)


@dataclass(slots=True)
class SiputilsParams:
    options_accept: str = "*/*"
    options_accept_encoding: str = ""
    options_accept_language: str = "en"
    options_support: str = ""
    options_allow: str = ""


class SiputilsModule:
    """The part of Kamailio's module siputils that an edge and a registrar need."""

    _core: Core

    def __init__(self) -> None:
        self.params = SiputilsParams()
        self.exports = ModuleExports(
            "siputils",
            functions=(
                Function("has_totag", self.has_totag),
                Function("is_request", self.is_request),
                Function("is_reply", self.is_reply),
                Function("is_first_hop", self.is_first_hop),
                Function("is_supported", self.is_supported),
                Function("is_uri", self.is_uri),
                Function("is_gruu", self.is_gruu, REQUEST_ROUTE),
                Function("cmp_uri", self.cmp_uri),
                Function("uri_param", self.uri_param, REQUEST_ROUTE),
                Function("uri_param_value", self.uri_param_value, REQUEST_ROUTE),
                Function("uri_param_any", self.uri_param_any, REQUEST_ROUTE),
                Function("options_reply", self.options_reply, REQUEST_ROUTE),
                Function("uas_reply", self.uas_reply, REQUEST_ROUTE),
            ),
            params=(
                Param("options_accept", str, "Accept in the answer of options_reply"),
                Param("options_accept_encoding", str, "Accept-Encoding in that answer"),
                Param("options_accept_language", str, "Accept-Language in that answer"),
                Param("options_support", str, "Supported in that answer"),
                Param("options_allow", str, "Allow in that answer, and in 405"),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self._core = ctx.core

    def has_totag(self, msg: SipMessage) -> Rc:
        """1 if To has a tag, so that the message belongs to a dialog; else -1."""
        return OK if msg.to_tag else FAIL

    def is_request(self, msg: SipMessage) -> Rc:
        """1 for a request, else -1."""
        return OK if msg.is_request else FAIL

    def is_reply(self, msg: SipMessage) -> Rc:
        """1 for a response, else -1."""
        return FAIL if msg.is_request else OK

    def is_first_hop(self, msg: SipMessage) -> Rc:
        """1 if we are the first proxy that the message meets; else -1.

        A request: it has one Via.  A response: its top Record-Route is ours and it does not come
        from ourselves.
        """
        if msg.is_request:
            return OK if msg.via_count() == 1 else FAIL
        route = msg.values(RECORD_ROUTE)[:1]
        uri = _uri(parse_nameaddr(route[0]).uri) if route else None
        if uri is None or not self._core.is_myself(uri):
            return FAIL
        own = any(
            (listener.transport, listener.address, listener.port)
            == (msg.flow.transport, *msg.flow.remote)
            for listener in self._core.flows.listeners
        )
        return FAIL if own else OK

    def is_supported(self, msg: SipMessage, option: Text) -> Rc:
        """1 if Supported lists this option tag (``"outbound"``), else -1."""
        return OK if as_bytes(option).lower() in msg.options(SUPPORTED) else FAIL

    def is_uri(self, msg: SipMessage, uri: Text) -> Rc:
        """1 if the text is a URI, else -1."""
        return OK if _uri(as_bytes(uri)) is not None else FAIL

    def is_gruu(self, msg: SipMessage) -> Rc:
        """1 if the Request-URI is a public GRUU, 2 a temporary one, -1 none (RFC 5627 §3)."""
        uri = _uri(msg.ruri)
        if uri is None or b"gr" not in uri.params:
            return FAIL
        return OK if uri.params[b"gr"] else RC[2]

    def cmp_uri(self, msg: SipMessage, a: Text, b: Text) -> Rc:
        """1 if two URIs are the same by RFC 3261 §19.1.4; else -1."""
        first, second = _uri(as_bytes(a)), _uri(as_bytes(b))
        if first is None or second is None:
            return FAIL
        return OK if uri_equal(first, second) else FAIL

    def uri_param(self, msg: SipMessage, name: Text, value: Text | None = None) -> Rc:
        """1 if the Request-URI has this parameter with exactly this value (``None``: without
        one); else -1.  Names and values are compared without regard to case."""
        params = _ruri_params(msg)
        key = as_bytes(name).lower()
        if key not in params:
            return FAIL
        have = params[key]
        if have is None or value is None:
            return OK if have is value else FAIL
        return OK if have.lower() == as_bytes(value).lower() else FAIL

    uri_param_value = uri_param  # its KEMI name when a value is given

    def uri_param_any(self, msg: SipMessage, name: Text) -> Rc:
        """1 if the Request-URI has this parameter, with or without a value; else -1."""
        return OK if as_bytes(name).lower() in _ruri_params(msg) else FAIL

    def options_reply(self, msg: SipMessage) -> Rc:
        """Answer 200 to an OPTIONS for ourselves: Request-URI without user part (RFC 3261 §11.2).

        1 answered; -1 not answered, because it is something else.  Ask ``ksr.is_myself`` first.
        A header whose parameter is empty is left out.
        """
        uri = _uri(msg.ruri)
        if msg.method != b"OPTIONS" or uri is None or uri.user:
            return FAIL
        params = self.params
        headers = (
            (b"Accept", params.options_accept),
            (b"Accept-Encoding", params.options_accept_encoding),
            (b"Accept-Language", params.options_accept_language),
            (b"Supported", params.options_support),
            (b"Allow", params.options_allow),
        )
        given = tuple((name, value.encode()) for name, value in headers if value)
        self._core.reply(msg, 200, b"OK", given)
        return OK

    def uas_reply(self, msg: SipMessage) -> Rc:
        """Answer any request for ourselves that the route has no use for (RFC 3261 §8.2.1).

        As ``options_reply``; another method is answered 405 with Allow (``options_allow``, else
        OPTIONS), one that no RFC defines 501.  1 answered, or an ACK; -1 the Request-URI has a user
        part.  Ask ``ksr.is_myself`` first.
        """
        uri = _uri(msg.ruri)
        if uri is None or uri.user:
            return FAIL
        if msg.method == b"OPTIONS":
            return self.options_reply(msg)
        if msg.method in _METHODS:
            allow = self.params.options_allow.encode() or b"OPTIONS"
            self._core.reply(msg, 405, b"Method Not Allowed", ((b"Allow", allow),))
        else:
            self._core.reply(msg, 501, b"Not Implemented")
        return OK


def _uri(raw: bytes) -> Uri | None:
    try:
        return parse_uri(raw)
    except ParseError:
        return None


def _ruri_params(msg: SipMessage) -> dict[bytes, bytes | None]:
    uri = _uri(msg.ruri)
    return {} if uri is None else uri.params
