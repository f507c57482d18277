"""Stop 6, auth: a table of subscribers in SQL, as Kamailio has one; SQLite is its simplest home.

Strategy: one table (``username``, ``domain``, ``ha1``, ``ha1_sha256``, ``ha1_sha512t256``), of
which only the columns of the algorithms on offer are read.  A look-up by primary key in an SQLite
file takes some ten microseconds, no more than the hashes, so it is done in place.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sipedge.errors import ConfigError
from sipedge.modules.auth.credentials import Secret, SourceDown, dummy_hashes
from sipedge.modules.auth.digest import MD5, SHA_256, SHA_512_256

log = logging.getLogger("sipedge.auth")

COLUMNS: Final = {MD5: "ha1", SHA_256: "ha1_sha256", SHA_512_256: "ha1_sha512t256"}
#: for a table that is not there yet; SQLite and PostgreSQL take it as it is
SCHEMA: Final = """\
CREATE TABLE subscriber (
    username TEXT NOT NULL,
    domain TEXT NOT NULL,
    ha1 TEXT NOT NULL DEFAULT '',
    ha1_sha256 TEXT NOT NULL DEFAULT '',
    ha1_sha512t256 TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (username, domain)
)"""
#: seconds that a look-up waits for somebody who writes; all of the proxy waits with it
_PATIENCE_S: Final = 0.02
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


def is_table(name: str) -> bool:
    """May this stand in a query as the name of a table?"""
    return _TABLE.fullmatch(name) is not None


def query(table: str, algorithms: Iterable[bytes], placeholder: str) -> str:
    """The look-up of one subscriber; ``placeholder`` is the driver's."""
    columns = ", ".join(COLUMNS[name] for name in algorithms)
    return (
        f"SELECT {columns} FROM {table} WHERE username = {placeholder} AND domain = {placeholder}"
    )


def secret_of(row: Sequence[str | None] | None, algorithms: Iterable[bytes]) -> Secret | None:
    """A row of ``query`` as hashes by algorithm; empty columns are not there."""
    if row is None:
        return None
    pairs = zip(algorithms, row, strict=True)
    return {name: digits.lower().encode() for name, digits in pairs if digits}


class SqliteSource:
    """The table in an SQLite file, opened for reading."""

    def __init__(self, path: Path, table: str, algorithms: tuple[bytes, ...]) -> None:
        """Raises ``ConfigError`` (without a place) if the table cannot be read."""
        self.dummy: Secret = dummy_hashes()
        self._algorithms = algorithms
        self._query = query(table, algorithms, "?")
        try:
            self._db = sqlite3.connect(
                f"file:{quote(str(path))}?mode=ro",
                timeout=_PATIENCE_S,
                isolation_level=None,
                uri=True,
            )
        except sqlite3.Error as exc:
            raise ConfigError(f"credentials: {path}: {exc}") from exc
        try:
            self._db.execute(self._query, ("", "")).fetchone()
        except sqlite3.Error as exc:
            self._db.close()
            raise ConfigError(
                f"credentials: {path}: {exc}; the table {table} needs username, domain and a "
                "column for each algorithm, here " + ", ".join(COLUMNS[name] for name in algorithms)
            ) from exc

    def find(self, user: bytes, realm: bytes) -> Secret | None:
        try:
            values = user.decode(), realm.decode()
        except UnicodeDecodeError:
            return None
        try:
            row = self._db.execute(self._query, values).fetchone()
        except sqlite3.Error as exc:
            log.error("credentials: SQLite: %s", exc)
            raise SourceDown from exc
        return secret_of(row, self._algorithms)

    def close(self) -> None:
        self._db.close()
