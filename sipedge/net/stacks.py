"""Stops 1 and 8 for streams: which layers the connections of a listener have.

Strategy: everything that the layers of one kind share (contexts, settings) is made here, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipedge.flow import Address, Flow, Listener

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.net.layers import Layer


class Stacks:
    """Makes the layers of connections, lowest first."""

    def __init__(self, core: Core) -> None:
        """``core`` has the settings of the transports."""

    def accepted(self, listener: Listener, remote: Address) -> list[Layer]:
        """For a connection that came in to ``listener`` from ``remote``."""
        return []

    def dialed(self, flow: Flow) -> list[Layer]:
        """For a connection that we open to ``flow.remote``, which is ``flow.server_name``."""
        return []
