"""What ``outbound`` offers to modules that are loaded after it (Kamailio: ``outbound/api.h``).

``path`` and ``rr`` call ``ob_load_api`` in their ``mod_init`` and work without tokens when it says
``None``.  Part of stop 6 of a datagram.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sipedge.flow import Flow
from sipedge.module import Context
from sipedge.sip.message import SipMessage


class Use(enum.Enum):
    """Does outbound apply to a request, and which way does it go (RFC 5626 §5.1, §5.3)?"""

    NOT_USED = 0
    #: from a UA: the flow that it came on gets into Path or Record-Route
    OUTGOING = 1
    #: to a UA: the topmost own Route named the flow
    INCOMING = 2


class TokenVerdict(enum.Enum):
    """What a flow token is worth (RFC 5626 §5.3.1)."""

    #: ours, and the flow is there
    VALID = 0
    #: the connection is gone, another edge's, or signed with a key that is not ours: 430
    GONE = 1
    #: tampered with, or no token at all: 403
    BAD = 2


# enum members are slow to reach through their class: hot code uses these
NOT_USED: Final = Use.NOT_USED
OUTGOING: Final = Use.OUTGOING
INCOMING: Final = Use.INCOMING
VALID: Final = TokenVerdict.VALID
GONE: Final = TokenVerdict.GONE
BAD: Final = TokenVerdict.BAD

#: ``msg.recall(TOP_ROUTE)``: the ``OwnRoute`` that ``rr`` took away, ``None`` if it took none
TOP_ROUTE: Final = "outbound.top_route"


class OwnRoute:
    """What the topmost Route said, if it was an own one; kept because ``loose_route`` removes it.

    ``ob``: the URI carried ``;ob``.  ``direction``: what its token says about the request, or
    ``NOT_USED`` when it had no token, or one that is no good.
    """

    __slots__ = ("direction", "ob")

    def __init__(self, ob: bool, direction: Use) -> None:
        self.ob = ob
        self.direction = direction


@dataclass(slots=True, frozen=True)
class ObBinds:
    """The functions of ``outbound`` (Kamailio: ``struct ob_binds``)."""

    #: the token of a flow, made once and kept in ``flow.token``; raises ``SipError`` (500) for a
    #: flow that cannot be named, such as one of an unknown local address
    encode_flow_token: Callable[[Flow], bytes]
    #: user part of a URI as written -> ``VALID`` and the live flow, ``GONE`` and a flow in state
    #: ``CLOSED``, or ``BAD`` and ``None``
    decode_flow_token: Callable[[bytes], tuple[TokenVerdict, Flow | None]]
    use_outbound: Callable[[SipMessage], Use]
    #: did the operator switch outbound off for this request (``force_no_outbound_flag``)?
    suppressed: Callable[[SipMessage], bool]


def ob_load_api(ctx: Context) -> ObBinds | None:
    """The API of ``outbound`` if that was loaded before the module that asks, else ``None``."""
    api = ctx.find_export("bind_ob")
    return api if isinstance(api, ObBinds) else None
