"""Flows: (transport, local address, remote address) and, for streams, a random connection id.

Everything that wants to reach a UA goes through a ``Flow``.  Nothing ever dials a flow (RFC 5626
§5.3.1): a stream that was accepted and is gone stays gone.  The few connections that we open
ourselves (towards a registrar or another proxy) are flows too, with ``dialed`` set.

Part of stop 1 of a datagram: ``net`` asks the ``FlowTable`` which flow the bytes came on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final

UDP: Final = 1  # Kamailio's numbers, which its flow tokens carry
TCP: Final = 2
TLS: Final = 3
SCTP: Final = 4
WS: Final = 5
WSS: Final = 6

TRANSPORT_BY_NAME: Final = {"udp": UDP, "tcp": TCP, "tls": TLS, "ws": WS, "wss": WSS}
TRANSPORT_NAME: Final = {UDP: "udp", TCP: "tcp", TLS: "tls", SCTP: "sctp", WS: "ws", WSS: "wss"}
VIA_TOKEN: Final = {UDP: b"UDP", TCP: b"TCP", TLS: b"TLS", SCTP: b"SCTP", WS: b"WS", WSS: b"WSS"}
#: ``;transport=`` of a SIP URI; RFC 7118 §5.2: ``ws`` for both WebSocket transports
URI_TRANSPORT: Final = {UDP: b"udp", TCP: b"tcp", TLS: b"tls", SCTP: b"sctp", WS: b"ws", WSS: b"ws"}
DEFAULT_PORT: Final = {UDP: 5060, TCP: 5060, TLS: 5061, WS: 80, WSS: 443}

OPEN: Final = 1
CONNECTING: Final = 2  # dialed by us, not yet established
CLOSED: Final = 3

Address = tuple[str, int]
_LINK_LOCAL: Final = re.compile("fe[89ab][0-9a-f]:", re.IGNORECASE)


def is_link_local(host: str) -> bool:
    """Is a numeric address an IPv6 address of fe80::/10 (RFC 4291 §2.5.6)?"""
    return _LINK_LOCAL.match(host) is not None


def _scope(host: str) -> int:
    """How far a numeric address reaches: 0 the machine, 1 the link, 2 the world."""
    if host == "::1" or host.startswith("127."):
        return 0
    return 1 if is_link_local(host) else 2


def host_bytes(host: str) -> bytes:
    """A host as it is written in a URI or a Via: IPv6 in brackets (RFC 3261 §25.1)."""
    return b"[%s]" % host.encode() if ":" in host else host.encode()


class Listener:
    """One address that we listen on.  ``net`` binds it and fills in ``port`` when that was 0."""

    __slots__ = (
        "address", "advertise_host", "advertise_port", "by_name", "host", "index", "io", "is_v6",
        "port", "proxies", "sent_by", "source", "transport", "uri_hostport", "uri_transport",
        "via_head", "via_sent", "zone",
    )  # fmt: skip

    def __init__(
        self,
        transport: int,
        host: str,
        port: int,
        advertise: tuple[str, int | None] | None = None,
        source: tuple[str, int] | None = None,
        proxies: tuple[IPv4Network | IPv6Network, ...] = (),
    ) -> None:
        """``host``: a concrete address, never 0.0.0.0 or ::, a link-local one with its zone;
        ``advertise``: what we call ourselves towards others; ``source``: file and line of the
        ``listen`` call; ``proxies``: where each connection or datagram begins with a PROXY header.
        """
        self.transport = transport
        self.host = host
        #: ``host`` without its zone, as others see it (RFC 4007 §11.2: zones mean nothing to them)
        self.address, _, self.zone = host.partition("%")
        self.port = port
        self.advertise_host = advertise[0] if advertise else None
        self.advertise_port = advertise[1] if advertise else None
        self.is_v6 = ":" in host
        #: in URIs our domain alone, DNS says the rest (RFC 3263 §4.1; the module ``tls`` sets it)
        self.by_name = False
        self.index = -1
        self.source = source
        self.proxies = proxies
        self.io: Any = None  # owned by net
        self.bound(port)

    def bound(self, port: int) -> None:
        """Set the port that the socket got and work out everything that is written from it."""
        self.port = port
        host = host_bytes(self.advertise_host or self.address)
        #: host:port for URIs and the sent-by of our Via; the port is there, unless ``by_name``
        self.sent_by = b"%s:%d" % (host, self.advertise_port or port)
        self.uri_hostport = host if self.by_name else self.sent_by
        #: b"" for UDP (the default), else b";transport=tcp"
        self.uri_transport = (
            b""
            if self.transport == UDP or self.by_name
            else b";transport=" + URI_TRANSPORT[self.transport]
        )
        self.via_sent = b"SIP/2.0/%s %s" % (VIA_TOKEN[self.transport], self.sent_by)
        self.via_head = b"Via: " + self.via_sent + b";branch="

    def is_proxy(self, host: str) -> bool:
        """Is ``host`` (numeric) a load balancer of ours, whose PROXY header we believe?"""
        if not self.proxies:
            return False
        address = ip_address(host)
        if address.version == 6:
            address = address.ipv4_mapped or address
        return any(address in network for network in self.proxies)

    @property
    def reliable(self) -> bool:
        return self.transport != UDP

    @property
    def name(self) -> str:
        """``udp:127.0.0.1:5060``, the way that ``listen`` takes it."""
        host = f"[{self.host}]" if self.is_v6 else self.host
        return f"{TRANSPORT_NAME[self.transport]}:{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Listener {self.name}>"


class Flow:
    """One flow.  Compare flows with ``same_flow``: a UDP flow may be represented by two objects."""

    __slots__ = (
        "__weakref__", "begun", "cache", "conn_id", "dialed", "facts", "framer", "io", "last_rx",
        "listener", "local", "pending", "pending_limit", "received", "reliable", "remote", "rport",
        "server_name", "spoke", "state", "token", "transport", "via", "via_tail",
    )  # fmt: skip

    def __init__(
        self,
        listener: Listener,
        remote: Address,
        local: Address | None = None,
        conn_id: bytes = b"",
        dialed: bool = False,
        server_name: str = "",
    ) -> None:
        self.transport = listener.transport
        self.listener = listener
        #: our end; for a dialed connection the ephemeral address once it is known
        self.local: Address = local or (listener.host, listener.port)
        self.remote: Address = remote
        #: b"" for UDP; 8 octets for streams, the first is the worker's number
        self.conn_id = conn_id
        self.dialed = dialed
        #: dialed: the host of the URI that led here (RFC 5922 §7.3: what the certificate must say)
        self.server_name = server_name
        #: what our Via says behind its branch: the server may send us requests on this connection,
        #: too (RFC 5923 §8.1)
        self.via_tail = b";alias" if dialed and listener.transport == TLS else b""
        #: what the layers of a connection learned: the certificate, the WebSocket request
        self.facts: dict[str, Any] | None = None
        self.reliable = listener.transport != UDP
        self.state = CONNECTING if dialed else OPEN
        self.last_rx = 0.0  # seconds, monotonic: any inbound byte (requirement KA-17)
        #: when a message began to come in that is not complete, if a layer of net keeps its bounds
        self.begun: float | None = None
        self.spoke = False  # a stream: a message came, not only keep-alives
        #: UDP behind a load balancer: the address of the load balancer that datagrams go to
        self.via: Address | None = None
        self.token: bytes | None = None  # minted once by outbound, then remembered
        self.cache: dict[Any, Any] | None = None  # header values made for this flow, by module
        self.framer: Any = None  # sip.stream.StreamFramer of a stream, owned by core
        self.io: Any = None  # owned by net: socket, transport or packed address
        self.pending: list[Any] = []  # owned by tm: client transactions that wait on this flow
        self.pending_limit = 64
        self.received = b";received=" + remote[0].encode()  # RFC 3581 §4, IPv6 without brackets
        self.rport = b"%d" % remote[1]

    @property
    def alive(self) -> bool:
        """A UDP flow counts as alive until ICMP or silence says otherwise."""
        return self.state != CLOSED

    @property
    def name(self) -> str:
        """For logs: ``tcp:198.51.100.7:49152>192.0.2.10:5060#00a1…``."""
        cid = "#" + self.conn_id.hex() if self.conn_id else ""
        (rh, rp), (lh, lp) = self.remote, self.local
        return f"{TRANSPORT_NAME[self.transport]}:{rh}:{rp}>{lh}:{lp}{cid}"

    def remember(self, key: Any, value: Any) -> None:
        """Keep a value that was made for this flow (a Path header, say); bounded per flow."""
        if self.cache is None or len(self.cache) >= 32:
            self.cache = {}
        self.cache[key] = value

    def __repr__(self) -> str:
        return f"<Flow {self.name}{'' if self.alive else ' closed'}>"


