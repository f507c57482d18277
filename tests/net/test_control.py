"""The control socket of a running server: what it answers, and what nobody can do to it."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sipedge.config import load_source
from sipedge.errors import ConfigError
from sipedge.hookspecs import hookimpl
from sipedge.module import Command, CommandError, Context, Later, ModuleExports
from sipedge.net.control import MAX_CLIENTS, MAX_REQUEST, ControlSocket, candidates
from tests.helpers_net import PATIENCE, RunningEdge, options, running_edge, udp_peer
from tests.net.fakes import eventually

SOURCE = """
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
loadmodule("sl")
loadmodule("probe")
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, b"OK")
"""


@dataclass(slots=True)
class NoParams:
    pass


class Probe:
    """A module with a command of each kind."""

    def __init__(self) -> None:
        self.params = NoParams()
        self.made = 0
        self.waiting: list[Later] = []
        self.exports = ModuleExports(
            "probe",
            commands=(
                Command("probe.add", self.add, "adds"),
                Command("probe.count", self.count),
                Command("probe.endless", self.endless),
                Command("probe.fail", self.fail),
                Command("probe.refuse", self.refuse),
                Command("probe.later", self.later),
                Command("probe.odd", self.odd),
                Command("probe.slow", self.slow),
                Command("probe.slow_rows", self.slow_rows),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self.core = ctx.core

    def add(self, a: int, b: float = 0.5, names: list[str] | None = None) -> list[object]:
        return [a, b, names]

    def count(self, to: int) -> Iterator[dict[str, int]]:
        for n in range(to):
            yield {"n": n}
        if to > 2:
            return {"last": to}  # type: ignore[return-value]

    def endless(self) -> Iterator[str]:
        while True:
            self.made += 1
            yield "x" * 100

    def fail(self) -> None:
        raise OSError("a mistake of the module")

    def refuse(self) -> None:
        raise CommandError(404, "not here")

    def later(self) -> Later:
        later = Later()
        self.waiting.append(later)
        return later

    def odd(self) -> object:
        return object()

    async def slow(self, fail: int = 0) -> Later:
        await asyncio.sleep(0.01)
        if fail:
            raise CommandError(fail, "after a while")
        later = Later()
        later.set("done")
        return later

    async def slow_rows(self, to: int) -> AsyncIterator[int]:
        for n in range(to):
            if n % 100 == 0:
                await asyncio.sleep(0)
            yield n


class Client:
    """A raw client: lines out, objects in."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> Any:
        line = self.lines.readline()
        return json.loads(line) if line else None

    def ask(self, method: str, *params: object, **named: object) -> Any:
        request = {"id": 7, "method": method, "params": named or params}
        self.send(json.dumps(request).encode() + b"\n")
        return self.read()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


class Controlled:
    """A running edge with its control socket at ``path``."""

    def __init__(self, running: RunningEdge, path: Path) -> None:
        self.running = running
        self.core = running.core
        self.path = path
        self.probe: Probe = running.edge.modules["probe"]
        self.clients: list[Client] = []

    def client(self) -> Client:
        client = Client(self.path)
        self.clients.append(client)
        return client

    def open(self) -> ControlSocket:
        """One more for the same edge."""
        another = ControlSocket(self.running.server, self.running.edge)
        asyncio.run_coroutine_threadsafe(another.__aenter__(), self.running.loop).result(PATIENCE)
        return another

    def close(self, control: ControlSocket) -> None:
        leave = control.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(leave, self.running.loop).result(PATIENCE)

    def sip_works(self) -> bool:
        with udp_peer() as phone:
            phone.sendto(options(), self.running.udp)
            return phone.recv(4096).startswith(b"SIP/2.0 200")


@contextmanager
def serving(tmp_path: Path, setting: str | None = None) -> Iterator[Controlled]:
    config = tmp_path / "edge.py"
    config.write_text(SOURCE)
    edge = load_source(SOURCE, str(config), modules={"probe": Probe})
    edge.core.control_socket = str(tmp_path / "c.sock") if setting is None else setting
    with running_edge(edge) as running:
        here = Controlled(running, tmp_path / "c.sock")
        control = here.open()
        try:
            yield here
        finally:
            for client in here.clients:
                client.close()
            here.close(control)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Controlled]:
    with serving(tmp_path) as here:
        yield here


# what is answered


def test_a_command_has_a_result(control: Controlled) -> None:
    client = control.client()
    assert control.sip_works()
    assert client.ask("probe.add", 1) == {"id": 7, "result": [1, 0.5, None]}
    assert client.ask("probe.add", a=1, b=2, names=["x"])["result"] == [1, 2, ["x"]]
    assert client.ask("core.uptime")["result"]["uptime"] >= 0


def test_ids_are_echoed_and_may_be_left_out(control: Controlled) -> None:
    client = control.client()
    client.send(b'{"method":"core.stats"}\n\r\n{"id":"a","method":"core.stats","params":{}}\n')
    assert [client.read()["id"], client.read()["id"]] == [None, "a"]


