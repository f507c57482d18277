"""What the transaction layer asks of the host (``sipedge.core.Core`` is the one implementation)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from sipedge.flow import Flow, FlowTable
from sipedge.forward import HopCache
from sipedge.sip.message import SipMessage

Route = Callable[..., Any]


class Host(Protocol):
    now: float
    flows: FlowTable
    hops: HopCache
    stats: Counter[str]

    def send(self, data: bytes, flow: Flow) -> bool:
        """Queue bytes for a flow; False if the flow is gone."""

    def lookup(self, host: str, done: Callable[[list[str]], None]) -> None:
        """Resolve a name; ``done`` gets its addresses, perhaps none, perhaps at once."""

    def run_reply_routes(self, msg: SipMessage, on_reply: Route | None) -> bool:
        """``reply_in`` hooks and reply routes; True: drop the response."""

    def run_failure_route(self, route: Route, msg: SipMessage) -> None:
        """One failure route, guarded."""

    def run_branch_route(self, route: Route, msg: SipMessage) -> None:
        """One branch route, guarded."""

    def branch_failed(self, msg: SipMessage, status: int) -> int:
        """The ``branch_failed`` hooks; the status to go on with."""
