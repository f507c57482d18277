"""The location benchmark: what it sends is what it says, and its file is one that we can load."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import location, rig
from benchmarks.rig import Device
from registrar_plugin.location import outlives
from registrar_plugin.store.sqlite import Database
from registrar_plugin.store.sqlite_file import SqliteFile
from sipedge.core import Core
from sipedge.sip.message import parse
from tests.helpers_net import running_edge
from tests.peerlib.process import free_port


def test_a_table_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PORT", str(free_port()))
    monkeypatch.setattr(location, "SIZES", (100, 300))
    monkeypatch.setattr(location, "EACH", 50)
    monkeypatch.setattr(location.time, "sleep", lambda seconds: None)
    octets = iter((1000, 1000 + 100 * 7, 1000 + 200 * 9))
    with running_edge((rig.HERE / "location_registrar.py").read_text()) as running:
        device = Device("sipedge", running.udp[1], (os.getpid(),))
        found = location._grow(device, 200, lambda: next(octets))
        stats = running.edge.core.stats
    assert list(found) == ["100", "200"]
    assert [one["octets"] for one in found.values()] == [7, 9]
    assert stats["contacts_registered"] == 50 + 200, "the first fifty are to warm up"
    assert stats["contacts_refreshed"] == 100
    assert stats["contacts_unregistered"] == 0
    text = location.table({"sipedge": found, "start-up": {"sipedge, SQLite": 1.5}}, {})
    assert "1.5 s" in text


def test_a_generator_that_is_refused_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PORT", str(free_port()))
    with running_edge((rig.HERE / "location_registrar.py").read_text()) as running:
        generator = location.Generator(Device("sipedge", running.udp[1], (os.getpid(),)))
        with pytest.raises(SystemExit, match="404 Not Found"):
            generator.run(3, lambda number, index: location.options(number, index))
        generator.close()


def test_its_file_is_as_a_registrar_leaves_it(tmp_path: Path) -> None:
    file = tmp_path / "location.sqlite"
    location.write(file, 30)
    core = Core()
    core.now = 100.0
    core.wall_offset = location.time.time() - 100
    database = Database(core, SqliteFile(file), outlives, write_through=False, batch_s=0.1)
    database.open()
    try:
        table = database.table("location")
        assert len(list(table.entries())) == 30
        (binding,) = table.fetch(b"u0000129@example.com", core.now)
        sent = parse(location.register(1, 129, 1))
        (contact,) = sent.values(b"contact")
        assert contact == binding.contact + b";expires=7200"
        assert binding.paths == sent.values(b"path")
        assert binding.call_id == sent.call_id
    finally:
        database.close()
