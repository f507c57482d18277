"""Module stun: nothing to do; the host answers STUN on every UDP port (RFC 5626 §5.4, §8).

In Kamailio a proxy answers STUN only if this module is loaded, and outbound warns if it is not.
Here keep-alives of user agents are always answered, at stop 2 and before any route
(``sipedge.sip.stun``).  The module exists so that a configuration that has
``loadmodule("stun")`` keeps that line.
"""

from __future__ import annotations

from sipedge.module import ModuleExports


class StunModule:
    """An empty table."""

    def __init__(self) -> None:
        self.params = None
        self.exports = ModuleExports("stun")
