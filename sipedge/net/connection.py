"""Stops 1 and 8 for streams: one connection, accepted or dialed, with its layers.

Strategy: the loop reads and writes (uvloop is good at it), layers translate (``net.layers``), and
bytes go to the core as they come; the core cuts them into messages.  An accepted connection becomes
a ``Flow`` when every layer is established, not before: a half-open handshake is nobody.  From then
on one ``Connection`` is one flow.  A connection ends once, whoever ends it, and the core hears of
it at once, so that a request for that flow is answered 430 (RFC 5626 §5.3.1) and not written into a
void.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from sipedge.flow import Address, Flow, Listener

if TYPE_CHECKING:
    from sipedge.net.layers import Layer
    from sipedge.net.server import Server

log = logging.getLogger(__name__)

LINGER: Final = 2.0  # seconds for the peer to read our last words after we closed our side
WRITE_LIMIT: Final = 1 << 20  # octets that wait for a peer that does not read (requirement INC-15)


class Connection(asyncio.Protocol):
    """One stream; ``flow.io`` refers to it until it ends."""

    __slots__ = (
        "_attached", "_begun", "_deadline", "_layers", "_linger", "_over", "_pending",
        "_pending_size", "_server", "_transport", "_up", "accepted", "counted", "flow", "listener",
        "local", "remote",
    )  # fmt: skip

    def __init__(
        self,
        server: Server,
        listener: Listener,
        remote: Address,
        local: Address,
        layers: list[Layer],
        flow: Flow | None = None,
    ) -> None:
        """``layers``: lowest first.  ``flow``: what is dialed; an accepted one is made later."""
        self.listener = listener
        #: both ends, as TCP says, or a PROXY header, which knows better
        self.remote = remote
        self.local = local
        self.flow = flow
        self.accepted = flow is None
        #: an accepted one: the address as whose ``Admission`` counts it, if that is known
        self.counted: str | None = None
        self._server = server
        self._layers = layers
        self._begun = 0  # layers that were started: all below the last of them are established
        self._up = False  # every layer is established, the core knows the flow
        self._attached = False
        self._over = False  # no more is received or sent; the core knows, if it ever knew the flow
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []  # to be written when there is a flow
        self._pending_size = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        if flow is not None:
            flow.io = self

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # not isinstance: uvloop's transports are no subclasses of asyncio's
        self._transport = cast(asyncio.Transport, transport)
        if self._over:  # while the loop was busy with it; ``attached`` will abort
            return
        if self._layers:
            patience = self._server.core.tcp_handshake_timeout
            self._deadline = self._server.loop.call_later(patience, self._too_late)
        self._begin()

    def data_received(self, data: bytes) -> None:
        if self._over:  # we only wait for the peer to close
            return
        if not self._layers:
            self._server.received(data, cast(Flow, self.flow))
            return
        chunks, reason = self._through(data)
        if self._up and not reason:
            self._note(chunks)
        for chunk in chunks:
            if self._over:
                return
            self._server.received(chunk, cast(Flow, self.flow))
        if reason:
            self.close(reason)

    def eof_received(self) -> None:
        self.ended("closed by the peer")
        if self._linger is None:  # it closed its side only, and may never read what we have written
            self._linger = self._server.loop.call_later(LINGER, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._transport = None
        self.ended(f"lost: {exc}" if exc else "closed by the peer")
        for layer in self._layers:
            layer.gone()
        self._server.gone(self)

    # Called by the rest of net.

    @property
    def name(self) -> str:
        """For logs."""
        if self.flow is not None:
            return self.flow.name
        return f"{self.remote[0]}:{self.remote[1]} to {self.listener.name}"

    def connected(self, local: Address) -> None:
        """The dialed server has taken the connection; ``local`` is our end of it."""
        self.local = local
        if self.flow is not None:
            self.flow.local = local

    def attached(self) -> None:
        """The loop has taken over the socket entirely; from now on it may be aborted."""
        self._attached = True
        if self._over and self._linger is None:
            self.abort()

    def send(self, data: bytes) -> None:
        """Write, or keep until connected.  A peer that does not read loses the connection."""
        if self._up:
            self._write(len(self._layers), data)
        else:
            self._pending.append(data)
            self._pending_size += len(data)
            if self._pending_size > WRITE_LIMIT:
                self._does_not_read()

    def close(self, reason: str) -> None:
        """Close after what was written has gone.

        Our side first: closing a socket with unread bytes in it would be a reset, and a reset
        overtakes our last answer (say, the 513 to somebody who is still sending).
        """
        transport = self._transport
        self.ended(reason)
        if transport is None or transport.is_closing() or self._linger is not None:
            return
        # above a layer that is over there is nobody who would read last words
        top = next((at for at, one in enumerate(self._layers) if one.over), self._begun - 1)
        for at in range(top, -1, -1):
            self._write(at, self._layers[at].close())
        self._linger = self._server.loop.call_later(LINGER, self.abort)
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()

    def abort(self) -> None:
        if self._transport is not None and self._attached:
            self._transport.abort()

    def ended(self, reason: str) -> None:
        """Tell the core, once.  No more is sent or received, whatever the transport still does."""
        if self._over:
            return
        self._over = True
        self._pending.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is None:
            self._server.gone(self)
        if not reason.isprintable():  # a peer's words, and it writes no lines into our log
            reason = ascii(reason)[1:-1]
        flow = self.flow
        if flow is None:
            log.info("no connection from %s: %s", self.name, reason)
            self._server.count("handshakes_failed")
        else:
            flow.io = None
            self._server.ended(flow, reason)

    # Layers.

    def _through(self, data: bytes) -> tuple[list[bytes], str]:
        """``data`` up through all layers: what reaches the core, and why a layer ended, or ""."""
        chunks, reason = [data], ""
        for at, layer in enumerate(self._layers):
            above: list[bytes] = []
            begins = not layer.established
            for chunk in chunks:
                above += layer.receive(chunk)
            self._write(at, layer.outgoing())
            reason = reason or layer.over
            if self._over:  # nobody reads what this layer has to say
                return [], ""
            if begins and layer.established:
                self._begin()
            chunks = above
            if not chunks or self._over:
                break
        return chunks, reason

    def _begin(self) -> None:
        """Start every layer that has only established ones below it; all of them: a flow."""
        layers = self._layers
        while True:
            if self._begun:
                below = layers[self._begun - 1]
                if not below.established or not self._admitted(below.facts):
                    return
            if self._begun == len(layers):
                break
            layer = layers[self._begun]
            self._begun += 1
            layer.start()
            self._write(self._begun - 1, layer.outgoing())
            if self._over:
                return
        self._established()

    def _admitted(self, facts: dict[str, Any]) -> bool:
        """A PROXY header says who it really is; does that one have too many connections?"""
        if "remote" not in facts or not self.accepted or self.counted is not None:
            return True
        self.remote = facts["remote"]
        self.local = facts["local"]
        if not self._server.admission.enter_from(self.remote[0], monotonic()):
            self.close("too many connections of one address")
            return False
        self.counted = self.remote[0]
        return True

    def _note(self, chunks: list[bytes]) -> None:
        """Octets came: a sign of life (requirement KA-17), even if the core gets nothing to read.
        A message that comes in many small pieces has only so much time, like one on plain TCP."""
        flow = cast(Flow, self.flow)
        flow.last_rx = now = monotonic()
        if not self._layers[-1].unfinished:
            flow.begun = None
        elif flow.begun is None or any(chunk.__class__ is bytes for chunk in chunks):
            flow.begun = now  # the one before is complete; a ping between fragments is no message

    def _established(self) -> None:
        """A flow from now on."""
        self._up = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        facts: dict[str, Any] = {}
        for layer in self._layers:
            facts.update(layer.facts)
        facts.pop("remote", None)
        facts.pop("local", None)
        if self.flow is None:
            self.flow = self._server.core.flows.accept(self.listener, self.remote, self.local)
            self.flow.io = self
        self.flow.facts = facts or None
        pending, self._pending = self._pending, []
        self._server.opened(self.flow)
        for data in pending:
            if not self._over:
                self.send(data)

    def _too_late(self) -> None:
        self._deadline = None
        self.ended("the handshake took too long")
        self.abort()

    # Writing.

    def _write(self, at: int, data: bytes) -> None:
        """Write what layer number ``at`` (the core: one past the last) gives to the one below."""
        transport = self._transport
        if not data or transport is None or transport.is_closing():
            return
        for layer in self._layers[at - 1 :: -1] if at else ():
            data = layer.send(data)
        transport.write(data)
        if transport.get_write_buffer_size() > WRITE_LIMIT:
            self._does_not_read()

    def _does_not_read(self) -> None:
        self.ended("the peer does not read")
        self.abort()
