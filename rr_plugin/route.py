"""Route values, read; and what ``loose_route`` leaves in the message for the other functions.

Our own Route values are a constant head (token, address, ``lr``) and a tail that differs from
dialog to dialog (``ftag``, ``fs``).  Heads are parsed once and remembered, so that a request of a
call costs one dict look-up.  Part of stop 6 of a datagram.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sipedge.errors import SipError
from sipedge.flow import FlowTable, Listener
from sipedge.forward import hop_of, route_uri
from sipedge.sip.message import SipMessage
from sipedge.sip.names import ROUTE
from sipedge.sip.uri import Uri, parse_uri
from sipedge.sip.values import split_list

#: ``msg.recall(FOLLOWED)``: the ``Followed`` of a message that ``loose_route`` has seen
FOLLOWED: Final = "rr.followed"

# what may stand in the value of a URI parameter, without escapes (RFC 3261 §25.1)
_PARAM_SAFE: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!~*'()[]/:&+$"
)
# a user part of the letters of a token, and no password
_USER: Final = re.compile(rb"(sips?:)([A-Za-z0-9\-_]+)@")
_TAIL: Final = re.compile(rb";ftag=([A-Za-z0-9\-_.!~*'()\[\]/:&+$%]+)(?:;fs=(ua[cs]))?")


class Followed:
    """The own Routes that were taken away, as they stood, topmost first; and their ``ftag``."""

    __slots__ = ("ftag", "own")

    def __init__(self) -> None:
        self.own: list[bytes] = []
        self.ftag = b""


class Head:
    """What a Route says of the hop: its URI, whether that is us, and the listener that it names.

    The URI is without user part, if that was of the letters of a token.
    """

    __slots__ = ("listener", "own", "uri")

    def __init__(self, uri: Uri, own: bool, listener: Listener | None) -> None:
        self.uri = uri
        self.own = own
        self.listener = listener


class RouteReader:
    """Reads Route values; remembers the heads."""

    MAX: Final = 4096

    def __init__(self, is_myself: Callable[[Uri], bool], flows: FlowTable) -> None:
        self._is_myself = is_myself
        self._flows = flows
        self._heads: dict[bytes, Head] = {}

    def read(self, value: bytes) -> tuple[Head, bytes | None, bytes, bytes]:
        """Head, user, ``ftag`` and ``fs`` (b"" if absent) of one value; raises ``ParseError``."""
        raw = route_uri(value)
        tail = None
        cut = raw.find(b";ftag=")
        if cut >= 0 and b"?" not in raw:
            tail = _TAIL.fullmatch(raw, cut)
            if tail is not None:
                raw = raw[:cut]
        found = _USER.match(raw)
        if found is not None:
            head = self._head(found[1] + raw[found.end() :])
            user: bytes | None = found[2]
        else:
            head = self._head(raw)
            user = head.uri.user
        if tail is not None:
            return head, user, tail[1], tail[2] or b""
        params = head.uri.params
        return head, user, params.get(b"ftag") or b"", params.get(b"fs") or b""

    def _head(self, raw: bytes) -> Head:
        head = self._heads.get(raw)
        if head is None:
            uri = parse_uri(raw)
            own = self._is_myself(uri)
            head = Head(uri, own, self._listener(uri) if own else None)
            if len(self._heads) >= self.MAX:
                self._heads.clear()
            self._heads[raw] = head
        return head

    def _listener(self, uri: Uri) -> Listener | None:
        """The listener that is written so, by its address or by what it advertises."""
        try:
            transport, host, port = hop_of(uri)
        except SipError:
            return None
        for listener in self._flows.listeners:
            names = (listener.address, (listener.advertise_host or "").lower())
            ports = (listener.port, listener.advertise_port)
            if listener.transport == transport and host in names and port in ports:
                return listener
        return None


def top_route(msg: SipMessage) -> bytes | None:
    """The topmost Route value, ``None`` if there is none; empty rows are taken away."""
    while (at := msg.find(ROUTE)) >= 0:
        row = msg.row_value(at)
        values = split_list(row) if b"," in row else [row]
        if values and values[0]:
            return values[0]
        msg.delete(at)
    return None


def pop_route(msg: SipMessage) -> None:
    """Take the topmost Route value away; there is one."""
    at = msg.ids.index(ROUTE)
    if b"," in msg.lines[at]:
        msg.pop_value(ROUTE)
    else:
        # not msg.delete: what it remembers of Via, From, To and Call-ID is not touched by this
        del msg.lines[at]
        del msg.ids[at]


def tag_param(tag: bytes) -> bytes:
    """A tag as the value of a URI parameter: what cannot stand there is escaped."""
    if tag.isalnum() or _PARAM_SAFE.issuperset(tag):
        return tag
    return b"".join(b"%c" % octet if octet in _PARAM_SAFE else b"%%%02X" % octet for octet in tag)
