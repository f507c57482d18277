"""Module ``rr``: staying in the dialog (Record-Route) and following it (Route).

The work is done in ``record`` and ``loose``; here is the face towards the operator.  Part of stop 6
of a datagram.
"""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from typing import Final

from outbound_plugin.api import OUTGOING, ObBinds, ob_load_api
from rr_plugin.api import RouteCallback, RrBinds, Text
from rr_plugin.loose import PRELOADED, LooseRouter
from rr_plugin.pv import RrVariables
from rr_plugin.record import (
    RR_PARAMS,
    AdvertisedPlaces,
    Places,
    PresetPlaces,
    RecordEdit,
    RecordStyle,
)
from rr_plugin.route import FOLLOWED, Followed, RouteReader, tag_param, top_route
from sipedge.errors import ParseError
from sipedge.forward import route_uri
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    ANY_ROUTE,
    BRANCH_ROUTE,
    FAIL,
    FAILURE_ROUTE,
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
from sipedge.sip.names import ROUTE
from sipedge.sip.uri import parse_uri

log = logging.getLogger("sipedge.rr")

_RECORDED: Final = "rr.recorded"  # memo: record_route was called
_RECORDED_BRANCH: Final = "rr.recorded_branch"  # memo: it was called in the branch route
_MAX_PARAMS: Final = 512  # octets that add_rr_param collects for one message, as in Kamailio
_RECORDING: Final = REQUEST_ROUTE | BRANCH_ROUTE | FAILURE_ROUTE
# one or more ";name" or ";name=value" of a URI (RFC 3261 §25.1)
_PARAMS: Final = re.compile(rb"(?:;[\w\-.!~*'()\[\]/:&+$%]++(?:=[\w\-.!~*'()\[\]/:&+$%]*+)?)*+")
_PLACE: Final = re.compile(rb"[^\x00-\x20\x7f<>?@\",]+")


@dataclass(slots=True)
class RrParams:
    append_fromtag: int = 1
    enable_double_rr: int = 1
    enable_full_lr: int = 0
    add_username: int = 0
    ignore_sips: int = 0
    force_send_socket: int = 0


