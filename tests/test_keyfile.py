"""Key files, as a configuration reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipedge.config import load_config
from sipedge.errors import ConfigError
from sipedge.keyfile import new_key, read_keyfile

GOOD = 'listen("udp:127.0.0.1:5060")\ndef request_route(ksr, msg): pass\n'
HEX = "00112233445566778899aabbccddeeff00010203"
KEY = bytes.fromhex(HEX)


def keys(tmp_path: Path, data: bytes, mode: int = 0o600) -> tuple[bytes, ...]:
    (tmp_path / "some.key").write_bytes(data)
    (tmp_path / "some.key").chmod(mode)
    config = tmp_path / "edge.py"
    config.write_text(GOOD + 'keys = keyfile("some.key")\ndef found(): return keys\n')
    found: tuple[bytes, ...] = load_config(config).config.routes["found"]()
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEX.encode(), (KEY,)),
        (HEX.upper().encode() + b"\n", (KEY,)),
        (b"# now\n" + HEX.encode() + b" # this\r\n\n" + b"ff" * 20 + b"\n", (KEY, b"\xff" * 20)),
        (b"!!!Kamailio rocks!!!", (b"!!!Kamailio rocks!!!",)),
        (KEY, (KEY,)),
    ],
)
def test_key_files(tmp_path: Path, data: bytes, expected: tuple[bytes, ...]) -> None:
    assert keys(tmp_path, data) == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no key in it"),
        (b"# nothing\n", "no key in it"),
        (b"!!!Kamailio rocks!!!\n", "printf, not echo"),
        (HEX[:-1].encode(), "line 1: not a key"),
        (HEX.encode() + b"\n" + HEX.encode() + b"0\n", "line 2: not a key"),
        (b"g" * 40, "line 1: not a key"),
        (b"\xff" * 21, "line 1: not a key"),
    ],
)
def test_key_files_that_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=r"edge\.py:3: key file") as caught:
        keys(tmp_path, data)
    assert words in caught.value.message
    assert "ff" * 20 not in caught.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        keys(tmp_path, HEX.encode(), mode)


def test_a_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    config = tmp_path / "edge.py"
    config.write_text(GOOD + 'keyfile("gone.key")\n')
    with pytest.raises(ConfigError, match=r"edge\.py:3: .*sipedge keygen > .*gone\.key"):
        load_config(config)


def test_a_new_key_is_the_line_of_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    path.touch(0o600)
    lines = [new_key(), new_key()]
    path.write_text("\n".join(lines))
    assert read_keyfile(path) == tuple(bytes.fromhex(line) for line in lines)
    assert lines[0] != lines[1]


def test_a_directory_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        read_keyfile(tmp_path)
