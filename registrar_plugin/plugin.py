"""Stop 6: the module ``registrar``: its face, and the wiring of its parts (Kamailio: registrar,
usrloc).

Strategy: ``save`` and ``lookup`` do the work on one ``Location``; this file says what routes may
call, checks the parameters, and hands on what the host tells.
"""

from __future__ import annotations

from outbound_plugin.api import ob_load_api
from registrar_plugin.api import RegistrarBinds
from registrar_plugin.location import Location
from registrar_plugin.lookup import Lookup
from registrar_plugin.params import PARAMS, RegistrarParams, check_params
from registrar_plugin.save import Save
from sipedge.flow import Flow
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    ANY_ROUTE,
    FAILURE_ROUTE,
    REQUEST_ROUTE,
    Context,
    Function,
    ModuleExports,
    Rc,
)
from sipedge.sip.message import SipMessage

#: seconds between two looks for what has expired
SWEEP_INTERVAL = 1.0


class RegistrarPlugin:
    """See ``docs/modules/registrar.md``."""

    def __init__(self) -> None:
        self.params = RegistrarParams()
        routes = REQUEST_ROUTE | FAILURE_ROUTE
        self.exports = ModuleExports(
            "registrar",
            functions=(
                Function("save", self.save, routes),
                Function("lookup", self.lookup, routes),
                Function("registered", self.registered, ANY_ROUTE),
                Function("unregister", self.unregister, ANY_ROUTE),
                Function("reg_send_reply", self.reg_send_reply, routes),
            ),
            params=PARAMS,
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        check_params(self.params, ctx)
        location = Location(ctx.core, self.params, ob_load_api(ctx))
        self._location = location
        self._save = Save(location)
        self._lookup = Lookup(location)
        ctx.core.every(SWEEP_INTERVAL, location.sweep)
        ctx.export(
            "bind_registrar",
            RegistrarBinds(self.save, self.lookup, self.registered, location.table),
        )

    @hookimpl
    def flow_closed(self, flow: Flow, reason: str) -> None:
        self._location.flow_closed(flow)

    def save(self, msg: SipMessage, domain: str = "location", flags: int = 0) -> Rc:
        """Carry out a REGISTER and answer it (Kamailio: ``save``).

        ``flags``, summed: 0x01 memory only, 0x02 no answer, 0x04 remove all other bindings, 0x08
        grant what was asked without ``expires_range``, 0x10 with 0x02: keep the answer for
        ``reg_send_reply``. Returns 1 inserted (or nothing to change), 2 updated, 3 deleted, 4
        listed, -1 refused, -2 refused because of ``max_contacts``.  The request has been answered
        in every case; an error of the route after a negative code would find that out and send
        nothing.
        """
        return self._save.save(msg, domain, flags)

    def lookup(
        self, msg: SipMessage, domain: str = "location", uri: bytes | str | None = None
    ) -> Rc:
        """Make the bindings of the Request-URI, or of ``uri``, the targets (Kamailio: ``lookup``).

        Returns 1 found, -1 not registered, -2 registered, but no contact takes this method, -3 no
        address-of-record, or the table failed.
        """
        return self._lookup.lookup(msg, domain, uri)

    def registered(
        self, msg: SipMessage, domain: str = "location", uri: bytes | str | None = None
    ) -> Rc:
        """1 if the Request-URI, or ``uri``, has a binding, else -1 (Kamailio: ``registered``)."""
        return self._lookup.registered(msg, domain, uri)

    def unregister(
        self, msg: SipMessage, domain: str, uri: bytes | str, ruid: str | None = None
    ) -> Rc:
        """Remove all bindings of ``uri``, or the one with that id (Kamailio: ``unregister``).

        Returns 1 done, -1 no address-of-record, -2 the table failed, -3 no binding has that id.
        """
        return self._lookup.unregister(msg, domain, uri, ruid)

    def reg_send_reply(self, msg: SipMessage) -> Rc:
        """Send the answer that ``save`` with flags 0x12 prepared (Kamailio: ``reg_send_reply``).

        Returns 1, or -1 if there is none or the request has been answered.
        """
        return self._save.send_prepared(msg)
