"""What ``registrar`` offers to modules that are loaded after it (Kamailio: ``registrar/api.h``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from registrar_plugin.bindings import Binding
from registrar_plugin.events import EventCallback, LocationEvent
from registrar_plugin.store import AsyncLocationStore, LocationStore
from sipedge.module import Context, Rc
from sipedge.sip.message import SipMessage

__all__ = [
    "AsyncLocationStore",
    "Binding",
    "EventCallback",
    "LocationEvent",
    "LocationStore",
    "RegistrarBinds",
    "registrar_load_api",
]


@dataclass(slots=True, frozen=True)
class RegistrarBinds:
    """The functions of ``registrar`` (Kamailio: ``struct registrar_binds``)."""

    #: (REGISTER, table, flags) -> code, see ``RegistrarPlugin.save``
    save: Callable[[SipMessage, str, int], Rc]
    #: (request, table, URI or None for the Request-URI) -> code, see ``RegistrarPlugin.lookup``
    lookup: Callable[[SipMessage, str, bytes | str | None], Rc]
    #: (message, table, URI or None for the Request-URI) -> 1 or -1
    registered: Callable[[SipMessage, str, bytes | str | None], Rc]
    #: the location table of that name; raises ``ConfigError`` if it has to be waited for
    table: Callable[[str], LocationStore]
    #: the same for whoever can wait; with any ``db_url``
    waiting: Callable[[str], AsyncLocationStore]
    #: have it called with (event, address-of-record, binding), see ``events``
    on_event: Callable[[EventCallback], None]


def registrar_load_api(ctx: Context) -> RegistrarBinds | None:
    """The API of ``registrar`` if that was loaded before the module that asks, else ``None``."""
    api = ctx.find_export("bind_registrar")
    return api if isinstance(api, RegistrarBinds) else None
