"""Stop 6, registrar: URIs that lead to one instance of a user: GRUUs (RFC 5627).

A public GRUU is the address-of-record with ``gr=`` and the instance-id.  Every instance-id makes a
valid one, so nothing has to be remembered (§5.3).

A temporary GRUU hides both.  Its user part is ``tgruu.`` and base64url without padding of a body
under AES-SIV (RFC 5297) with the host as associated data, 16 octets longer than the body::

    8  random octets: no two temporary GRUUs are equal
    6  epoch: which temporary GRUUs of this instance are valid; a binding has the present one
    1  length of the user name
    1  length of the instance-id, or 255: it is a UUID, 16 octets
    n  user name, unescaped; instance-id
       zeros, up to a multiple of 64

AES-SIV because RFC 5627 §A.2 wants to encrypt and to authenticate, and this does both with one key,
from a library, in 1.3 us: nothing is lost if random octets repeat (AES-GCM would give its key away;
its SIV variant needs a newer OpenSSL and 12 more octets for a nonce), and there is room in a user
part for a tag of 128 bits.  What that comes to, by what the RFC asks for:

* not guessable (§5.4): a text that was not made here passes with a probability of 2**-128;
* not linkable (§5.4, §10.2): without the key it is 64 random octets and a tag; two for the same
  phone are equal only if 8 random octets are, and all have the same length unless a user name is
  longer than 32 octets (with a UUID);
* bound to its domain: another host is another associated data;
* revocable (§5.1, §5.3): the tag says that we made it, the epoch whether it still counts.  A new
  epoch is 48 random bits, so an old one does not come back;
* keys: an AES key of 512 bits (two of 256) is derived for this use alone, so that whoever has the
  same octets for flow tokens harms nobody; older keys open what they have sealed.

Strategy: nothing is stored but the epoch, a number in each binding of the instance.  A changed
Call-ID gives the instance another one and so revokes what was given out before (§5.1); when the
last binding goes, it goes with it (§5.3).
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Iterable, Sequence
from hmac import digest
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from registrar_plugin.bindings import AorRules, Binding, canonical_instance
from sipedge.sip.uri import Uri, unescape

if TYPE_CHECKING:
    from registrar_plugin.contact import Contact

KEY_OCTETS: Final = range(20, 33)

_PREFIX: Final = b"tgruu."
_TAG_OCTETS: Final = 16
_SALT_OCTETS: Final = 8
_EPOCH_OCTETS: Final = 6
_HEAD_OCTETS: Final = _SALT_OCTETS + _EPOCH_OCTETS + 2
_BLOCK: Final = 64
_IS_UUID: Final = 255
_UUID: Final = re.compile(rb"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# RFC 3261 §25.1: what stands unescaped in a user part, and in the value of a URI parameter
_USER_SAFE: Final = "-_.!~*'()&=+$,;?/"
_PARAM_SAFE: Final = "-_.!~*'()[]/:&+$"


class Named:
    """What a URI names: an address-of-record, and perhaps one instance of it.

    ``instance``: b"" for all of them.  ``epoch``: of a temporary GRUU, else 0.
    """

    __slots__ = ("aor", "epoch", "instance")

    def __init__(self, aor: bytes, instance: bytes = b"", epoch: int = 0) -> None:
        self.aor = aor
        self.instance = instance
        self.epoch = epoch

    def select(self, rows: Sequence[Binding]) -> tuple[Binding, ...]:
        """The bindings that it leads to, of those of its address-of-record."""
        if not self.instance:
            return tuple(rows)
        return tuple(
            row
            for row in rows
            if row.instance == self.instance and (not self.epoch or row.epoch == self.epoch)
        )

    @property
    def lasts(self) -> bool:
        """Whether it is valid without any binding (§5.3): not a temporary GRUU, and no ``gr`` that
        cannot be an instance-id of ours (RFC 5626 §4.1: they are URNs)."""
        return not self.epoch and (not self.instance or self.instance.startswith(b"urn:"))


class Gruus:
    """Makes and reads the GRUUs of one registrar."""

    __slots__ = ("_keys", "_rules")

    def __init__(self, rules: AorRules, keys: Sequence[bytes]) -> None:
        """``keys``: of 20 to 32 octets, the present one first, then older ones that still count;
        none: a random one, so that temporary GRUUs end with this process."""
        self._rules = rules
        self._keys = [_Key(key) for key in keys or (secrets.token_bytes(32),)]

    def offer(self, user: bytes, host: bytes, port: int | None = None) -> Offer:
        """What one answer to a REGISTER gives out; ``user``, unescaped, ``host`` and ``port`` are
        those of the To."""
        place = b"[" + host + b"]" if b":" in host else host
        return Offer(self, self._rules.user(user), host, place + (b":%d" % port if port else b""))

    def read(self, uri: Uri) -> Named | None:
        """What a URI with a ``gr`` parameter names; None if no GRUU of ours looks like that.

        Raises ``ParseError`` (404) for what cannot be an address-of-record.
        """
        value = uri.params[b"gr"]
        if value:
            return Named(self._rules.key(uri), canonical_instance(unescape(value)))
        text = unescape(uri.user or b"")
        if not text.startswith(_PREFIX):
            return None
        for key in self._keys:
            body = key.open(text[len(_PREFIX) :], uri.host)
            if body is not None:
                user, instance, epoch = _unpack(body)
                return Named(self._rules.join(user, uri.host), instance, epoch)
        return None

    def temporary(self, user: bytes, host: bytes, instance: bytes, epoch: int) -> bytes:
        """The user part of a new temporary GRUU; b"" if the names are too long for one."""
        body = _pack(user, instance, epoch)
        return _PREFIX + self._keys[0].seal(body, host) if body else b""


class Offer:
    """The GRUUs in one answer: one public and one temporary for each instance (§5.2)."""

    __slots__ = ("_gruus", "_host", "_place", "_texts", "_user")

    def __init__(self, gruus: Gruus, user: bytes, host: bytes, place: bytes) -> None:
        self._gruus = gruus
        self._user = user
        self._host = host
        self._place = place
        self._texts: dict[tuple[bytes, bytes], bytes] = {}

    def params(self, binding: Binding) -> bytes:
        """``;pub-gruu="..."`` and ``;temp-gruu="..."`` for a Contact; b"" without instance."""
        instance = binding.instance
        if not instance:
            return b""
        # RFC 5630 §5.2.1: a SIPS Contact gets SIPS GRUUs
        scheme = b"sips:" if binding.contact[:6].lower() == b"<sips:" else b"sip:"
        text = self._texts.get((scheme, instance))
        if text is None:
            text = self._texts[scheme, instance] = self._text(scheme, instance, binding.epoch)
        return text

    def _text(self, scheme: bytes, instance: bytes, epoch: int) -> bytes:
        user = quote_from_bytes(self._user, _USER_SAFE).encode()
        gr = quote_from_bytes(instance, _PARAM_SAFE).encode()
        # as quoted-strings: neither a quote nor a backslash is in what can stand in a URI
        text = b';pub-gruu="%s%s@%s;gr=%s"' % (scheme, user, self._place, gr)
        if epoch:
            hidden = self._gruus.temporary(self._user, self._host, instance, epoch)
            if hidden:
                text += b';temp-gruu="%s%s@%s;gr"' % (scheme, hidden, self._place)
        return text


def next_epoch(
    rows: Iterable[Binding], contact: Contact, reg_id: int, call_id: bytes, wanted: bool
) -> int:
    """The epoch that a live Contact gives all bindings of its instance (§5.1).

    ``rows``: the bindings of the address-of-record.  ``wanted``: the UA supports GRUUs.  It stays
    what it is unless the binding that was refreshed last, of the same reg-id if the Contact has
    one, came with another Call-ID.
    """
    if not contact.instance:
        return 0
    same = [row for row in rows if row.instance == contact.instance]
    epoch = max((row.epoch for row in same), default=0)
    peers = [row for row in same if row.reg_id == reg_id] if reg_id else same
    if epoch and peers and max(peers, key=_stamp).call_id != call_id:
        return _new_epoch()
    return epoch or (_new_epoch() if wanted else 0)


def _stamp(binding: Binding) -> int:
    return binding.stamp


def _new_epoch() -> int:
    return secrets.randbits(8 * _EPOCH_OCTETS) or 1


class _Key:
    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(digest(key, b"sipedge temp-gruu AES-SIV", "sha512"))

    def seal(self, body: bytes, host: bytes) -> bytes:
        return urlsafe_b64encode(self._cipher.encrypt(body, [host])).rstrip(b"=")

    def open(self, text: bytes, host: bytes) -> bytes | None:
        try:
            raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        except (Error, ValueError):
            return None
        # one spelling only; the decoder passes over octets that are none of base64
        if len(raw) <= _TAG_OCTETS or urlsafe_b64encode(raw).rstrip(b"=") != text:
            return None
        try:
            return self._cipher.decrypt(raw, [host])
        except InvalidTag:
            return None


def _pack(user: bytes, instance: bytes, epoch: int) -> bytes:
    uuid = _UUID.fullmatch(instance) is not None
    raw = bytes.fromhex(instance[9:].replace(b"-", b"").decode()) if uuid else instance
    if len(user) > 255 or (not uuid and len(raw) >= _IS_UUID):
        return b""
    body = b"".join((
        secrets.token_bytes(_SALT_OCTETS),
        epoch.to_bytes(_EPOCH_OCTETS, "big"),
        bytes((len(user), _IS_UUID if uuid else len(raw))),
        user,
        raw,
    ))  # fmt: skip
    return body + bytes(-len(body) % _BLOCK)


def _unpack(body: bytes) -> tuple[bytes, bytes, int]:
    """User, instance-id and epoch.  Only what ``_pack`` made comes here: the tag was right."""
    epoch = int.from_bytes(body[_SALT_OCTETS : _SALT_OCTETS + _EPOCH_OCTETS], "big")
    user_octets, octets = body[_HEAD_OCTETS - 2], body[_HEAD_OCTETS - 1]
    at = _HEAD_OCTETS + user_octets
    user = body[_HEAD_OCTETS:at]
    if octets != _IS_UUID:
        return user, body[at : at + octets], epoch
    text = body[at : at + 16].hex()
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return user, b"urn:uuid:" + "-".join(parts).encode(), epoch
