"""The file itself: where it is, whose it is, its schema; what is wrong with it is said at start."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from registrar_plugin.store import sqlite_file
from registrar_plugin.store.sqlite_file import SqliteFile, Unusable, path_of
from sipedge.config import load_source
from sipedge.errors import ConfigError
from tests.registrar_plugin.store.disk import Disk, query_file

BASE = Path("/etc/sipedge")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///location.sqlite", "/etc/sipedge/location.sqlite"),
        ("sqlite:///../lib/x.db", "/etc/sipedge/../lib/x.db"),
        ("sqlite:////var/lib/sipedge/a b.sqlite", "/var/lib/sipedge/a b.sqlite"),
    ],
)
def test_urls(url: str, path: str) -> None:
    assert path_of(url, BASE) == Path(path)


@pytest.mark.parametrize(
    "url",
    ["location.sqlite", "sqlite:x", "sqlite://x", "sqlite:///", "sqlite:////", "sqlite:///x/",
     "postgres:///x", "SQLITE"],
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Unusable, match=r"write 'sqlite:///location\.sqlite'"):
        path_of(url, BASE)


# each makes something of a path that cannot be used


def no_directory(path: Path) -> None:
    path.parent.rmdir()


def is_directory(path: Path) -> None:
    path.mkdir()


def no_database(path: Path) -> None:
    path.write_bytes(b"loadmodule('tm')\n" * 100)


def damaged(path: Path) -> None:
    make(path)
    query_file(path, "PRAGMA journal_mode = DELETE")
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)


def of_another_program(path: Path) -> None:
    query_file(path, "CREATE TABLE customers (name TEXT)")


def newer(path: Path) -> None:
    make(path)
    query_file(path, "PRAGMA user_version = 99")


def make(path: Path) -> None:
    disk = Disk(path)
    disk.put(b"a", disk.binding())
    disk.database.close()


SPOILT: list[tuple[Callable[[Path], None], str]] = [
    (no_directory, "there is no directory .*; make it"),
    (is_directory, "is no file"),
    (no_database, "is damaged .*; move it away"),
    (damaged, "is damaged .*; move it away"),
    (of_another_program, "is the database of another program; name another file"),
    (newer, r"was written by a newer sipedge \(version 99 of the schema, this one knows 1\)"),
]


@pytest.mark.parametrize(("spoil", "why"), SPOILT, ids=[f.__name__ for f, _ in SPOILT])
def test_files_that_cannot_be_used(spoil: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    path = tmp_path / "db" / "location.sqlite"
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(Unusable, match=why):
        SqliteFile(path).inspect()
    with pytest.raises(Unusable):
        SqliteFile(path).open()
    assert (path.read_bytes() if path.is_file() else None) == before, "nothing was touched"


def test_damage_that_only_reading_finds(tmp_path: Path) -> None:
    path = tmp_path / "location.sqlite"
    disk = Disk(path)
    for n in range(2000):
        disk.put(b"%d" % n, disk.binding())
    disk.database.close()
    data = bytearray(path.read_bytes())
    data[3 * 4096 :] = b"\xff" * (len(data) - 3 * 4096)
    path.write_bytes(data)
    with pytest.raises(Unusable, match="damaged"):
        Disk(path)


@pytest.mark.parametrize(("part", "exists"), [(".", False), (".", True), ("location.sqlite", True)])
def test_no_permission(
    part: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may be run by root, whom nothing is forbidden: ask in its place."""
    path = tmp_path / "location.sqlite"
    if exists:
        make(path)
    forbidden = tmp_path / part
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != forbidden)
    with pytest.raises(Unusable, match="no permission"):
        SqliteFile(path).inspect()


def test_inspecting_makes_nothing_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "location.sqlite"
    SqliteFile(path).inspect()
    assert list(tmp_path.iterdir()) == []
    disk = Disk(path)
    disk.put(b"a", disk.binding())
    SqliteFile(path).inspect()  # while it is in use
    disk.settle()
    assert disk.rows() == ["a"]


