"""The password file: what may stand in it, how it is written, and that it is read again."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sipedge.errors import ConfigError
from sipedge.modules.auth.passwords import (
    FileSource,
    parse_passwords,
    password_line,
    write_password,
)
from tests.digest import hashed

MD5 = hashed("MD5", "alice:example.com:secret")
SHA = hashed("SHA-256", "alice:example.com:secret")
SHA512 = hashed("SHA-512-256", "alice:example.com:secret")
ALICE = (b"alice", b"example.com")


def private(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def test_the_line_of_a_user_has_all_hashes() -> None:
    assert password_line("alice", "example.com", "secret") == (
        f"alice:example.com:{MD5}:{SHA}:{SHA512}"
    )


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (MD5, {b"MD5": MD5}),
        (f"{MD5.upper()}:{SHA}", {b"MD5": MD5, b"SHA-256": SHA}),
        (f"{MD5}:{SHA}:{SHA512}", {b"MD5": MD5, b"SHA-256": SHA, b"SHA-512-256": SHA512}),
        (f":{SHA}", {b"SHA-256": SHA}),
        ("plain:secret", {b"MD5": MD5, b"SHA-256": SHA, b"SHA-512-256": SHA512}),
    ],
)
def test_hashes_or_a_password(rest: str, expected: dict[bytes, str]) -> None:
    users = parse_passwords(f"# users\n\nalice:example.com:{rest}\r\n".encode())
    assert users == {ALICE: {name: digits.encode() for name, digits in expected.items()}}


def test_a_password_may_have_colons_and_spaces() -> None:
    users = parse_passwords(b"alice:example.com:plain: a:b \n")
    assert users[ALICE][b"MD5"].decode() == hashed("MD5", "alice:example.com: a:b ")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("alice", "not user:realm:hash"),
        ("alice:example.com", "not user:realm:hash"),
        (":example.com:plain:x", "not user:realm:hash"),
        ("alice:example.com:plain:", "the password is empty"),
        ("alice:example.com:secret", "hash for MD5 does not have 32"),
        (f"alice:example.com:{SHA}", "hash for MD5 does not have 32"),
        (f"alice:example.com:{MD5[:-1]}g", "hash for MD5 does not have 32"),
        (f"alice:example.com:{MD5}:{MD5}", "hash for SHA-256 does not have 64"),
        (f"alice:example.com:{MD5}:{SHA}:{SHA}:x", "more than 3 hashes"),
        ("alice:example.com:::", "no hash"),
        (f"bob:example.com:{MD5}", "same user"),
    ],
)
def test_a_bad_line_is_named(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^line 3: ") as caught:
        parse_passwords(f"#\nbob:example.com:plain:x\n{line}\n".encode())
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("user", "realm", "password"),
    [
        ("", "r", "p"), ("a", "", "p"), ("a", "r", ""), ("a:b", "r", "p"), ("a", "r:1", "p"),
        ("#a", "r", "p"), (" a", "r", "p"), ("a\n", "r", "p"), ("a", "r", "p\nq"),
    ],
)  # fmt: skip
def test_what_cannot_stand_in_a_line(user: str, realm: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"^a (user|realm|password) is not empty"):
        password_line(user, realm, password)


# writing


def test_users_are_added_changed_and_removed_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    assert not write_password(path, "alice", "example.com", "alice:example.com:plain:one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("# mine\nbob:example.com:plain:b\n" + path.read_text())
    assert write_password(path, "alice", "example.com", "alice:example.com:plain:two")
    assert not write_password(path, "alice", "example.org", "alice:example.org:plain:three")
    assert path.read_text() == (
        "# mine\nbob:example.com:plain:b\nalice:example.com:plain:two\n"
        "alice:example.org:plain:three\n"
    )
    assert write_password(path, "bob", "example.com", None)
    assert not write_password(path, "bob", "example.com", None)
    assert "bob" not in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["passwords"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "passwords", tmp_path / "link"
    path.touch(0o600)
    link.symlink_to(path)
    write_password(link, "a", "r", "a:r:plain:x")
    assert link.is_symlink()
    assert path.read_text() == "a:r:plain:x\n"


# reading


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    write_password(path, "alice", "example.com", password_line("alice", "example.com", "secret"))
    source = FileSource(path)
    assert source.find(*ALICE) == {
        b"MD5": MD5.encode(), b"SHA-256": SHA.encode(), b"SHA-512-256": SHA512.encode(),
    }  # fmt: skip
    assert source.find(b"bob", b"example.com") is None
    assert source.find(b"alice", b"example.org") is None
    write_password(path, "bob", "example.com", "bob:example.com:plain:b")
    assert source.find(b"bob", b"example.com") is None
    source.look(1.0)
    assert source.find(b"bob", b"example.com") is not None


def test_a_file_that_is_no_good_changes_nothing_and_is_complained_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = private(tmp_path / "passwords", "alice:example.com:plain:secret\n")
    source = FileSource(path)
    for break_it in (
        lambda: path.write_text("alice:example.com:plain:secret\nnonsense\n"),
        lambda: path.chmod(0o644),
        path.unlink,
    ):
        caplog.clear()
        break_it()
        os.utime(path, ns=(1, 1)) if path.exists() else None
        source.look(1.0)
        source.look(2.0)
        assert len(caplog.records) == 1, caplog.text
        assert "the old one counts" in caplog.text
        assert "secret" not in caplog.text
        assert source.find(*ALICE) is not None
        private(path, "alice:example.com:plain:secret\n").chmod(0o600)
        source.look(3.0)
    private(path, "alice:example.com:plain:other\nbob:example.com:plain:b\n")
    source.look(4.0)
    assert source.find(b"bob", b"example.com") is not None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = private(tmp_path / "passwords", "alice:example.com:plain:secret\n")
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        FileSource(path)


def test_what_is_wrong_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is none; make one with: sipedge passwd"):
        FileSource(tmp_path / "nowhere")
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match="Is a directory"):
        FileSource(tmp_path)
    with pytest.raises(ConfigError, match="line 1: "):
        FileSource(private(tmp_path / "passwords", "nonsense\n"))
