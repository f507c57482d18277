"""The table of subscribers in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sipedge.errors import ConfigError
from sipedge.modules.auth.credentials import SourceDown
from sipedge.modules.auth.subscribers import SCHEMA, SqliteSource, is_table

ALL = (b"SHA-256", b"MD5", b"SHA-512-256")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "subscriber.db", isolation_level=None)) as db:
        db.execute(SCHEMA)
        db.execute(
            "INSERT INTO subscriber VALUES ('alice', 'example.com', 'AA', 'bb', ''),"
            " ('b''ob', 'example.com', 'cc', '', 'dd')"
        )
        yield db


def test_a_subscriber_has_the_hashes_that_are_there(db: sqlite3.Connection, tmp_path: Path) -> None:
    source = SqliteSource(tmp_path / "subscriber.db", "subscriber", ALL)
    assert source.find(b"alice", b"example.com") == {b"SHA-256": b"bb", b"MD5": b"aa"}
    assert source.find(b"b'ob", b"example.com") == {b"MD5": b"cc", b"SHA-512-256": b"dd"}
    assert source.find(b"carol", b"example.com") is None
    assert source.find(b"alice", b"example.org") is None
    assert source.find(b"alice' OR '1'='1", b"example.com") is None
    assert source.find(b"\xff", b"example.com") is None
    db.execute("INSERT INTO subscriber VALUES ('carol', 'example.com', 'ee', '', '')")
    assert source.find(b"carol", b"example.com") == {b"MD5": b"ee"}
    source.close()


def test_it_cannot_write(db: sqlite3.Connection, tmp_path: Path) -> None:
    source = SqliteSource(tmp_path / "subscriber.db", "subscriber", ALL)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        source._db.execute("DELETE FROM subscriber")
    source.close()


def test_a_table_of_kamailio_serves_md5(tmp_path: Path) -> None:
    path = tmp_path / "kamailio.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE subscriber (username, domain, password, ha1, ha1b)")
        db.execute("INSERT INTO subscriber VALUES ('alice', 'example.com', '', 'aa', '')")
    source = SqliteSource(path, "subscriber", (b"MD5",))
    assert source.find(b"alice", b"example.com") == {b"MD5": b"aa"}
    source.close()
    with pytest.raises(ConfigError, match="here ha1_sha256, ha1"):
        SqliteSource(path, "subscriber", (b"SHA-256", b"MD5"))


def test_what_is_wrong_at_the_start(db: sqlite3.Connection, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unable to open"):
        SqliteSource(tmp_path / "nowhere.db", "subscriber", ALL)
    with pytest.raises(ConfigError, match="no such table: users"):
        SqliteSource(tmp_path / "subscriber.db", "users", ALL)
    assert not (tmp_path / "nowhere.db").exists()


@pytest.mark.parametrize(
    ("name", "good"),
    [("subscriber", True), ("sip.users_2", True), ("", False), ("a b", False), ("a;--", False)],
)
def test_names_of_tables(name: str, good: bool) -> None:
    assert is_table(name) == good


def test_a_table_that_is_locked_is_503_and_comes_back(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    source = SqliteSource(tmp_path / "subscriber.db", "subscriber", ALL)
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceDown) as caught:
        source.find(b"alice", b"example.com")
    assert caught.value.status == 503
    db.execute("ROLLBACK")
    assert source.find(b"alice", b"example.com") is not None
    source.close()
