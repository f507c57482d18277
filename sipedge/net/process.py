"""The process around a ``Server``: signals, readiness, descriptors, garbage.  The rim, no stop.

Strategy: SIGTERM drains (``net.drain``), so that a restart costs nobody a call that is being set
up.  A second SIGTERM, or SIGINT, stops at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sipedge.net.control import ControlSocket
from sipedge.net.drain import Drain
from sipedge.net.readiness import Readiness
from sipedge.net.server import Server

if TYPE_CHECKING:
    from sipedge.config import Edge

log = logging.getLogger(__name__)

YOUNG_OBJECTS: Final = 20_000  # containers made before the collector looks; see tame_gc


async def serve(edge: Edge, *, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM, then drain, or until SIGINT.  ``ready`` is called once every listener
    has its port.

    Raises ``ConfigError`` if a listener cannot be bound or a module refuses to start.
    """
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def asked(at_once: bool) -> None:
        if at_once or stop.is_set():
            hurry.set()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, asked, False)
    loop.add_signal_handler(signal.SIGINT, asked, True)
    async with Server(edge) as server, ControlSocket(server, edge):
        with Readiness(edge):
            if ready is not None:
                ready()
            await stop.wait()
        log.info("stopping")
        await Drain(server, hurry).run()


def run(edge: Edge, *, ready: Callable[[], None] | None = None) -> int:
    """``serve`` in an event loop of its own (uvloop if it is installed); returns the exit status.

    Raises ``ConfigError`` as ``serve`` does.
    """

    def started() -> None:
        tame_gc()
        if ready is not None:
            ready()

    _raise_descriptor_limit()
    if edge.core.tls is not None:
        from sipedge.net.tls import without_noise

        sys.unraisablehook = without_noise(sys.unraisablehook)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(edge, ready=started))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _raise_descriptor_limit() -> None:
    """A descriptor a connection: take as many as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as exc:  # macOS says unlimited and means something else
        log.debug("descriptor limit: %s", exc)


def tame_gc() -> None:
    """No long pauses: whatever survives a collection of young objects is never looked at again.

    Bindings and flows live long and by the hundred thousand; walking over them took 236 ms at worst
    while growing to a million, 0.3 ms so.  Reference counting frees frozen objects as ever; only a
    cycle that was alive in such a moment and dies later stays, and hot objects make no cycles.
    """

    def freeze(phase: str, _: dict[str, int]) -> None:
        if phase == "stop":
            gc.freeze()

    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.callbacks.append(freeze)
