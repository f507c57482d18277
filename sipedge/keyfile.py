"""Key files: the 20-octet keys of flow tokens, kept outside the configuration file.

Strategy: a text file, one key a line as 40 hexadecimal digits, ``#`` starts a comment.  New tokens
are minted with the first key; the others are older ones that are still accepted.  A file of exactly
20 octets is one raw key.  Whoever can read the key can forge tokens, so a file that group or others
can read is refused.  No stop of a datagram: this runs while the configuration loads.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
from pathlib import Path
from typing import Final

from sipedge.errors import ConfigError

KEY_OCTETS: Final = 20  # the block that RFC 5626 §5.2 feeds to HMAC-SHA1-80
_LIMIT: Final = 65536  # octets read from a key file; nobody keeps that many keys
_HEX_KEY: Final = re.compile(rb"[0-9A-Fa-f]{40}")


def new_key() -> str:
    """A fresh random key, as the line of a key file that names it (40 hexadecimal digits)."""
    return secrets.token_hex(KEY_OCTETS)


def read_keyfile(path: Path) -> tuple[bytes, ...]:
    """The keys of a key file, the current one first; each has 20 octets.

    Raises ``ConfigError`` without a place (the caller knows the line of the configuration).
    """
    data = _read_private(path)
    if len(data) == KEY_OCTETS:
        return (data,)
    if len(data) == KEY_OCTETS + 1 and data.endswith(b"\n"):
        raise ConfigError(
            f"key file {path}: 20 octets and a line feed; a raw key is exactly 20 octets "
            "(write it with printf, not echo)"
        )
    keys = []
    for number, line in enumerate(data.splitlines(), 1):
        text = line.partition(b"#")[0].strip()
        if not text:
            continue
        if not _HEX_KEY.fullmatch(text):
            raise ConfigError(
                f"key file {path}, line {number}: not a key; "
                "write 40 hexadecimal digits a line, as `sipedge keygen` prints them"
            )
        keys.append(bytes.fromhex(text.decode("ascii")))
    if not keys:
        raise ConfigError(f"key file {path}: no key in it; {_how_to_make(path)}")
    return tuple(keys)


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise ConfigError(
                    f"key file {path}: mode {mode:04o} lets others read or change the key; "
                    f"run: chmod 600 {shlex.quote(str(path))}"
                )
            return file.read(_LIMIT)
    except FileNotFoundError:
        raise ConfigError(f"key file {path}: there is none; {_how_to_make(path)}") from None
    except OSError as exc:
        raise ConfigError(f"key file {path}: {exc.strerror}") from exc


def _how_to_make(path: Path) -> str:
    name = shlex.quote(str(path))
    return f"make one with: (umask 077; sipedge keygen > {name})"
