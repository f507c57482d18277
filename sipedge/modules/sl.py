"""Module sl: answers without a transaction (Kamailio ``sl``).  Stop 6 of a datagram."""

from __future__ import annotations

from sipedge.hookspecs import hookimpl
from sipedge.module import (
    FAIL,
    FAILURE_ROUTE,
    OK,
    REQUEST_ROUTE,
    Context,
    Function,
    ModuleExports,
    Rc,
)
from sipedge.modules.args import as_bytes
from sipedge.sip.message import SipMessage

_WHERE = REQUEST_ROUTE | FAILURE_ROUTE


class SlModule:
    """Answers by the transaction if there is one: a request gets one final answer, whoever gives
    it, and a second one is refused with -1."""

    def __init__(self) -> None:
        self.params = None
        self.exports = ModuleExports(
            "sl",
            functions=(
                Function("sl_send_reply", self.sl_send_reply, _WHERE),
                Function("send_reply", self.send_reply, _WHERE),
                Function("sl_reply_error", self.sl_reply_error, _WHERE),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self._core = ctx.core

    def send_reply(self, msg: SipMessage, code: int, reason: str | bytes = b"") -> Rc:
        """Answer with ``code`` (100..699) and ``reason`` (Kamailio ``send_reply``).

        1 if it was sent; -1 for an ACK, a second final answer, or a code out of range.
        """
        if not 100 <= code <= 699:
            return FAIL
        return OK if self._core.reply(msg, code, as_bytes(reason)) else FAIL

    sl_send_reply = send_reply

    def sl_reply_error(self, msg: SipMessage) -> Rc:
        """500 for what the route could not do (Kamailio ``sl_reply_error``).

        -1 if the request has its final answer, as it has when ``t_relay`` failed.
        """
        return self.send_reply(msg, 500, b"Server Internal Error")
