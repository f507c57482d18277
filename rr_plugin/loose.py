"""Following a route set: ``loose_route`` (RFC 3261 §16.4, RFC 5626 §5.3, RFC 5658 §5).

Strategy: own Routes are taken away from the top, each judged on its own.  One without a token says
nothing more.  One with a token names a flow: the request is *outgoing* if it comes from the UA at
the end of that flow, and the walk goes on; else it is *incoming*: ``msg.dst_flow`` is that flow and
the walk ends.  Nothing here ever turns a token into an address to connect to.

"Comes from that UA" means that it came on that flow.  A UA that reconnected in mid-dialog would
fail this test, so our Record-Routes with a token also say to which end of the dialog the flow
belongs (``fs``) and which tag the caller has (``ftag``).  Part of stop 6 of a datagram.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from outbound_plugin.api import (
    BAD,
    INCOMING,
    NOT_USED,
    OUTGOING,
    TOP_ROUTE,
    VALID,
    ObBinds,
    OwnRoute,
    Use,
)
from rr_plugin.api import RouteCallback
from rr_plugin.route import (
    FOLLOWED,
    Followed,
    Head,
    RouteReader,
    pop_route,
    tag_param,
    top_route,
)
from sipedge.errors import SipError
from sipedge.flow import TLS, WSS, Flow, Listener, same_flow
from sipedge.forward import route_uri
from sipedge.module import FAIL, OK, RC, Rc
from sipedge.sip.message import SipMessage
from sipedge.sip.names import ROUTE
from sipedge.sip.uri import parse_uri
from sipedge.sip.values import split_list

ON_FLOW: Final = RC[2]  # a token decides where the request goes
BROKEN_TOKEN: Final = RC[-2]
PRELOADED: Final = RC[-3]  # no To tag, and nothing left after the own Routes


class Walk:
    """The state of one walk down the Route list."""

    __slots__ = ("direction", "fs", "half", "listener", "ob", "seen", "user")

    def __init__(self) -> None:
        self.seen = Followed()
        self.ob = False
        #: of the first token
        self.direction: Use = NOT_USED
        #: the value before was the first half of a pair (``r2``), with this token and ``fs``
        self.half = False
        self.user: bytes | None = None
        self.fs = b""
        #: the listener to send from, when the Routes name one
        self.listener: Listener | None = None


class LooseRouter:
    """``loose_route``, with what it needs of the host and of ``outbound``."""

    def __init__(
        self,
        reader: RouteReader,
        ob: ObBinds | None,
        force_send_socket: bool,
        stats: Counter[str],
    ) -> None:
        self._reader = reader
        self._ob = ob
        self._force_send_socket = force_send_socket
        self._stats = stats
        #: called with each own Route; other modules add theirs
        self.callbacks: list[RouteCallback] = []

    def loose_route(self, msg: SipMessage) -> Rc:
        """See ``RrPlugin.loose_route``."""
        if ROUTE not in msg.ids or not msg.is_request:
            return FAIL
        walk = Walk()
        rc = self._walk(msg, walk)
        own = walk.seen.own
        msg.remember(FOLLOWED, walk.seen)
        if own and self._ob is not None:
            msg.remember(TOP_ROUTE, OwnRoute(walk.ob, walk.direction))
        if rc is BROKEN_TOKEN:
            self._stats["flow_tokens_bad"] += 1
            return rc
        if rc is ON_FLOW:
            self._pop_partner(msg, walk)
        else:
            if walk.listener is not None:
                msg.listener = walk.listener
            if not self._next_hop(msg) and not (own and msg.to_tag):
                rc = PRELOADED if own else FAIL
        if self.callbacks:
            for value in own:
                uri = parse_uri(route_uri(value))
                for callback in self.callbacks:
                    callback(msg, uri)
        return rc

    def _walk(self, msg: SipMessage, walk: Walk) -> Rc:
        """Take the own Routes away; 1, 2 or -2."""
        strict = self._recover(msg)
        if strict is not None:
            rc = self._take(msg, walk, strict, *self._reader.read(strict))
            if rc is not None:
                return rc
        while (value := top_route(msg)) is not None:
            head, user, ftag, fs = self._reader.read(value)
            if not head.own:
                break
            pop_route(msg)
            rc = self._take(msg, walk, value, head, user, ftag, fs)
            if rc is not None:
                return rc
        return OK

    def _take(
        self, msg: SipMessage, walk: Walk, value: bytes,
        head: Head, user: bytes | None, ftag: bytes, fs: bytes,
    ) -> Rc | None:  # fmt: skip
        """Judge one own Route; ``None``: go on with the next one."""
        uri = head.uri
        pair = b"r2" in uri.params
        second = pair and walk.half
        walk.half = pair and not second
        walk.seen.own.append(value)
        walk.seen.ftag = walk.seen.ftag or ftag
        if second or self._force_send_socket:
            walk.listener = head.listener
        if user is None or self._ob is None:
            walk.user = None
            walk.ob = walk.ob or b"ob" in uri.params
            return None
        # an edge of another make writes one token into both values of a pair: that is one hop
        if second and walk.user == user and walk.fs == fs:
            return None
        walk.user, walk.fs = user, fs
        verdict, flow = self._ob.decode_flow_token(user)
        if verdict is BAD or flow is None or uri.password is not None:
            return BROKEN_TOKEN
        first = walk.direction is NOT_USED
        # A second token never means the sender again, even if it names the same flow: two accounts
        # of one phone may call each other (requirement INC-16)
        outgoing = first and (
            _from_its_ua(msg, ftag, fs) or (verdict is VALID and same_flow(flow, msg.flow))
        )
        if first:
            walk.direction = OUTGOING if outgoing else INCOMING
            walk.ob = walk.ob or b"ob" in uri.params
        if outgoing:
            return None
        _check_sips(msg, flow)
        msg.dst_flow = flow  # a closed one, if the flow is gone: the host answers 430
        return ON_FLOW

    def _pop_partner(self, msg: SipMessage, walk: Walk) -> None:
        """The token stood in the first value of a pair: the second one goes with it."""
        value = top_route(msg) if walk.half else None
        if value is not None:
            head = self._reader.read(value)[0]
            if head.own and b"r2" in head.uri.params:
                pop_route(msg)
                walk.seen.own.append(value)

    def _recover(self, msg: SipMessage) -> bytes | None:
        """RFC 3261 §16.4: a strict router put our Record-Route into the Request-URI and what
        belongs there at the end of Route.  Undone; our own value is returned as a Route."""
        ruri = msg.ruri
        if b";lr" not in ruri.lower():  # all our Record-Routes have it
            return None
        value = b"<" + ruri + b">"
        if not self._reader.read(value)[0].own:
            return None
        at = len(msg.ids) - 1 - msg.ids[::-1].index(ROUTE)
        values = split_list(msg.row_value(at))
        if not values:
            return None
        if len(values) == 1:
            msg.delete(at)
        else:
            msg.replace(at, b", ".join(values[:-1]))
        _set_ruri(msg, route_uri(values[-1]))
        return value

    def _next_hop(self, msg: SipMessage) -> bool:
        """Is a Route left?  If that is a strict router: RFC 3261 §16.6 item 6."""
        value = top_route(msg)
        if value is None:
            return False
        uri = self._reader.read(value)[0].uri
        if b"lr" in uri.params or uri.scheme not in (b"sip", b"sips"):
            return True
        last = len(msg.ids) - 1 - msg.ids[::-1].index(ROUTE)
        msg.insert(last + 1, ROUTE, b"<" + msg.ruri + b">")
        pop_route(msg)
        msg.dst_uri = route_uri(value)
        _set_ruri(msg, msg.dst_uri)
        return True


def _from_its_ua(msg: SipMessage, ftag: bytes, fs: bytes) -> bool:
    """Is the sender the end of the dialog that the flow belongs to, on whatever flow it is now?"""
    if not ftag or fs not in (b"uac", b"uas"):
        return False
    caller = msg.from_tag if fs == b"uac" else msg.to_tag
    return tag_param(caller) == ftag


def _check_sips(msg: SipMessage, flow: Flow) -> None:
    """RFC 5630 §5.3: a request to a SIPS URI is not delivered without TLS."""
    if msg.ruri[:5].lower() == b"sips:" and flow.alive and flow.transport not in (TLS, WSS):
        warning = b'380 %s "SIPS Not Allowed"' % msg.flow.listener.uri_hostport
        raise SipError(480, b"Temporarily Unavailable", ((b"Warning", warning),))


def _set_ruri(msg: SipMessage, uri: bytes) -> None:
    msg.ruri = uri
    msg.lines[0] = b"%s %s SIP/2.0" % (msg.method, uri)
