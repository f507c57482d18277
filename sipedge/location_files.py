"""Files with bindings: our own export, and Kamailio's ``location`` table in four dresses.

Strategy: every format becomes rows of column names and texts; one function makes of such a row
what ``ul.add`` takes, or says why it cannot be carried over.  Nothing is kept but the row at hand,
and an SQLite file is opened for reading only.  No stop of a datagram: the command line's.

Kamailio's table: ``usrloc`` of version 9 (Kamailio 5 and 6).  Its SQLite driver writes times as
Julian days, its text driver as seconds since 1970, MySQL and PostgreSQL as local time.
"""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

Columns = dict[str, Any]

#: what a table must have to be a location table
_NEEDED: Final = frozenset(("username", "contact", "expires"))
_DBTEXT_COLUMN: Final = re.compile(r"(\w+)\((\w+)[^)]*\)")
_DBTEXT_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_MYSQL_NULL: Final = ("NULL", "\\N")
_JULIAN_1970: Final = 2440587.5  # days
_LATEST_JULIAN: Final = 10_000_000  # days; seconds since 1970 are more
#: bits of the column ``methods``
_METHODS: Final = (
    "INVITE", "CANCEL", "ACK", "BYE", "INFO", "REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE",
    "OPTIONS", "PRACK", "UPDATE", "REFER", "PUBLISH",
)  # fmt: skip
#: what ``ul.add`` takes of a row of our own export
_OURS: Final = (
    "aor", "contact", "params", "expires_at", "last_modified", "path", "received", "socket",
    "connection_id", "callid", "cseq", "methods", "instance", "reg_id", "ruid", "epoch",
)  # fmt: skip


class BadFile(Exception):
    """It is no file of bindings; says what was expected."""


@dataclass(slots=True, frozen=True)
class Entry:
    """One row of a file.

    ``place``: line, or id of the row.  ``arguments``: for ``ul.add``; None if ``why`` says why not.
    ``gone``: it is no error but a connection that ended, or time that passed.
    """

    place: str
    who: str
    arguments: Columns | None
    why: str = ""
    gone: bool = False


def read_bindings(path: Path, table: str, domain: str = "") -> Iterator[Entry]:
    """All rows of a file, or of a directory of Kamailio's ``db_text`` that has one.

    ``table``: where they shall go.  ``domain``: for rows that have none, because Kamailio ran
    without ``use_domain``.  Raises ``BadFile`` and ``OSError``.
    """
    if path.is_dir():
        path = path / "location"
    with path.open("rb") as file:
        head = file.read(16)
    if head == b"SQLite format 3\0":
        rows = _sqlite(path)
    elif head.lstrip()[:1] == b"{":
        yield from _json_lines(path, table)
        return
    else:
        rows = _text_table(path)
    for place, columns in rows:
        yield _entry(place, columns, table, domain)


# -- our own


def export_line(row: Columns) -> str:
    """A row of ``ul.dump`` as a line of an export file."""
    kept = {name: row[name] for name in _OURS if row.get(name) not in ("", None)}
    return json.dumps(kept, separators=(",", ":"))


def _json_lines(path: Path, table: str) -> Iterator[Entry]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                arguments = {name: row[name] for name in _OURS if name in row}
                who = f"{arguments['aor']} {arguments['contact']}"
                arguments["expires_at"] = float(arguments["expires_at"])
            except (ValueError, TypeError, KeyError, RecursionError):
                yield Entry(str(number), "", None, "is no row of an export")
                continue
            yield Entry(str(number), who, {"table": table, **arguments})


# -- Kamailio's table: rows as names and texts


def _sqlite(path: Path) -> Iterator[tuple[str, Columns]]:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        database.row_factory = sqlite3.Row
        # octets that are no UTF-8 go through as everywhere in sipedge
        database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        # in this order, so that of two flows the one that was refreshed last is the first again
        cursor = database.execute("SELECT * FROM location ORDER BY last_modified")
        _check({column[0] for column in cursor.description}, path)
        for number, row in enumerate(cursor, 1):
            yield str(number), dict(row)
    except sqlite3.Error as exc:
        raise BadFile(f"{path}: {exc}") from exc
    finally:
        database.close()


