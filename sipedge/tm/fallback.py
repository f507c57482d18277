"""A response whose connection is gone: a server is found again by its Via (RFC 3263 §5; stop 8).

Strategy: never for a UA, whose flow is dead when it is dead.  A server is whoever forwarded the
request to us, so that there is a Via below its own, and whose own Via says where it really is: the
address that the request came from, or a name that leads there among others.  Without that anybody
could have us connect to anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipedge.flow import OPEN, TCP, TLS, Flow
from sipedge.forward import Hop, Place
from sipedge.sip.names import VIA

if TYPE_CHECKING:
    from sipedge.tm.server import ServerTx

_TRANSPORTS = {b"TCP": TCP, b"TLS": TLS}


def reroute(tx: ServerTx, data: bytes) -> None:
    """Send a response to the server that is waiting for it, over a connection of our own."""
    request = tx.request
    if VIA not in request.ids:
        return  # of a transaction that was decided long ago
    via = request.via()
    transport = _TRANSPORTS.get(via.transport)
    if transport is None or not (via.rest or request.ids.count(VIA) > 1):
        return
    place = Place(via.host.decode("ascii"), via.port or 0, transport, transport == TLS)
    tx.tm.host.locate(place, Rerouted(tx, data).located)


class Rerouted:
    """A response on its way to somebody else.

    It waits on a flow as a branch does (``Flow.pending``), until that is open.
    """

    __slots__ = ("_data", "_flow", "_hops", "_tx", "status")

    def __init__(self, tx: ServerTx, data: bytes) -> None:
        self.status = 0
        self._tx = tx
        self._data = data
        self._flow: Flow | None = None
        self._hops: list[Hop] = []

    @property
    def flow(self) -> Flow | None:
        """The flow that may still fail us."""
        flow = self._flow
        return None if flow is None or flow.state == OPEN else flow

    def located(self, hops: list[Hop]) -> None:
        """These are the servers; one of them must be where the request came from."""
        source = self._tx.flow.remote[0]
        if any(hop[1] == source for hop in hops):
            self._hops = hops
            self.lost()

    def lost(self) -> None:
        """The next server."""
        tx, tm = self._tx, self._tx.tm
        flows = tm.host.flows
        while self._hops:
            transport, host, port, name = self._hops.pop(0)
            listener = flows.towards(transport, host, tx.flow.listener)
            if listener is None:
                continue
            flow = self._flow = tx.flow = flows.dial(listener, (host, port), name)
            tm.host.stats["responses_rerouted"] += 1
            tm.pending_on(flow, self)
            tm.host.send(self._data, flow)
            return
        self._flow = None
