"""``save_async`` and its kin: what waiting for a table changes, played without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from registrar_plugin.bindings import Binding
from registrar_plugin.store import Conflict, Entry, LocationStore, StoreAway
from registrar_plugin.store.embedded import Embedded, at_once
from registrar_plugin.store.memory import MemoryStore
from sipedge.config import load_config
from sipedge.errors import ConfigError
from sipedge.flow import Flow
from sipedge.net.routes import RouteRunner
from tests.peerlib.process import LOOPBACK
from tests.registrar_plugin.home import BOTH, EDGE1, I1, outbound_contact
from tests.sim import Peer, Sim, request

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("registrar")

async def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        await ksr.registrar.save_async(msg, "location")
        return
    rc = await ksr.registrar.lookup_async(msg, "location")
    if rc:
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 500 - rc, "No")
"""


class Slow:
    """A shared table that is played by one in memory; each call waits for ``turn``."""

    embedded: LocationStore | None = None

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.turn = asyncio.Event()
        self.turn.set()
        self.conflicts = 0
        self.away = False
        self.calls: list[str] = []

    async def _wait(self, call: str) -> None:
        self.calls.append(call)
        await asyncio.sleep(0)
        await self.turn.wait()
        if self.away:
            raise StoreAway("away")

    async def fetch(self, aor: bytes, now: float) -> tuple[Binding, ...]:
        await self._wait("fetch")
        return self.memory.fetch(aor, now)

    async def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        await self._wait("replace")
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("too late")
        return self.memory.replace(aor, gone, new, now)

    async def flow_closed(self, flow: Flow) -> list[Entry]:
        await self._wait("flow_closed")
        return self.memory.flow_closed(flow)

    async def sweep(self, now: float) -> list[Entry]:
        return []

    async def entries(self) -> AsyncIterator[Entry]:
        for entry in self.memory.entries():
            yield entry


class Shared:
    """As much of ``SharedDatabase`` as ``Location`` sees."""

    def __init__(self, table: Slow) -> None:
        self.tables: Any = {"location": table}
        table.knows = lambda flow: True  # type: ignore[attr-defined]

    def table(self, domain: str) -> Slow:
        table: Slow = self.tables[domain]
        return table


class Play(Sim):
    """A registrar with a slow table, in an event loop."""

    def __init__(self, source: str = SOURCE) -> None:
        super().__init__(source)
        self.table = Slow()
        self.location = self.edge.modules["registrar"]._location  # type: ignore[attr-defined]
        self.location.shared = Shared(self.table)
        loop = asyncio.get_running_loop()
        self.runner = RouteRunner(loop, self._clock, self.drain)
        self.core.spawn = self.runner.spawn
        self.count = 0

    def _clock(self) -> None:
        self.core.now = self.now

    async def settle(self) -> None:
        await self.runner.settle(20)

    def register(self, peer: Peer, contact: str = "", *, cseq: int = 0, path: str = EDGE1) -> bytes:
        self.count += 1
        contact = contact or outbound_contact()
        via = "SIP/2.0/UDP 192.0.2.1:5060" if path else "SIP/2.0/UDP 10.0.0.9"
        second = "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKx\r\n" if path else ""
        headers = f"{second}Contact: {contact}\r\n{BOTH}"
        headers += f"Path: {path}\r\n" if path else ""
        data = request(
            "REGISTER", "sip:example.com", headers=headers, cseq=cseq or self.count, via=via,
            branch=f"z9hG4bKr{self.count}",
        )  # fmt: skip
        data = data.replace(b"To: <sip:example.com>", b"To: <sip:bob@example.com>")
        peer.send(data)
        return data


def bound(sim: Play) -> list[tuple[int, int]]:
    rows = sim.table.memory.fetch(b"bob@example.com", sim.now)
    return sorted((row.reg_id, row.cseq) for row in rows)


def test_retransmissions_are_absorbed_while_it_waits() -> None:
    async def play() -> None:
        sim = Play()
        phone = sim.udp("192.0.2.1", 5060)
        sim.table.turn.clear()
        data = sim.register(phone)
        await asyncio.sleep(0)
        phone.send(data)
        phone.send(data)
        assert phone.silent()
        sim.table.turn.set()
        await sim.settle()
        assert phone.take().status == 200
        assert phone.silent()
        phone.send(data)
        assert phone.take().status == 200
        assert sim.table.calls == ["fetch", "replace"], "one route"

    asyncio.run(play())