class RrPlugin:
    """``loadmodule("rr")``."""

    def __init__(self) -> None:
        self.params = RrParams()
        self.exports = ModuleExports(
            "rr",
            functions=(
                Function("record_route", self.record_route, _RECORDING),
                Function("record_route_preset", self.record_route_preset, _RECORDING),
                Function(
                    "record_route_advertised_address",
                    self.record_route_advertised_address,
                    _RECORDING,
                ),
                Function("add_rr_param", self.add_rr_param, _RECORDING),
                Function(
                    "remove_record_route",
                    self.remove_record_route,
                    REQUEST_ROUTE | FAILURE_ROUTE,
                ),
                Function("loose_route", self.loose_route, REQUEST_ROUTE),
                Function("loose_route_preloaded", self.loose_route_preloaded, REQUEST_ROUTE),
                Function("check_route_param", self.check_route_param, _RECORDING),
                Function("is_direction", self.is_direction, _RECORDING),
                Function("next_hop_route", self.next_hop_route, ANY_ROUTE),
            ),
            params=(
                Param("append_fromtag", int, "1: every Record-Route has the caller's tag", 0, 1),
                Param("enable_double_rr", int, "two values: 0 never, 1 if needed, 2 always", 0, 2),
                Param("enable_full_lr", int, "1: ;lr=on instead of ;lr", 0, 1),
                Param("add_username", int, "1: the Request-URI's user; not with outbound", 0, 1),
                Param("ignore_sips", int, "1: never write sips:", 0, 1),
                Param("force_send_socket", int, "1: send from the listener a Route names", 0, 1),
            ),
            pseudo_variables=RrVariables(self.upstream).exports,
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        """Bind to ``outbound`` if that was loaded before, offer ``bind_rr``."""
        params = self.params
        ob: ObBinds | None = ob_load_api(ctx)
        if ob is not None and params.add_username:
            raise ctx.param_error(
                "add_username",
                "cannot be used together with module outbound, whose flow tokens stand where the "
                "user name would; remove one of the two",
            )
        if ob is not None and not params.enable_double_rr:
            log.warning(
                "enable_double_rr is 0: where the two sides of a call differ, requests within it "
                "will not find their way; outbound needs 1"
            )
        self._ob = ob
        self._reader = RouteReader(ctx.core.is_myself, ctx.flows)
        self._router = LooseRouter(self._reader, ob, bool(params.force_send_socket), ctx.core.stats)
        self._style = RecordStyle(
            ob.encode_flow_token if ob is not None else None,
            params.enable_double_rr,
            bool(params.enable_full_lr),
            bool(params.ignore_sips),
            bool(params.append_fromtag),
        )
        ctx.export(
            "bind_rr",
            RrBinds(
                self.record_route,
                self.add_rr_param,
                self.loose_route,
                self.check_route_param,
                self.is_direction,
                self.register_callback,
            ),
        )

    # -- Record-Route ----------------------------------------------------------------------------

    def record_route(self, msg: SipMessage, params: Text = b"") -> Rc:
        """Stay in the dialog (Kamailio: the same name): one or two Record-Route values are written
        when the request is sent, see ``rr_plugin.record``.

        ``params``: more URI parameters for each value, ``";name=value"``.  1; -1 with a warning
        when the message was record-routed before (but once more per branch in a branch route), or
        ``params`` cannot stand in a URI.  Raises ``SipError`` (500) when outbound applies and the
        flow cannot be named.
        """
        more = as_bytes(params)
        if not _PARAMS.fullmatch(more):
            log.warning("record_route: %r are no URI parameters", more)
            return FAIL
        return self._record(msg, self._style.places, more)

    def record_route_preset(
        self, msg: SipMessage, address: Text, receiving: Text | None = None
    ) -> Rc:
        """``record_route`` with addresses that the operator knows better (Kamailio: the same name).

        ``address``: ``"host:port;param"`` as it is to stand in the URI.  With ``receiving`` there
        are two values: ``address`` for the sending side, ``receiving`` for the other one.  1; -1 as
        ``record_route``, or when an address cannot stand in a URI, or for two of them when
        ``enable_double_rr`` is 0.
        """
        sending = as_bytes(address)
        second = None if receiving is None else as_bytes(receiving)
        if second is not None and not self._style.double:
            log.warning("record_route_preset: two addresses, but enable_double_rr is 0")
            return FAIL
        if not _is_place(sending) or not (second is None or _is_place(second)):
            log.warning("record_route_preset: %r, %r: not host:port", sending, second)
            return FAIL
        return self._record(msg, PresetPlaces(sending, second), b"")

    def record_route_advertised_address(self, msg: SipMessage, address: Text) -> Rc:
        """``record_route`` with one address for all listeners (Kamailio: the same name).

        ``address``: ``"host"`` or ``"host:port"``; ``transport`` is added.  Two values when the
        transports differ, or when both sides have a token.  1; -1 as ``record_route``, or when
        ``address`` cannot stand in a URI.
        """
        place = as_bytes(address)
        if not _is_place(place):
            log.warning("record_route_advertised_address: %r: not host:port", place)
            return FAIL
        return self._record(msg, AdvertisedPlaces(place, self._style.double), b"")

    def add_rr_param(self, msg: SipMessage, params: Text) -> Rc:
        """More URI parameters for the Record-Route values of this message, whether ``record_route``
        was called yet or not (Kamailio: the same name).

        ``params``: ``";name=value"``.  1; -1 if they cannot stand in a URI, or beyond 512 octets.
        """
        more = (msg.recall(RR_PARAMS) or b"") + as_bytes(params)
        if not _PARAMS.fullmatch(more) or len(more) > _MAX_PARAMS:
            log.warning("add_rr_param: %r: no URI parameters, or too long", more[:80])
            return FAIL
        msg.remember(RR_PARAMS, more)
        return OK

    def remove_record_route(self, msg: SipMessage) -> Rc:
        """Undo ``record_route`` and ``add_rr_param`` for this message; Record-Routes of others stay
        (Kamailio: the same name).  Always 1."""
        if msg.late is not None:
            msg.late[:] = [edit for edit in msg.late if not isinstance(edit, RecordEdit)]
        msg.remember(_RECORDED, None)
        msg.remember(RR_PARAMS, b"")
        return OK

    def _record(self, msg: SipMessage, places: Places, params: bytes) -> Rc:
        """Decide what is known now and leave the rest to a late edit."""
        if not msg.is_request:
            return FAIL
        # a branch route sees a copy of the message, and may add one value more for its branch
        mark = _RECORDED_BRANCH if msg.route_kind == BRANCH_ROUTE else _RECORDED
        if msg.recall(mark):
            log.warning("record-routed twice: %s", msg)
            return FAIL
        msg.remember(mark, True)
        token = b""
        if self._ob is not None and self._ob.use_outbound(msg) is OUTGOING:
            token = self._ob.encode_flow_token(msg.flow)
        user = parse_uri(msg.ruri).user or b"" if self.params.add_username else b""
        upstream = self.upstream(msg)
        caller = tag_param(msg.to_tag if upstream else msg.from_tag)
        edit = RecordEdit(self._style, places, token, user, caller, upstream, params)
        if msg.late is None:
            msg.late = [edit]
        else:
            msg.late.append(edit)
        return OK

    # -- Route -----------------------------------------------------------------------------------

    def loose_route(self, msg: SipMessage) -> Rc:
        """Follow the Route list: take our own values away (Kamailio: the same name).

        1: there is a route set, and it was followed: the request goes to the next Route, or to the
        Request-URI.  2: a flow token decides: ``msg.dst_flow`` is set, to a closed flow if the flow
        is gone (``t_relay`` then answers 430).  -1: no Route.  -2: our own Route has a user part
        that is no valid token: answer 403.  -3: no To tag, and nothing left after our own values.

        A Route that cannot be parsed raises ``ParseError`` (400), a request to a SIPS URI for a
        flow without TLS ``SipError`` (480, RFC 5630 §5.3).
        """
        return self._router.loose_route(msg)

    def loose_route_preloaded(self, msg: SipMessage) -> Rc:
        """``loose_route`` for requests that begin a dialog (Kamailio: the same name): 1 if the only
        Routes were our own and had no token of another's flow, else -1."""
        return OK if self._router.loose_route(msg) is PRELOADED else FAIL

    def check_route_param(self, msg: SipMessage, pattern: Text) -> Rc:
        """Does a regular expression match the URI parameters of an own Route that ``loose_route``
        took away (Kamailio: the same name)?

        ``pattern`` is searched, in upper and lower case, in the parameters including the first
        semicolon.  1 or -1.
        """
        followed: Followed | None = msg.recall(FOLLOWED)
        if followed is None:
            return FAIL
        search = _pattern(as_bytes(pattern)).search
        for value in followed.own:
            uri = route_uri(value)
            at = uri.find(b";", uri.find(b"@") + 1)
            if at >= 0 and search(uri[at:]):
                return OK
        return FAIL

    def is_direction(self, msg: SipMessage, direction: Text) -> Rc:
        """Which way does a request go within its dialog (Kamailio: the same name)?

        ``direction``: ``"downstream"`` (from the caller) or ``"upstream"`` (towards the caller).
        Told from ``ftag`` in our own Route; downstream when there is none.  1 or -1, and -1 for
        another word.
        """
        upstream = self.upstream(msg)
        return OK if as_bytes(direction) == (b"upstream" if upstream else b"downstream") else FAIL

    def next_hop_route(self, msg: SipMessage) -> Rc:
        """After ``loose_route``: is a Route of somebody else left, and the next hop (Kamailio:
        ``rr_next_hop_route``)?  1 or -1."""
        left = msg.recall(FOLLOWED) is not None and msg.dst_flow is None and msg.has(ROUTE)
        return OK if left else FAIL

    def register_callback(self, callback: RouteCallback) -> None:
        """Have ``callback`` called with each own Route that ``loose_route`` takes away."""
        self._router.callbacks.append(callback)

    def upstream(self, msg: SipMessage) -> bool:
        """Does this request go towards the caller of its dialog?"""
        followed: Followed | None = msg.recall(FOLLOWED)
        if followed is not None:
            ftag = followed.ftag
        else:
            ftag = self._top_ftag(msg) if msg.to_tag else b""
        return bool(ftag) and ftag != tag_param(msg.from_tag)

    def _top_ftag(self, msg: SipMessage) -> bytes:
        """``ftag`` of the topmost Route, if that is ours and still there."""
        value = top_route(msg)
        if value is None:
            return b""
        try:
            head, _, ftag, _ = self._reader.read(value)
        except ParseError:
            return b""
        return ftag if head.own else b""


def _is_place(place: bytes) -> bool:
    """Can it stand behind ``sip:`` and ``user@``?"""
    try:
        return bool(_PLACE.fullmatch(place) and parse_uri(b"sip:" + place).host)
    except ParseError:
        return False


@functools.lru_cache(maxsize=128)
def _pattern(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.IGNORECASE)