def test_rows_come_before_the_result(control: Controlled) -> None:
    client = control.client()
    assert client.ask("probe.count", 2) == {"id": 7, "row": {"n": 0}}
    assert client.read() == {"id": 7, "row": {"n": 1}}
    assert client.read() == {"id": 7, "result": {"rows": 2}}
    assert client.ask("probe.count", 0) == {"id": 7, "result": {"rows": 0}}


def test_a_generator_says_its_result_itself(control: Controlled) -> None:
    client = control.client()
    answers = [client.ask("probe.count", 3), *(client.read() for _ in range(3))]
    assert answers[-1] == {"id": 7, "result": {"last": 3}}


def test_many_rows_arrive_whole_and_in_order(control: Controlled) -> None:
    client = control.client()
    first = client.ask("probe.count", 20_000)
    rows = [first, *(client.read() for _ in range(19_999))]
    assert [row["row"]["n"] for row in rows] == list(range(20_000))
    assert client.read()["result"] == {"last": 20_000}


def test_a_result_may_come_later(control: Controlled) -> None:
    waiting, other = control.client(), control.client()
    waiting.send(b'{"id":1,"method":"probe.later"}\n{"id":2,"method":"probe.later"}\n')
    eventually(lambda: control.probe.waiting)
    assert other.ask("core.stats")["id"] == 7, "nobody else waits"
    control.running.call(lambda: control.probe.waiting[0].set({"done": 1}))
    assert waiting.read() == {"id": 1, "result": {"done": 1}}
    eventually(lambda: len(control.probe.waiting) == 2)
    control.running.call(lambda: control.probe.waiting[1].set(CommandError(500, "no")))
    assert waiting.read()["error"] == {"code": 500, "message": "no"}


def test_a_command_may_wait_for_a_database(control: Controlled) -> None:
    client = control.client()
    assert client.ask("probe.slow") == {"id": 7, "result": "done"}
    assert client.ask("probe.slow", 503)["error"] == {"code": 503, "message": "after a while"}
    answers = [client.ask("probe.slow_rows", 1000), *(client.read() for _ in range(1000))]
    assert [answer["row"] for answer in answers[:-1]] == list(range(1000))
    assert answers[-1]["result"] == {"rows": 1000}


def test_the_clock_of_the_core_is_set(control: Controlled) -> None:
    client = control.client()
    first = client.ask("core.uptime")["result"]["now"]
    assert abs(first - time.time()) < 5
    eventually(lambda: client.ask("core.uptime")["result"]["now"] > first)


# what is refused


