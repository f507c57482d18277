"""Stop 1: which of our own sockets are ready, asked of an epoll of our own inside the loop's.

A UDP socket with ``IP_RECVERR`` reports ICMP errors as EPOLLERR.  Loops make different things of
that; libuv (uvloop) takes it for a broken descriptor and stops watching it: one ICMP message and
the port is deaf.  So the loop only ever sees the descriptor of our epoll, readable or not.  Where
there is no epoll there is no ``IP_RECVERR`` either, and the loop's own ``add_reader`` does.
"""

from __future__ import annotations

import select
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Final

Handler = Callable[[], None]

_MAX_EVENTS: Final = 64  # per wake-up; what is left is still ready at the next one


class EpollPoller:
    """Level-triggered: a handler that leaves something behind is called again."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._handlers: dict[int, tuple[Handler, Handler | None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, readable: Handler) -> None:
        """Call ``readable`` whenever ``fd`` has something to read or an error to report."""
        self._handlers[fd] = (readable, None)
        self._epoll.register(fd, select.EPOLLIN)

    def wait_writable(self, fd: int, writable: Handler | None) -> None:
        """Call ``writable`` too whenever ``fd`` takes something; None: no longer."""
        self._handlers[fd] = (self._handlers[fd][0], writable)
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if writable else 0))

    def remove(self, fd: int) -> None:
        """Forget ``fd``; before it is closed.  Unknown ones are ignored."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        for fd, events in self._epoll.poll(0, _MAX_EVENTS):
            # an earlier handler of this round may have removed it, or closed the whole poller
            readable, writable = self._handlers.get(fd, (None, None))
            if writable is not None and events & select.EPOLLOUT:
                writable()
            if readable is not None and events & ~select.EPOLLOUT:
                readable()


class LoopPoller:
    """The same with nothing but the loop."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._fds: set[int] = set()

    def add(self, fd: int, readable: Handler) -> None:
        self._fds.add(fd)
        self._loop.add_reader(fd, readable)

    def wait_writable(self, fd: int, writable: Handler | None) -> None:
        if writable is None:
            self._loop.remove_writer(fd)
        else:
            self._loop.add_writer(fd, writable)

    def remove(self, fd: int) -> None:
        if fd in self._fds:
            self._fds.discard(fd)
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def close(self) -> None:
        for fd in tuple(self._fds):
            self.remove(fd)


Poller = EpollPoller | LoopPoller


def new_poller(loop: AbstractEventLoop) -> Poller:
    """The poller for this system."""
    return EpollPoller(loop) if hasattr(select, "epoll") else LoopPoller(loop)
