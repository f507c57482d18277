"""Module maxfwd: Max-Forwards, checked and lowered by the route (RFC 3261 §16.3, §16.6; stop 6).

Strategy: the host lowers Max-Forwards by itself when it builds a branch.  A route that calls
``process_maxfwd`` gets the verdict at once and the header changed at once;
``msg.max_forwards_done`` tells the host to leave it alone, so one hop counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipedge.hookspecs import hookimpl
from sipedge.module import FAIL, OK, RC, REQUEST_ROUTE, Context, Function, ModuleExports, Param, Rc
from sipedge.sip.message import SipMessage
from sipedge.sip.names import MAX_FORWARDS
from sipedge.sip.values import number

MOST: Final = 255  # RFC 3261 §20.22


@dataclass(slots=True)
class MaxfwdParams:
    max_limit: int = 70


class MaxfwdModule:
    """Kamailio's module maxfwd."""

    def __init__(self) -> None:
        self.params = MaxfwdParams()
        self.exports = ModuleExports(
            "maxfwd",
            functions=(
                Function("process_maxfwd", self.process_maxfwd, REQUEST_ROUTE),
                Function("maxfwd_process", self.maxfwd_process, REQUEST_ROUTE),
                Function("mf_process_maxfwd_header", self.mf_process_maxfwd_header, REQUEST_ROUTE),
                Function("is_maxfwd_lt", self.is_maxfwd_lt, REQUEST_ROUTE),
            ),
            params=(
                Param("max_limit", int, "most that is sent on; higher values become this", 1, MOST),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        most = self.params.max_limit
        #: rows as they come and as they go, so that the usual one is a look-up
        self._lowered = {
            b"Max-Forwards: %d" % n: b"Max-Forwards: %d" % min(n - 1, most)
            for n in range(1, MOST + 1)
        }

    def process_maxfwd(self, msg: SipMessage, limit: int = 70) -> Rc:
        """Lower Max-Forwards by one, or add it with ``limit`` (RFC 3261 §16.6 item 3).

        Returns 1 lowered; 2 there was none, added; -1 it was 0 (answer 483); -2 it is no number or
        ``limit`` is not 0..255.  A second call for the same request changes nothing and returns 1.
        """
        if msg.max_forwards_done:
            return OK
        at = msg.find(MAX_FORWARDS)
        if at >= 0 and msg.lines[at] in self._lowered:  # as nearly all write it
            msg.lines[at] = self._lowered[msg.lines[at]]
            msg.max_forwards_done = True
            return OK
        if at < 0:
            if not 0 <= limit <= MOST:
                return RC[-2]
            msg.append(MAX_FORWARDS, b"%d" % limit)
            msg.max_forwards_done = True
            return RC[2]
        value = number(msg.row_value(at))
        if value is None:
            return RC[-2]
        if value == 0:
            return FAIL
        msg.replace(at, b"%d" % min(value - 1, self.params.max_limit))
        msg.max_forwards_done = True
        return OK

    # the names that Kamailio's configuration language has for it
    maxfwd_process = mf_process_maxfwd_header = process_maxfwd

    def is_maxfwd_lt(self, msg: SipMessage, limit: int) -> Rc:
        """1 if Max-Forwards, as it stands now, is less than ``limit``; -1 if not; -2 no header;
        -3 no number."""
        at = msg.find(MAX_FORWARDS)
        if at < 0:
            return RC[-2]
        value = number(msg.row_value(at))
        if value is None:
            return RC[-3]
        return OK if value < limit else FAIL
