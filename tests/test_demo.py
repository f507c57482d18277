"""The demo succeeds only against an edge that works; success itself is in ``test_cli``."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipedge import demo
from sipedge.config import Edge, load_source

BROKEN = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
loadmodule("sl")
loadmodule("textops")
def request_route(ksr, msg):
    %s
"""


def play(route: str, monkeypatch: pytest.MonkeyPatch) -> int:
    def configure(directory: Path) -> Edge:
        return load_source(BROKEN % route)

    monkeypatch.setattr(demo, "configure", configure)
    return demo.run()


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("ksr.sl.send_reply(msg, 403, 'No')", "alice waited for 200 and got b'SIP/2.0 403 No'"),
        ("ksr.sl.send_reply(msg, 200, 'OK')", "the registrar did not apply outbound"),
    ],
)
def test_an_edge_that_does_not_work_fails_the_demo(
    route: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(route, monkeypatch) == 1
    out, err = capsys.readouterr()
    assert f"the demo failed: {words}" in err
    assert "it works" not in out


def test_silence_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PATIENCE", 0.2)
    assert play("pass", monkeypatch) == 1
    assert "alice waited for 200, and nothing came" in capsys.readouterr().err


def test_it_uses_the_example_with_a_key_of_its_own(tmp_path: Path) -> None:
    edge = demo.configure(tmp_path)
    assert "outbound" in edge.modules
    assert {listener.port for listener in edge.config.listeners} == {0}
    assert (tmp_path / "flow_token.key").stat().st_mode & 0o777 == 0o600


def test_the_ladder_points_from_sender_to_receiver() -> None:
    lines: list[str] = []
    ladder = demo.Ladder(lines.append)
    left, right = demo.Phone("l", ladder, is_left=True), demo.Phone("r", ladder, is_left=False)
    data = b"BYE sip:bob@192.0.2.1;ob SIP/2.0\r\n\r\n"
    for phone, sent in ((left, True), (left, False), (right, True), (right, False)):
        ladder.arrow(phone, data, sent)
    width = demo.COLUMN
    halves = [(line[1 : width + 1], line[width + 2 : -1]) for line in lines]
    assert all(len(line) == 2 * width + 3 for line in lines)
    assert halves[0][0].startswith("-- BYE sip:bob@192.0.2.1 -")
    assert halves[0][0].endswith("->")
    assert halves[1][0].startswith("<- BYE")
    assert halves[2][1].startswith("<- BYE")
    assert halves[3][1].endswith("->")
    assert not halves[0][1].strip() + halves[2][0].strip()
