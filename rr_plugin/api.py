"""What ``rr`` offers to modules that are loaded after it (Kamailio: ``rr/api.h``).

Part of stop 6 of a datagram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sipedge.module import Context, Rc
from sipedge.sip.message import SipMessage
from sipedge.sip.uri import Uri

Text = bytes | str
#: called by ``loose_route`` with the request and the URI of each own Route that it took away
RouteCallback = Callable[[SipMessage, Uri], None]


@dataclass(slots=True, frozen=True)
class RrBinds:
    """The functions of ``rr`` (Kamailio: ``struct rr_binds``); ``RrPlugin`` says what they do."""

    record_route: Callable[[SipMessage, Text], Rc]
    add_rr_param: Callable[[SipMessage, Text], Rc]
    loose_route: Callable[[SipMessage], Rc]
    check_route_param: Callable[[SipMessage, Text], Rc]
    is_direction: Callable[[SipMessage, Text], Rc]
    register_callback: Callable[[RouteCallback], None]


def rr_load_api(ctx: Context) -> RrBinds | None:
    """The API of ``rr`` if that was loaded before the module that asks, else ``None``."""
    api = ctx.find_export("bind_rr")
    return api if isinstance(api, RrBinds) else None
