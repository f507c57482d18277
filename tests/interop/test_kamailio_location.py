"""Replacing Kamailio under live registrations: its ``location`` table becomes ours."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers_ul import Server
from tests.peerlib.kamailio import Kamailio, _module_path
from tests.peerlib.process import LOOPBACK, Crew
from tests.peers import need

#: where Debian has the tables of each database driver
SHARE = Path("/usr/share/kamailio")
INSTANCE = "urn:uuid:00000000-0000-1000-8000-aabbccddee01"
EDGE = "<sip:to%3Aken@192.0.2.1:5060;lr;ob>"
PHONE = "<sip:{}@{}:{}>;expires=600"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "ours").mkdir()
    running = Server(tmp_path / "ours")
    try:
        yield running
    finally:
        running.stop()


def need_files(*files: Path) -> None:
    missing = [file for file in files if not file.exists()]
    if missing:
        text = f"needs {missing[0]} (apt-get install kamailio-sqlite-modules)"
        if os.environ.get("CI") == "true":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)


def text_database(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    need_files(SHARE / "dbtext")
    directory = tmp_path / "text"
    directory.mkdir()
    for name in ("location", "location_attrs", "version"):
        shutil.copy(SHARE / "dbtext" / "kamailio" / name, directory)
    return directory, {
        "db_module": "db_text.so",
        "db_params": 'modparam("db_text", "db_mode", 1)',
        "db_url": f"text://{directory}",
        "use_domain": "1",
    }


def sqlite_database(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    need_files(SHARE / "db_sqlite", Path(_module_path()) / "db_sqlite.so")
    file = tmp_path / "kamailio.sqlite"
    database = sqlite3.connect(file)
    for name in ("standard", "usrloc"):
        database.executescript((SHARE / "db_sqlite" / f"{name}-create.sql").read_text())
    database.close()
    values = {"db_module": "db_sqlite.so", "db_params": "", "db_url": f"sqlite:///{file}"}
    return file, {**values, "use_domain": "0"}


def register(
    phone: socket.socket, user: str, contact: str, headers: str = "", vias: int = 1
) -> None:
    transport = "UDP" if phone.type == socket.SOCK_DGRAM else "TCP"
    via = "".join(
        f"Via: SIP/2.0/{transport} 127.0.0.1:{n};rport;branch=z9hG4bK{user}{len(headers)}{n}\r\n"
        for n in range(1, vias + 1)
    )
    phone.send(
        f"REGISTER sip:example.com SIP/2.0\r\n{via}Max-Forwards: 70\r\n"
        f"From: <sip:{user}@example.com>;tag=f\r\nTo: <sip:{user}@example.com>\r\n"
        f"Call-ID: {user}\r\nCSeq: {len(headers) + 1} REGISTER\r\nContact: {contact}\r\n"
        f"Supported: path, outbound\r\nUser-Agent: A: b|c\r\n{headers}"
        "Content-Length: 0\r\n\r\n".encode()
    )
    assert phone.recv(65535).startswith(b"SIP/2.0 200 ")


def connected(kamailio: Kamailio, kind: socket.SocketKind = socket.SOCK_DGRAM) -> socket.socket:
    phone = socket.socket(socket.AF_INET, kind)
    phone.settimeout(30)
    phone.connect(kamailio.at)
    return phone


@pytest.mark.parametrize("database", [text_database, sqlite_database])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_its_location_table_becomes_ours(
    database: object, zone: str, crew: Crew, tmp_path: Path, server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    need("kamailio")
    monkeypatch.setenv("TZ", zone)
    assert callable(database)
    file, values = database(tmp_path)
    kamailio = Kamailio(crew, "kamailio_location.cfg", LOOPBACK, **values)
    with connected(kamailio) as udp, connected(kamailio, socket.SOCK_STREAM) as tcp:
        host, port = udp.getsockname()
        for reg_id in (1, 2):
            contact = f'<sip:bob@10.0.0.9;x=y>;+sip.instance="<{INSTANCE}>";reg-id={reg_id}'
            path = EDGE.replace("192.0.2.1", f"192.0.2.{reg_id}")
            headers = f"Path: {path}\r\nAllow: INVITE, BYE\r\nExpires: {600 * reg_id}\r\n"
            register(udp, "bob", contact, headers + "X: 1\r\n" * reg_id, vias=2)
        register(udp, "nat", PHONE.format("nat", "10.0.0.9", 5060))
        register(udp, "carol%20x", PHONE.format("carol", host, port) + ";q=0.5")
        register(tcp, "tess", PHONE.format("tess", "10.0.0.9", "5060;transport=tcp"))
        kamailio.program.stop()
        answer = server.ask("ul", "import", file, "--domain", "example.com", "--json")
        assert json.loads(answer) == {
            "added": 4, "refreshed": 0, "kept": 0, "gone": 1, "wrong": 0,
        }, server.stderr  # fmt: skip
        assert "tess@example.com" in server.stderr
        rows = {(row["aor"], row["reg_id"]): row for row in server.rows()}
        assert sorted(rows) == [
            ("bob@example.com", 1), ("bob@example.com", 2), ("carol x@example.com", 0),
            ("nat@example.com", 0),
        ]  # fmt: skip
        for reg_id in (1, 2):
            bob = rows["bob@example.com", reg_id]
            assert bob["contact"] == "sip:bob@10.0.0.9;x=y"
            assert bob["path"] == EDGE.replace("192.0.2.1", f"192.0.2.{reg_id}")
            assert (bob["instance"], bob["callid"]) == (INSTANCE, "bob")
            assert bob["methods"] == ["BYE", "INVITE"]
            assert 600 * reg_id - 60 < bob["expires"] <= 600 * reg_id
        assert rows["carol x@example.com", 0]["q"] == 0.5
        assert rows["nat@example.com", 0]["received"] == f"sip:{host}:{port}"
        # and calls reach them
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller, udp.dup() as phone:
            caller.bind((LOOPBACK, 0))
            # it was connected to Kamailio: as a phone it hears whoever calls
            phone.connect((LOOPBACK, server.udp))
            for user in ("nat", "carol%20x"):
                caller.sendto(
                    f"OPTIONS sip:{user}@example.com SIP/2.0\r\n"
                    f"Via: SIP/2.0/UDP {LOOPBACK}:9;rport;branch=z9hG4bK{user}\r\n"
                    f"Max-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=a\r\n"
                    f"To: <sip:{user}@example.com>\r\nCall-ID: o-{user}\r\nCSeq: 1 OPTIONS\r\n"
                    "Content-Length: 0\r\n\r\n".encode(),
                    (LOOPBACK, server.udp),
                )
                assert phone.recv(65535).startswith(b"OPTIONS sip:" + user[:3].encode())
