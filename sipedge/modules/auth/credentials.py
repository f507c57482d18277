"""Stop 6, auth: where the secrets of users come from; what they all have in common.

Strategy: a source is asked for one (user, realm) and says what it knows: the hashes by algorithm, a
password, or nothing.  Sources that can answer at once have ``find``; those that wait have the same
as a coroutine, and are for ``async def`` routes only.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from sipedge.errors import SipError
from sipedge.modules.auth.digest import ALGORITHMS, HEX_DIGITS, ha1

#: H(A1) in lower-case hexadecimal digits by algorithm; or the password
Secret = Mapping[bytes, bytes] | bytes


class SourceDown(SipError):
    """The source of credentials cannot be asked now: 503, and nobody gets in meanwhile."""

    def __init__(self) -> None:
        super().__init__(503, b"Service Unavailable", ((b"retry-after", b"10"),))


class Source(Protocol):
    """A source that answers at once."""

    #: what is checked for a user who is not there, so that it takes as long (requirement AUT-14)
    dummy: Secret

    def find(self, user: bytes, realm: bytes) -> Secret | None:
        """The secret of a user, ``None`` if there is none; raises ``SourceDown``."""

    def close(self) -> None:
        """The end."""


class WaitingSource(Protocol):
    """A source that has to be awaited."""

    dummy: Secret

    async def find_async(self, user: bytes, realm: bytes) -> Secret | None:
        """As ``Source.find``."""

    def close(self) -> None:
        """The end."""


def dummy_hashes() -> Mapping[bytes, bytes]:
    """Hashes that nobody knows a password for."""
    return {name: secrets.token_hex(HEX_DIGITS[name] // 2).encode() for name in ALGORITHMS}


def hash_of(secret: Secret, algorithm: bytes, user: bytes, realm: bytes) -> bytes | None:
    """H(A1) of a secret; ``None`` if there is no hash of that algorithm in it."""
    if isinstance(secret, bytes):
        return ha1(algorithm, user, realm, secret)
    return secret.get(algorithm)


Answer = str | Mapping[str, str] | None
_WANTED: Final = (
    "the function for credentials must return the password (str), "
    '{"SHA-256": hexadecimal digits, ...}, or None'
)


class _Asked:
    """A function of the operator: (user, realm) -> password, hashes by algorithm, or ``None``."""

    def __init__(self, function: Callable[[str, str], Any]) -> None:
        self._function = function
        self.dummy: Secret = secrets.token_hex(8).encode()

    def _ask(self, user: bytes, realm: bytes) -> Any:
        try:
            return self._function(user.decode(), realm.decode())
        except UnicodeDecodeError:
            return None  # no name that anybody could have been given

    def close(self) -> None:
        """Nothing was opened."""


class FunctionSource(_Asked):
    """A plain function."""

    def find(self, user: bytes, realm: bytes) -> Secret | None:
        return _secret(self._ask(user, realm))


class AsyncFunctionSource(_Asked):
    """An ``async def``."""

    async def find_async(self, user: bytes, realm: bytes) -> Secret | None:
        answer: Awaitable[Answer] | None = self._ask(user, realm)
        return None if answer is None else _secret(await answer)


def function_source(function: Callable[[str, str], Any]) -> FunctionSource | AsyncFunctionSource:
    """The source for a function, plain or ``async def``."""
    if inspect.iscoroutinefunction(function):
        return AsyncFunctionSource(function)
    return FunctionSource(function)


def _secret(answer: Any) -> Secret | None:
    if answer is None:
        return None
    if isinstance(answer, str):
        return answer.encode()
    if isinstance(answer, Mapping):
        return {name.upper().encode(): digits.lower().encode() for name, digits in answer.items()}
    raise TypeError(f"{_WANTED}, not {type(answer).__name__}")
