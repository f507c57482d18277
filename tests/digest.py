"""A client's half of digest authentication, written from RFC 7616 and not from our own code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

_HASHES: dict[str, Callable[[bytes], str]] = {
    "MD5": lambda data: hashlib.md5(data).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data).hexdigest(),
}


def parse_challenge(value: bytes | str) -> dict[str, str]:
    """The parameters of a challenge, quotes included, in order."""
    text = value.decode() if isinstance(value, bytes) else value
    assert text.startswith("Digest "), text
    return dict(re.findall(r'([\w-]+)=("[^"]*"|[^,\s]+)', text))


def hashed(algorithm: str, text: str) -> str:
    return _HASHES[algorithm](text.encode())


def answer(
    challenge: bytes | str,
    user: str,
    password: str,
    method: str,
    uri: str,
    *,
    nc: int | None = 1,
    cnonce: str = "0a4f113b",
    **changes: str,
) -> str:
    """The value of an Authorization for a challenge.

    ``nc`` ``None``: the form of RFC 2069.  ``changes`` replace parameters after the response was
    computed; their values are written as they are, an empty one leaves the parameter out.
    """
    asked = {name: value.strip('"') for name, value in parse_challenge(challenge).items()}
    algorithm = asked.get("algorithm", "MD5")
    ha1 = hashed(algorithm, f"{user}:{asked['realm']}:{password}")
    ha2 = hashed(algorithm, f"{method}:{uri}")
    if nc is None:
        response = hashed(algorithm, f"{ha1}:{asked['nonce']}:{ha2}")
    else:
        text = f"{ha1}:{asked['nonce']}:{nc:08x}:{cnonce}:auth:{ha2}"
        response = hashed(algorithm, text)
    params = {
        "username": f'"{user}"',
        "realm": f'"{asked["realm"]}"',
        "nonce": f'"{asked["nonce"]}"',
        "uri": f'"{uri}"',
        "response": f'"{response}"',
        "algorithm": algorithm,
    }
    if nc is not None:
        params |= {"cnonce": f'"{cnonce}"', "qop": "auth", "nc": f"{nc:08x}"}
    params |= changes
    return "Digest " + ", ".join(f"{name}={value}" for name, value in params.items() if value)
