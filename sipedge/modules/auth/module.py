"""Module auth: digest authentication (Kamailio ``auth`` and ``auth_db``; RFC 7616, RFC 8760).

Stop 6 of a datagram.  Strategy: this file is what routes may call and what the operator may set;
it sends the challenges, and brings a ``Verifier`` together with a source of credentials.  The
functions whose names end in ``_async`` are the same for ``async def`` routes, and the only ones for
sources that have to be waited for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, Final

from sipedge.errors import ConfigError
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    FAIL,
    OK,
    REQUEST_ROUTE,
    Context,
    Function,
    ModuleExports,
    Param,
    PseudoVariable,
    Rc,
)
from sipedge.modules.args import Text, as_bytes
from sipedge.modules.auth.credentials import Source, WaitingSource, function_source
from sipedge.modules.auth.digest import ALGORITHMS, challenge
from sipedge.modules.auth.nonce import Nonces, Replays
from sipedge.modules.auth.passwords import FileSource
from sipedge.modules.auth.postgres import PostgresSource
from sipedge.modules.auth.subscribers import SqliteSource, is_table
from sipedge.modules.auth.throttle import Throttle
from sipedge.modules.auth.verify import (
    BLOCKED,
    MISMATCH,
    REALMS,
    UNASKED,
    USER,
    VERDICT,
    Verifier,
    rows_of,
)
from sipedge.sip.message import SipMessage
from sipedge.sip.names import (
    AUTHORIZATION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
)
from sipedge.twins import find_calls

STALE_FLAG: Final = 16
#: Kamailio's flags of a challenge: 1 qop=auth, 4 no automatic error; here both are always so
_CHALLENGE_FLAGS: Final = (0, 1, 4, 5)
CHECK_IDENTITY: Final = 1
_STALE_CODES: Final = (-4, -6)
_SHORTEST_SECRET: Final = 16  # octets
_LOOK_S: Final = 1.0  # seconds between two looks at the password file
_ASYNC: Final = {
    name: f"{name}_async" for name in ("www_authenticate", "proxy_authenticate", "auth_check")
}
Secrets = bytes | str | tuple[bytes, ...] | None


@dataclass(slots=True)
class AuthParams:
    credentials: str | Callable[[str, str], Any] = ""
    table: str = "subscriber"
    algorithms: str = "SHA-256, MD5"
    require_qop: int = 0
    secret: Secrets = None
    nonce_expire: int = 300
    nc_array_size: int = 65536
    max_failures: int = 0
    failure_period: int = 60


class AuthModule:
    """See ``docs/modules/auth.md``."""

    def __init__(self) -> None:
        self.params = AuthParams()
        self._source: Source | None = None
        self._waiting: WaitingSource | None = None
        self.exports = ModuleExports(
            "auth",
            functions=tuple(
                Function(call.__name__, call, REQUEST_ROUTE)
                for call in (
                    self.www_challenge, self.proxy_challenge, self.auth_challenge,
                    self.www_authenticate, self.proxy_authenticate, self.auth_check,
                    self.www_authenticate_async, self.proxy_authenticate_async,
                    self.auth_check_async, self.consume_credentials, self.has_credentials,
                    self.is_user,
                )
            ),
            params=(
                Param("credentials", (str, FunctionType), "where the users are"),
                Param("table", str, "the table of subscribers in SQL"),
                Param("algorithms", str, "what is offered, the preferred one first"),
                Param("require_qop", int, "1: refuse answers in the form of RFC 2069", 0, 1),
                Param("secret", (bytes, str, tuple), "the key of nonces; several registrars share"),
                Param("nonce_expire", int, "seconds that a nonce may be used", 1, 86400),
                Param("nc_array_size", int, "nonces whose counts are remembered", 1, 2**24),
                Param("max_failures", int, "wrong answers of an address; 0: any number", 0),
                Param("failure_period", int, "seconds in which they are counted", 1, 86400),
            ),
            pseudo_variables=(
                PseudoVariable("au", self._pv_user),
                PseudoVariable("ar", self._pv_realm),
            ),
        )  # fmt: skip

    # -- the start --------------------------------------------------------------------------------

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        params, core = self.params, ctx.core
        self._core = core
        self._algorithms = _algorithms(ctx, params.algorithms)
        lifetime_ms = params.nonce_expire * 1000
        self._nonces = Nonces(_keys(ctx, params.secret), lifetime_ms)
        self._replays = Replays(params.nc_array_size, lifetime_ms)
        source = self._open(ctx)
        if isinstance(source, FileSource):
            core.every(_LOOK_S, source.look)
        if hasattr(source, "find"):
            self._source = source
        else:
            self._waiting = source
            _refuse_plain_calls(ctx)
        self._verifier = Verifier(
            core,
            self._algorithms,
            not params.require_qop,
            self._nonces,
            self._replays,
            Throttle(params.max_failures, params.failure_period),
            source.dummy,
        )

    def _open(self, ctx: Context) -> Any:
        wanted, table = self.params.credentials, self.params.table
        if not isinstance(wanted, str):
            return function_source(wanted)
        if not is_table(table):
            raise ctx.param_error("table", f"{table!r} is no name of a table")
        kind, _, where = wanted.partition(":///" if wanted.startswith("sqlite:") else ":")
        path = Path(ctx.config.file).absolute().parent / where
        try:
            if kind == "file" and where:
                return FileSource(path)
            if kind == "sqlite" and where:
                return SqliteSource(path, table, self._algorithms)
            if kind in ("postgres", "postgresql"):
                return PostgresSource(wanted, table, self._algorithms)
        except ConfigError as exc:
            raise ctx.param_error("credentials", exc.message) from exc.__cause__
        raise ctx.param_error(
            "credentials",
            "says where the users are; write "
            'modparam("auth", "credentials", "file:passwords"), "sqlite:///subscriber.db", '
            '"postgresql://host/database", or a function (user, realm) -> password',
        )

    @hookimpl
    def child_init(self, rank: int) -> None:
        self._replays.begin(self._now_ms())

    @hookimpl
    def mod_destroy(self) -> None:
        source = self._source or self._waiting
        if source is not None:
            source.close()

    def _now_ms(self) -> int:
        return int(self._core.wall() * 1000)

    # -- challenges -------------------------------------------------------------------------------

    def www_challenge(self, msg: SipMessage, realm: Text, flags: int = 0) -> Rc:
        """Answer 401 with a WWW-Authenticate for each algorithm (Kamailio ``www_challenge``).

        ``flags``: 16 says ``stale=true`` in any case; without it, if the nonce was.  Returns 1 if
        the challenge was sent, -1 if not: for ACK and CANCEL, and if there is a final answer.
        """
        return self._challenge(msg, as_bytes(realm), flags, AUTHORIZATION)

    def proxy_challenge(self, msg: SipMessage, realm: Text, flags: int = 0) -> Rc:
        """Answer 407 with Proxy-Authenticate (Kamailio ``proxy_challenge``); see there."""
        return self._challenge(msg, as_bytes(realm), flags, PROXY_AUTHORIZATION)

    def auth_challenge(self, msg: SipMessage, realm: Text, flags: int = 0) -> Rc:
        """``www_challenge`` for a REGISTER, else ``proxy_challenge`` (Kamailio ``auth_challenge``).

        After ``auth_check`` has returned -8 it is 403: another password would not help.
        """
        return self._challenge(msg, as_bytes(realm), flags, _header(msg))

    def _challenge(self, msg: SipMessage, realm: bytes, flags: int, header: bytes) -> Rc:
        if flags & ~STALE_FLAG not in _CHALLENGE_FLAGS:
            raise ValueError(f"challenge: flags {flags}; there are 1, 4 and 16 (stale)")
        if msg.method in UNASKED or msg.answered:
            return FAIL  # RFC 3261 §22.1
        if msg.recall(MISMATCH):
            return _rc(self._core.reply(msg, 403, b"Forbidden"))
        blocked: float | None = msg.recall(BLOCKED)
        if blocked:
            rows = [(RETRY_AFTER, b"%d" % max(1, round(blocked)))]
            return _rc(self._core.reply(msg, 503, b"Service Unavailable", rows))
        stale = bool(flags & STALE_FLAG) or msg.recall((VERDICT, header, realm)) in _STALE_CODES
        nonce = self._nonces.make(realm, self._now_ms())
        www = header == AUTHORIZATION
        name = WWW_AUTHENTICATE if www else PROXY_AUTHENTICATE
        # RFC 8760 §2.3: one row for each algorithm, the preferred one on top
        rows = [(name, challenge(realm, nonce, each, stale)) for each in self._algorithms]
        self._core.stats["auth_challenges"] += 1
        return _rc(self._core.reply(msg, 401 if www else 407, b"", rows))

    # -- answers ----------------------------------------------------------------------------------

    def www_authenticate(self, msg: SipMessage, realm: Text) -> Rc:
        """Verify Authorization (Kamailio auth_db ``www_authenticate``).

        Returns 1 good, -1 not acceptable, -2 wrong password, -3 no such user, -4 the nonce is
        stale, -5 no credentials for this realm, -6 used before.  ACK and CANCEL are always good.
        """
        return self._authenticate(msg, as_bytes(realm), AUTHORIZATION)

    def proxy_authenticate(self, msg: SipMessage, realm: Text) -> Rc:
        """Verify Proxy-Authorization (Kamailio auth_db ``proxy_authenticate``); codes as above."""
        return self._authenticate(msg, as_bytes(realm), PROXY_AUTHORIZATION)

    def auth_check(self, msg: SipMessage, realm: Text, flags: int = CHECK_IDENTITY) -> Rc:
        """Verify a REGISTER by Authorization, all else by Proxy-Authorization (``auth_check``).

        ``flags`` 1: the user must own the address in To (REGISTER) or From (all else); if not, -8.
        0: not asked.  The other codes are those of ``www_authenticate``.
        """
        raw = as_bytes(realm)
        return self._checked(msg, raw, flags, self._authenticate(msg, raw, _header(msg)))

    async def www_authenticate_async(self, msg: SipMessage, realm: Text) -> Rc:
        """``www_authenticate`` for an ``async def`` route; any source."""
        return await self._authenticate_async(msg, as_bytes(realm), AUTHORIZATION)

    async def proxy_authenticate_async(self, msg: SipMessage, realm: Text) -> Rc:
        """``proxy_authenticate`` for an ``async def`` route; any source."""
        return await self._authenticate_async(msg, as_bytes(realm), PROXY_AUTHORIZATION)

    async def auth_check_async(
        self, msg: SipMessage, realm: Text, flags: int = CHECK_IDENTITY
    ) -> Rc:
        """``auth_check`` for an ``async def`` route; any source."""
        raw = as_bytes(realm)
        code = await self._authenticate_async(msg, raw, _header(msg))
        return self._checked(msg, raw, flags, code)

    def _authenticate(self, msg: SipMessage, realm: bytes, header: bytes) -> Rc:
        source = self._source
        if source is None:
            raise ConfigError(_use_async("www_authenticate"))
        found = self._verifier.begin(msg, realm, header)
        if isinstance(found, Rc):
            return found
        secret = source.find(found.username, realm)
        return self._verifier.finish(msg, realm, header, found, secret)

    async def _authenticate_async(self, msg: SipMessage, realm: bytes, header: bytes) -> Rc:
        source = self._waiting
        if source is None:
            return self._authenticate(msg, realm, header)
        found = self._verifier.begin(msg, realm, header)
        if isinstance(found, Rc):
            return found
        secret = await source.find_async(found.username, realm)
        return self._verifier.finish(msg, realm, header, found, secret)

    def _checked(self, msg: SipMessage, realm: bytes, flags: int, code: Rc) -> Rc:
        if flags not in (0, CHECK_IDENTITY):
            raise ValueError(f"auth_check: flags {flags}; there is 1 (identity)")
        return self._verifier.check_identity(msg, realm) if code and flags else code

    # -- afterwards -------------------------------------------------------------------------------

    def consume_credentials(self, msg: SipMessage, realm: Text | None = None) -> Rc:
        """Remove the Proxy-Authorization that is for us (Kamailio ``consume_credentials``).

        Of ``realm``, or of the realms that this request was asked for.  Authorization, and what is
        for others, stays as it is (RFC 3261 §22.3).  1 if something was removed, else -1.
        """
        realms = (msg.recall(REALMS) or ()) if realm is None else (as_bytes(realm),)
        rows = [at for each in realms for at, _ in rows_of(msg, each, PROXY_AUTHORIZATION)]
        for at in sorted(rows, reverse=True):
            msg.delete(at)
        return _rc(bool(rows))

    def has_credentials(self, msg: SipMessage, realm: Text) -> Rc:
        """1 if there are digest credentials for this realm, good or bad (``has_credentials``)."""
        raw = as_bytes(realm)
        headers = (AUTHORIZATION, PROXY_AUTHORIZATION)
        return _rc(any(True for header in headers for _ in rows_of(msg, raw, header)))

    def is_user(self, msg: SipMessage, user: Text) -> Rc:
        """1 if that user was authenticated, else -1 (Kamailio siputils ``is_user``)."""
        authenticated: tuple[bytes, bytes] | None = msg.recall(USER)
        return _rc(authenticated is not None and authenticated[0] == as_bytes(user))

    def _pv_user(self, msg: Any, key: str | None) -> bytes | None:
        authenticated: tuple[bytes, bytes] | None = msg.recall(USER)
        return None if authenticated is None else authenticated[0]

    def _pv_realm(self, msg: Any, key: str | None) -> bytes | None:
        authenticated: tuple[bytes, bytes] | None = msg.recall(USER)
        return None if authenticated is None else authenticated[1]


def _rc(done: bool) -> Rc:
    return OK if done else FAIL


def _header(msg: SipMessage) -> bytes:
    """RFC 3261 §22: a registrar is a UAS, for everything else we are a proxy."""
    return AUTHORIZATION if msg.method == b"REGISTER" else PROXY_AUTHORIZATION


def _algorithms(ctx: Context, text: str) -> tuple[bytes, ...]:
    names = tuple(name.strip().upper().encode() for name in text.split(","))
    if not set(names) <= set(ALGORITHMS) or len(set(names)) < len(names):
        known = ", ".join(name.decode() for name in ALGORITHMS)
        raise ctx.param_error(
            "algorithms", f"{text!r}: each at most once, separated by commas, of: {known}"
        )
    for name in names:
        try:
            ALGORITHMS[name](b"")
        except ValueError as exc:  # SHA-512/256 comes with OpenSSL, not with Python
            raise ctx.param_error("algorithms", f"this Python has no {name.decode()}") from exc
    return names


def _keys(ctx: Context, secret: Secrets) -> list[bytes]:
    if secret is None:
        return [secrets.token_bytes(32)]
    keys = [as_bytes(key) for key in (secret if isinstance(secret, tuple) else (secret,))]
    if not keys or min(map(len, keys)) < _SHORTEST_SECRET:
        raise ctx.param_error(
            "secret",
            f"is shorter than {_SHORTEST_SECRET} octets; make one with "
            '`sipedge keygen > nonce.key` and write keyfile("nonce.key")',
        )
    return keys


def _use_async(name: str) -> str:
    return (
        f"the credentials come from a source that has to be waited for: in an `async def` route "
        f"write await ksr.auth.{_ASYNC[name]}(...) instead of ksr.auth.{name}(...)"
    )


def _refuse_plain_calls(ctx: Context) -> None:
    """Find calls that cannot work before somebody's phone does."""
    for name, file, line in find_calls(ctx.config.routes.values(), "auth", _ASYNC):
        raise ConfigError(_use_async(name), file, line)
