"""Flow tokens: a flow, written down and signed, as the user part of our own URIs (RFC 5626 §5.2).

A token is base64url without padding of ``MAC || S``, where the MAC is the first ten octets of
HMAC-SHA1 over S, and S, in network byte order, is::

    1  bit 7: IPv6; bits 4 to 6: format, 1, or 2 for UDP behind a load balancer (``behind.py``);
       bits 0 to 3: transport, as ``flow.UDP`` .. ``flow.WSS``
    2  key id: a hash of the key, so that a key that we never had is told from a forgery
    4 or 16, 2   address and port of our listener
    4 or 16, 2   address and port of the peer
    8  connection id, for streams only: another connection from the same address is another flow
    2  CRC of all of S before it

User parts have 36 (UDP over IPv4), 47, 68 or 79 (stream over IPv6) characters.  The key id decides
between 403 and 430: our key and a wrong MAC is tampering, a key that is not ours may be one from
before a restart.  The CRC, which the MAC covers too, keeps that from being abused or from happening
by accident: a token whose key id was garbled is still "no token" and not "another key".

IPv4-mapped IPv6 addresses are written as IPv4.  If a load balancer speaks to us over one family and
to the client over the other, both are written as IPv6, IPv4 mapped.  A token has one spelling: what
does not come out the same when encoded again is refused.  Nothing is stored per token but a bounded
cache of those that were verified.  Part of stop 6 of a datagram.
"""

from __future__ import annotations

import hashlib
import ipaddress
from binascii import Error, a2b_base64, b2a_base64, crc_hqx
from collections.abc import Callable, Sequence
from hmac import compare_digest
from struct import Struct
from typing import Final, NamedTuple

from outbound_plugin.api import BAD, GONE, VALID, TokenVerdict
from sipedge.errors import SipError
from sipedge.flow import CLOSED, TCP, TLS, UDP, WS, WSS, Address, Flow, FlowTable, Listener
from sipedge.sip.uri import unescape

KEY_OCTETS: Final = 20  # RFC 5626 §5.2
MAC_OCTETS: Final = 10  # HMAC-SHA1-80: the leftmost ones (RFC 2104 §5)
CONN_ID_OCTETS: Final = 8

_V6: Final = 0x80
_FORMAT: Final = 0x10
_BEHIND: Final = 0x20
_FORMAT_MASK: Final = 0x70
_TRANSPORT_MASK: Final = 0x0F
_STREAMS: Final = frozenset((TCP, TLS, WS, WSS))
_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2
_CRC_START: Final = 0xFFFF
_INNER: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER: Final = bytes(octet ^ 0x5C for octet in range(256))
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")

