"""The table of subscribers in PostgreSQL; with a real server, which is started for the test."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sipedge.errors import ConfigError
from sipedge.modules.auth import postgres
from sipedge.modules.auth.credentials import SourceDown
from sipedge.modules.auth.postgres import PostgresSource
from sipedge.modules.auth.subscribers import SCHEMA
from tests.peerlib.process import LOOPBACK, Crew, Program, free_port

psycopg = pytest.importorskip("psycopg")

BOTH = (b"SHA-256", b"MD5")
NOBODY = f"postgresql://sip@{LOOPBACK}:1/sip?connect_timeout=2"


def server_programs() -> Path | None:
    """The directory of initdb and postgres; Debian keeps them from PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return debian[-1].parent if debian else None


class Postgres:
    """One server with one table, on loopback."""

    def __init__(self, crew: Crew, programs: Path, data: Path) -> None:
        self._crew = crew
        self._programs = programs
        self._data = data
        self.port = free_port()
        self.url = f"postgresql://sip@{LOOPBACK}:{self.port}/postgres"
        self._as_user("initdb", "-D", str(data), "-U", "sip", "-A", "trust", "-N")
        self.start()
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(SCHEMA)
            db.execute("INSERT INTO subscriber VALUES ('alice', 'example.com', 'AA', 'bb', '')")

    def _command(self, name: str, *arguments: str) -> list[str]:
        command = [str(self._programs / name), *arguments]
        # PostgreSQL refuses to run as root
        return ["setpriv", *self._who(), *command] if os.geteuid() == 0 else command

    def _who(self) -> list[str]:
        user = pwd.getpwnam("postgres")
        return [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def _as_user(self, name: str, *arguments: str) -> None:
        subprocess.run(
            self._command(name, *arguments), check=True, capture_output=True, cwd="/", timeout=120
        )

    def start(self) -> None:
        self.program: Program = self._crew.start(
            self._crew.place("postgres"),
            self._command(
                "postgres", "-D", str(self._data), "-p", str(self.port), "-h", LOOPBACK,
                "-k", "", "-c", "fsync=off",
            ),
        )  # fmt: skip
        self.program.wait_output("ready to accept connections")

    def signal(self, number: int) -> None:
        """To all of its processes."""
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children")
        for pid in (*children.read_text().split(), self.program.pid):
            os.kill(int(pid), number)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    programs = server_programs()
    if programs is None:
        text = "needs PostgreSQL (apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    # not below the directory of the tests, which other users than root cannot enter
    data = Path(tempfile.mkdtemp(prefix="sipedge-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(data, "postgres")
    try:
        with Crew(tmp_path_factory.mktemp("postgres")) as crew:
            yield Postgres(crew, programs, data)
    finally:
        shutil.rmtree(data)


def run(source: PostgresSource, play: Callable[[PostgresSource], Awaitable[Any]]) -> Any:
    async def all_of_it() -> Any:
        try:
            return await play(source)
        finally:
            source.close()

    return asyncio.run(all_of_it())


def test_a_subscriber_has_the_hashes_that_are_there(server: Postgres) -> None:
    async def play(source: PostgresSource) -> None:
        alice = {b"SHA-256": b"bb", b"MD5": b"aa"}
        together = [source.find_async(b"alice", b"example.com") for _ in range(20)]
        assert await asyncio.gather(*together) == [alice] * 20
        for user in (b"carol", b"alice' OR '1'='1", b"\xff", b"a\0", b"%s"):
            assert await source.find_async(user, b"example.com") is None
        assert await source.find_async(b"alice", b"example.org") is None

    run(PostgresSource(server.url, "subscriber", BOTH), play)


def test_a_server_that_dies_is_503_and_found_again_when_it_is_back(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "BACK_OFF_S", (0.01, 0.02))

    async def play(source: PostgresSource) -> None:
        assert await source.find_async(b"alice", b"example.com") is not None
        server.program.kill()
        for _ in range(3):
            with pytest.raises(SourceDown) as caught:
                await source.find_async(b"alice", b"example.com")
            assert caught.value.status == 503
        server.start()
        for _ in range(1000):
            try:
                assert await source.find_async(b"alice", b"example.com") is not None
                return
            except SourceDown:
                await asyncio.sleep(0.01)
        pytest.fail("the server is back, and was not found")

    run(PostgresSource(server.url, "subscriber", BOTH), play)


def test_a_query_that_hangs_is_503_and_the_next_one_is_served(
    server: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(source: PostgresSource) -> None:
        assert await source.find_async(b"alice", b"example.com") is not None
        monkeypatch.setattr(postgres, "PATIENCE_S", 0.2)
        with psycopg.connect(server.url) as other:
            other.execute("LOCK TABLE subscriber IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(SourceDown):
                await asyncio.wait_for(source.find_async(b"alice", b"example.com"), 30)
        assert "no answer within 0.2 s" in caplog.text
        # whatever became of the query, its connection is not used again
        assert source._connection is None
        monkeypatch.setattr(postgres, "PATIENCE_S", 30.0)
        assert await source.find_async(b"alice", b"example.com") is not None

    run(PostgresSource(server.url, "subscriber", BOTH), play)


def test_a_server_that_stops_in_the_middle_is_503_and_then_let_go_of(
    server: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every process of it is stopped: nothing is answered, a request to cancel neither."""
    monkeypatch.setattr(postgres, "BACK_OFF_S", (0.01, 0.02))

    async def until_found(source: PostgresSource) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await source.find_async(b"alice", b"example.com") is not None
                    return
                except SourceDown:
                    await asyncio.sleep(0.01)

    async def play(source: PostgresSource) -> None:
        assert await source.find_async(b"alice", b"example.com") is not None
        monkeypatch.setattr(postgres, "PATIENCE_S", 0.2)
        server.signal(signal.SIGSTOP)
        try:
            together = [source.find_async(b"alice", b"example.com") for _ in range(20)]
            async with asyncio.timeout(30):
                results = await asyncio.gather(*together, return_exceptions=True)
                assert {type(result) for result in results} == {SourceDown}
                # the connection that hangs is not used again, and a new one is not made
                with pytest.raises(SourceDown):
                    await source.find_async(b"alice", b"example.com")
                while len(asyncio.all_tasks()) > 1:
                    await asyncio.sleep(0.01)
        finally:
            server.signal(signal.SIGCONT)
        assert caplog.text.count("PostgreSQL: no answer within 0.2 s") == 1, "said once"
        assert source._busy == {}
        monkeypatch.setattr(postgres, "PATIENCE_S", 30.0)
        await until_found(source)

    run(PostgresSource(server.url, "subscriber", BOTH), play)


def test_whoever_waits_may_be_cancelled(server: Postgres) -> None:
    """A route that ends leaves no query behind that hangs."""

    async def play(source: PostgresSource) -> None:
        assert await source.find_async(b"alice", b"example.com") is not None
        with psycopg.connect(server.url) as other:
            other.execute("LOCK TABLE subscriber IN ACCESS EXCLUSIVE MODE")
            waits = asyncio.create_task(source.find_async(b"alice", b"example.com"))
            while not source._busy:
                await asyncio.sleep(0)
            waits.cancel()
            async with asyncio.timeout(30):
                while len(asyncio.all_tasks()) > 1:
                    await asyncio.sleep(0.01)
        assert await source.find_async(b"alice", b"example.com") is not None

    run(PostgresSource(server.url, "subscriber", BOTH), play)


def test_a_table_that_is_not_there_is_503(
    server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(source: PostgresSource) -> None:
        with pytest.raises(SourceDown):
            await source.find_async(b"alice", b"example.com")

    run(PostgresSource(server.url, "nowhere", BOTH), play)
    assert 'relation "nowhere" does not exist' in caplog.text


def test_attempts_become_rarer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres, "BACK_OFF_S", (30.0, 60.0))

    async def play(source: PostgresSource) -> None:
        for _ in range(5):
            with pytest.raises(SourceDown):
                await source.find_async(b"alice", b"example.com")

    run(PostgresSource(NOBODY, "subscriber", BOTH), play)
    assert caplog.text.count("no connection to PostgreSQL") == 1
    assert "next attempt in 30 s" in caplog.text


def test_a_server_that_hangs_does_not_keep_anybody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel accepts, and nobody ever says a word."""
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.1)

    async def play(source: PostgresSource) -> None:
        with pytest.raises(SourceDown):
            await asyncio.wait_for(source.find_async(b"alice", b"example.com"), 30)

    with socket.create_server((LOOPBACK, 0)) as silent:
        url = f"postgresql://sip@{LOOPBACK}:{silent.getsockname()[1]}/sip"
        run(PostgresSource(url, "subscriber", BOTH), play)
    assert "no connection to PostgreSQL" in caplog.text


def test_what_is_wrong_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="invalid URI query parameter"):
        PostgresSource("postgresql://host/db?nonsense=1", "subscriber", BOTH)
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'sipedge\[postgresql\]'"):
        PostgresSource(NOBODY, "subscriber", BOTH)
