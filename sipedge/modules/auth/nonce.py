"""Stop 6, auth: nonces that need no memory, and the memory that keeps them from being replayed.

Strategy: a nonce says when it was made and carries a MAC over that and the realm, so every process
with the key can judge it (RFC 7616 §3.3).  What is remembered is only which nonce counts were used
with nonces that led to a *good* answer: who knows no password cannot make us remember anything.
The memory is bounded; what it had to forget is treated as replayed, never as new.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

_TIME: Final = 6  # octets: milliseconds since 1970
_SALT: Final = 5  # octets: two nonces of one millisecond must differ, or their counts collide
_MAC: Final = 16  # octets
_LENGTH: Final = (_TIME + _SALT + _MAC) * 4 // 3  # in base64, without padding
#: how far behind the highest nonce count another one may arrive (two flows of one user agent)
WINDOW: Final = 64
_WINDOW_MASK: Final = (1 << WINDOW) - 1
_SLACK_MS: Final = 1000  # by which a clock may be slewed
_USED_UP: Final = 1 << 40  # a nonce count that no nonce count follows


class Nonces:
    """Makes and judges nonces.

    ``keys``: secrets of any length, the first makes new nonces, all are accepted.  ``lifetime_ms``:
    milliseconds.
    """

    __slots__ = ("_lifetime_ms", "_macs")

    def __init__(self, keys: list[bytes], lifetime_ms: int) -> None:
        # hashed with a name: the same key may serve another purpose elsewhere
        self._macs = [
            hmac.new(hashlib.sha256(b"sipedge nonce " + key).digest(), digestmod=hashlib.sha256)
            for key in keys
        ]
        self._lifetime_ms = lifetime_ms

    def make(self, realm: bytes, now_ms: int) -> bytes:
        """A nonce for ``realm``; ``now_ms``: milliseconds since 1970."""
        head = now_ms.to_bytes(_TIME, "big") + secrets.token_bytes(_SALT)
        return urlsafe_b64encode(head + _mac(self._macs[0], head, realm))

    def issued(self, nonce: bytes, realm: bytes, now_ms: int) -> int | None:
        """When a nonce of ours was made (milliseconds since 1970).

        ``None``: it is not ours, not for this realm, or its time is over.  The clocks of processes
        that share a key may differ by less than the lifetime.
        """
        if len(nonce) != _LENGTH:
            return None
        try:
            data = urlsafe_b64decode(nonce)
        except Base64Error:
            return None
        head, mac = data[: _TIME + _SALT], data[_TIME + _SALT :]
        if not any(hmac.compare_digest(_mac(key, head, realm), mac) for key in self._macs):
            return None
        made = int.from_bytes(head[:_TIME], "big")
        return made if abs(now_ms - made) <= self._lifetime_ms else None


def _mac(key: hmac.HMAC, head: bytes, realm: bytes) -> bytes:
    mac = key.copy()
    mac.update(head + realm)  # head has a fixed length: nothing can be shifted between the two
    return mac.digest()[:_MAC]


class Replays:
    """Which nonce counts were used, for at most ``size`` nonces at a time (RFC 7616 §3.4.5).

    ``lifetime_ms``: after that a nonce is refused anyway, and needs no memory.
    """

    __slots__ = ("_floor_ms", "_last_ms", "_lifetime_ms", "_seen", "_size")

    def __init__(self, size: int, lifetime_ms: int) -> None:
        self._size = size
        self._lifetime_ms = lifetime_ms
        #: nonce -> [made at, highest count, bits of the WINDOW counts up to it]; in order of use
        self._seen: dict[bytes, list[int]] = {}
        #: nonces made before that, and not in ``_seen``, were forgotten
        self._floor_ms = 0
        self._last_ms = 0  # when we were asked last

    def __len__(self) -> int:
        return len(self._seen)

    def begin(self, now_ms: int) -> None:
        """We start now: which older nonces were used, an earlier process knew."""
        self._floor_ms = self._last_ms = now_ms

    def use(self, nonce: bytes, made_ms: int, count: int | None, now_ms: int) -> bool:
        """Use a nonce once more; False: with this ``count`` it was, or may have been, used before.

        ``count`` ``None``: a client that does not count; its nonce is good for one request.
        """
        if now_ms < self._last_ms - _SLACK_MS:
            # the clock was set back: do not refuse all that is new until it has caught up
            self._floor_ms = min(self._floor_ms, now_ms)
        self._last_ms = now_ms
        seen = self._seen.get(nonce)
        if seen is None:
            if made_ms < self._floor_ms:
                return False
            self._make_room(now_ms)
            self._seen[nonce] = [made_ms, _USED_UP if count is None else count, 1]
            return True
        if count is None:
            return False
        behind = seen[1] - count
        if behind < 0:
            seen[1] = count
            seen[2] = (seen[2] << -behind | 1) & _WINDOW_MASK if -behind < WINDOW else 1
            return True
        if behind >= WINDOW or seen[2] >> behind & 1:
            return False
        seen[2] |= 1 << behind
        return True

    def _make_room(self, now_ms: int) -> None:
        """Forget the oldest if its time is over (two at a time: faster than they come), or must."""
        seen = self._seen
        for _ in range(2):
            if not seen:
                return
            oldest = next(iter(seen))
            made_ms = seen[oldest][0]
            if len(seen) >= self._size:
                self._floor_ms = max(self._floor_ms, made_ms + 1)
            elif now_ms - made_ms <= self._lifetime_ms:
                return
            del seen[oldest]
