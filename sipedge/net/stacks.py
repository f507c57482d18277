"""Stops 1 and 8 for streams: which layers the connections of a listener have.

Strategy: everything that the layers of one kind share (contexts, settings) is made here, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipedge.flow import TLS, WS, WSS, Address, Flow, Listener
from sipedge.net.proxy_protocol import ProxyLayer

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.net.layers import Layer
    from sipedge.net.tls import TlsContexts


class Stacks:
    """Makes the layers of connections, lowest first."""

    def __init__(self, core: Core) -> None:
        """``core`` has the settings of the transports.

        Raises ``ConfigError`` for settings that cannot be used.
        """
        self._core = core
        self._tls: TlsContexts | None = None
        if core.tls is not None:
            from sipedge.net.tls import TlsContexts  # megabytes that only TLS needs

            self._tls = TlsContexts(core.tls)

    def accepted(self, listener: Listener, remote: Address) -> list[Layer]:
        """For a connection that came in to ``listener`` from ``remote``."""
        layers: list[Layer] = []
        if listener.is_proxy(remote[0]):
            layers.append(ProxyLayer())
        if self._tls is not None and listener.transport in (TLS, WSS):
            layers.append(self._tls.accepted(listener.transport))
        settings = self._core.websocket
        if settings is not None and listener.transport in (WS, WSS):
            from sipedge.net.websocket import WebSocketLayer  # a library that only this needs

            layers.append(WebSocketLayer(settings, listener, remote, layers[:]))
        return layers

    def dialed(self, flow: Flow) -> list[Layer]:
        """For a connection that we open to ``flow.remote``, which is ``flow.server_name``."""
        layers: list[Layer] = []
        if self._tls is not None and flow.transport == TLS:
            layers.append(self._tls.dialed(flow))
        return layers