def test_the_lifetime_begins_when_it_is_stored() -> None:
    async def play() -> None:
        sim = Play()
        phone = sim.udp("192.0.2.1", 5060)
        sim.table.turn.clear()
        sim.register(phone, outbound_contact(more=";expires=600"))
        await asyncio.sleep(0)
        sim.now += 20
        sim.table.turn.set()
        await sim.settle()
        (contact,) = phone.take().values(b"contact")
        assert contact.endswith(b";expires=600")
        (row,) = sim.table.memory.fetch(b"bob@example.com", sim.now)
        assert row.expires == pytest.approx(sim.now + 600)

    asyncio.run(play())


def test_who_was_too_late_decides_anew() -> None:
    async def play() -> None:
        sim = Play()
        phone = sim.udp("192.0.2.1", 5060)
        sim.table.conflicts = 2
        sim.register(phone)
        await sim.settle()
        assert phone.take().status == 200
        assert sim.table.calls == ["fetch", "replace"] * 3
        assert bound(sim) == [(1, 1)]
        assert sim.core.stats["db_conflicts"] == 2
        sim.table.conflicts = 3
        sim.register(phone)
        await sim.settle()
        answer = phone.take()
        assert (answer.status, answer.first(b"retry-after")) == (500, b"10")
        assert bound(sim) == [(1, 1)], "nothing was changed"
        # what the other node stored counts: it has a higher CSeq of the same call
        sim.register(phone, cseq=9)
        await sim.settle()
        phone.take()
        sim.table.conflicts = 1
        sim.register(phone, cseq=8)
        await sim.settle()
        assert phone.take().status == 400

    asyncio.run(play())


def test_a_table_that_is_away_is_503_and_retry_after() -> None:
    async def play() -> None:
        for more, seconds in (("", b"10"), ('modparam("registrar", "retry_after", 33)\n', b"33")):
            sim = Play(SOURCE.replace("\nasync", f"{more}\nasync"))
            phone = sim.udp("192.0.2.1", 5060)
            sim.table.away = True
            sim.register(phone)
            await sim.settle()
            answer = phone.take()
            assert (answer.status, answer.first(b"retry-after")) == (503, seconds)
            phone.send(request("MESSAGE", "sip:bob@example.com"))
            await sim.settle()
            assert phone.take().status == 504, "500 + 4"

    asyncio.run(play())


def test_a_connection_that_closes_meanwhile_leaves_nothing_behind() -> None:
    async def play() -> None:
        for waits in ("fetch", "replace"):
            sim = Play()
            phone = sim.tcp("198.51.100.7", 40001)
            while_waiting = asyncio.Event()

            async def wait(
                call: str, sim: Play = sim, waits: str = waits, event: asyncio.Event = while_waiting
            ) -> None:
                sim.table.calls.append(call)
                if call == waits and sim.table.calls.count(call) == 1:
                    event.set()
                    await sim.table.turn.wait()
                await asyncio.sleep(0)

            sim.table._wait = wait  # type: ignore[method-assign]
            sim.table.turn.clear()
            sim.register(phone, path="")
            await while_waiting.wait()
            phone.close()
            await asyncio.sleep(0)
            sim.table.turn.set()
            await sim.settle()
            await sim.settle()
            assert bound(sim) == [], waits
            assert phone.silent()

    asyncio.run(play())


def test_a_dead_flow_is_removed_before_the_caller_is_told() -> None:
    async def play() -> None:
        sim = Play()
        edge = sim.udp("192.0.2.1", 5060)
        sim.register(edge)
        await sim.settle()
        assert edge.take().status == 200
        caller = sim.udp("198.51.100.9", 5060)
        caller.send(request("INVITE", "sip:bob@example.com", via="SIP/2.0/UDP 198.51.100.9"))
        await sim.settle()
        invite = edge.take()
        assert invite.method == b"INVITE"
        via = invite.first(b"via") or b""
        edge.send(answer_to(invite, 430, via))
        sim.drain()
        assert [m.status for m in caller.got] == [100], "the UA may have registered anew"
        assert len(bound(sim)) == 1
        await sim.settle()
        assert [m.status for m in caller.got] == [100, 480]
        assert bound(sim) == []
        assert sim.core.stats["contacts_failed"] == 1

    asyncio.run(play())


def answer_to(msg: Any, status: int, via: bytes) -> bytes:
    rows = [line for line in msg.lines[1:] if line.lower().startswith((b"via:", b"from:", b"c"))]
    to = (msg.first(b"to") or b"") + b";tag=x"
    kept = [row for row in rows if not row.lower().startswith((b"contact", b"content"))]
    return b"\r\n".join([b"SIP/2.0 %d No" % status, *kept, b"To: " + to, b"", b""])