def same_flow(a: Flow, b: Flow) -> bool:
    """RFC 5626 §5.3: is it the same network flow?"""
    return a is b or (
        a.transport == b.transport
        and a.conn_id == b.conn_id
        and a.remote == b.remote
        and a.local == b.local
    )


def _dial_key(transport: int, remote: Address, server_name: str) -> tuple[int, Address, str]:
    return transport, remote, server_name.lower() if transport in (TLS, WSS) else ""


class Behind:
    """UDP flows behind load balancers that announce their clients (PROXY protocol).

    What is sent to such a client has to go to the load balancer, to the very port that the client's
    datagrams come from: that is all the load balancer knows the client by.  So these flows are no
    values that can be made again from an address.  Each is known from the client's last datagram,
    and over when the load balancer gives its port to somebody else.  The ``LIMIT`` most recent ones
    are kept.
    """

    LIMIT: Final = 131072

    def __init__(self) -> None:
        self._by_client: dict[tuple[int, Address], Flow] = {}
        self._by_port: dict[tuple[int, Address], Flow] = {}

    def seen(self, listener: Listener, port: Address, client: Address) -> tuple[Flow, list[Flow]]:
        """A datagram of ``client`` came from ``port``, an address of the load balancer.

        Returns its flow, and those that are over now.
        """
        key, port_key = (listener.index, client), (listener.index, port)
        flow = self._by_client.pop(key, None)
        if flow is None or not flow.alive:
            flow = Flow(listener, client)
        self._by_client[key] = flow  # the most recent one stands last
        over = []
        holder = self._by_port.get(port_key)
        if holder is not flow:
            if holder is not None:
                over.append(self._forget(holder))
            if flow.via is not None:  # the load balancer moved it to another port
                self._by_port.pop((listener.index, flow.via), None)
            flow.via = port
            self._by_port[port_key] = flow
        if len(self._by_client) > self.LIMIT:
            over.append(self._forget(next(iter(self._by_client.values()))))
        return flow, over

    def find(self, listener: Listener, client: Address) -> Flow | None:
        """The flow of a client, if it is known."""
        return self._by_client.get((listener.index, client))

    def at(self, listener: Listener, port: Address) -> Flow | None:
        """The flow that an address of the load balancer belongs to."""
        return self._by_port.get((listener.index, port))

    def _forget(self, flow: Flow) -> Flow:
        self._by_client.pop((flow.listener.index, flow.remote), None)
        if flow.via is not None:
            self._by_port.pop((flow.listener.index, flow.via), None)
        return flow


