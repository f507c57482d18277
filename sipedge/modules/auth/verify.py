"""Stop 6, auth: is this request from whom it says?  Everything but the look-up of the secret.

Strategy: ``begin`` finds the credentials that are for us, the caller asks its source for the secret
(at once or by waiting), ``finish`` computes.  It computes the same for a user who is not there as
for a wrong password (requirement AUT-14), and judges the nonce last: only who knows the password
learns that it was stale (RFC 7616 §3.3).  What was found is remembered with the message, so asking
twice about one request is no replay.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sipedge.errors import ParseError
from sipedge.module import FAIL, OK, RC, Rc
from sipedge.modules.auth.credentials import Secret, hash_of
from sipedge.modules.auth.digest import Credentials, parse_credentials, response
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import FROM, TO
from sipedge.sip.uri import Uri, parse_uri, unescape

if TYPE_CHECKING:
    from sipedge.core import Core
    from sipedge.modules.auth.nonce import Nonces, Replays
    from sipedge.modules.auth.throttle import Throttle
    from sipedge.sip.message import SipMessage

log = logging.getLogger("sipedge.auth")

# Kamailio's codes
WRONG_PASSWORD: Final = RC[-2]
USER_UNKNOWN: Final = RC[-3]
STALE_NONCE: Final = RC[-4]
NO_CREDENTIALS: Final = RC[-5]
NONCE_REUSED: Final = RC[-6]
USER_MISMATCH: Final = RC[-8]

#: keys of ``msg.recall``: the code by (VERDICT, header, realm), the user who was authenticated, the
#: realms that were asked for, whether the user is another one, seconds for which the source is not
#: listened to
VERDICT: Final = "auth.verdict"
USER: Final = "auth.user"
REALMS: Final = "auth.realms"
MISMATCH: Final = "auth.mismatch"
BLOCKED: Final = "auth.blocked"

#: RFC 3261 §22.1: these cannot be challenged, so they are not asked either
UNASKED: Final = (b"ACK", b"CANCEL")


class Verifier:
    """Judges credentials.  ``algorithms``: those on offer; ``legacy``: those without qop count."""

    def __init__(
        self,
        core: Core,
        algorithms: tuple[bytes, ...],
        legacy: bool,
        nonces: Nonces,
        replays: Replays,
        throttle: Throttle,
        dummy: Secret,
    ) -> None:
        self._core = core
        self._algorithms = algorithms
        self._legacy = legacy
        self._nonces = nonces
        self._replays = replays
        self._throttle = throttle
        self._dummy = dummy

    def begin(self, msg: SipMessage, realm: bytes, header: bytes) -> Credentials | Rc:
        """The credentials that have to be verified, or what is known without."""
        known: Rc | None = msg.recall((VERDICT, header, realm))
        if known is not None:
            return known
        msg.remember(REALMS, {*(msg.recall(REALMS) or ()), realm})
        found, mine = self._find(msg, realm, header)
        if msg.method in UNASKED:
            return OK
        blocked = self._throttle.blocked(msg.flow.remote[0], self._core.now)
        if blocked:
            msg.remember(BLOCKED, blocked)
            self._core.stats["auth_throttled"] += 1
            return FAIL
        if found is not None:
            return found
        return FAIL if mine else NO_CREDENTIALS

    def _find(
        self, msg: SipMessage, realm: bytes, header: bytes
    ) -> tuple[Credentials | None, bool]:
        """The first acceptable credentials of the realm, and whether there are any of it."""
        mine = False
        for _, found in rows_of(msg, realm, header):
            mine = True
            why = self._unacceptable(msg, found)
            if not why:
                return found, True
            log.info("digest: %s, realm %s, from %s", why, _shown(realm), msg.flow.name)
        return None, mine

    def _unacceptable(self, msg: SipMessage, found: Credentials) -> str:
        """Why these credentials answer no challenge of ours (requirement AUT-16)."""
        if found.algorithm not in self._algorithms:
            return f"algorithm {_shown(found.algorithm)} was not offered"
        if found.qop not in (b"", b"auth"):
            return f"qop {_shown(found.qop)} was not offered"
        if not found.qop and not self._legacy:
            return "no qop"
        if found.userhash:
            return "userhash was not offered"
        if not self._is_served(found.uri, msg.ruri):
            return f"uri {_shown(found.uri)} is for somebody else"
        return ""

    def _is_served(self, raw: bytes, ruri: bytes) -> bool:
        """RFC 3261 §22.4 item 6, RFC 7616 §3.4.6: the uri need not be the Request-URI to the letter
        (proxies rewrite it, phones leave parameters out), but it must mean this server."""
        if raw == ruri:
            return True
        try:
            uri = parse_uri(raw)
            return self._core.is_myself(uri) or uri.host == parse_uri(ruri).host != b""
        except ParseError:
            return False

    def finish(
        self,
        msg: SipMessage,
        realm: bytes,
        header: bytes,
        credentials: Credentials,
        secret: Secret | None,
    ) -> Rc:
        """Verify; ``secret`` is what the source knows of the user."""
        code = self._judge(msg, realm, credentials, secret)
        core = self._core
        msg.remember((VERDICT, header, realm), code)
        if code in (WRONG_PASSWORD, USER_UNKNOWN):
            self._throttle.failed(msg.flow.remote[0], core.now)
        if code:
            msg.remember(USER, (credentials.username, realm))
            if msg.method == b"INVITE":
                # its retransmissions carry the same nonce count; the transaction absorbs them, and
                # whatever the route answers without state is answered through it (AUT-07)
                core.new_transaction(msg)
        else:
            log.info(
                "digest: %s, user %s, realm %s, from %s",
                _REASONS[code], _shown(credentials.username), _shown(realm), msg.flow.name,
            )  # fmt: skip
        return code

    def _judge(
        self, msg: SipMessage, realm: bytes, credentials: Credentials, secret: Secret | None
    ) -> Rc:
        user, algorithm = credentials.username, credentials.algorithm
        there = secret is not None
        hashed = hash_of(secret if secret is not None else self._dummy, algorithm, user, realm)
        if hashed is None:
            log.warning(
                "digest: there is no hash for %s of user %s, realm %s; add it, or take %s out of "
                "the parameter algorithms",
                algorithm.decode(), _shown(user), _shown(realm), algorithm.decode(),
            )  # fmt: skip
            hashed, there = b"", False
        expected = response(credentials, hashed, msg.method)
        stats = self._core.stats
        if not hmac.compare_digest(expected, credentials.response) or not there:
            if secret is None:
                stats["auth_unknown_user"] += 1
                return USER_UNKNOWN
            stats["auth_wrong_password"] += 1
            return WRONG_PASSWORD
        now_ms = int(self._core.wall() * 1000)
        made_ms = self._nonces.issued(credentials.nonce, realm, now_ms)
        if made_ms is None:
            stats["auth_stale_nonce"] += 1
            return STALE_NONCE
        if not self._replays.use(credentials.nonce, made_ms, credentials.nc, now_ms):
            stats["auth_replay"] += 1
            return NONCE_REUSED
        stats["auth_ok"] += 1
        return OK

    def check_identity(self, msg: SipMessage, realm: bytes) -> Rc:
        """Does the authenticated user own the address in To (REGISTER) or From (all others)?"""
        authenticated: tuple[bytes, bytes] | None = msg.recall(USER)
        if authenticated is None:
            return OK  # an ACK: nobody was asked
        header = TO if msg.method == b"REGISTER" else FROM
        try:
            uri = parse_uri(parse_nameaddr(msg.first(header) or b"").uri)
        except ParseError:
            return FAIL
        if self._owns(authenticated[0], realm, uri):
            return OK
        self._core.stats["auth_user_mismatch"] += 1
        log.info(
            "digest: user %s, realm %s, is not %s, from %s",
            _shown(authenticated[0]), _shown(realm), _shown(uri.raw), msg.flow.name,
        )  # fmt: skip
        msg.remember(MISMATCH, True)
        return USER_MISMATCH

    def _owns(self, user: bytes, realm: bytes, uri: Uri) -> bool:
        """``user`` of ``realm`` owns ``user@realm``.  If the realm is no domain of ours but just a
        name, it stands for all our domains."""
        name, _, domain = user.partition(b"@")
        if uri.user is None or unescape(uri.user) != name:
            return False
        if uri.host == (domain or realm).lower():
            return True
        return not domain and self._core.is_myself(uri) and not self._is_domain(realm)

    def _is_domain(self, realm: bytes) -> bool:
        try:
            return self._core.is_myself(parse_uri(b"sip:" + realm))
        except ParseError:
            return False


def rows_of(msg: SipMessage, realm: bytes, header: bytes) -> Iterator[tuple[int, Credentials]]:
    """The digest credentials for a realm, good or bad, and the rows where they stand."""
    for at, name in enumerate(msg.ids):
        if name == header:
            # one row holds one set of credentials: commas separate its parameters
            found = parse_credentials(msg.row_value(at))
            if found is not None and found.realm == realm:
                yield at, found


_REASONS: Final = {
    WRONG_PASSWORD: "wrong password", USER_UNKNOWN: "no such user", STALE_NONCE: "stale nonce",
    NONCE_REUSED: "nonce count used before",
}  # fmt: skip


def _shown(text: bytes) -> str:
    """What a peer sent, for a log record: short, and on one line."""
    return ascii(text[:64].decode("utf-8", "backslashreplace"))
