"""Flow tokens of Kamailio's layout, so that an edge can be replaced under live registrations.

Only verified, never made.  Standard base64 with padding of ``MAC || S``; the MAC is the *last* ten
octets of HMAC-SHA1 over S, and S is: one octet (bit 7: IPv6, the rest: transport), our address and
port, the peer's address and port, in network byte order.  23 octets for IPv4, 47 for IPv6.  There
is no connection id: whatever connection has these two addresses now is taken for the flow.  Part
of stop 6 of a datagram.
"""

from __future__ import annotations

import hashlib
import ipaddress
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Sequence
from hmac import compare_digest
from struct import Struct
from typing import Final

from outbound_plugin.flow_token import MAC_OCTETS, HmacKey, Named
from sipedge.flow import TCP, TLS, UDP, WS, WSS

_SHAPES: Final = {23: (0x00, Struct("!4sH4sH")), 47: (0x80, Struct("!16sH16sH"))}
_TRANSPORTS: Final = frozenset((UDP, TCP, TLS, WS, WSS))
#: what such a token is long as a user part, without escapes
KAMAILIO_LENGTHS: Final = frozenset((32, 64))


def secret_key(secret: str) -> bytes:
    """The HMAC key that Kamailio derives from ``flow_token_secret``."""
    return hashlib.sha1(secret.encode()).digest()


class KamailioTokens:
    """Verifies tokens that a Kamailio minted with one of ``keys``."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(HmacKey(key) for key in keys)

    def __call__(self, token: bytes) -> Named | None:
        """The fields of an authentic token, else ``None``."""
        try:
            data = a2b_base64(token)
        except Error:
            return None
        shape = _SHAPES.get(len(data))
        # Kamailio itself takes four spellings of each token; we take the one that it writes
        if shape is None or b2a_base64(data, newline=False) != token:
            return None
        signed = data[MAC_OCTETS:]
        for key in self._keys:
            if compare_digest(key.mac(signed)[-MAC_OCTETS:], data[:MAC_OCTETS]):
                break
        else:
            return None
        v6, fields = shape
        transport = signed[0] & 0x7F
        if signed[0] & 0x80 != v6 or transport not in _TRANSPORTS:
            return None
        local, local_port, remote, remote_port = fields.unpack(signed[1:])
        return Named(
            transport,
            (str(ipaddress.ip_address(local)), local_port),
            (str(ipaddress.ip_address(remote)), remote_port),
        )
