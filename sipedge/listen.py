"""The texts of ``listen`` and ``alias`` lines: ``udp:127.0.0.1:5060``, ``example.com:5060``.

Strategy: addresses are numeric and written canonically, so that they compare with what sockets and
flow tokens say; names belong into ``advertise`` and ``alias``.  Errors are ``ConfigError`` without
a place; the caller knows the line.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from sipedge.errors import ConfigError
from sipedge.flow import DEFAULT_PORT, TCP, TLS, TRANSPORT_BY_NAME, TRANSPORT_NAME, UDP, WS, WSS

#: what ``sipedge.net`` can bind
AVAILABLE: Final = (UDP, TCP, TLS, WS, WSS)
#: the modules without which a listener is of no use, and what they cannot do without
NEEDED: Final = {TLS: ("tls",), WS: ("websocket",), WSS: ("tls", "websocket")}
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*\.?")


def parse_listen(text: object) -> tuple[int, str, int]:
    """Transport, canonical numeric address and port of ``udp:127.0.0.1:5060`` or ``tcp:[::1]``.

    Without a port the default port of the transport is meant; 0 lets the system choose one.
    """
    if not isinstance(text, str):
        raise ConfigError(f"listen takes a text like 'udp:127.0.0.1:5060', not {text!r}")
    name, colon, rest = text.partition(":")
    transport = TRANSPORT_BY_NAME.get(name.lower())
    if not colon or transport is None:
        raise ConfigError(
            f"listen {text!r}: write transport:address:port, as udp:127.0.0.1:5060; transports are "
            "udp, tcp, tls, ws and wss"
        )
    if transport not in AVAILABLE:
        names = " or ".join(TRANSPORT_NAME[number] for number in AVAILABLE)
        raise ConfigError(f"listen {text!r}: {name} is not available; use {names}")
    host, port = _split(rest, text)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(
            f"listen {text!r}: {host!r} is no address; write a numeric one (IPv6 in brackets) and "
            "the name in advertise="
        ) from None
    if address.version == 6:
        address = address.ipv4_mapped or address  # a socket for it would be an IPv4 one
    if address.version == 6 and address.is_link_local != bool(address.scope_id):
        raise ConfigError(
            f"listen {text!r}: a link-local address, and no other, has a zone: [fe80::1%eth0]"
        )
    return transport, str(address), DEFAULT_PORT[transport] if port is None else port


def parse_advertise(text: object) -> tuple[str, int | None]:
    """Host and port of ``edge.example.com:5060``; the port may be left out."""
    if not isinstance(text, str):
        raise ConfigError(f"advertise takes a text like 'edge.example.com:5060', not {text!r}")
    host, port = _split(text, text)
    return _name_or_address(host, text), port or None


def parse_alias(text: object) -> tuple[str, int | None]:
    """Host (lower case) and port of an alias; ``None`` stands for any port, as in Kamailio."""
    if not isinstance(text, str):
        raise ConfigError(
            f"alias takes a text like 'example.com' or 'example.com:5060', not {text!r}"
        )
    host, port = _split(text, text)
    return _name_or_address(host, text).lower(), port or None


def parse_proxies(value: object) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """The networks of ``proxy_protocol=["10.0.0.0/8", "2001:db8::7"]``."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"proxy_protocol takes addresses of load balancers, as ['10.0.0.0/8'], not {value!r}"
        )
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as exc:
        raise ConfigError(f"proxy_protocol: {exc}; write addresses or networks") from None


def parse_server(text: str, port: int) -> tuple[str, int]:
    """Numeric address and port of a server that is not ours; ``port`` if none is written."""
    bare = text.count(":") > 1 and not text.startswith("[")
    host, written = (text, None) if bare else _split(text, text)
    try:
        return str(ipaddress.ip_address(host)), written or port
    except ValueError:
        raise ConfigError(f"{text!r}: write a numeric address, as 192.0.2.53 or [::1]:53") from None


def expand(host: str, local: list[str]) -> list[str]:
    """The concrete addresses that ``0.0.0.0`` or ``::`` stands for, out of those of this machine.

    A reply, and a request to a phone, must leave from the address of the flow; that is known only
    for a socket that is bound to it.  Link-local IPv6 addresses need a zone and are left out.
    """
    version = ipaddress.ip_address(host).version
    found = []
    for text in local:
        address = ipaddress.ip_address(text.partition("%")[0])
        if address.version == version and not (version == 6 and address.is_link_local):
            found.append(str(address))
    return list(dict.fromkeys(found))


def _split(text: str, whole: str) -> tuple[str, int | None]:
    """Host without brackets, and port; a bare IPv6 address has no port."""
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ConfigError(f"{whole!r}: write [address]:port")
        port = tail[1:] if tail else None
    elif text.count(":") > 1:
        raise ConfigError(f"{whole!r}: an IPv6 address stands in brackets")
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if port is None:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ConfigError(f"{whole!r}: {port!r} is no port; write 0 to 65535")
    return host, int(port)


def _name_or_address(host: str, whole: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if _NAME.fullmatch(host):
            return host
    raise ConfigError(f"{whole!r}: {host!r} is neither a host name nor an address")
