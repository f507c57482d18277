"""Module ``path``: the registrar learns to come back through this edge (RFC 3327, RFC 5626 §5.1).

Part of stop 6 of a datagram.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Final

from outbound_plugin.api import OUTGOING, ObBinds, ob_load_api
from path_plugin.add_path import PathEdit, received_param
from path_plugin.received import ReceivedRouter
from rr_plugin.api import rr_load_api
from sipedge.errors import ParseError, SipError
from sipedge.flow import TLS, WSS
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    FAIL,
    OK,
    REQUEST_ROUTE,
    Context,
    Function,
    ModuleExports,
    Param,
    Rc,
)
from sipedge.modules.args import as_bytes
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTACT, REQUIRE, SUPPORTED

log = logging.getLogger("sipedge.path")

Text = bytes | str
_USER: Final = re.compile(rb"(?:[A-Za-z0-9\-_.!~*'()&=+$,;?/]|%[0-9A-Fa-f]{2})+")
_NAME: Final = re.compile(rb"[A-Za-z0-9\-_.!~*']+")
# one or more ";name" or ";name=value" of a URI (RFC 3261 §25.1)
_PARAMS: Final = re.compile(rb"(?:;[\w\-.!~*'()\[\]/:&+$%]++(?:=[\w\-.!~*'()\[\]/:&+$%]*+)?)*+")


@dataclass(slots=True)
class PathParams:
    use_received: int = 0
    received_format: int = 0
    received_name: str = "received"
    enable_r2: int = 0
    without_support: str = "force"
    require_path: int = 0


class PathPlugin:
    """``loadmodule("path")``."""

    def __init__(self) -> None:
        self.params = PathParams()
        self.exports = ModuleExports(
            "path",
            functions=(
                Function("add_path", self.add_path, REQUEST_ROUTE),
                Function("add_path_user", self.add_path_user, REQUEST_ROUTE),
                Function("add_path_received", self.add_path_received, REQUEST_ROUTE),
                Function("add_path_received_user", self.add_path_received_user, REQUEST_ROUTE),
            ),
            params=(
                Param("use_received", int, "1: send to the address in our Route; needs rr", 0, 1),
                Param("received_format", int, "0: an escaped URI, 1: ip~port~transport", 0, 1),
                Param("received_name", str, "the URI parameter with the received address"),
                Param("enable_r2", int, "1: two values, as Record-Route has them", 0, 1),
                Param(
                    "without_support",
                    str,
                    "a UA that has neither reg-id nor Supported: path: force, none or 421",
                ),
                Param("require_path", int, "1: Require: path, if the UA supports it", 0, 1),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        """Bind to ``outbound`` if that was loaded before, and to ``rr`` for ``use_received``."""
        params = self.params
        if params.without_support not in ("force", "none", "421"):
            raise ctx.param_error(
                "without_support",
                f"{params.without_support!r} is not known; write one of: force (add Path anyway), "
                "none (forward without Path), 421 (answer 421 Extension Required)",
            )
        name = params.received_name.encode()
        if not _NAME.fullmatch(name):
            raise ctx.param_error("received_name", "is no name for a URI parameter")
        self._name = name.lower()
        self._flows = ctx.flows
        self._ob: ObBinds | None = ob_load_api(ctx)
        self._warned = False
        if params.use_received:
            rr = rr_load_api(ctx)
            if rr is None:
                raise ctx.param_error(
                    "use_received",
                    'needs module rr: write loadmodule("rr") above loadmodule("path")',
                )
            rr.register_callback(
                ReceivedRouter(ctx.flows, self._name, bool(params.received_format))
            )

    def add_path(self, msg: SipMessage) -> Rc:
        """Put our URI on top of Path when the request is sent (Kamailio: the same name).

        With ``outbound``: the user part is the token of the flow that the request came on, and
        ``ob`` is there if the UA asked for outbound and we are its first hop.  A UA that did not
        ask gets a token all the same, without ``ob``.  1.  Raises ``SipError``: 500 if the flow
        cannot be named (RFC 5626 §5.1: such a request must not go on), 421 as ``without_support``
        says.
        """
        return self._add(msg, None, b"", received=False)

    def add_path_user(self, msg: SipMessage, user: Text, params: Text = b"") -> Rc:
        """``add_path`` with a user part that the operator chose, and no token (Kamailio:
        ``add_path(user, params)``).

        ``params``: more URI parameters, ``"name=value;name"``.  1; -1 if one of the two cannot
        stand in a URI.  Not for use with ``outbound``: ``loose_route`` answers -2 to a Route of
        ours whose user part is no token.
        """
        return self._add_user(msg, user, params, received=False)

    def add_path_received(self, msg: SipMessage) -> Rc:
        """``add_path``, and the peer's address as URI parameter ``received`` (Kamailio: the same
        name)."""
        return self._add(msg, None, b"", received=True)

    def add_path_received_user(self, msg: SipMessage, user: Text, params: Text = b"") -> Rc:
        """``add_path_user``, and the peer's address as URI parameter ``received`` (Kamailio:
        ``add_path_received(user, params)``)."""
        return self._add_user(msg, user, params, received=True)

    def _add_user(self, msg: SipMessage, user: Text, params: Text, *, received: bool) -> Rc:
        name, more = as_bytes(user), as_bytes(params)
        if more and more[:1] != b";":
            more = b";" + more
        if not _USER.fullmatch(name) or not _PARAMS.fullmatch(more):
            log.warning("add_path: %r, %r cannot stand in a URI", name, more)
            return FAIL
        if self._ob is not None and not self._warned:
            self._warned = True
            log.warning(
                "add_path_user: with module outbound a Path without a flow token leads nowhere: "
                "loose_route refuses it when it comes back; use add_path"
            )
        return self._add(msg, name, more, received=received)

    def _add(self, msg: SipMessage, user: bytes | None, more: bytes, *, received: bool) -> Rc:
        """Decide what is known now and leave the rest to a late edit."""
        if not msg.is_request:
            return FAIL
        ob, flow = self._ob, msg.flow
        outbound = ob is not None and ob.use_outbound(msg) is OUTGOING
        if not outbound and not self._welcome(msg):
            return OK
        if self.params.require_path:
            _require(msg)
        first_hop = msg.via_count() == 1  # outbound may have been forced elsewhere
        token = b""
        if ob is not None and user is None and (outbound or (first_hop and not ob.suppressed(msg))):
            token = ob.encode_flow_token(flow)
        # RFC 5626 §5.1: who is not the first hop must not write ob
        with_ob = outbound and first_hop and user is None
        sips = flow.transport in (TLS, WSS) and _sips_contact(msg)
        key = ("path", user or token, more, received, with_ob, sips)
        edit: PathEdit | None = flow.cache.get(key) if flow.cache is not None else None
        if edit is None:
            tail = b""
            if received:
                tail = received_param(self._name, flow, bool(self.params.received_format))
            tail += (b";ob" if with_ob else b"") + more
            receiving = flow.listener if self.params.enable_r2 else None
            edit = PathEdit(self._flows, user or token, tail, receiving, sips)
            flow.remember(key, edit)
        if msg.late is None:
            msg.late = [edit]
        else:
            msg.late.append(edit)
        return OK

    def _welcome(self, msg: SipMessage) -> bool:
        """RFC 3327 §5.2: no Path for a UA that does not know it, unless the operator says so."""
        if self.params.without_support == "force" or b"path" in msg.options(SUPPORTED):
            return True
        if self.params.without_support == "421":
            raise SipError(421, b"Extension Required", ((b"Require", b"path"),))
        return False


def _require(msg: SipMessage) -> None:
    """RFC 3327 §5.2: the registrar has to know Path; only if the UA does too."""
    if b"path" in msg.options(SUPPORTED) and b"path" not in msg.options(REQUIRE):
        msg.append(REQUIRE, b"path")


def _sips_contact(msg: SipMessage) -> bool:
    """Does the UA register a SIPS URI?"""
    for value in msg.values(CONTACT):
        if b"sips:" in value.lower():
            try:
                if parse_nameaddr(value).uri[:5].lower() == b"sips:":
                    return True
            except ParseError:
                continue
    return False
