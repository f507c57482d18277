"""Stop 1, behind a load balancer: the PROXY header, versions 1 and 2, that says who the client is.

Strategy, sans IO: ``parse`` looks at the beginning of a stream or of a datagram; ``ProxyLayer`` is
the lowest layer of a connection from a listed address.  Whoever is listed must send a header, and
nobody else is believed: a header from elsewhere is what it looks like, something that is no SIP.

Of the header only the addresses are used.  What follows them in version 2 (TLVs) is passed over.
A header that names nobody (LOCAL, as in health checks, UNKNOWN, Unix sockets) is fine: then the
addresses of the connection count, which are those of the load balancer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from sipedge.flow import Address
from sipedge.net.layers import Layer

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1: Final = 107  # octets, line end included
MAX_V2: Final = 16 * 1024  # octets; certificates in TLVs are the largest that is seen

_FIXED: Final = Struct("!12sBBH")  # signature; version and command; family and protocol; length
_BY_FAMILY: Final = {1: Struct("!4s4sHH"), 2: Struct("!16s16sHH")}
_STREAM, _DATAGRAM = 1, 2
_V1: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)


class ProxyError(Exception):
    """What stands there is no PROXY header."""


@dataclass(slots=True, frozen=True)
class Header:
    """``size`` octets that say who talks to whom; ``None`` if they do not say."""

    size: int
    remote: Address | None = None
    local: Address | None = None


def parse(data: bytes, stream: bool) -> Header | None:
    """The header that ``data`` begins with, ``None`` if it is not complete yet.

    Version 1 exists for streams only.  Raises ``ProxyError`` for anything else.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return _version_2(data, _STREAM if stream else _DATAGRAM)
    if stream and data.startswith(b"PROXY "[: len(data)]):
        return _version_1(data)
    raise ProxyError("no PROXY header")


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyError("a PROXY header without end")
        return None
    found = _V1.fullmatch(data, 0, end + 2)
    if found is None:
        raise ProxyError("a malformed PROXY header")
    family, *names, source, destination = found.groups()
    if family is None:
        return Header(end + 2)
    kind = IPv4Address if family == b"4" else IPv6Address
    try:
        remote, local = (_text(kind(name.decode()).packed) for name in names)
    except AddressValueError:
        raise ProxyError("a PROXY header without addresses") from None
    ports = int(source), int(destination)
    if max(ports) > 65535:
        raise ProxyError("a PROXY header with a port out of range")
    return Header(end + 2, (remote, ports[0]), (local, ports[1]))


def _version_2(data: bytes, protocol: int) -> Header | None:
    if len(data) < _FIXED.size:
        return None
    _, command, kind, length = _FIXED.unpack_from(data)
    if command not in (0x20, 0x21):
        raise ProxyError("a PROXY header of an unknown version or command")
    size = _FIXED.size + length
    if size > MAX_V2:
        raise ProxyError("a PROXY header that is too long")
    if len(data) < size:
        return None
    fields = _BY_FAMILY.get(kind >> 4)
    if command == 0x20 or fields is None:  # LOCAL; unspecified, Unix
        return Header(size)
    if kind & 0x0F != protocol:
        raise ProxyError("a PROXY header for another transport")
    if length < fields.size:
        raise ProxyError("a PROXY header without addresses")
    source, destination, source_port, destination_port = fields.unpack_from(data, _FIXED.size)
    return Header(size, (_text(source), source_port), (_text(destination), destination_port))


def _text(packed: bytes) -> str:
    """As sockets write it; an IPv4 client of an IPv6 load balancer is an IPv4 client."""
    if len(packed) == 4:
        return str(IPv4Address(packed))
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


class ProxyLayer(Layer):
    """Takes the header off the beginning of a connection; sends nothing."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""

    def receive(self, data: bytes) -> list[bytes]:
        if self.established:
            return [data]
        self._buffer += data
        try:
            header = parse(self._buffer, True)
        except ProxyError as exc:
            self.over = str(exc)
            return []
        if header is None:
            return []
        rest, self._buffer = self._buffer[header.size :], b""
        if header.remote is not None:
            self.facts.update(remote=header.remote, local=header.local)
        self.established = True
        return [rest] if rest else []

    def send(self, data: bytes) -> bytes:
        return data