def test_only_one_process_has_it(tmp_path: Path) -> None:
    path = tmp_path / "location.sqlite"
    disk = Disk(path)
    disk.put(b"a", disk.binding())
    with pytest.raises(Unusable, match="is another sipedge running with it"):
        Disk(path)
    disk.settle()
    assert disk.rows() == ["a"], "the first one goes on"
    disk.database.close()
    Disk(path).database.close()


def test_it_is_for_its_owner_only(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "location.sqlite")
    disk.put(b"a", disk.binding())
    disk.settle()
    modes = {place.name: place.stat().st_mode & 0o777 for place in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_an_empty_file_will_do(tmp_path: Path) -> None:
    path = tmp_path / "location.sqlite"
    path.touch()
    SqliteFile(path).inspect()
    make(path)
    assert query_file(path, "SELECT aor FROM location") == ["a"]


def test_what_is_committed_is_on_the_disk(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "location.sqlite")
    assert disk.file.connection is not None
    for pragma, wanted in (("journal_mode", b"wal"), ("synchronous", 2)):  # 2: FULL
        assert disk.file.connection.execute(f"PRAGMA {pragma}").fetchone() == (wanted,)


def test_schema_is_migrated_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "location.sqlite"
    make(path)

    def add_note(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE location ADD COLUMN note TEXT")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE location SET note = 'x'")
        connection.execute("no SQL")

    steps = sqlite_file.MIGRATIONS
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*steps, add_note, fail))
    with pytest.raises(Unusable, match="syntax error"):
        Disk(path)
    assert query_file(path, "PRAGMA user_version") == [1], "all or nothing"
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*steps, add_note))
    SqliteFile(path).inspect()
    assert query_file(path, "PRAGMA user_version") == [1], "a look changes nothing"
    disk = Disk(path)
    assert list(disk.found()) == [b"a"]
    disk.put(b"b", disk.binding())
    disk.database.close()
    assert query_file(path, "SELECT aor, note FROM location") == [("a", None), ("b", None)]
    assert query_file(path, "PRAGMA user_version") == [2]
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", steps)
    with pytest.raises(Unusable, match="newer"):
        SqliteFile(path).inspect()


# the configuration

CONFIG = """\
listen("udp:127.0.0.1:5060")
loadmodule("registrar")
modparam("registrar", "db_url", {url!r})
def request_route(ksr, msg):
    ksr.registrar.save(msg)
"""


def test_the_operator_sees_the_line(tmp_path: Path) -> None:
    config = str(tmp_path / "edge.py")
    with pytest.raises(ConfigError, match="db_url: 'x' is no database") as caught:
        load_source(CONFIG.format(url="x"), config)
    assert (caught.value.file, caught.value.line) == (config, 3)
    newer(tmp_path / "location.sqlite")
    with pytest.raises(ConfigError, match="newer sipedge") as caught:
        load_source(CONFIG.format(url="sqlite:///location.sqlite"), config)
    assert (caught.value.file, caught.value.line) == (config, 3)


def test_what_goes_wrong_later_has_a_line_too(tmp_path: Path) -> None:
    config = str(tmp_path / "edge.py")
    source = CONFIG.format(url="sqlite:///location.sqlite")
    first, second = load_source(source, config), load_source(source, config)
    assert not (tmp_path / "location.sqlite").exists(), "check makes no file"
    first.child_init(0)
    with pytest.raises(ConfigError, match="in use") as caught:
        second.child_init(0)
    assert (caught.value.file, caught.value.line) == (config, 3)
    second.destroy()
    first.destroy()
    assert (tmp_path / "location.sqlite").exists()


def test_mode_0_touches_no_file(tmp_path: Path) -> None:
    source = CONFIG.format(url="sqlite:///location.sqlite")
    source += 'modparam("registrar", "db_mode", 0)\n'
    edge = load_source(source, str(tmp_path / "edge.py"))
    edge.child_init(0)
    edge.destroy()
    assert list(tmp_path.iterdir()) == []
