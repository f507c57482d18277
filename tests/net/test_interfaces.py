"""The addresses of this machine."""

from __future__ import annotations

import ipaddress

from sipedge.net.interfaces import local_addresses


def test_loopback_is_there_and_everything_can_be_bound() -> None:
    found = local_addresses()
    assert "127.0.0.1" in found
    assert len(set(found)) == len(found)
    assert not any(ipaddress.ip_address(address).is_link_local and ":" in address
                   for address in found)  # fmt: skip
