"""Files with bindings: what each format says, and what is no such file."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from sipedge.location_files import BadFile, Entry, export_line, read_bindings

WHEN = 1_800_000_000
COLUMNS = (
    "id ruid username domain contact received path expires q callid cseq last_modified flags "
    "cflags user_agent socket methods instance reg_id server_id connection_id keepalive partition"
).split()
#: what Kamailio 5.6 stores of a phone behind an edge, as text
EDGE_ROW = {
    "id": "1", "ruid": "uloc-1", "username": "bob", "domain": "example.com",
    "contact": "sip:bob@10.0.0.9:5060;x=a", "received": "",
    "path": "<sip:t%3Ak@192.0.2.1:5060;lr;ob>, <sip:m;u@192.0.2.3;lr>", "expires": str(WHEN),
    "q": "0.50", "callid": "c1", "cseq": "3", "last_modified": str(WHEN - 600), "flags": "0",
    "cflags": "0", "user_agent": "Phone: one|two", "socket": "udp:192.0.2.5:5060", "methods": "13",
    "instance": "<urn:uuid:00000000-0000-1000-8000-aabbccddee01>", "reg_id": "2",
    "server_id": "0", "connection_id": "-1", "keepalive": "0", "partition": "0",
}  # fmt: skip
NAT_ROW = {
    **EDGE_ROW, "username": "ann", "contact": "sip:ann@10.1.1.1:5062", "path": "", "q": "-1.00",
    "received": "sip:198.51.100.7:40001", "methods": "", "instance": "", "reg_id": "0",
}  # fmt: skip
EDGE = {
    "table": "location", "aor": "bob@example.com", "contact": "sip:bob@10.0.0.9:5060;x=a",
    "expires_at": float(WHEN), "last_modified": float(WHEN - 600), "q": 0.5,
    "path": "<sip:t%3Ak@192.0.2.1:5060;lr;ob>, <sip:m;u@192.0.2.3;lr>", "received": "",
    "socket": "udp:192.0.2.5:5060", "callid": "c1", "cseq": 3, "methods": ["INVITE", "ACK", "BYE"],
    "instance": "<urn:uuid:00000000-0000-1000-8000-aabbccddee01>", "reg_id": 2,
}  # fmt: skip
NAT = {
    **EDGE, "aor": "ann@example.com", "contact": "sip:ann@10.1.1.1:5062", "path": "", "q": None,
    "received": "sip:198.51.100.7:40001", "methods": None, "instance": "", "reg_id": 0,
}  # fmt: skip


def read(path: Path, domain: str = "") -> list[Entry]:
    return list(read_bindings(path, "location", domain))


def arguments(entries: list[Entry]) -> list[dict[str, Any] | None]:
    return [entry.arguments for entry in entries]


def table(tmp_path: Path, *rows: dict[str, str], delimiter: str = ",", quote: str = '"') -> Path:
    path = tmp_path / "location.txt"
    lines = [delimiter.join(COLUMNS)]
    lines += [delimiter.join(quote + row[name] + quote for name in COLUMNS) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def timezone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Somewhere that is not Greenwich."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("delimiter", "quote"), [(",", '"'), (";", '"'), ("\t", "")])
def test_what_a_database_client_prints(tmp_path: Path, delimiter: str, quote: str) -> None:
    entries = read(table(tmp_path, EDGE_ROW, NAT_ROW, delimiter=delimiter, quote=quote))
    assert arguments(entries) == [EDGE, NAT]
    assert [entry.place for entry in entries] == ["2", "3"]


def test_mysql_writes_local_time_null_and_escapes(tmp_path: Path) -> None:
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(WHEN))
    row = {**EDGE_ROW, "expires": local, "methods": "NULL", "callid": "a\\tb", "received": "NULL"}
    (entry,) = read(table(tmp_path, row, delimiter="\t", quote=""))
    assert entry.arguments == {**EDGE, "methods": None, "callid": "a\tb"}


def test_postgres_and_sqlite_clients(tmp_path: Path) -> None:
    path = table(tmp_path, {**EDGE_ROW, "expires": "2027-01-15 08:00:00+00"})
    assert arguments(read(path)) == [EDGE]
    bar = {**EDGE_ROW, "user_agent": "Phone"}
    assert arguments(read(table(tmp_path, bar, delimiter="|", quote=""))) == [EDGE]


def test_db_text(tmp_path: Path) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace(":", "\\:").replace("\n", "\\n")

    head = " ".join(f"{name}(string,null)" for name in COLUMNS)
    odd = {**EDGE_ROW, "callid": "a:b\\c\nd"}
    lines = [":".join(escaped(row[name]) for name in COLUMNS) for row in (EDGE_ROW, NAT_ROW, odd)]
    path = tmp_path / "location"
    path.write_text("\n".join([head, *lines]) + "\n")
    wanted = [EDGE, NAT, {**EDGE, "callid": "a:b\\c\nd"}]
    assert arguments(read(path)) == wanted
    assert arguments(read(tmp_path)) == wanted, "the directory that db_url names"


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "kamailio.sqlite"
    database = sqlite3.connect(path)
    database.execute(f"CREATE TABLE location ({', '.join(COLUMNS)})")
    for row in (EDGE_ROW, NAT_ROW):
        values: list[object] = [value or None for value in row.values()]
        for name in ("expires", "last_modified"):
            values[COLUMNS.index(name)] = int(row[name]) / 86400 + 2440587.5
        database.execute(f"INSERT INTO location VALUES ({', '.join('?' * len(COLUMNS))})", values)
    database.commit()
    database.close()
    before = path.stat()
    entries = read(path)
    for entry, wanted in zip(entries, (EDGE, NAT), strict=True):
        assert entry.arguments is not None
        for name in ("expires_at", "last_modified"):
            assert entry.arguments.pop(name) == pytest.approx(wanted[name], abs=0.001)
        assert entry.arguments == {
            name: wanted[name] for name in wanted if name not in ("expires_at", "last_modified")
        }
    assert path.stat().st_mtime_ns == before.st_mtime_ns, "opened for reading only"


# what a row means


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"socket": "tcp:192.0.2.5:5060", "connection_id": "7"}, True),
        ({"socket": "tls:192.0.2.5:5061"}, True),
        ({"socket": "", "received": "sip:198.51.100.7:4000;transport=ws"}, True),
        ({"received": "", "contact": "sip:x@y.invalid;transport=WSS"}, True),
        ({"socket": "tcp:192.0.2.5:5060", "path": EDGE_ROW["path"]}, False),
        ({"socket": "udp:192.0.2.5:5060", "connection_id": "0"}, False),
        ({"socket": ""}, False),
    ],
)
def test_connections_cannot_be_carried_over(
    tmp_path: Path, change: dict[str, str], gone: bool
) -> None:
    (entry,) = read(table(tmp_path, {**NAT_ROW, **change}))
    assert (entry.arguments is None) == gone
    assert entry.gone == gone
    assert entry.who.startswith("ann@example.com sip:")
    if gone:
        assert "connection" in entry.why


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        ("257", ["INVITE", "MESSAGE"]),
        ("0", None),
        ("4294967295", None),
        ("-1", None),
        ("16383", None),
    ],
)
def test_methods(tmp_path: Path, bits: str, names: list[str] | None) -> None:
    (entry,) = read(table(tmp_path, {**EDGE_ROW, "methods": bits}))
    assert entry.arguments is not None
    assert entry.arguments["methods"] == names


def test_without_use_domain_somebody_says_the_domain(tmp_path: Path) -> None:
    path = table(tmp_path, {**EDGE_ROW, "domain": ""})
    assert [entry.arguments["aor"] for entry in read(path) if entry.arguments] == ["bob"]
    (entry,) = read(path, "example.org")
    assert entry.arguments is not None
    assert entry.arguments["aor"] == "bob@example.org"


def test_a_permanent_contact_has_no_end(tmp_path: Path) -> None:
    long_ago = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(0))
    rows = [{**EDGE_ROW, "expires": text} for text in ("0", "2440587.5", long_ago)]
    found = [entry.arguments for entry in read(table(tmp_path, *rows))]
    assert [row["expires_at"] for row in found if row] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "change", [{"expires": "soon"}, {"cseq": "x"}, {"q": "high"}, {"expires": "2027-99-99 1:2:3"}]
)
def test_a_row_that_cannot_be_read_is_said(tmp_path: Path, change: dict[str, str]) -> None:
    bad, good = read(table(tmp_path, {**EDGE_ROW, **change}, NAT_ROW))
    assert (bad.arguments, bad.gone, bad.place) == (None, False, "2")
    assert bad.why.startswith("cannot be read: ")
    assert good.arguments == NAT


def test_a_short_row_is_said(tmp_path: Path) -> None:
    path = table(tmp_path, EDGE_ROW)
    path.write_text(path.read_text() + '"2","uloc","x"\n')
    assert read(path)[1].arguments is None


# our own


def test_our_own_export(tmp_path: Path) -> None:
    row = {
        "aor": "bob\udcff@example.com", "contact": "sip:bob@192.0.2.9", "params": ";x=y",
        "expires": 7, "expires_at": 1.5, "last_modified": 1, "q": 0.5, "path": "", "ruid": "r",
        "methods": None, "reg_id": 0, "way": "shown only", "epoch": 5,
    }  # fmt: skip
    path = tmp_path / "export"
    path.write_text(export_line(row) + "\n\n")
    (entry,) = read(path)
    assert entry.arguments == {
        "table": "location", "aor": "bob\udcff@example.com", "contact": "sip:bob@192.0.2.9",
        "params": ";x=y", "expires_at": 1.5, "last_modified": 1, "reg_id": 0, "ruid": "r",
        "epoch": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line", ['{"aor": 1', "[]", '{"contact":"x"}', '{"aor":"a","contact":"b"}', "{" * 9999]
)
def test_lines_that_are_no_rows_of_ours(tmp_path: Path, line: str) -> None:
    path = tmp_path / "export"
    good = '{"aor":"a","contact":"b","expires_at":1}'
    path.write_text(f"{good}\n{line}\n{good}\n")
    entries = read(path)
    assert [entry.arguments is None for entry in entries] == [False, True, False]
    assert entries[1].why == "is no row of an export"


# what is no such file


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"username,contact\n", b"\0\1\2", b"SQLite format 3\0 and no more"]
)
def test_what_is_no_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=str(path)):
        read(path)


def test_another_database(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE subscriber (username)")
    database.close()
    with pytest.raises(BadFile, match="no such table: location"):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "gone")
