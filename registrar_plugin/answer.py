"""Stop 6, registrar: the header rows of the 200 to a REGISTER.

Strategy: everything is written from the bindings as they are stored, so that a UA sees what a call
to it would use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registrar_plugin.bindings import Binding, flow_of
from sipedge.flow import UDP, URI_TRANSPORT, host_bytes
from sipedge.sip.names import (
    CONTACT,
    DATE,
    FLOW_TIMER,
    PATH,
    REQUIRE,
    SERVICE_ROUTE,
    SUPPORTED,
)

if TYPE_CHECKING:
    from registrar_plugin.gruu import Offer
    from registrar_plugin.location import Location


def ok_headers(
    location: Location,
    rows: tuple[Binding, ...],
    now: float,
    path: list[bytes],
    lists_path: bool,
    requires_outbound: bool,
    offer: Offer | None,
) -> list[tuple[bytes, bytes]]:
    """RFC 3261 §10.3 item 8, RFC 3327 §5.3, RFC 5626 §6.

    ``rows``: all bindings.  ``path``: of this request.  ``offer``: None if the UA wants no GRUUs.
    """
    params = location.params
    headers = [
        (CONTACT, _contact_row(location, binding, now) + (offer.params(binding) if offer else b""))
        for binding in rows
    ]
    date = location.date()
    if date:
        headers.append((DATE, date))
    if params.service_route:
        headers.append((SERVICE_ROUTE, params.service_route.encode()))
    mode = params.path_mode
    if params.use_path and (mode == 3 or (mode and lists_path)):
        headers += [(PATH, value) for value in path]
    if not params.outbound_mode:
        headers.append((SUPPORTED, b"path"))
        return headers
    headers.append((SUPPORTED, b"path, outbound"))
    if requires_outbound:
        headers.append((REQUIRE, b"outbound"))
        if params.flow_timer:
            headers.append((FLOW_TIMER, b"%d" % params.flow_timer))
    return headers


def _contact_row(location: Location, binding: Binding, now: float) -> bytes:
    row = b"%s;expires=%d" % (binding.contact, binding.remaining(now))
    name = location.params.received_param
    if not name or binding.flow is None:
        return row
    flow = flow_of(binding.flow, location.core.flows)
    host, port = flow.remote
    transport = b";transport=" + URI_TRANSPORT[flow.transport] if flow.transport != UDP else b""
    return b'%s;%s="sip:%s:%d%s"' % (row, name.encode(), host_bytes(host), port, transport)
