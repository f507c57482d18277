"""What ``registrar`` offers to modules that are loaded after it (Kamailio: ``registrar/api.h``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from registrar_plugin.bindings import Binding
from registrar_plugin.store import LocationStore
from sipedge.module import Context, Rc
from sipedge.sip.message import SipMessage

__all__ = ["Binding", "LocationStore", "RegistrarBinds", "registrar_load_api"]


@dataclass(slots=True, frozen=True)
class RegistrarBinds:
    """The functions of ``registrar`` (Kamailio: ``struct registrar_binds``)."""

    #: (REGISTER, table, flags) -> code, see ``RegistrarPlugin.save``
    save: Callable[[SipMessage, str, int], Rc]
    #: (request, table, URI or None for the Request-URI) -> code, see ``RegistrarPlugin.lookup``
    lookup: Callable[[SipMessage, str, bytes | str | None], Rc]
    #: (message, table, URI or None for the Request-URI) -> 1 or -1
    registered: Callable[[SipMessage, str, bytes | str | None], Rc]
    #: the location table of that name
    table: Callable[[str], LocationStore]


def registrar_load_api(ctx: Context) -> RegistrarBinds | None:
    """The API of ``registrar`` if that was loaded before the module that asks, else ``None``."""
    api = ctx.find_export("bind_registrar")
    return api if isinstance(api, RegistrarBinds) else None
