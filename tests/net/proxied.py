"""A load balancer's side of the PROXY protocol."""

from __future__ import annotations

import socket
import struct

from sipedge.net.proxy_protocol import SIGNATURE

Address = tuple[str, int]


def header_v1(remote: Address, local: Address) -> bytes:
    family = 6 if ":" in remote[0] else 4
    return f"PROXY TCP{family} {remote[0]} {local[0]} {remote[1]} {local[1]}\r\n".encode()


def header_v2(
    remote: Address, local: Address, *, command: int = 0x21, kind: int = 0, tlvs: bytes = b""
) -> bytes:
    """``kind``: family and protocol; by default that of a stream between these addresses."""
    v6 = ":" in remote[0]
    family = socket.AF_INET6 if v6 else socket.AF_INET
    body = b"".join(socket.inet_pton(family, host) for host, _ in (remote, local))
    body += struct.pack("!HH", remote[1], local[1]) + tlvs
    kind = kind or (0x21 if v6 else 0x11)
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


def datagram_v2(remote: Address, local: Address, data: bytes, command: int = 0x21) -> bytes:
    """``data`` from ``remote``, as a load balancer passes it on over UDP."""
    kind = 0x22 if ":" in remote[0] else 0x12
    return header_v2(remote, local, command=command, kind=kind) + data
