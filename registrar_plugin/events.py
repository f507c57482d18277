"""Stop 6, registrar: what becomes of bindings, for counters and for whoever wants to know.

Strategy: ``Location`` has one ``Events``.  Counters always count; ``tell`` is None until somebody
asked to be told, so that a refresh pays for an attribute test.  Who is told gets no chance to harm:
an exception is logged and counted, and the change that it is told about has happened already.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from registrar_plugin.bindings import Binding
from sipedge.sip.uri import parse_uri, uri_equal

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.module import Context

log = logging.getLogger("sipedge.registrar")

REGISTERED: Final = "registered"
REFRESHED: Final = "refreshed"
EXPIRED: Final = "expired"
UNREGISTERED: Final = "unregistered"
FLOW_LOST: Final = "flow lost"

#: called with one of the names above, the address-of-record, and the binding as it is now, or was
EventCallback = Callable[[str, bytes, Binding], None]


@dataclass(slots=True, frozen=True)
class LocationEvent:
    """The second argument of the function that ``event_callback`` names.

    ``name``: ``registered``, ``refreshed``, ``expired``, ``unregistered`` or ``flow lost``.
    ``aor``: as the table has it, ``b"bob@example.com"``.  ``binding``: the new one; the old one
    when it is gone.
    """

    name: str
    aor: bytes
    binding: Binding


class Events:
    """Counts what happens to bindings and tells who asked for it."""

    __slots__ = ("_callbacks", "_stats", "tell")

    def __init__(self, core: Core) -> None:
        self._stats = core.stats
        self._callbacks: list[EventCallback] = []
        #: None while nobody listens
        self.tell: EventCallback | None = None

    def on_event(self, callback: EventCallback) -> None:
        """Have ``callback`` called for each event, after what it tells has happened."""
        self._callbacks.append(callback)
        self.tell = self._tell

    def _tell(self, name: str, aor: bytes, binding: Binding) -> None:
        for callback in self._callbacks:
            try:
                callback(name, aor, binding)
            except Exception:
                self.failed(name, aor)

    def failed(self, name: str, aor: bytes) -> None:
        """The exception that is being handled came out of a callback."""
        self._stats["event_exceptions"] += 1
        log.exception("event callback failed: %s %r", name, aor)

    def changed(self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding]) -> None:
        """``replace`` took ``gone`` and put in ``new``: what of it was refreshed, what is over?"""
        if len(new) == 1 == len(gone) and new[0].contact is gone[0].contact:
            # hot: nearly every REGISTER is a refresh that shares what it did not change
            if new[0].reg_id == gone[0].reg_id:
                self._stats["contacts_refreshed"] += 1
                if self.tell is not None:
                    self.tell(REFRESHED, aor, new[0])
                return
        left = list(gone)
        for binding in new:
            old = next((other for other in left if same_key(other, binding)), None)
            if old is not None:
                left.remove(old)
                self._refreshed(aor, old, binding)
                continue
            self._stats["contacts_registered"] += 1
            if self.tell is not None:
                self.tell(REGISTERED, aor, binding)
        for binding in left:
            self._stats["contacts_unregistered"] += 1
            if self.tell is not None:
                self.tell(UNREGISTERED, aor, binding)

    def _refreshed(self, aor: bytes, old: Binding, new: Binding) -> None:
        if old.stamp == new.stamp:
            return  # a sibling of one that was: only its GRUUs have changed
        self._stats["contacts_refreshed"] += 1
        if self.tell is not None:
            self.tell(REFRESHED, aor, new)

    def expired(self, aor: bytes, binding: Binding) -> None:
        """Nobody refreshed it in time."""
        self._stats["contacts_expired"] += 1
        if self.tell is not None:
            self.tell(EXPIRED, aor, binding)

    def lost_with_flow(self, aor: bytes, binding: Binding) -> None:
        """The connection that it was reached over has closed."""
        self._stats["contacts_lost_with_flow"] += 1
        if self.tell is not None:
            self.tell(FLOW_LOST, aor, binding)

    def flow_failed(self, aor: bytes, binding: Binding) -> None:
        """A request to it was answered 430: its flow ended at another edge."""
        self._stats["contacts_failed"] += 1
        if self.tell is not None:
            self.tell(FLOW_LOST, aor, binding)


def same_key(a: Binding, b: Binding) -> bool:
    """Whether ``a`` is what became of ``b``, or the other way round (RFC 5626 §6)."""
    if a.reg_id != b.reg_id:
        return False
    if a.reg_id:
        return a.instance == b.instance
    return a.uri == b.uri or uri_equal(parse_uri(a.uri), parse_uri(b.uri))


def script_callback(ctx: Context, wanted: object, events: Events) -> EventCallback:
    """What calls ``event_callback`` of the configuration file, a function or the name of one.

    Raises ``ConfigError`` if that cannot be called with (ksr, event).
    """
    function: Any = ctx.config.routes.get(wanted) if isinstance(wanted, str) else wanted
    name = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", "?")
    if function is None:
        raise ctx.param_error(
            "event_callback", f"there is no function {name}; write: def {name}(ksr, event):"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise ctx.param_error(
            "event_callback", f"{name} must take two arguments: def {name}(ksr, event):"
        ) from None
    core = ctx.core
    if not inspect.iscoroutinefunction(function):
        return lambda event, aor, binding: function(core.ksr, LocationEvent(event, aor, binding))

    async def guarded(coro: Coroutine[Any, Any, None], event: str, aor: bytes) -> None:
        try:
            await coro
        except Exception:
            events.failed(event, aor)

    def start(event: str, aor: bytes, binding: Binding) -> None:
        coro = function(core.ksr, LocationEvent(event, aor, binding))
        core.spawn(guarded(coro, event, aor))

    return start
