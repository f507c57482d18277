"""Pseudo-variables of ``rr``: ``$route_uri``, ``$fti``, ``$tti``, ``$rdir(id)``, ``$rdir(name)``.

Part of stop 6 of a datagram.
"""

from __future__ import annotations

from collections.abc import Callable

from rr_plugin.route import FOLLOWED, Followed, top_route
from sipedge.errors import ParseError
from sipedge.forward import route_uri
from sipedge.module import PseudoVariable
from sipedge.sip.message import SipMessage


class RrVariables:
    """``upstream``: does a request go towards the caller of its dialog?"""

    def __init__(self, upstream: Callable[[SipMessage], bool]) -> None:
        self._upstream = upstream
        self.exports = (
            PseudoVariable("route_uri", self.route_uri),
            PseudoVariable("fti", self.fti),
            PseudoVariable("tti", self.tti),
            PseudoVariable("rdir", self.rdir),
        )

    def route_uri(self, msg: SipMessage, key: str | None) -> bytes | None:
        """The URI of the topmost Route as the request came, whether or not ``loose_route`` took it
        away since; ``None`` if it had no Route."""
        followed: Followed | None = msg.recall(FOLLOWED)
        value = followed.own[0] if followed is not None and followed.own else top_route(msg)
        try:
            return None if value is None else route_uri(value)
        except ParseError:
            return None

    def fti(self, msg: SipMessage, key: str | None) -> bytes | None:
        """The From tag that the first request of the dialog had; ``None`` if there is none."""
        return (msg.to_tag if self._upstream(msg) else msg.from_tag) or None

    def tti(self, msg: SipMessage, key: str | None) -> bytes | None:
        """The To tag as the first request's responses have it; ``None`` if there is none yet."""
        return (msg.from_tag if self._upstream(msg) else msg.to_tag) or None

    def rdir(self, msg: SipMessage, key: str | None) -> bytes | int | None:
        """``id``: 1 downstream, 2 upstream; ``name``: the word; ``None`` for another key."""
        upstream = self._upstream(msg)
        if key == "id":
            return 2 if upstream else 1
        if key == "name":
            return b"upstream" if upstream else b"downstream"
        return None