@pytest.mark.parametrize(
    ("request_line", "code", "words"),
    [
        (b"hello", 400, "a request is a JSON object"),
        (b"[" * 60_000, 400, "a request is a JSON object"),
        (b"[1]", 400, "a request is {"),
        (b'{"id":1}', 400, "a request is {"),
        (b"\xff\xfe", 400, "a request is a JSON object"),
        (b'{"method":"probe.nothing"}', 404, "core.commands lists them"),
        (b'{"method":"probe.add"}', 400, "missing a required argument: 'a'"),
        (b'{"method":"probe.add","params":[1,2,[],4]}', 400, "too many positional arguments"),
        (b'{"method":"probe.add","params":{"a":1,"c":1}}', 400, "'c'"),
        (b'{"method":"probe.add","params":"a"}', 400, "params is no list and no object"),
        (b'{"method":"probe.add","params":["1"]}', 400, "a: '1' is no int"),
        (b'{"method":"probe.add","params":[true]}', 400, "a: True is no int"),
        (b'{"method":"probe.add","params":[1,null]}', 400, "b: None is no float"),
        (b'{"method":"probe.add","params":[1,1,"x"]}', 400, "names: 'x' is no "),
        (b'{"method":"probe.refuse"}', 404, "not here"),
    ],
)
def test_what_makes_no_sense_is_said_and_the_connection_goes_on(
    control: Controlled, request_line: bytes, code: int, words: str
) -> None:
    client = control.client()
    client.send(request_line + b"\n")
    error = client.read()["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert client.ask("probe.add", 1)["result"] == [1, 0.5, None]


@pytest.mark.parametrize("method", ["probe.fail", "probe.odd"])
def test_a_mistake_of_a_module_is_logged_and_counted(
    control: Controlled, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = control.client()
    assert client.ask(method)["error"]["code"] == 500
    assert "a command failed" in caplog.text
    assert client.ask("core.stats")["result"]["command_exceptions"] == 1


def test_a_request_without_end_ends_its_connection(control: Controlled) -> None:
    client, other = control.client(), control.client()
    client.send(b'{"method":"' + b"x" * (MAX_REQUEST + 10))
    assert client.read()["error"]["code"] == 400
    try:
        assert client.read() is None
    except ConnectionResetError:
        pass  # it had not read all that we sent
    assert other.ask("core.stats")["id"] == 7


# who cannot hurt


def test_who_does_not_read_is_waited_for_and_hurts_nobody(control: Controlled) -> None:
    lazy, other = control.client(), control.client()
    lazy.send(b'{"method":"probe.endless"}\n')
    eventually(lambda: control.probe.made)
    assert control.sip_works()
    assert other.ask("probe.add", 1)["result"]

    def stands_still() -> bool:
        before = control.probe.made
        time.sleep(0.2)
        return control.probe.made == before

    eventually(stands_still)
    lazy.close()
    eventually(lambda: other.ask("core.stats")["id"] == 7)


def test_an_endless_command_that_is_read_leaves_turns_for_sip(control: Controlled) -> None:
    eager = control.client()
    eager.send(b'{"method":"probe.endless"}\n')
    for _ in range(3):
        assert eager.read() == {"id": None, "row": "x" * 100}
        assert control.sip_works()


def test_requests_without_end_leave_turns_for_sip(control: Controlled) -> None:
    client = control.client()
    line = b'{"id":1,"method":"probe.add","params":[1]}\n'
    client.send(line * 500)
    assert control.sip_works()
    assert [client.read()["id"] for _ in range(500)] == [1] * 500


def test_half_a_request_and_goodbye(control: Controlled) -> None:
    client = control.client()
    client.send(b'{"method":')
    client.close()
    busy = control.client()
    busy.send(b'{"method":"probe.endless"}\n')
    busy.read()
    busy.close()
    assert control.client().ask("core.stats")["id"] == 7
    assert "net_exceptions" not in control.core.stats


def test_clients_are_bounded(control: Controlled) -> None:
    clients = [control.client() for _ in range(MAX_CLIENTS)]
    for client in clients:
        assert client.ask("probe.add", 1)["result"]
    one_more = control.client()
    assert one_more.read()["error"]["code"] == 503
    assert one_more.read() is None
    clients[3].close()

    def has_room() -> bool:
        client = control.client()
        try:
            return "result" in client.ask("probe.add", 1)
        except OSError:
            return False

    eventually(has_room)


# where it is


def test_it_is_for_its_owner_and_goes_with_the_process(tmp_path: Path) -> None:
    with serving(tmp_path) as here:
        assert stat.S_IMODE(here.path.stat().st_mode) == 0o600
    assert not here.path.exists()


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "c.sock"))
    with serving(tmp_path) as here:
        assert here.client().ask("probe.add", 1)["result"]


def test_a_live_one_is_refused(control: Controlled) -> None:
    with pytest.raises(ConfigError, match=r"another process answers on .*c\.sock: stop it, or set"):
        control.open()
    assert control.client().ask("probe.add", 1)["result"], "and not disturbed"


def test_a_file_of_somebody_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "c.sock").write_text("mine")
    with pytest.raises(ConfigError, match="is no socket"), serving(tmp_path):
        pass
    assert (tmp_path / "c.sock").read_text() == "mine"


@pytest.mark.parametrize(
    ("setting", "words"),
    [("x" * 108, "is too long"), ("not/there.sock", "No such file or directory")],
)
def test_a_place_that_cannot_be_is_the_operators_error(
    tmp_path: Path, setting: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught, serving(tmp_path, setting):
        pass
    assert str(caught.value).startswith(f"{tmp_path}/edge.py: core.control_socket: ")


def test_a_relative_path_begins_at_the_configuration(tmp_path: Path) -> None:
    with serving(tmp_path, "./mine.sock"):
        assert (tmp_path / "mine.sock").is_socket()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with serving(tmp_path, "") as here:
        assert here.sip_works()
        assert [path.name for path in tmp_path.iterdir()] == ["edge.py"]


def test_the_socket_of_a_successor_stays(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as successor, serving(tmp_path) as here:
        here.path.rename(tmp_path / "away")
        successor.bind(str(here.path))
    assert here.path.is_socket()


def test_auto_is_next_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    here, there = tmp_path / "edge.sock", tmp_path / "run" / "sipedge-edge.sock"
    assert candidates("auto", tmp_path / "edge.py") == [here, there]
    with serving(tmp_path, "auto"):
        assert here.is_socket()


def test_auto_moves_to_the_runtime_directory_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with serving(deep, "auto"):
        assert (tmp_path / "sipedge-edge.sock").is_socket()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with caplog.at_level(logging.WARNING), serving(deep, "auto") as here:
        assert here.sip_works()
    assert "no control socket: it cannot be made as" in caplog.text


def test_a_configuration_that_is_no_file_has_none_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edge = load_source(SOURCE, modules={"probe": Probe})
    with running_edge(edge) as running:
        here = Controlled(running, tmp_path)
        here.close(here.open())
    assert list(tmp_path.iterdir()) == []
