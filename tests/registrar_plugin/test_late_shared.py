"""A phone that registers with another node while a call rings; the table is played (``Slow``)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registrar_plugin.late import LateBranches
from registrar_plugin.plugin import RegistrarPlugin
from tests.registrar_plugin.home import EDGE2, I1, I2, outbound_contact
from tests.registrar_plugin.test_async import SOURCE, Play
from tests.sim import Peer, answer, request

WITH_LATE = SOURCE.replace(
    "\nasync def", 'modparam("registrar", "append_late_branches", 1)\nMORE\nasync def', 1
)
WITH_LATE = WITH_LATE.replace(
    "        ksr.tm.t_relay", "        await wait()\n        ksr.tm.t_relay"
)
AOR = b"bob@example.com"
SECOND = outbound_contact(instance=I2, uri="sip:bob@10.0.0.8")


class Office(Play):
    """Bob's desk phone is behind one edge and rings; what is behind another edge comes late."""

    def __init__(self, more: str = "") -> None:
        super().__init__(WITH_LATE.replace("MORE", f"{more}\nasync def wait(): pass"))
        self.desk = self.udp("192.0.2.1", 5060)
        self.second = self.udp("192.0.2.2", 5060)
        self.caller = self.udp("198.51.100.9", 5060)
        registrar = self.edge.modules["registrar"]
        assert isinstance(registrar, RegistrarPlugin)
        assert registrar._lookup.late is not None
        self.late: LateBranches = registrar._lookup.late

    async def other_node_saves(self, contact: str = SECOND, path: str = EDGE2) -> None:
        """What another node would do, in our table; and nothing is announced yet."""
        self.register(self.second, contact, path=path)
        await self.settle()
        assert self.second.take().status == 200

    async def announce(self, aor: bytes = AOR, table: Any = 0) -> None:
        self.late.announced(self.table if table == 0 else table, aor)
        await self.settle()

    async def ring(self, uri: str = "sip:bob@example.com") -> None:
        self.register(self.desk)
        await self.settle()
        self.desk.got.clear()
        self.caller.send(request("INVITE", uri, via="SIP/2.0/UDP 198.51.100.9"))
        await self.settle()
        self.invite = self.desk.take()
        self.desk.send(answer(self.invite, 180))


def rings(phone: Peer) -> bool:
    return [msg.method for msg in phone.got] == [b"INVITE"]


@pytest.mark.rfc("HPX-19")
def test_it_rings_when_it_is_announced() -> None:
    async def play() -> None:
        office = Office()
        await office.ring()
        await office.other_node_saves()
        assert office.second.silent(), "nobody has said so"
        await office.announce()
        assert rings(office.second)
        await office.announce()
        assert rings(office.second), "once"
        office.second.send(answer(office.second.got[0], 200))
        assert [msg.status for msg in office.caller.got][-1] == 200
        assert [msg.method for msg in office.desk.got] == [b"CANCEL"]

    asyncio.run(play())


def test_anything_may_have_been_missed() -> None:
    async def play() -> None:
        office = Office()
        await office.ring()
        await office.other_node_saves()
        await office.announce(b"", table=None)
        assert rings(office.second)

    asyncio.run(play())


def test_others_do_not_ring() -> None:
    async def play() -> None:
        office = Office()
        await office.ring()
        await office.other_node_saves()
        await office.announce(b"carol@example.com")
        await office.announce(table=object())
        assert office.second.silent()

    asyncio.run(play())


def test_who_was_there_before_is_not_called_again() -> None:
    """A branch that ended with 408 might be tried again, but not because of somebody else."""

    async def play() -> None:
        office = Office()
        third = outbound_contact(instance="urn:x:3", uri="sip:bob@10.0.0.7")
        await office.other_node_saves(third, path="<sip:tok@192.0.2.3:5060;lr;ob>")
        await office.ring()
        lobby = office.udp("192.0.2.3", 5060)
        lobby.send(answer(lobby.take(), 180))
        office.desk.send(answer(office.invite, 408))
        await office.settle()
        assert office.desk.take().method == b"ACK"
        await office.other_node_saves()
        await office.announce()
        assert rings(office.second)
        assert (office.desk.silent(), lobby.silent()) == (True, True)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("more", "uri"),
    [
        ('modparam("registrar", "append_branches", 0)', "sip:bob@example.com"),
        ('modparam("registrar", "method_filtering", 1)', "sip:bob@example.com"),
        ("", f"sip:bob@example.com;gr={I1}"),
    ],
    ids=["only the best", "takes no INVITE", "to a GRUU"],
)
def test_what_lookup_would_not_have_found_is_not_called(more: str, uri: str) -> None:
    async def play() -> None:
        office = Office(more)
        await office.ring(uri)
        contact = SECOND + (';methods="MESSAGE"' if "method" in more else "")
        await office.other_node_saves(contact)
        await office.announce()
        assert office.second.silent()

    asyncio.run(play())


@pytest.mark.parametrize("when", ["while the table is read", "before it is relayed"])
def test_an_announcement_that_overtakes_the_call(when: str) -> None:
    """It comes when ``lookup`` was told of one phone, and ``t_relay`` was not called yet."""

    async def play() -> None:
        office = Office()
        office.register(office.desk)
        await office.settle()
        office.desk.got.clear()
        invite = request("INVITE", "sip:bob@example.com", via="SIP/2.0/UDP 198.51.100.9")
        if when == "while the table is read":
            rows = office.table.memory.fetch(AOR, office.now)
            was = office.table.fetch

            async def old(aor: bytes, now: float) -> Any:
                await was(aor, now)
                return rows

            office.table.fetch = old  # type: ignore[method-assign]
            office.table.turn.clear()
            office.caller.send(invite)
            await asyncio.sleep(0)
            office.late.announced(office.table, AOR)  # type: ignore[arg-type]
            office.table.turn.set()
            await office.settle()
            office.table.fetch = was  # type: ignore[method-assign]
        else:
            gate = asyncio.Event()
            office.edge.config.routes["request_route"].__globals__["wait"] = gate.wait
            office.caller.send(invite)
            while not office.late:
                await asyncio.sleep(0)
            office.late.announced(office.table, AOR)  # type: ignore[arg-type]
            for _ in range(10):  # it looks, and it is too early
                await asyncio.sleep(0)
            gate.set()
            await office.settle()
        assert rings(office.desk)
        await office.other_node_saves()
        assert office.second.silent()
        office.advance(1.5)  # the next sweep
        await office.settle()
        assert rings(office.second)

    asyncio.run(play())


def test_a_table_that_is_away_adds_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        office = Office()
        await office.ring()
        await office.other_node_saves()
        office.table.away = True
        await office.announce()
        assert office.second.silent()
        assert "exception" not in caplog.text

    asyncio.run(play())


def test_nothing_is_kept() -> None:
    async def play() -> None:
        office = Office()
        await office.ring()
        await office.announce()
        office.desk.send(answer(office.invite, 486))
        await office.announce()
        office.advance(60)
        assert len(office.late) == 0
        assert office.late._heard == {}

    asyncio.run(play())