def _text_table(path: Path) -> Iterator[tuple[str, Columns]]:
    """``db_text``, or what a database client printed: one line of column names, one a row."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header = file.readline().rstrip("\r\n")
        names = [found[0] for found in _DBTEXT_COLUMN.findall(header)]
        if names:
            _check(set(names), path)
            yield from _dbtext(file, names)
            return
        delimiter = max("\t,;|", key=header.count)
        unquoted = delimiter in "\t|"  # mysql -B and sqlite3 escape, or do nothing
        names = [name.strip(' "').lower() for name in header.split(delimiter)]
        _check(set(names), path)
        if unquoted:
            reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(file, delimiter=delimiter)
        clean = _unescape_mysql if delimiter == "\t" else _null
        try:
            for cells in reader:
                if cells:
                    yield str(reader.line_num + 1), _row(names, cells, clean)
        except csv.Error as exc:
            raise BadFile(f"{path}:{reader.line_num + 1}: {exc}") from exc


def _dbtext(file: TextIO, names: list[str]) -> Iterator[tuple[str, Columns]]:
    for number, line in enumerate(file, 2):
        line = line.rstrip("\r\n")
        if line:
            cells = re.findall(r"(?:[^:\\]|\\.)*(?::|$)", line)
            yield str(number), _row(names, [cell.removesuffix(":") for cell in cells], _unescape)


def _row(names: list[str], cells: list[str], clean: Callable[[str], str]) -> Columns:
    return {name: clean(cell) for name, cell in zip(names, cells, strict=False)}


def _null(cell: str) -> str:
    return "" if cell in _MYSQL_NULL else cell


def _unescape(cell: str) -> str:
    return _DBTEXT_ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), cell)


def _unescape_mysql(cell: str) -> str:
    return _unescape(_null(cell))


def _check(names: set[str], path: Path) -> None:
    missing = _NEEDED - names
    if missing:
        raise BadFile(
            f"{path}: is no table of bindings: there is no column {', '.join(sorted(missing))}. "
            "Expected: an export of ours, Kamailio's location table as SQLite or db_text file, or "
            "the output of SELECT * FROM location with column names"
        )


# -- Kamailio's table: what a row means


def _entry(place: str, columns: Columns, table: str, domain: str) -> Entry:
    texts = {name: "" if value is None else str(value) for name, value in columns.items()}
    get = texts.get
    host = get("domain") or domain
    aor = f"{get('username')}@{host}" if host else get("username", "")
    who = f"{aor} {get('contact')}"
    if _over_connection(texts):
        why = "is reached over a connection, which ends with Kamailio; back with its next REGISTER"
        return Entry(place, who, None, why, gone=True)
    try:
        q = float(get("q") or -1)
        arguments: Columns = {
            "table": table,
            "aor": aor,
            "contact": texts["contact"],
            "expires_at": float(max(0.0, _seconds(columns["expires"]))),
            "last_modified": _seconds(columns.get("last_modified") or 0),
            "q": q if q >= 0 else None,
            "path": get("path", ""),
            "received": get("received", ""),
            "socket": get("socket", ""),
            "callid": get("callid", ""),
            "cseq": int(get("cseq") or 1),
            "methods": _methods(get("methods", "")),
            "instance": get("instance", ""),
            "reg_id": int(get("reg_id") or 0),
        }
    except (KeyError, ValueError, OverflowError) as exc:
        return Entry(place, who, None, f"cannot be read: {exc}")
    return Entry(place, who, arguments)


def _over_connection(texts: dict[str, str]) -> bool:
    """Whether Kamailio reached it over TCP, TLS or WebSocket, and not along a Path."""
    if texts.get("path"):
        return False
    socket = texts.get("socket", "").partition(":")[0].lower()
    target = texts.get("received") or texts.get("contact", "")
    found = re.search(r";transport=(\w+)", target, re.IGNORECASE)
    transport = found[1].lower() if found else socket
    return transport not in ("", "udp")


def _seconds(value: object) -> float:
    """Seconds since 1970 of any of the ways to write a time; 0: never ends."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d[ T].+", value):
        return datetime.fromisoformat(value).timestamp()
    number = float(str(value) or 0)
    if 0 < number < _LATEST_JULIAN:
        number = (number - _JULIAN_1970) * 86400
    return number


def _methods(text: str) -> list[str] | None:
    """A sum of bits; none, or all of them, is any method."""
    bits = int(text) if text else 0
    named = [name for bit, name in enumerate(_METHODS) if bits >> bit & 1]
    everything = len(named) == len(_METHODS) or bits < 0
    return None if everything or not named else named
