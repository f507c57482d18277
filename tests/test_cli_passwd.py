"""``sipedge passwd``: as a script uses it, and at a terminal."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

from sipedge.modules.auth.passwords import parse_passwords, password_line


def passwd(*arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sipedge", "passwd", *map(str, arguments)]
    env = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        command, input=typed, capture_output=True, text=True, env=env, timeout=120, check=False
    )


def test_a_script_sets_changes_and_removes_a_password(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    for password in ("first", "second: with more "):
        done = passwd(file, "alice", "example.com", typed=password + "\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text() == password_line("alice", "example.com", password) + "\n"
    assert passwd(file, "alice", "example.com", "--delete").returncode == 0
    assert file.read_text() == ""
    gone = passwd(file, "alice", "example.com", "--delete")
    assert gone.returncode == 1
    assert "has no user alice of realm example.com" in gone.stderr


def test_a_dash_prints_the_line(tmp_path: Path) -> None:
    done = passwd("-", "alice", "example.com", typed="secret\n")
    assert done.returncode == 0
    (user,) = parse_passwords(done.stdout.encode())
    assert user == (b"alice", b"example.com")


def test_what_cannot_be_done_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    for arguments, typed in (
        ((file, "a:b", "r"), "p\n"),
        ((file, "a", "r"), ""),
        ((tmp_path / "nowhere" / "passwords", "a", "r"), "p\n"),
    ):
        done = passwd(*arguments, typed=typed)
        assert done.returncode == 1
        assert done.stderr.startswith("sipedge passwd: ")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_at_a_terminal_it_asks_twice_and_shows_nothing(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = [sys.executable, "-m", "sipedge", "passwd", str(file), "alice", "example.com"]
        os.execv(sys.executable, arguments)
    shown = b""
    for prompt in (b"Password: ", b"Repeat for confirmation: "):
        while not shown.endswith(prompt):
            shown += os.read(terminal, 1024)
        os.write(terminal, b"secret\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert status == 0
    assert b"secret" not in shown
    assert file.read_text() == password_line("alice", "example.com", "secret") + "\n"