#: length of MAC || S -> (head bit for IPv6, is it a stream, what stands between key id and CRC)
_SHAPES: Final = {
    27: (0, False, Struct("!4sH4sH")),
    35: (0, True, Struct("!4sH4sH8s")),
    51: (_V6, False, Struct("!16sH16sH")),
    59: (_V6, True, Struct("!16sH16sH8s")),
}
#: what such a token is long as a user part, without escapes
TOKEN_LENGTHS: Final = frozenset((size * 4 + 2) // 3 for size in _SHAPES)


class Named(NamedTuple):
    """What a token says."""

    transport: int
    local: Address  # of the listener
    remote: Address
    conn_id: bytes = b""
    behind: bool = False  # UDP, and a load balancer announced the remote address


class HmacKey:
    """HMAC-SHA1 with one key (RFC 2104).

    The two key blocks are hashed once; each MAC starts from copies, which costs half of
    ``hmac.digest``.
    """

    __slots__ = ("_inner", "_outer", "id")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha1(block.translate(_INNER))
        self._outer = hashlib.sha1(block.translate(_OUTER))
        #: stands in tokens; the prefix separates this use of the key from the MACs
        self.id = hashlib.sha1(b"sipedge flow token key id:" + key).digest()[:2]

    def mac(self, data: bytes) -> bytes:
        """All twenty octets of HMAC-SHA1."""
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class FlowTokens:
    """Mints and verifies the tokens of one edge."""

    SEEN: Final = FlowTable.UDP_CACHE  # verified tokens that are remembered

    def __init__(
        self,
        flows: FlowTable,
        keys: Sequence[bytes],
        foreign: Callable[[bytes], Named | None] | None = None,
    ) -> None:
        """``keys``: 20 octets each; the first one signs, the others are older and still accepted.
        ``foreign`` verifies tokens of another layout (``kamailio_token``)."""
        self._flows = flows
        self._keys = tuple(HmacKey(key) for key in keys)
        self._foreign = foreign
        self._heads: dict[tuple[Listener, bool], bytes] = {}
        self._seen: dict[bytes, Flow] = {}

    def encode(self, flow: Flow) -> bytes:
        """The token of a flow, kept in ``flow.token``.

        Raises ``SipError`` (500) for a flow that cannot be named: RFC 5626 §5.1 wants such a
        REGISTER rejected.
        """
        token = flow.token
        if token is None:
            token = flow.token = self._mint(flow)
        return token

    def _mint(self, flow: Flow) -> bytes:
        behind = flow.via is not None
        head = self._heads.get((flow.listener, behind))
        if head is None:
            head = self._heads[flow.listener, behind] = self._head(flow.listener, behind)
        host, port = flow.remote
        wanted = CONN_ID_OCTETS if flow.transport in _STREAMS else 0
        remote = _pack(host, port)
        mixed = len(remote) != len(head) - 3  # only a load balancer can do that
        if len(flow.conn_id) != wanted or (mixed and not flow.listener.proxies):
            raise _unnamed()
        if mixed:
            head = bytes((head[0] | _V6,)) + head[1:3] + _mapped(head[3:])
            remote = _mapped(remote)
        signed = head + remote + flow.conn_id
        signed += crc_hqx(signed, _CRC_START).to_bytes(2, "big")
        return _to_base64url(self._keys[0].mac(signed)[:MAC_OCTETS] + signed)

    def _head(self, listener: Listener, behind: bool) -> bytes:
        """What all tokens of one listener begin with: format, transport, key id, its address."""
        known = listener.transport == UDP or listener.transport in _STREAMS
        if not known or not listener.port or listener not in self._flows.listeners:
            raise _unnamed()
        local = _pack(listener.address, listener.port)
        kind = _BEHIND if behind else _FORMAT
        first = kind | listener.transport | (_V6 if len(local) > 6 else 0)
        return bytes((first,)) + self._keys[0].id + local

    def decode(self, user: bytes) -> tuple[TokenVerdict, Flow | None]:
        """What the user part of a URI of ours is worth; see ``ObBinds.decode_flow_token``."""
        flow = self._seen.get(user)
        if flow is not None:
            if flow.transport == UDP and flow.via is None:
                # UDP flows are values: the table may have made a new object meanwhile
                flow = self._flows.udp(flow.listener, flow.remote)
            if flow.state != CLOSED:
                return VALID, flow
            if flow.via is None:
                return GONE, flow
        token = unescape(user)  # RFC 3261 §19.1.2: some stacks escape more than they must
        named, ours = self._verify(token)
        if named is None and self._foreign is not None:
            named, ours = self._foreign(token), True
        if named is None:
            return BAD, None
        found = self._resolve(named) if ours else None
        if found is None or found.state == CLOSED:
            return GONE, self._dead(named)
        if len(self._seen) >= self.SEEN:
            self._seen.clear()
        self._seen[user] = found
        return VALID, found

    def _verify(self, token: bytes) -> tuple[Named | None, bool]:
        """The fields of a token, and whether one of our keys signed it; ``None`` if it is no token,
        or was tampered with."""
        data = _from_base64url(token)
        shape = _SHAPES.get(len(data))
        if shape is None:
            return None, False
        signed = data[MAC_OCTETS:]
        ours = False
        for key in self._keys:
            if key.id == signed[1:3]:
                ours = True
                if compare_digest(key.mac(signed)[:MAC_OCTETS], data[:MAC_OCTETS]):
                    break
        else:
            if ours or crc_hqx(signed, _CRC_START) != 0:  # a CRC with its own value behind it is 0
                return None, False
        v6, stream, fields = shape
        head = signed[0]
        transport = head & _TRANSPORT_MASK
        behind = head & _FORMAT_MASK == _BEHIND
        if head & _V6 != v6 or not (behind or head & _FORMAT_MASK == _FORMAT):
            return None, False
        if (transport in _STREAMS) != stream or not (stream or transport == UDP):
            return None, False
        if behind and stream:
            return None, False
        local, local_port, remote, remote_port, *rest = fields.unpack(signed[3:-2])
        named = Named(
            transport,
            (_unpack(local), local_port),
            (_unpack(remote), remote_port),
            rest[0] if stream else b"",
            behind,
        )
        return named, ours

    def _resolve(self, named: Named) -> Flow | None:
        """The flow of a verified token, if it is one of this edge and still there."""
        transport, (host, port), remote, conn_id, behind = named
        flows = self._flows
        listener = flows.find_listener(transport, host, port)
        if listener is None and ":" not in host:
            listener = flows.find_listener(transport, "::ffff:" + host, port)
            if listener is not None:  # a socket for mapped addresses: its peers are written so too
                remote = ("::ffff:" + remote[0], remote[1])
        if listener is None:
            return None
        if behind:
            return flows.behind.find(listener, remote)
        if transport == UDP:
            return flows.udp(listener, remote)
        if conn_id:
            flow = flows.streams.get(conn_id)
            same = flow is not None and flow.listener is listener and _same(flow.remote, remote)
            return flow if same else None
        for flow in flows.streams.values():  # a foreign token, that carries no connection id
            if flow.listener is listener and not flow.dialed and _same(flow.remote, remote):
                return flow
        return None

    def _dead(self, named: Named) -> Flow:
        """A flow that is no more: whoever is to send on it answers 430."""
        transport, local, remote, conn_id, _ = named
        flow = Flow(Listener(transport, *local), remote, None, conn_id)
        flow.state = CLOSED
        return flow


def _unnamed() -> SipError:
    """RFC 5626 §5.1: without a token the request must not go on."""
    return SipError(500, b"No Flow Token")


def _pack(host: str, port: int) -> bytes:
    """Address and port in network byte order; raises ``SipError`` (500) for what is no address.

    A link-local address with a zone has no place in a token.
    """
    try:
        if ":" not in host:
            packed = bytes(map(int, host.split(".")))
        elif "%" in host:
            packed = b""
        else:
            address = ipaddress.IPv6Address(host)
            packed = (address.ipv4_mapped or address).packed
        port_octets = port.to_bytes(2, "big")
    except (ValueError, OverflowError):
        packed = port_octets = b""
    if len(packed) not in (4, 16):
        raise _unnamed()
    return packed + port_octets


def _unpack(packed: bytes) -> str:
    if len(packed) == 16 and packed.startswith(_MAPPED):
        packed = packed[len(_MAPPED) :]
    if len(packed) == 4:
        return ".".join(map(str, packed))
    return str(ipaddress.IPv6Address(packed))


def _mapped(address: bytes) -> bytes:
    """A packed address and port with IPv4 as IPv6."""
    return address if len(address) == 18 else _MAPPED + address


def _same(a: Address, b: Address) -> bool:
    return a == b or (a[1] == b[1] and _pack(*a) == _pack(*b))


def _to_base64url(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def _from_base64url(token: bytes) -> bytes:
    """The octets of a token, b"" unless it is exactly what ``_to_base64url`` writes.

    The decoder ignores octets that are not base64 and spare bits; encoding again shows them.
    """
    try:
        data = a2b_base64(token.translate(_FROM_URL) + b"=" * (-len(token) % 4))
    except Error:
        return b""
    return data if _to_base64url(data) == token else b""
