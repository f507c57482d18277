"""Stop 7: where a request goes, and the bytes that go there (RFC 3261 §16.6, RFC 5626 §5.3).

``next_hop`` names the flow or the address, ``build_branch`` makes the message: a copy of the lines,
the late edits (Path and Record-Route learn here which interface sends), our Via on top, one join.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from sipedge.errors import ParseError, SipError
from sipedge.flow import DEFAULT_PORT, TLS, TRANSPORT_BY_NAME, UDP, WS, WSS, Flow
from sipedge.sip.message import HeaderList, SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTENT_LENGTH, MAX_BREADTH, MAX_FORWARDS, ROUTE, START, VIA
from sipedge.sip.uri import Uri, parse_uri
from sipedge.sip.values import number

#: (transport, numeric address, port, host of the URI): where a request goes that has no flow
Hop = tuple[int, str, int, str]

#: RFC 5393 §5.3.3: of a request that says nothing, and the most that one may say
MAX_BREADTH_VALUE: Final = 60

_ALL_BREADTH: Final = b"Max-Breadth: %d" % MAX_BREADTH_VALUE
_LOWER: Final = {b"Max-Forwards: %d" % n: b"Max-Forwards: %d" % (n - 1) for n in range(1, 256)}


class Target:
    """One place that a request may go to (RFC 3261 §16.5; bindings: RFC 5626 §7).

    ``uri`` becomes the Request-URI.  ``flow``: deliver on exactly this flow and never dial.
    ``path``: stored Path values, on top of Route.  Targets of the same ``instance`` are flows of
    one UA: they are tried one after the other.  ``on_failed(target, status)`` is called when the
    branch ended with 430, 408 or a local failure; it returns targets to try before the other flows
    of that instance, or, if a store has to be asked for them, a function that does (``Ask``).
    """

    __slots__ = (
        "dst_uri", "flow", "instance", "on_failed", "path", "q", "reg_id", "ruid", "uri",
    )  # fmt: skip

    def __init__(
        self,
        uri: bytes,
        dst_uri: bytes | None = None,
        flow: Flow | None = None,
        path: list[bytes] | None = None,
        q: float = 1.0,
        instance: bytes = b"",
        reg_id: int = 0,
        ruid: str = "",
        on_failed: Callable[[Target, int], list[Target] | Ask] | None = None,
    ) -> None:
        self.uri = uri
        self.dst_uri = dst_uri
        self.flow = flow
        self.path: list[bytes] = path or []
        self.q = q
        self.instance = instance
        self.reg_id = reg_id
        self.ruid = ruid
        self.on_failed = on_failed

    def __repr__(self) -> str:
        return f"<Target {self.uri!r} {self.flow or self.dst_uri or self.path!r}>"


#: what is called with a function that takes the targets, and calls that later
Ask = Callable[[Callable[[list[Target]], None]], None]


class Place(NamedTuple):
    """A host that must be located first (RFC 3263); 0 for a port or transport that is not given.

    ``secure``: of a sips URI, or on the way to one: nothing but TLS will do.
    """

    host: str
    port: int = 0
    transport: int = 0
    secure: bool = False


class HopCache:
    """URIs that requests were sent to, parsed; bounded."""

    MAX: Final = 4096

    def __init__(self) -> None:
        self._hops: dict[bytes, Hop | Place] = {}
        self._secure: dict[bytes, Hop | Place] = {}

    def of_uri(self, raw: bytes, secure: bool = False) -> Hop | Place:
        """The address that a URI names, or the place; raises ``SipError`` (416) for a scheme we
        cannot route by.  ``secure``: as if it were a sips URI (RFC 3261 §16.6 item 7)."""
        hops = self._secure if secure else self._hops
        hop = hops.get(raw)
        if hop is None:
            hop = _where(parse_uri(raw), secure)
            if len(hops) >= self.MAX:
                hops.clear()
            hops[raw] = hop
        return hop


def is_sips(uri: bytes) -> bool:
    """A URI of scheme sips, without taking it apart."""
    return uri[3:4] != b":" and uri[:5].lower() == b"sips:"


def _where(uri: Uri, secure: bool) -> Hop | Place:
    """RFC 3263 §4: what needs no DNS is a ``Hop``."""
    transport, host, port = hop_of(uri, secure)
    if is_numeric(host):
        if not is_unicast(host):
            raise SipError(403, b"Forbidden Destination")
        return transport, host, port, host
    given = transport if b"transport" in uri.params else 0
    return Place(host.rstrip("."), uri.port or 0, given, secure or uri.scheme == b"sips")


def hop_of(uri: Uri, secure: bool = False) -> tuple[int, str, int]:
    """Transport, host and port of a SIP URI with the defaults for numeric hosts (RFC 3263 §4.1)."""
    if uri.scheme not in (b"sip", b"sips"):
        raise SipError(416, b"Unsupported URI Scheme")
    named = uri.params.get(b"transport")
    transport = UDP
    if named is not None:
        try:
            transport = TRANSPORT_BY_NAME[named.decode("ascii", "replace").lower()]
        except KeyError:
            raise SipError(416, b"Unsupported Transport") from None
    if secure or uri.scheme == b"sips":
        transport = {WS: WSS}.get(transport, TLS) if transport != WSS else WSS
    host = uri.params.get(b"maddr") or uri.host
    return (
        transport,
        host.decode("ascii", "replace").strip("[]").lower(),
        uri.port or DEFAULT_PORT[transport],
    )


@lru_cache(maxsize=4096)
def is_unicast(host: str) -> bool:
    """A numeric address of one machine, not of many: whoever has us send to all machines of a
    network has them all answer somebody (requirement OPS-08)."""
    address = ipaddress.ip_address(host)
    return not (address.is_multicast or address.is_unspecified or host == "255.255.255.255")


@lru_cache(maxsize=4096)
def is_numeric(host: str) -> bool:
    """An IP address, not a name that must be looked up."""
    if not host or (host[-1].isalpha() and ":" not in host):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def route_uri(value: bytes) -> bytes:
    """The URI of a Route or Path value."""
    if value[:1] == b"<" and value[-1:] == b">":
        return value[1:-1]
    return parse_nameaddr(value).uri


def next_hop_uri(msg: SipMessage, target: Target) -> bytes:
    """RFC 3261 §16.6 item 7: what the routes said, else the first Route, else the Request-URI."""
    if target.dst_uri is not None:
        return target.dst_uri
    if target.path:
        return route_uri(target.path[0])
    if ROUTE in msg.ids:
        return route_uri(msg.values(ROUTE)[0])
    return target.uri


def check_max_forwards(msg: SipMessage) -> None:
    """RFC 3261 §16.3 item 3: a request with Max-Forwards 0 goes no further."""
    if msg.max_forwards_done or MAX_FORWARDS not in msg.ids:
        return
    if msg.first(MAX_FORWARDS) == b"0":
        raise SipError(483, b"Too Many Hops")


def _lower_max_forwards(out: HeaderList) -> None:
    """RFC 3261 §16.6 item 3: one less, or 70 if there was none."""
    at = out.find(MAX_FORWARDS)
    if at < 0:
        out.append(MAX_FORWARDS, b"70")
        return
    lower = _LOWER.get(out.lines[at])
    if lower is not None:
        out.lines[at] = lower
    else:
        out.replace(at, b"%d" % ((number(out.row_value(at)) or 1) - 1))


def _strict_route(out: HeaderList, path: list[bytes]) -> None:
    """RFC 3261 §16.6 item 6: a Path value without ``lr`` on top takes the Request-URI's place."""
    try:
        first = parse_uri(route_uri(path[0]))
    except ParseError:
        return
    if b"lr" in first.params:
        return
    method, ruri, version = out.lines[0].split(b" ", 2)
    out.pop_value(ROUTE)
    last = len(out.ids) - 1 - out.ids[::-1].index(ROUTE) if ROUTE in out.ids else -1
    if last < 0:
        out.append(ROUTE, b"<" + ruri + b">")
    else:
        out.insert(last + 1, ROUTE, b"<" + ruri + b">")
    out.lines[0] = b" ".join((method, first.raw, version))


