"""Octets in any pieces: a PROXY header is taken off whole, or refused; what follows it is kept."""

from __future__ import annotations

from ipaddress import ip_address

from sipedge.net.proxy_protocol import MAX_V2, SIGNATURE, Header, ProxyError, ProxyLayer, parse

_V4 = b"\xc0\0\2\7\xc0\0\2\x08\x13\xc4\x13\xc5"
SEEDS = [
    b"PROXY TCP4 192.0.2.7 192.0.2.8 5060 5061\r\nOPTIONS",
    b"PROXY TCP6 2001:db8::7 2001:db8::8 5060 5061\r\nOPTIONS",
    b"PROXY UNKNOWN\r\nOPTIONS",
    SIGNATURE + b"\x21\x11\0\x0c" + _V4 + b"OPTIONS",
    SIGNATURE + b"\x21\x12\0\x10" + _V4 + b"\x04\0\1x" + b"OPTIONS",
    SIGNATURE + b"\x21\x21\0\x24" + bytes(32) + b"\x13\xc4\x13\xc5" + b"OPTIONS",
    SIGNATURE + b"\x20\0\0\0OPTIONS",
    b"OPTIONS sip:h SIP/2.0\r\n\r\n",
]


def _parsed(data: bytes, stream: bool) -> Header | None:
    try:
        header = parse(data, stream)
    except ProxyError:
        return None
    if header is not None:
        assert 0 < header.size <= min(len(data), MAX_V2 + 16)
        assert (header.remote is None) == (header.local is None)
        for host, port in filter(None, (header.remote, header.local)):
            assert str(ip_address(host)) == host
            assert 0 <= port <= 65535
    return header


def one_input(data: bytes) -> None:
    _parsed(data, False)
    header = _parsed(data, True)
    layer = ProxyLayer()
    rest = b""
    for at in range(len(data)):
        if not layer.over:
            rest += b"".join(layer.receive(data[at : at + 1]))
    assert layer.established == (header is not None)
    if header is not None:
        assert rest == data[header.size :]
        assert layer.facts.get("remote") == header.remote
    else:
        assert rest == b""


if __name__ == "__main__":
    from harness import run

    run(one_input, SEEDS)
