"""The addresses of this machine, for ``listen`` on ``0.0.0.0`` or ``::`` (before stop 1).

We bind each address by itself: only so does a reply leave from the address that the request came to
(requirement INC-22), and only so can Via and Record-Route name it.
"""

from __future__ import annotations

import socket

import psutil  # type: ignore[import-untyped]  # it comes without stubs


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
