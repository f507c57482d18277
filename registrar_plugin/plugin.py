"""Stop 6: the module ``registrar``: its face, and the wiring of its parts (Kamailio: registrar,
usrloc).

Strategy: ``save`` and ``lookup`` do the work on one ``Location``; this file says what routes may
call, checks the parameters, and hands on what the host tells.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from registrar_plugin.api import RegistrarBinds
from registrar_plugin.commands import UsrlocCommands
from registrar_plugin.events import script_callback
from registrar_plugin.location import Location
from registrar_plugin.lookup import Lookup
from registrar_plugin.params import PARAMS, RegistrarParams, check_params
from registrar_plugin.save import Save
from registrar_plugin.store.embedded import at_once
from sipedge.errors import ConfigError
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
from sipedge.twins import find_calls

#: seconds between two looks for what has expired
SWEEP_INTERVAL = 1.0
#: those that have a twin for ``async def`` routes
TWINS: Final = ("save", "lookup", "registered", "unregister", "contact_gruu")


class RegistrarPlugin:
    """See ``docs/modules/registrar.md``."""

    def __init__(self) -> None:
        self.params = RegistrarParams()
        self._commands = UsrlocCommands()
        routes = REQUEST_ROUTE | FAILURE_ROUTE
        self.exports = ModuleExports(
            "registrar",
            functions=(
                # no other routes than these two are waited for
                Function("save", self.save, routes),
                Function("save_async", self.save_async, routes),
                Function("lookup", self.lookup, routes),
                Function("lookup_async", self.lookup_async, routes),
                Function("registered", self.registered, ANY_ROUTE),
                Function("registered_async", self.registered_async, routes),
                Function("unregister", self.unregister, ANY_ROUTE),
                Function("unregister_async", self.unregister_async, routes),
                Function("reg_send_reply", self.reg_send_reply, routes),
                Function("own_gruu", self.own_gruu, ANY_ROUTE),
                Function("contact_gruu", self.contact_gruu, ANY_ROUTE),
                Function("contact_gruu_async", self.contact_gruu_async, routes),
            ),
            params=PARAMS,
            commands=self._commands.table(),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        check_params(self.params, ctx)
        location = Location(ctx, self.params)
        self._location = self._commands.location = location
        self._embedded = location.shared is None
        if not self._embedded:
            for name, file, line in find_calls(ctx.config.routes.values(), "registrar", TWINS):
                raise ConfigError(_use_async(name), file, line)
        self._save = Save(location)
        self._lookup = Lookup(location)
        if self._lookup.late is not None:
            ctx.core.every(SWEEP_INTERVAL, self._lookup.late.sweep)
        ctx.core.every(SWEEP_INTERVAL, location.sweep)
        ctx.export(
            "bind_registrar",
            RegistrarBinds(
                self.save,
                self.lookup,
                self.registered,
                location.table,
                location.waiting,
                location.events.on_event,
            ),
        )
        if self.params.event_callback:
            location.events.on_event(
                script_callback(ctx, self.params.event_callback, location.events)
            )

    @hookimpl
    def child_init(self, rank: int) -> None:
        location, late = self._location, self._lookup.late
        location.open()
        if location.shared is not None and late is not None:
            location.shared.listen(late.announced)

    @hookimpl
    def mod_destroy(self) -> None:
        self._location.close()

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
        return self._now("save", self._save.save(msg, domain, flags))

    def lookup(
        self, msg: SipMessage, domain: str = "location", uri: bytes | str | None = None
    ) -> Rc:
        """Make the bindings of the Request-URI, or of ``uri``, the targets (Kamailio: ``lookup``).

        Returns 1 found, -1 not registered, -2 registered, but no contact takes this method, -3 no
        address-of-record, -4 the table failed (503).  A GRUU (RFC 5627 §6.1) leads to the bindings
        of its instance: -1 says that it is valid (480), -3 that there is no such GRUU (404).
        """
        return self._now("lookup", self._lookup.lookup(msg, domain, uri))

    def registered(
        self, msg: SipMessage, domain: str = "location", uri: bytes | str | None = None
    ) -> Rc:
        """1 if the Request-URI, or ``uri``, has a binding, else -1 (Kamailio: ``registered``).

        -4 if the table failed.
        """
        return self._now("registered", self._lookup.registered(msg, domain, uri))

    def unregister(
        self, msg: SipMessage, domain: str, uri: bytes | str, ruid: str | None = None
    ) -> Rc:
        """Remove all bindings of ``uri``, or the one with that id (Kamailio: ``unregister``).

        Returns 1 done, -1 no address-of-record, -2 the table failed, -3 no binding has that id.
        """
        return self._now("unregister", self._lookup.unregister(msg, domain, uri, ruid))

    def reg_send_reply(self, msg: SipMessage) -> Rc:
        """Send the answer that ``save`` with flags 0x12 prepared (Kamailio: ``reg_send_reply``).

        Returns 1, or -1 if there is none or the request has been answered.
        """
        return self._save.send_prepared(msg)

    def own_gruu(self, msg: SipMessage) -> Rc:
        """Whether the Request-URI is a GRUU in a domain of ours, valid or not (RFC 5627).

        1 a public one, 2 a temporary one, -1 none: ``ksr.is_myself`` is false for GRUUs.
        """
        return self._lookup.own_gruu(msg)

    def contact_gruu(
        self, msg: SipMessage, domain: str = "location", user: bytes | str | None = None
    ) -> Rc:
        """Whether the Contact of a request is a GRUU of its sender (RFC 5627 §6.2).

        ``user``: the URI of who sent it, as authenticated; None: From.  Returns 1 a valid GRUU of
        that user: a proxy that finds Record-Route in the request must record-route; -1 no GRUU in
        a domain of ours; -2 a GRUU of somebody else, to be answered 403; -3 a GRUU that is not
        valid.
        """
        return self._now("contact_gruu", self._lookup.contact_gruu(msg, domain, user))

    # -- the same for ``async def`` routes, with any table

    async def save_async(self, msg: SipMessage, domain: str = "location", flags: int = 0) -> Rc:
        """``save`` for an ``async def`` route; with any table."""
        msg.now = self._location.core.now  # the route may have waited for something else
        return await self._save.save(msg, domain, flags)

    async def lookup_async(
        self, msg: SipMessage, domain: str = "location", uri: bytes | str | None = None
    ) -> Rc:
        """``lookup`` for an ``async def`` route; with any table."""
        msg.now = self._location.core.now
        return await self._lookup.lookup(msg, domain, uri)

    async def registered_async(
        self, msg: SipMessage, domain: str = "location", uri: bytes | str | None = None
    ) -> Rc:
        """``registered`` for an ``async def`` route; with any table."""
        msg.now = self._location.core.now
        return await self._lookup.registered(msg, domain, uri)

    async def unregister_async(
        self, msg: SipMessage, domain: str, uri: bytes | str, ruid: str | None = None
    ) -> Rc:
        """``unregister`` for an ``async def`` route; with any table."""
        msg.now = self._location.core.now
        return await self._lookup.unregister(msg, domain, uri, ruid)

    async def contact_gruu_async(
        self, msg: SipMessage, domain: str = "location", user: bytes | str | None = None
    ) -> Rc:
        """``contact_gruu`` for an ``async def`` route; with any table."""
        msg.now = self._location.core.now
        return await self._lookup.contact_gruu(msg, domain, user)

    def _now(self, name: str, coro: Coroutine[Any, Any, Rc]) -> Rc:
        if self._embedded:
            return at_once(coro)
        coro.close()
        raise ConfigError(_use_async(name))


def _use_async(name: str) -> str:
    return (
        f"db_url names a server, which has to be waited for: in an `async def` route write "
        f"await ksr.registrar.{name}_async(...) instead of ksr.registrar.{name}(...)"
    )
