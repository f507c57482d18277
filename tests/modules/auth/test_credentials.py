"""Functions of the operator as sources."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sipedge.modules.auth.credentials import (
    AsyncFunctionSource,
    FunctionSource,
    function_source,
    hash_of,
)
from tests.digest import hashed

USERS: dict[tuple[str, str], Any] = {
    ("alice", "example.com"): "secret",
    ("bob", "example.com"): {"sha-256": "ABCD"},
    ("eve", "example.com"): 42,
}


def known(user: str, realm: str) -> Any:
    return USERS.get((user, realm))


async def slow(user: str, realm: str) -> Any:
    await asyncio.sleep(0)
    return known(user, realm)


def test_a_plain_function() -> None:
    source = function_source(known)
    assert isinstance(source, FunctionSource)
    assert source.find(b"alice", b"example.com") == b"secret"
    assert source.find(b"bob", b"example.com") == {b"SHA-256": b"abcd"}
    assert source.find(b"carol", b"example.com") is None
    assert source.find(b"\xff", b"example.com") is None
    with pytest.raises(TypeError, match="must return the password"):
        source.find(b"eve", b"example.com")
    source.close()


def test_a_coroutine_function() -> None:
    source = function_source(slow)
    assert isinstance(source, AsyncFunctionSource)

    async def ask() -> None:
        assert await source.find_async(b"alice", b"example.com") == b"secret"
        assert await source.find_async(b"carol", b"example.com") is None
        assert await source.find_async(b"\xff", b"example.com") is None

    asyncio.run(ask())


def test_a_password_has_every_hash_and_hashes_have_those_that_are_there() -> None:
    digits = hashed("SHA-256", "alice:example.com:secret").encode()
    assert hash_of(b"secret", b"SHA-256", b"alice", b"example.com") == digits
    assert hash_of({b"SHA-256": digits}, b"SHA-256", b"alice", b"example.com") == digits
    assert hash_of({b"SHA-256": digits}, b"MD5", b"alice", b"example.com") is None
