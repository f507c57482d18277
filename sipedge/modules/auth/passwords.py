"""Stop 6, auth: the password file: its lines, how they are written, and the source that reads it.

Strategy: one line a user, ``user:realm:`` and then either the hashes H(A1) for MD5, SHA-256 and
SHA-512-256 (what ``sipedge passwd`` writes; an empty one is not there) or ``plain:`` and the
password.  All of it is in memory; once a second a look at the file's date says whether to read it
again.  A file that cannot be read then changes nothing.  H(A1) is as good as the password, so a
file that others can read is refused.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sipedge.errors import ConfigError
from sipedge.modules.auth.credentials import Secret, dummy_hashes
from sipedge.modules.auth.digest import ALGORITHMS, HEX_DIGITS, ha1

log = logging.getLogger("sipedge.auth")

_HEX: Final = re.compile(rb"[0-9A-Fa-f]*")
_NO_NAME: Final = re.compile(r"[:\x00-\x1f\x7f]|^#|^\s|\s$")
_ORDER: Final = tuple(ALGORITHMS)  # of the hashes in a line

Users = dict[tuple[bytes, bytes], Mapping[bytes, bytes]]
#: what changes when a file does
Signature = tuple[int, int, int]


def hashes(user: bytes, realm: bytes, password: bytes) -> dict[bytes, bytes]:
    """H(A1) by algorithm."""
    return {name: ha1(name, user, realm, password) for name in _ORDER}


def password_line(user: str, realm: str, password: str) -> str:
    """The line of a user (without its end); raises ``ValueError`` for what cannot stand in one."""
    for what, name in (("user", user), ("realm", realm)):
        if not name or _NO_NAME.search(name):
            raise ValueError(
                f"a {what} is not empty, has no colon and no control characters, "
                "and neither # nor white space at its ends"
            )
    if not password or any(c in password for c in "\r\n\0"):
        raise ValueError("a password is not empty and stands on one line")
    hashed = hashes(user.encode(), realm.encode(), password.encode())
    return f"{user}:{realm}:" + ":".join(digits.decode() for digits in hashed.values())


def parse_passwords(data: bytes) -> Users:
    """The users of a file; raises ``ValueError`` with the number of the first line that is none."""
    users: Users = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        row = line.rstrip(b"\r")
        if not row.strip() or row.startswith(b"#"):
            continue
        user, _, rest = row.partition(b":")
        realm, _, rest = rest.partition(b":")
        if not user or not realm or not rest:
            raise ValueError(f"line {number}: not user:realm:hash or user:realm:plain:password")
        if (user, realm) in users:
            raise ValueError(f"line {number}: the same user and realm as in a line above")
        users[user, realm] = _hashes_of(user, realm, rest, number)
    return users


def _hashes_of(user: bytes, realm: bytes, rest: bytes, number: int) -> Mapping[bytes, bytes]:
    kind, _, password = rest.partition(b":")
    if kind == b"plain":
        if not password:
            raise ValueError(f"line {number}: the password is empty")
        return hashes(user, realm, password)
    fields = rest.split(b":")
    if len(fields) > len(_ORDER):
        raise ValueError(f"line {number}: more than {len(_ORDER)} hashes")
    found = {}
    for name, field in zip(_ORDER, fields, strict=False):
        digits = field.strip()
        if digits and (len(digits) != HEX_DIGITS[name] or not _HEX.fullmatch(digits)):
            raise ValueError(
                f"line {number}: the hash for {name.decode()} does not have "
                f"{HEX_DIGITS[name]} hexadecimal digits"
            )
        if digits:
            found[name] = digits.lower()
    if not found:
        raise ValueError(f"line {number}: no hash")
    return found


def _read(path: Path) -> tuple[bytes, Signature]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if os.name == "posix" and mode & 0o077:
            raise ValueError(
                f"mode {mode:04o} lets others read or change it; "
                f"run: chmod 600 {shlex.quote(str(path))}"
            )
        return file.read(), _signature(status)


def _signature(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino


class FileSource:
    """A password file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Raises ``ConfigError`` (without a place) if the file cannot be used."""
        self._path = path
        self.dummy: Secret = dummy_hashes()
        try:
            data, self._signature = _read(path)
            self._users = parse_passwords(data)
        except FileNotFoundError:
            name = shlex.quote(str(path))
            raise ConfigError(
                f"password file {path}: there is none; make one with: sipedge passwd {name} "
                "alice example.com"
            ) from None
        except OSError as exc:
            raise ConfigError(f"password file {path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise ConfigError(f"password file {path}: {exc}") from exc

    def find(self, user: bytes, realm: bytes) -> Secret | None:
        return self._users.get((user, realm))

    def look(self, now: float) -> None:
        """Read the file again if it has changed; the host calls it once a second."""
        try:
            signature = _signature(self._path.stat())
            if signature == self._signature:
                return
            self._signature = signature  # a file that is no good is complained about once
            data, self._signature = _read(self._path)
            self._users = parse_passwords(data)
        except OSError as exc:
            if self._signature != (0, 0, 0):
                log.error("password file %s: %s; the old one counts", self._path, exc.strerror)
            self._signature = (0, 0, 0)
        except ValueError as exc:
            log.error("password file %s: %s; the old one counts", self._path, exc)
        else:
            log.info("password file %s: read again, %d users", self._path, len(self._users))

    def close(self) -> None:
        """Nothing is open."""


def write_password(path: Path, user: str, realm: str, line: str | None) -> bool:
    """Put the line of a user into a file, in the place of an older one; ``None``: remove it.

    The file is made if it is not there, readable by its owner only, and replaced as a whole: who
    reads it at the same time sees the old one or the new one.  Returns whether there was a line
    of that user.  Raises ``OSError``.
    """
    path = path.resolve()  # of a link, the file that it names is replaced
    try:
        old = path.read_text()
        owner = path.stat()
    except FileNotFoundError:
        old, owner = "", None
    lines, mine, found = old.splitlines(), f"{user}:{realm}:", False
    kept = []
    for row in lines:
        if not row.startswith(mine):
            kept.append(row)
        else:
            found = True
            if line is not None:
                kept.append(line)
                line = None
    if line is not None and not found:
        kept.append(line)
    _replace(path, "".join(row + "\n" for row in kept), owner)
    return found


def _replace(path: Path, text: str, owner: os.stat_result | None) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            if owner is not None and owner.st_uid != os.geteuid():
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