def test_a_binding_that_was_refreshed_meanwhile_stays() -> None:
    async def play() -> None:
        sim = Play()
        edge = sim.udp("192.0.2.1", 5060)
        sim.register(edge)
        await sim.settle()
        caller = sim.udp("198.51.100.9", 5060)
        edge.take()
        caller.send(request("INVITE", "sip:bob@example.com", via="SIP/2.0/UDP 198.51.100.9"))
        await sim.settle()
        invite = edge.take()
        sim.register(edge, path="<sip:other@192.0.2.1:5060;lr;ob>")
        await sim.settle()
        edge.send(answer_to(invite, 430, b""))
        await sim.settle()
        assert bound(sim) == [(1, 2)], "it has another Path"

    asyncio.run(play())


def test_embedded_tables_work_with_both() -> None:
    async def play() -> None:
        sim = Play()
        sim.location.shared = None
        phone = sim.udp("192.0.2.1", 5060)
        sim.register(phone)
        await sim.settle()
        assert phone.take().status == 200
        sim.register(phone)
        await sim.settle()
        assert phone.take().status == 200
        assert len(sim.location.table("location").fetch(b"bob@example.com", sim.now)) == 1
        registrar = sim.edge.modules["registrar"]
        data = request("MESSAGE", "sip:bob@example.com")
        from sipedge.sip.message import parse

        msg = parse(data)
        msg.flow = phone.flow
        assert await registrar.registered_async(msg) == 1  # type: ignore[attr-defined]
        assert registrar.registered(msg) == 1  # type: ignore[attr-defined]
        assert await registrar.contact_gruu_async(msg) == -1  # type: ignore[attr-defined]
        uri = "sip:bob@example.com"
        assert await registrar.unregister_async(msg, "location", uri) == 1  # type: ignore[attr-defined]
        assert await registrar.registered_async(msg) == -1  # type: ignore[attr-defined]

    asyncio.run(play())


def test_what_waits_is_not_for_plain_routes() -> None:
    table = Embedded(MemoryStore())
    assert at_once(table.fetch(b"x", 1.0)) == ()

    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="made somebody wait"):
        at_once(waits())


SHARED_HEAD = f"""
listen("udp:{LOOPBACK}:5060")
loadmodule("tm")
loadmodule("registrar")
modparam("registrar", "db_url", "redis://{LOOPBACK}:1/0")
modparam("registrar", "gruu_key", "{"k" * 20}")
"""


@pytest.mark.parametrize(
    ("route", "name", "line"),
    [
        ("def request_route(ksr, msg):\n    ksr.registrar.save(msg)", "save", 2),
        (
            "def request_route(ksr, msg):\n    x = [1]\n    if ksr.registrar.lookup(msg): x",
            "lookup",
            3,
        ),
        (
            "async def request_route(ksr, msg):\n    helper(ksr, msg)\n"
            "def helper(ksr, msg):\n    return ksr.registrar.registered(msg)",
            "registered",
            4,
        ),
        (
            "def request_route(ksr, msg):\n    def inner():\n"
            "        ksr.registrar.unregister(msg, 'location', 'sip:a@b')\n    inner()",
            "unregister",
            3,
        ),
    ],
)
def test_plain_calls_are_refused_at_the_start(route: str, name: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        Sim(SHARED_HEAD + route)
    assert f"await ksr.registrar.{name}_async(...)" in caught.value.message
    assert caught.value.line == SHARED_HEAD.count("\n") + line


def test_plain_calls_that_nobody_could_see_are_refused_when_they_are_made() -> None:
    source = (
        SHARED_HEAD + "def request_route(ksr, msg):\n    getattr(ksr.registrar, 'save')(msg)\n"
        "class Other:\n    def save(self): ...\ndef helper(): Other().save()\n"
    )
    sim = Sim(source)
    phone = sim.udp()
    phone.send(request("REGISTER", "sip:example.com", headers=f"Contact: <sip:{I1}@h>\r\n"))
    assert phone.take().status == 500


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('modparam("registrar", "gruu_key", b"")', "need the same gruu_key"),
        ('modparam("registrar", "node_id", "a b")', "node_id has up to 64"),
        ('modparam("registrar", "db_url", "redis://h/x")', "is no number of a database"),
        ('modparam("registrar", "db_url", "mysql://h/x")', "sqlite:///location.sqlite"),
    ],
)
def test_parameters_that_do_not_go_together(line: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Sim(f"{SHARED_HEAD}{line}\nasync def request_route(ksr, msg): pass\n")


def test_the_example_loads_as_it_stands(tmp_path: Path) -> None:
    config = tmp_path / "registrar_shared.py"
    config.write_bytes((EXAMPLES / "registrar_shared.py").read_bytes())
    key = tmp_path / "gruu.key"
    key.touch(0o600)
    key.write_text("00" * 20)
    edge = load_config(config)
    assert edge.loader.warnings == []
    shared = edge.modules["registrar"]._location.shared  # type: ignore[attr-defined]
    assert shared.backend.name == "Redis at 127.0.0.1:6379"
