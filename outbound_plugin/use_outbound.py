"""Does outbound apply to this request, and which way does it go (RFC 5626 §5.1, §5.3)?

REGISTER: the first hop, and a Contact with ``reg-id``.  Other requests: what the topmost Route says
(``ob``, and a token compared with the flow that the request came on), else ``ob`` in the Contact
URI.  Supported is not consulted: RFC 5626 §5.3.2 names ``ob`` alone.  Part of stop 6 of a datagram.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from outbound_plugin.api import (
    BAD,
    GONE,
    INCOMING,
    NOT_USED,
    OUTGOING,
    TOP_ROUTE,
    OwnRoute,
    TokenVerdict,
    Use,
)
from sipedge.errors import ParseError
from sipedge.flow import Flow, same_flow
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTACT, EXPIRES, ROUTE
from sipedge.sip.uri import Uri, parse_uri
from sipedge.sip.values import number, split_list

_NO_ROUTE: Final = OwnRoute(False, NOT_USED)

# What phones usually send; a match says yes, all else is parsed.  No possessive groups: Python
# before 3.11.5 (Debian 12 has 3.11.2) gets some of them wrong.
# Contact: <uri>;param;param="quoted";reg-id
_REG_ID: Final = re.compile(
    rb"[^:]++:[ \t]*+<[^<>\"]++>"
    rb"(?:;(?!reg-id[;=])[\w+.\-]++(?:=(?:\"[^\"\\]*+\"|[^\x00-\x20\";,<>]*+))?)*;reg-id=",
    re.IGNORECASE,
)
# <sip:token@host:port;param>
_WITH_TOKEN: Final = re.compile(rb"<(sips?:)([A-Za-z0-9\-_]+)@([^\x00-\x20\x7f\"<>?]++)>")
_MAX_PLACES: Final = 1024
# <sip:user@host:port;param=value;ob
_OB: Final = re.compile(
    rb"<sips?:(?:[^\x00-\x20<>;?@\",]++@)?[\w.\-\[\]:]++(?:;(?!ob[;>])[^\x00-\x20<>;?@\",]++)*;ob[;>]",
    re.IGNORECASE,
)


class UseOutbound:
    """The decision, with the operator's flags and what it needs of the host."""

    def __init__(
        self,
        is_myself: Callable[[Uri], bool],
        decode: Callable[[bytes], tuple[TokenVerdict, Flow | None]],
        force_flag: int,
        no_flag: int,
    ) -> None:
        """``force_flag``, ``no_flag``: numbers of message flags, -1 for none."""
        self._is_myself = is_myself
        self._decode = decode
        self._force = 1 << force_flag if force_flag >= 0 else 0
        self._no = 1 << no_flag if no_flag >= 0 else 0
        self._places: dict[bytes, tuple[bool, bool]] = {}

    def suppressed(self, msg: SipMessage) -> bool:
        """The no-flag is set on the message, and the force flag is not."""
        return bool(msg.flags & self._no and not msg.flags & self._force)

    def __call__(self, msg: SipMessage) -> Use:
        """The force flag wins over the no-flag, both over the message (as in Kamailio)."""
        if not msg.is_request:
            return NOT_USED
        if msg.flags & self._force:
            return OUTGOING
        if msg.flags & self._no:
            return NOT_USED
        if msg.method == b"REGISTER":
            return OUTGOING if msg.via_count() == 1 and has_reg_id(msg) else NOT_USED
        return self._other(msg)

    def _other(self, msg: SipMessage) -> Use:
        route: OwnRoute = msg.recall(TOP_ROUTE) or self._top_route(msg)
        if route.direction is INCOMING:
            return INCOMING
        if msg.via_count() != 1:
            return NOT_USED  # RFC 5626 §5.1: only the first hop knows the UA's flow
        # A UA whose own token stands in its Route is in a dialog that goes over its flow: each
        # request that refreshes the target gets the Record-Route again (RFC 3261 §16.6 item 4)
        in_dialog = route.direction is OUTGOING and msg.to_tag
        return OUTGOING if route.ob or in_dialog or contact_has_ob(msg) else NOT_USED

    def _top_route(self, msg: SipMessage) -> OwnRoute:
        """The topmost Route, when ``loose_route`` has not looked at it."""
        row = msg.first(ROUTE)
        if not row:
            return _NO_ROUTE
        found = _WITH_TOKEN.fullmatch(row)
        if found is not None:
            own, ob = self._place(found[1] + found[3])
            return self._judged(msg, found[2], ob) if own else _NO_ROUTE
        try:
            uri = parse_uri(parse_nameaddr(split_list(row)[0] if b"," in row else row).uri)
        except ParseError:
            return _NO_ROUTE
        if not self._is_myself(uri):
            return _NO_ROUTE
        ob = b"ob" in uri.params
        return OwnRoute(ob, NOT_USED) if uri.user is None else self._judged(msg, uri.user, ob)

    def _judged(self, msg: SipMessage, user: bytes, ob: bool) -> OwnRoute:
        """An own Route with this user part."""
        verdict, flow = self._decode(user)
        if verdict is BAD:
            # Kamailio says "outgoing" here; a forged token must never earn a fresh one
            return _NO_ROUTE
        same = verdict is not GONE and flow is not None and same_flow(flow, msg.flow)
        return OwnRoute(ob, OUTGOING if same else INCOMING)

    def _place(self, raw: bytes) -> tuple[bool, bool]:
        """Is a URI (without user part) ours, and has it ``ob``?  There are few of them."""
        known = self._places.get(raw)
        if known is None:
            try:
                uri = parse_uri(raw)
            except ParseError:
                return False, False
            known = self._is_myself(uri), b"ob" in uri.params
            if len(self._places) >= _MAX_PLACES:
                self._places.clear()
            self._places[raw] = known
        return known


def has_reg_id(msg: SipMessage) -> bool:
    """Any Contact value has the header parameter ``reg-id`` (RFC 5626 §4.2), or all bindings are to
    go: ``Contact: *`` with ``Expires: 0``, which has no place for one (RFC 3261 §10.2.2)."""
    at = msg.find(CONTACT)
    if at >= 0:
        # behind the last quote and the last bracket nothing but parameters can stand
        if b";reg-id=" in msg.lines[at].rpartition(b'"')[2].rpartition(b">")[2]:
            return True
        if _REG_ID.match(msg.lines[at]):
            return True
    for row in msg.rows(CONTACT):
        if row == b"*":
            return number(msg.first(EXPIRES) or b"") == 0
        if b"reg-id" not in row.lower():
            continue
        try:
            if any(parse_nameaddr(value).has(b"reg-id") for value in split_list(row)):
                return True
        except ParseError:
            continue
    return False


def contact_has_ob(msg: SipMessage) -> bool:
    """The URI in Contact has the parameter ``ob`` (RFC 5626 §4.3): inside the angle brackets, and
    not as a part of the user."""
    row = msg.first(CONTACT)
    if row is None:
        return False
    if _OB.match(row):
        return True
    if b"ob" not in row.lower():
        return False
    try:
        values = split_list(row)
        return bool(values) and b"ob" in parse_uri(parse_nameaddr(values[0]).uri).params
    except ParseError:
        return False
