"""Flow-Timer and ``keep``: how often a phone is asked for a sign of life (RFC 5626 §5.4, RFC 6223).

Strategy: with ``flow_timer`` set, two hooks that look at REGISTER and INVITE only.  What the phone
learns, it learns from a response: an answer of this process copies the Via of the request, so that
of a REGISTER gets its value there, and a late edit takes it away again from what is forwarded.  In
responses of others the value is set, or taken away, whatever they wrote.  Part of stops 5 and 7.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sipedge.errors import ParseError
from sipedge.sip.message import HeaderList, SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import FLOW_TIMER, RECORD_ROUTE, REQUIRE, VIA
from sipedge.sip.uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from sipedge.flow import Flow
    from sipedge.sip.uri import Uri

#: a whole parameter, with or without its value; what stands in quotes is no parameter
_KEEP: Final = re.compile(
    rb"(\"(?:[^\"\\]|\\.)*\")"
    rb"|;[ \t]*keep(?:[ \t]*=[ \t]*[^;,\" \t]*|(?=[ \t]*[;,])|(?=[ \t]*\Z))",
    re.IGNORECASE,
)


class Keep:
    """What ``flow_timer`` (seconds) makes of messages."""

    def __init__(self, flow_timer: int, is_myself: Callable[[Uri], bool]) -> None:
        self._flow_timer = b"%d" % flow_timer
        self._value = b";keep=%d" % flow_timer
        self._is_myself = is_myself

    def request_in(self, msg: SipMessage, now: float) -> None:
        """Hook: the Via of a REGISTER of a phone gets the value, for answers of our own."""
        if msg.method != b"REGISTER" or msg.via_count() != 1:
            return
        via = msg.via()
        if not via.has(b"keep") or via.get(b"keep") is not None:
            return  # RFC 6223 §4.4: a value is none of the phone's business
        at = msg.ids.index(VIA)
        msg.lines[at] = with_keep(msg.lines[at], self._value)
        msg.late = [*(msg.late or ()), _without_value]

    def reply_in(self, msg: SipMessage, now: float) -> None:
        """Hook: a response whose only Via is the phone's."""
        method = msg.cseq()[1]
        if method not in (b"REGISTER", b"INVITE") or msg.via_count() != 1:
            return
        at = msg.ids.index(VIA)
        if b"keep" in msg.lines[at].lower():
            value = self._value if self._applies(msg, method) else b";keep"
            msg.lines[at] = with_keep(msg.lines[at], value)
        if method == b"REGISTER" and 200 <= msg.status < 300:
            if b"outbound" in msg.options(REQUIRE):
                msg.set(FLOW_TIMER, self._flow_timer)  # one value, ours (requirement KA-19)
            else:
                msg.remove(FLOW_TIMER)

    def _applies(self, msg: SipMessage, method: bytes) -> bool:
        """RFC 6223 §4.4: for a registration; for a dialog if we stay on its path."""
        if method == b"REGISTER":
            return True
        try:
            return any(
                self._is_myself(parse_uri(parse_nameaddr(value).uri))
                for value in msg.values(RECORD_ROUTE)
            )
        except ParseError:
            return False


def with_keep(row: bytes, value: bytes) -> bytes:
    """A Via row with ``value`` instead of its ``keep`` parameter."""
    return _KEEP.sub(lambda found: found[1] or value, row)


def _without_value(lines: HeaderList, msg: SipMessage, flow: Flow, to_client: bool) -> None:
    """Late edit: requests carry no value (RFC 6223 §10, requirement KA-22)."""
    at = lines.ids.index(VIA)
    lines.lines[at] = with_keep(lines.lines[at], b";keep")