def breadth_of(msg: SipMessage) -> int:
    """RFC 5393 §5.3.3: how many branches a request may have at a time, all proxies together."""
    found = number(msg.first(MAX_BREADTH) or b"")
    return MAX_BREADTH_VALUE if found is None else min(found, MAX_BREADTH_VALUE)


def _share_breadth(out: HeaderList, msg: SipMessage, share: int) -> bytes:
    """Take the Max-Breadth that came out; the line to write instead."""
    share = share or breadth_of(msg)
    if not share:
        raise SipError(440, b"Max-Breadth Exceeded")
    out.remove(MAX_BREADTH)
    return b"Max-Breadth: %d" % share


def build_branch(
    msg: SipMessage, target: Target, send: Flow, on_flow: bool, branch: bytes, breadth: int = 0
) -> bytes:
    """The request as it leaves on ``send``, with our Via on top (RFC 3261 §16.6 items 1 to 9).

    ``breadth`` is this branch's share of Max-Breadth; 0: all of it.
    """
    lines = msg.lines.copy()
    ids = msg.ids.copy()
    out = HeaderList(lines, ids)
    if target.uri != msg.ruri or ids[0] != START:
        lines[0] = b"%s %s SIP/2.0" % (msg.method, target.uri)
    if target.path:
        for value in reversed(target.path):
            out.prepend(ROUTE, value)
        _strict_route(out, target.path)
    if not msg.max_forwards_done:
        _lower_max_forwards(out)
    if msg.late is not None:
        for edit in msg.late:
            edit(out, msg, send, on_flow)
    every = not breadth and MAX_BREADTH not in ids
    lines.insert(-2, _ALL_BREADTH if every else _share_breadth(out, msg, breadth))
    ids.insert(-2, MAX_BREADTH)
    at = ids.index(VIA)
    lines.insert(at, send.listener.via_head + branch + send.via_tail)
    ids.insert(at, VIA)
    if send.reliable and CONTENT_LENGTH not in ids:
        out.append(CONTENT_LENGTH, b"%d" % len(lines[-1]))  # §16.6 item 9
    return b"\r\n".join(lines)
