"""The client of the control socket: what it makes of answers, and of processes that go away."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sipedge.module import CommandError
from sipedge.net.control_client import BATCH, ControlClient, Unreachable
from tests.helpers_net import PATIENCE


@contextmanager
def answering(path: Path, answer: Callable[[Any], list[Any] | None]) -> Iterator[ControlClient]:
    """A client, and a process that answers each request with these objects; None: goes away."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                objects = answer(json.loads(line))
                if objects is None:
                    return
                connection.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in objects))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with ControlClient(path) as client:
                yield client
        finally:
            thread.join(PATIENCE)


def test_call(tmp_path: Path) -> None:
    with answering(tmp_path / "s", lambda request: [{"result": request}]) as client:
        assert client.call("a.b", 1, "x") == {"method": "a.b", "params": [1, "x"]}


def test_an_error_is_raised_and_the_connection_goes_on(tmp_path: Path) -> None:
    error = {"error": {"code": 404, "message": "not here"}}
    with answering(
        tmp_path / "s", lambda request: [error if request["params"] else {"result": 1}]
    ) as client:
        with pytest.raises(CommandError, match="not here") as caught:
            client.call("a.b", 1)
        assert caught.value.code == 404
        assert client.call("a.b") == 1


def test_rows_come_one_by_one(tmp_path: Path) -> None:
    answers = [{"row": {"n": 1}}, {"row": {"n": 2}}, {"result": {"rows": 2}}]
    with answering(tmp_path / "s", lambda request: answers) as client:
        rows = client.rows("a.b")
        assert [next(rows), next(rows)] == [{"n": 1}, {"n": 2}]
        with pytest.raises(StopIteration) as end:
            next(rows)
        assert end.value.value == {"rows": 2}


def test_each_has_its_answer(tmp_path: Path) -> None:
    def answer(request: Any) -> list[Any]:
        n = request["params"]["n"]
        return [{"error": {"code": 410, "message": str(n)}} if n % 7 == 0 else {"result": n}]

    many = 3 * BATCH + 1
    with answering(tmp_path / "s", answer) as client:
        found = list(client.each("a.b", ({"n": n} for n in range(many))))
    assert [params["n"] for params, _ in found] == list(range(many))
    for n, (_, result) in enumerate(found):
        assert (result.message if isinstance(result, CommandError) else result) in (n, str(n))
        assert isinstance(result, CommandError) == (n % 7 == 0)


def test_a_process_that_goes_away(tmp_path: Path) -> None:
    with answering(tmp_path / "s", lambda request: None) as client:
        with pytest.raises(Unreachable, match="did not answer to the end"):
            client.call("a.b")
        with pytest.raises(Unreachable):
            client.call("a.b")


def test_nobody_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="start it with `sipedge run FILE`"):
        ControlClient(tmp_path / "s")
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match="--socket PATH"):
        ControlClient(tmp_path / "file")
    with pytest.raises(Unreachable, match="name another socket"):
        ControlClient(tmp_path / ("x" * 200))
