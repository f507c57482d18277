"""Module ``outbound``: SIP Outbound for an edge proxy (RFC 5626 §5).

It owns the key and answers two questions of ``path`` and ``rr``: which token names a flow, and does
outbound apply to this request.  Load it before them.  Part of stop 6 of a datagram.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from outbound_plugin.api import GONE, VALID, ObBinds
from outbound_plugin.flow_token import KEY_OCTETS, TOKEN_LENGTHS, FlowTokens
from outbound_plugin.kamailio_token import KAMAILIO_LENGTHS, KamailioTokens, secret_key
from outbound_plugin.keep import Keep
from outbound_plugin.use_outbound import UseOutbound
from sipedge.errors import ParseError
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    OK,
    RC,
    REQUEST_ROUTE,
    Context,
    Function,
    ModuleExports,
    Param,
    Rc,
)
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import ROUTE
from sipedge.sip.uri import parse_uri, unescape
from sipedge.sip.values import split_list

log = logging.getLogger("sipedge.outbound")

MAKE_A_KEY: Final = (
    "make one with `sipedge keygen > flow_token.key` and write "
    'modparam("outbound", "flow_token_key", keyfile("flow_token.key"))'
)
Keys = bytes | str | tuple[bytes | str, ...] | list[bytes | str] | None


@dataclass(slots=True)
class OutboundParams:
    flow_token_key: Keys = None
    force_outbound_flag: int = -1
    force_no_outbound_flag: int = -1
    accept_kamailio_tokens: int = 0
    kamailio_flow_token_secret: str | None = None
    flow_timer: int = 0


class OutboundPlugin:
    """``loadmodule("outbound")``."""

    def __init__(self) -> None:
        self.params = OutboundParams()
        self.exports = ModuleExports(
            "outbound",
            functions=(Function("check_flow_token", self.check_flow_token, REQUEST_ROUTE),),
            params=(
                Param(
                    "flow_token_key",
                    (bytes, str, tuple, list),
                    "20 octets that sign the flow tokens, or a list: the current key first, then "
                    "older ones that are still accepted; " + MAKE_A_KEY,
                ),
                Param("force_outbound_flag", int, "flag: outbound applies", -1, 31),
                Param("force_no_outbound_flag", int, "flag: outbound does not apply", -1, 31),
                Param("accept_kamailio_tokens", int, "1: verify Kamailio's tokens too", 0, 1),
                Param(
                    "kamailio_flow_token_secret",
                    str,
                    "flow_token_secret of the Kamailio whose tokens are accepted",
                ),
                Param("flow_timer", int, "seconds in Flow-Timer and keep; 0: not ours", 0, 999),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        """Check the key, offer ``bind_ob``.  Raises ``ConfigError``."""
        params = self.params
        keys = _key_ring(ctx, params.flow_token_key)
        foreign = None
        self._lengths = TOKEN_LENGTHS
        if params.accept_kamailio_tokens:
            foreign = KamailioTokens(_kamailio_keys(params.kamailio_flow_token_secret, keys))
            self._lengths = TOKEN_LENGTHS | KAMAILIO_LENGTHS
        elif params.kamailio_flow_token_secret is not None:
            log.warning("kamailio_flow_token_secret does nothing without accept_kamailio_tokens")
        self._is_myself = ctx.core.is_myself
        self._tokens = FlowTokens(ctx.flows, keys, foreign)
        self._use = UseOutbound(
            self._is_myself,
            self._tokens.decode,
            params.force_outbound_flag,
            params.force_no_outbound_flag,
        )
        if params.flow_timer:
            # not for everybody: a hook for responses costs each of them
            keep = Keep(params.flow_timer, ctx.core.is_myself)
            ctx.core.hooks_request_in += (keep.request_in,)
            ctx.core.hooks_reply_in += (keep.reply_in,)
        ctx.export(
            "bind_ob",
            ObBinds(self._tokens.encode, self._tokens.decode, self._use, self._use.suppressed),
        )

    def check_flow_token(self, msg: SipMessage) -> Rc:
        """Look at the token in the topmost Route; nothing is changed (Kamailio: the same name).

        1: the token is ours and its flow is there.  -1: no Route.  -2: the topmost Route is not
        ours.  -3: it has no user part, or one of a length that no token has.  -4: tampered with.
        -5: the flow is gone, or the token is another edge's or of a key that is not ours.  -7: the
        Route cannot be parsed.  Usual answers: 403 to -2, -4 and -7, 430 to -5; after -3 go on to
        ``loose_route``, which answers -2 to a user part that is no token.
        """
        row = msg.first(ROUTE)
        if row is None:
            return RC[-1]
        try:
            values = split_list(row)
            uri = parse_uri(parse_nameaddr(values[0] if values else b"").uri)
        except ParseError:
            return RC[-7]
        if not self._is_myself(uri):
            return RC[-2]
        if uri.user is None or len(unescape(uri.user)) not in self._lengths:
            return RC[-3]
        verdict, _ = self._tokens.decode(uri.user)
        if verdict is VALID:
            return OK
        return RC[-5] if verdict is GONE else RC[-4]


def _key_ring(ctx: Context, value: object) -> list[bytes]:
    """The keys as octets; raises ``ConfigError`` unless each has exactly 20 of them."""
    if value is None:
        raise ctx.param_error("flow_token_key", f"is not set; {MAKE_A_KEY}")
    entries = list(value) if isinstance(value, tuple | list) else [value]
    if not entries:
        raise ctx.param_error("flow_token_key", f"has no key in it; {MAKE_A_KEY}")
    keys = []
    for entry in entries:
        if not isinstance(entry, bytes | str):
            kind = type(entry).__name__
            raise ctx.param_error(
                "flow_token_key", f"a key is bytes or a str, not {kind}; {MAKE_A_KEY}"
            )
        key = entry.encode() if isinstance(entry, str) else entry
        if len(key) != KEY_OCTETS:
            raise ctx.param_error(
                "flow_token_key",
                f"wrong length: expected {KEY_OCTETS} octets, got {len(key)}; {MAKE_A_KEY}",
            )
        keys.append(key)
    return keys


def _kamailio_keys(secret: str | None, keys: list[bytes]) -> list[bytes]:
    """Keys of Kamailio: 4.0.0 used the raw ``flow_token_key``, 5.6 and later hash a secret."""
    if secret is None:
        return keys
    if not secret:
        log.warning(
            "kamailio_flow_token_secret is empty: that is the key of Kamailio 5.6.0 to 5.8.5, "
            "whose flow_token_secret had no effect; everybody knows it and can forge tokens"
        )
    return [secret_key(secret), *keys]