class FlowTable:
    """All listeners and flows of one edge.

    UDP flows are values, kept only as a bounded cache (requirement TOK-11): an unknown one is made
    again from the address.  Streams live from accept to close, found by connection id.
    """

    UDP_CACHE: Final = 65536  # flows per generation; the oldest generation is dropped

    def __init__(self, worker: int = 0) -> None:
        self.listeners: list[Listener] = []
        self.streams: dict[bytes, Flow] = {}
        #: flows for net to connect; drained by net
        self.dials: list[Flow] = []
        self._dialed: dict[tuple[int, Address, str], Flow] = {}
        self._aliases: dict[bytes, list[tuple[int, Address, str]]] = {}
        self._udp_new: dict[tuple[int, Address], Flow] = {}
        self._udp_old: dict[tuple[int, Address], Flow] = {}
        self._worker = bytes((worker & 0xFF,))
        self.behind = Behind()

    def add_listener(self, listener: Listener) -> Listener:
        listener.index = len(self.listeners)
        self.listeners.append(listener)
        return listener

    def udp(self, listener: Listener, remote: Address) -> Flow:
        """The UDP flow between a listener and a remote address (numeric host, port)."""
        if listener.proxies:
            behind = self.behind.find(listener, remote)
            if behind is not None:
                return behind
        key = (listener.index, remote)
        flow = self._udp_new.get(key)
        if flow is not None:
            return flow
        flow = self._udp_old.get(key)
        if flow is None:
            flow = Flow(listener, remote)
        if len(self._udp_new) >= self.UDP_CACHE:
            self._udp_old, self._udp_new = self._udp_new, {}
        self._udp_new[key] = flow
        return flow

    def accept(self, listener: Listener, remote: Address, local: Address | None = None) -> Flow:
        """A stream connection was accepted: a flow with an id that no other one ever had."""
        flow = Flow(listener, remote, local, self._new_id())
        self.streams[flow.conn_id] = flow
        return flow

    def dial(self, listener: Listener, remote: Address, server_name: str = "") -> Flow:
        """The connection that we opened, or now ask net to open, to a server at ``remote``.

        Only connections that we dialed ourselves are used again (requirement TRN-16): one that a
        client opened never carries traffic for whoever claims the same address, unless its
        certificate says so (``alias``).  Over TLS it must be the same ``server_name``, too: that is
        what the certificate was checked for (RFC 5923 §8.1, requirement TLS-07).
        """
        key = _dial_key(listener.transport, remote, server_name)
        flow = self._dialed.get(key)
        if flow is None or not flow.alive:
            flow = Flow(listener, remote, None, self._new_id(), True, server_name)
            self.streams[flow.conn_id] = flow
            self._dialed[key] = flow
            self.dials.append(flow)
        return flow

    def alias(self, flow: Flow, remote: Address, names: Iterable[str]) -> None:
        """RFC 5923 §8.2: requests to ``remote`` may go over ``flow``, which a client opened.

        ``names``: the domains that the client's certificate is good for; whoever dials must mean
        one of them.  One address a connection; connections that we have ourselves come first.
        """
        if flow.conn_id in self._aliases or not flow.alive:
            return
        keys = [_dial_key(flow.transport, remote, name) for name in names]
        self._aliases[flow.conn_id] = keys
        for key in keys:
            self._dialed.setdefault(key, flow)

    def closed(self, flow: Flow) -> bool:
        """Forget a stream; False when it was closed before."""
        if flow.state == CLOSED:
            return False
        flow.state = CLOSED
        self.streams.pop(flow.conn_id, None)
        keys = self._aliases.pop(flow.conn_id, [])
        if flow.dialed:
            keys = [_dial_key(flow.transport, flow.remote, flow.server_name)]
        for key in keys:
            if self._dialed.get(key) is flow:
                del self._dialed[key]
        return True

    def find_listener(self, transport: int, host: str, port: int) -> Listener | None:
        """The listener with exactly this address, as a flow token names it."""
        for listener in self.listeners:
            if (listener.port, listener.address, listener.transport) == (port, host, transport):
                return listener
        return None

    def towards(self, transport: int, host: str, prefer: Listener | None) -> Listener | None:
        """The listener to send from to a numeric ``host``: the preferred one if it fits, else the
        first of that transport and address family; loopback only reaches loopback, a link-local
        address only its link."""
        v6 = ":" in host
        if prefer is not None and prefer.transport == transport and prefer.is_v6 == v6:
            if not v6 or bool(prefer.zone) == is_link_local(host):
                return prefer
        scope = _scope(host)
        fallback = None
        for listener in self.listeners:
            if listener.transport == transport and listener.is_v6 == v6:
                if _scope(listener.host) == scope:
                    return listener
                fallback = fallback or listener
        return fallback

    def _new_id(self) -> bytes:
        while True:
            conn_id = self._worker + os.urandom(7)
            if conn_id not in self.streams:
                return conn_id
