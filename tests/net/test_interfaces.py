"""The addresses of this machine."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from sipedge.flow import UDP, Listener
from sipedge.net.interfaces import local_addresses, sockaddr


def test_loopback_is_there_and_everything_can_be_bound() -> None:
    found = local_addresses()
    assert "127.0.0.1" in found
    assert len(set(found)) == len(found)
    assert not any(ipaddress.ip_address(address).is_link_local and ":" in address
                   for address in found)  # fmt: skip


def test_addresses_for_sockets() -> None:
    lo = socket.if_nametoindex("lo")
    link = Listener(UDP, "fe80::1%lo", 5060)
    assert sockaddr(Listener(UDP, "127.0.0.1", 5060), "127.0.0.2", 7) == ("127.0.0.2", 7)
    assert sockaddr(Listener(UDP, "::1", 5060), "::1", 7) == ("::1", 7, 0, 0)
    assert sockaddr(link, "fe80::2", 7) == ("fe80::2", 7, 0, lo)
    assert sockaddr(link, "2001:db8::1", 7) == ("2001:db8::1", 7, 0, 0)
    with pytest.raises(OSError, match="no interface"):
        sockaddr(Listener(UDP, "fe80::1%nosuch", 5060), "fe80::2", 7)
