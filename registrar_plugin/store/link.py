"""The link to a server that may be away: bounded waits, one log line an outage, back-off.

Strategy: while the link is up, calls go through, each with a limit of time.  The first one that
fails because of the server takes the link down; from then on calls are refused at once, so that an
outage costs nobody's patience, and a task of its own asks the server now and then whether it is
back.  Nobody has to do anything for that.  What a call does runs in a task of its own, because a
library may take its time to notice that nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from registrar_plugin.store import StoreAway

if TYPE_CHECKING:
    from registrar_plugin.store.records import Record

log = logging.getLogger("sipedge.registrar")

#: seconds for one operation, a new connection included
OPERATION_S: Final = 2.0
#: seconds that a request waits while others are served; it does so with a hundred others after a
#: power failure, and that says nothing about the server
QUEUE_S: Final = 4.0
#: seconds for a look whether the server is there and its schema is right
PREPARE_S: Final = 3.0
#: seconds between two such looks: the first, and the most; doubled in between
BACK_OFF_S: Final = (0.1, 5.0)

P = ParamSpec("P")
T = TypeVar("T")


class Backend(Protocol):
    """A kind of server.  Texts are ASCII; ``domain`` is the name of the table of ``save``."""

    #: for logs: no password in it
    name: str
    #: what its library raises when the server is away
    lost: tuple[type[Exception], ...]
    #: operations at the same time; each has a connection to itself
    connections: int
    #: whether ``replace`` announces new bindings to those who listen to ``changes``
    announce: bool

    async def prepare(self) -> None:
        """Make or migrate the schema, on a connection that is closed afterwards.

        Raises ``Unusable``, or one of ``lost``.
        """

    async def fetch(self, domain: str, aor: str) -> list[Record]:
        """What has not expired."""

    async def replace(
        self, domain: str, aor: str, gone: Sequence[tuple[str, str]], new: Sequence[Record]
    ) -> list[Record]:
        """See ``AsyncLocationStore``; ``gone``: key and version of each."""

    async def expire(self, domain: str) -> list[tuple[str, Record]]:
        """Remove some of what has expired, and return it."""

    def entries(self, domain: str) -> AsyncIterator[tuple[str, Record]]:
        """Everything that has not expired."""

    def changes(self) -> AsyncIterator[tuple[str, str]]:
        """Domain and address-of-record of what is announced, as it happens, by any node.

        The first pair is empty: what comes after it is not missed.  On a connection of its own.
        """

    def give_up(self, task: asyncio.Task[Any]) -> None:
        """Make the task that runs an operation end soon."""

    async def drop(self) -> None:
        """The server is away: let go of the connections that nobody uses."""

    async def aclose(self) -> None:
        """This is the end."""


class Link:
    """One backend, up or down."""

    def __init__(self, backend: Backend, stats: Counter[str]) -> None:
        self.backend = backend
        self._stats = stats
        #: what an operation raises when the server is away; OSError: TimeoutError is one
        self.failures: tuple[type[Exception], ...] = (*backend.lost, OSError)
        self._away = False
        self._room = asyncio.Semaphore(backend.connections)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._returning: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        return not self._away

    def open(self) -> None:
        """Prepare the server; blocks for some seconds at most, before anything is served.

        A server that is away does not keep us from starting.  Raises ``Unusable``.
        """
        with ThreadPoolExecutor(1) as thread:  # a loop may run in this one
            failure = thread.submit(asyncio.run, self._prepare()).result()
        if failure is not None:
            self._lost(failure)

    async def call(
        self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """``await work(...)``; raises ``StoreAway`` instead of what the library raises."""
        room = self._room
        try:
            await within(QUEUE_S, room.acquire())
        except TimeoutError:
            self._stats["db_errors"] += 1
            raise StoreAway(f"{self.backend.name}: too many wait") from None
        try:
            return await self._call(work(*args, **kwargs))
        finally:
            room.release()

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._away:
            work.close()
            raise StoreAway(f"{self.backend.name} is away")
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        try:
            finished, _ = await asyncio.wait((task,), timeout=OPERATION_S)
            if not finished:
                raise TimeoutError(f"no answer within {OPERATION_S:g} s")
            return task.result()
        except self.failures as exc:
            self._lost(exc)
            raise StoreAway(f"{self.backend.name}: {exc}") from exc
        finally:
            if not task.done():
                self.backend.give_up(task)

    async def aclose(self) -> None:
        """Stop asking, and let go of the server."""
        self._away = True
        if self._returning is not None:
            self._returning.cancel()
        for task in tuple(self._tasks):
            self.backend.give_up(task)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=OPERATION_S)
        await self.backend.aclose()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited knows; if nobody did any more, nobody cares

    def _lost(self, exc: Exception) -> None:
        self._stats["db_errors"] += 1
        if self._away:
            return  # others have found out before
        self._away = True
        self._stats["db_outages"] += 1
        log.error(
            "%s is away: %s; REGISTERs are answered 503 meanwhile",
            self.backend.name, str(exc).strip() or type(exc).__name__,
        )  # fmt: skip
        self._returning = asyncio.get_running_loop().create_task(self._return())

    async def _return(self) -> None:
        """Ask until the server is back."""
        wait, most = BACK_OFF_S
        said = ""
        try:
            await within(PREPARE_S, self.backend.drop())
        except self.failures as exc:
            log.debug("%s: %s", self.backend.name, exc)
        while True:
            # nodes that lost it together shall not come back together
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            try:
                failure: Exception | None = await self._prepare()
            except Exception as exc:  # Unusable, or what we did not think of: go on asking
                failure = exc
                if str(exc) != said:
                    log.error("%s: %s", self.backend.name, exc)
                    said = str(exc)
            if failure is None:
                break
            wait = min(2 * wait, most)
        self._away = False
        log.warning("%s is back", self.backend.name)

    async def _prepare(self) -> Exception | None:
        """None if the server is there, else why not; raises ``Unusable``."""
        try:
            await within(PREPARE_S, self.backend.prepare())
        except self.failures as exc:
            return exc
        return None


async def within(seconds: float, work: Awaitable[T]) -> T:
    """``await work``; raises ``TimeoutError``, which is an ``OSError``."""
    async with asyncio.timeout(seconds):
        return await work
