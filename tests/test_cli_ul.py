"""``sipedge ul``, ``stats`` and ``flows`` against a running ``sipedge run``."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sipedge.cli import main
from sipedge.cli_control import FAILED
from tests.helpers_ul import CONFIG, PATIENCE, Server, sipedge

INSTANCE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-aabbccddee0{}>";reg-id={}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    try:
        yield running
    finally:
        running.stop()


def three_phones(server: Server) -> socket.socket:
    """bob behind an edge and on a connection, ann on UDP; returns the connection."""
    udp, tcp = server.phone(), server.phone(socket.SOCK_STREAM)
    edge = "<sip:tok@192.0.2.1:5060;lr;ob>"
    server.register(udp, "bob", f"<sip:bob@10.0.0.9>;{INSTANCE.format(1, 1)};q=0.5", edge)
    server.register(tcp, "bob", f"<sip:bob@10.0.0.9;transport=tcp>;{INSTANCE.format(1, 2)}")
    server.register(udp, "ann", "<sip:ann@10.0.0.9>")
    return tcp


def test_dump_as_a_table_and_as_json(server: Server) -> None:
    three_phones(server)
    head, *lines, last = server.ask("ul", "dump").splitlines()
    assert head.split() == ["AOR", "CONTACT", "EXPIRES", "Q", "REG-ID", "WAY", "RUID"]
    assert last == "3 bindings"
    cells = [line.split() for line in lines]
    assert [row[:2] for row in cells] == [
        ["bob@example.com", "sip:bob@10.0.0.9"],
        ["bob@example.com", "sip:bob@10.0.0.9;transport=tcp"],
        ["ann@example.com", "sip:ann@10.0.0.9"],
    ]
    assert cells[0][3:6] == ["0.5", "1", "<sip:tok@192.0.2.1:5060;lr;ob>"]
    assert len({line.index("uloc-") for line in lines}) == 1, "columns stand below each other"
    rows = server.rows()
    assert [row["reg_id"] for row in rows] == [1, 2, 0]
    assert rows[1]["received"].endswith(";transport=tcp")
    assert 3590 <= rows[2]["expires"] <= 3600
    assert abs(rows[2]["last_modified"] - time.time()) < 60


def test_show_and_rm(server: Server) -> None:
    three_phones(server)
    shown = server.ask("ul", "show", "sip:bob@example.com")
    assert shown.count("\n\n") == 1
    ruid = re.findall(r"^ruid +(\S+)$", shown, re.MULTILINE)[0]
    assert server.ask("ul", "rm", "bob@example.com", "--ruid", ruid) == "1 removed\n"
    lines = server.ask("ul", "show", "bob@example.com", "--json").splitlines()
    assert [json.loads(line)["reg_id"] for line in lines] == [2]
    assert server.ask("ul", "rm", "bob@example.com") == "1 removed\n"
    for command in ("show", "rm"):
        server.ask("ul", command, "bob@example.com", status=FAILED)
        assert server.stderr == "sipedge: bob@example.com is not registered\n"
    assert [row["aor"] for row in server.rows()] == ["ann@example.com"]


def test_status_for_people(server: Server) -> None:
    assert server.ask("status") == "ready, 0 connections, 0 transactions\n"


def test_stats_and_flows(server: Server) -> None:
    assert server.ask("flows").endswith("0 of 0 connections\n")
    phone = three_phones(server)
    stats = json.loads(server.ask("stats", "--json"))
    assert stats["core.stats"]["contacts_registered"] == 3
    assert stats["core.stats"]["accepted_regs"] == 3
    assert stats["core.uptime"]["uptime"] > 0
    assert "server_transactions" in stats["tm.stats"]
    assert re.search(r"^accepted_regs +3$", server.ask("stats"), re.MULTILINE)
    host, port = phone.getsockname()
    assert f"tcp        {host}:{port}" in server.ask("flows")
    (flow,) = [json.loads(line) for line in server.ask("flows", "--json").splitlines()]
    assert (flow["remote"], flow["direction"]) == (f"{host}:{port}", "in")
    assert server.ask("flows", "--limit", 0).endswith("0 of 1 connections\n")


def test_what_is_exported_can_be_imported(server: Server) -> None:
    phone = three_phones(server)
    file = server.directory / "bindings.jsonl"
    before = server.rows()
    assert server.ask("ul", "export", file) == f"3 bindings written to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert server.ask("ul", "export", "-") == file.read_text()
    assert server.ask("ul", "import", file).startswith("0 added, 0 refreshed, 3 kept")
    for user in ("bob", "ann"):
        server.ask("ul", "rm", f"{user}@example.com")
    assert server.ask("ul", "import", file).startswith("3 added, 0 refreshed, 0 kept")

    def same(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        moving = ("ruid", "expires", "expires_at", "last_modified")
        return [{name: row[name] for name in row if name not in moving} for row in rows]

    after = server.rows()
    assert same(after) == same(before)
    for old, new in zip(before, after, strict=True):
        assert new["expires_at"] == pytest.approx(old["expires_at"], abs=2)
    # the flow of a connection that is gone cannot be brought back
    for user in ("bob", "ann"):
        server.ask("ul", "rm", f"{user}@example.com")
    phone.close()
    until = time.monotonic() + PATIENCE
    while "0 of 0" not in server.ask("flows"):
        assert time.monotonic() < until
    tally = json.loads(server.ask("ul", "import", file, "--json"))
    assert tally == {"added": 2, "refreshed": 0, "kept": 0, "gone": 1, "wrong": 0}
    assert f"{file}:2: bob@example.com sip:bob@10.0.0.9;transport=tcp: the connection" in (
        server.stderr
    )


def test_kamailio_s_table_as_text(server: Server) -> None:
    later = int(time.time()) + 600
    table = server.directory / "location.csv"
    table.write_text(
        "username,domain,contact,received,path,expires,q,callid,cseq,socket,instance,reg_id\n"
        f"bob,,sip:bob@10.0.0.9,,<sip:t@192.0.2.1;lr;ob>,{later},-1,c,1,udp:192.0.2.5:5060,"
        "<urn:uuid:00000000-0000-1000-8000-aabbccddee01>,1\n"
        f"ann,,sip:ann@10.0.0.9,sip:198.51.100.7:4000,,{later},-1,c,1,udp:192.0.2.5:5060,,0\n"
        f"tom,,sip:tom@10.0.0.9;transport=tcp,,,{later},-1,c,1,tcp:192.0.2.5:5060,,0\n"
        "old,,sip:old@192.0.2.9,,,1000000000,-1,c,1,,,0\n"
        f"odd,,mailto:odd@example.com,,,{later},-1,c,1,,,0\n"
    )
    answer = server.ask("ul", "import", table, "--domain", "example.com", status=FAILED)
    assert answer == (
        "2 added, 0 refreshed, 0 kept as they are here, 2 could not be carried over, 1 wrong\n"
    )
    said = dict(
        line.removeprefix(f"{table}:").split(": ", 1) for line in server.stderr.splitlines()
    )
    assert "it is called from udp:127.0.0.1" in said["3"]
    assert "tom@example.com" in said["4"]
    assert "over a connection" in said["4"]
    assert "it has expired" in said["5"]
    assert "not a SIP URI" in said["6"]
    assert [row["way"] if "way" in row else row["aor"] for row in server.rows()] == [
        "bob@example.com",
        "ann@example.com",
    ]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("hello", "is no table of bindings")]
)
def test_a_file_that_is_none(server: Server, content: str | None, words: str) -> None:
    file = server.directory / "file"
    if content is not None:
        file.write_text(content)
    server.ask("ul", "import", file, status=FAILED)
    assert server.stderr.startswith("sipedge: ")
    assert words in server.stderr
    assert server.stderr.count("\n") == 1


def test_an_export_that_cannot_be_written(server: Server) -> None:
    file = server.directory / "not" / "there"
    server.ask("ul", "export", file, status=FAILED)
    assert str(file) in server.stderr


def test_a_terminal_is_not_told_what_to_do(server: Server) -> None:
    server.register(server.phone(), "%1b%5d0%3bevil%07", "<sip:a@10.0.0.9>")
    for command in (["dump"], ["show", "\x1b]0;evil\x07@example.com"]):
        printed = server.ask("ul", *command)
        assert "\x1b" not in printed
        assert "\\x1b]0;evil\\x07@example.com" in printed


# which process


def test_where_the_process_is(server: Server) -> None:
    assert server.ask("stats", at="--config")
    done = sipedge("stats", SIPEDGE_SOCKET=str(server.socket))
    assert done.returncode == 0
    moved = server.directory / "moved.py"
    moved.write_text(CONFIG + f'core.control_socket = "{server.socket}"\n')
    assert sipedge("stats", "--config", moved).returncode == 0
    moved.write_text(CONFIG + 'core.control_socket = ""\n')
    done = sipedge("stats", "--config", moved)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "switches the control socket off" in done.stderr
    done = sipedge("stats")
    assert done.returncode == 2
    assert "--socket PATH, or --config FILE" in done.stderr


def test_a_configuration_is_asked_without_running_its_modules(server: Server) -> None:
    """The running process has the database open; a second one must not."""
    text = CONFIG + 'modparam("registrar", "db_url", "sqlite:///bindings.sqlite")\n'
    server.config.write_text(text)
    assert server.ask("stats", at="--config")
    assert not (server.directory / "bindings.sqlite").exists()


def test_a_bad_configuration_is_status_2(server: Server) -> None:
    server.config.write_text("nonsense(\n")
    server.ask("stats", at="--config", status=2)
    assert server.stderr.startswith(f"{server.config}:1: ")


@pytest.mark.parametrize("left", ["nothing", "a socket"])
@pytest.mark.parametrize(
    "command",
    [
        "status",
        "stats",
        "flows",
        "ul dump",
        "ul show a@b",
        "ul rm a@b",
        "ul export x",
        "ul import x",
    ],
)
def test_nobody_there(
    tmp_path: Path, command: str, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edge.sock"
    if left == "a socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--socket", str(path)])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (FAILED, "")
    assert err.startswith(f"sipedge: no sipedge answers on {path}: start it with")
    assert "--socket PATH or --config FILE" in err
    assert err.count("\n") == 1


def test_after_kill_9_it_starts_again(server: Server) -> None:
    server.kill()
    assert server.socket.is_socket(), "it had no time to remove it"
    server.start()
    assert server.ask("stats")


def test_the_same_configuration_does_not_run_twice(server: Server) -> None:
    done = sipedge("run", server.config)
    assert done.returncode == 2
    assert f"another process answers on {server.socket}" in done.stderr
    assert server.ask("stats"), "and the first one goes on"


def test_a_process_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "sipedge", "ul", "dump", "--socket", str(path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as asking:
            listener.settimeout(PATIENCE)
            client, _ = listener.accept()
            with client:
                client.recv(4096)
            out, err = asking.communicate(timeout=PATIENCE)
    assert asking.returncode == FAILED
    assert "did not answer to the end" in err
    assert "bindings" not in out
