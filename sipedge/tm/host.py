"""What the transaction layer asks of the host (``sipedge.core.Core`` is the one implementation)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from sipedge.flow import Flow, FlowTable
from sipedge.forward import Hop, HopCache, Place
from sipedge.sip.message import SipMessage

if TYPE_CHECKING:
    from sipedge.blocklist import Blocklist

Route = Callable[..., Any]


class Host(Protocol):
    now: float
    flows: FlowTable
    hops: HopCache
    blocklist: Blocklist
    #: seconds that a server which failed is tried last
    dst_blocklist_expire: float
    #: octets of a request that make it leave over TCP; 0: never
    udp_mtu: int
    stats: Counter[str]

    def send(self, data: bytes, flow: Flow) -> bool:
        """Queue bytes for a flow; False if the flow is gone."""

    def locate(self, place: Place, found: Callable[[list[Hop]], None]) -> None:
        """Find the servers of a place; ``found`` gets them in order, perhaps none, perhaps now."""

    def run_reply_routes(self, msg: SipMessage, on_reply: Route | None) -> bool:
        """``reply_in`` hooks and reply routes; True: drop the response."""

    def run_failure_route(self, route: Route, msg: SipMessage) -> bool:
        """One failure route, guarded; False: it waits, and ``failure_route_ended`` is called."""

    def run_branch_route(self, route: Route, msg: SipMessage) -> None:
        """One branch route, guarded."""

    def branch_failed(self, msg: SipMessage, status: int) -> int:
        """The ``branch_failed`` hooks; the status to go on with."""
