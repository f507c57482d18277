"""The addresses of this machine, for ``listen`` on ``0.0.0.0`` or ``::``, before stop 1; and how an
address is told to a socket.

We bind each address by itself: only so does a reply leave from the address that the request came to
(requirement INC-22), and only so can Via and Record-Route name it.
"""

from __future__ import annotations

import socket
from typing import Any

import psutil  # type: ignore[import-untyped]  # it comes without stubs

from sipedge.flow import Listener, is_link_local


def local_addresses() -> list[str]:
    """All numeric addresses of interfaces that are up, loopback included.

    IPv6 link-local addresses are left out: they mean nothing without an interface, and no URI can
    carry one.
    """
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found: dict[str, None] = {}
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            usable = address.family in (socket.AF_INET, socket.AF_INET6)
            if name in up and usable and "%" not in address.address:
                found[address.address] = None
    return list(found)


def sockaddr(listener: Listener, host: str, port: int) -> tuple[Any, ...]:
    """What sockets of ``listener`` take for a numeric address, their own or a peer's.

    A link-local one is on the link of the listener: two peers may have the same address on two
    links (RFC 4007 §4).  Raises OSError if there is no such interface.
    """
    if not listener.is_v6:
        return host, port
    scope = socket.if_nametoindex(listener.zone) if listener.zone and is_link_local(host) else 0
    return host, port, 0, scope
