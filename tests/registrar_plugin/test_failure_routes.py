"""``async def`` failure routes: whoever waits for a table in one is waited for (RFC 3261 §16.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from registrar_plugin.bindings import Binding
from sipedge.sip.message import SipMessage
from tests.registrar_plugin.home import EDGE2, I2, outbound_contact
from tests.registrar_plugin.test_async import Play
from tests.sim import Peer, answer, request

SOURCE = """
listen("udp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("registrar")

async def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        await ksr.registrar.save_async(msg, "location")
    elif await ksr.registrar.lookup_async(msg, "location"):
        ksr.tm.t_on_failure(msg, failure_route)
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 480, "Nobody")

async def failure_route(ksr, msg):
    if await ksr.registrar.registered_async(msg, "location", "sip:mailbox@example.com"):
        await ksr.registrar.lookup_async(msg, "location", "sip:mailbox@example.com")
        ksr.tm.t_relay(msg)
"""


class Office(Play):
    """Bob's phone and his mailbox, each behind an edge; somebody calls bob."""

    def __init__(self, source: str = SOURCE) -> None:
        super().__init__(source)
        self.phone = self.udp("192.0.2.1", 5060)
        self.mailbox = self.udp("192.0.2.2", 5060)
        self.caller = self.udp("198.51.100.9", 5060)

    async def open(self, mailbox: bool = True) -> None:
        self.register(self.phone)
        await self.settle()
        if mailbox:
            contact = outbound_contact(instance=I2, uri="sip:mailbox@10.0.0.8")
            data = self.register(self.phone, contact, path=EDGE2)
            assert b"To: <sip:bob@example.com>" in data
            # a mailbox is nobody's phone: another address-of-record, written down by hand
            await self.settle()
            (row,) = [row for row in self.rows(b"bob@example.com") if row.instance == I2.encode()]
            self.table.memory.replace(b"bob@example.com", (row,), (), self.now)
            self.table.memory.replace(b"mailbox@example.com", (), (row,), self.now)
        self.phone.got.clear()

    def rows(self, aor: bytes) -> tuple[Binding, ...]:
        return self.table.memory.fetch(aor, self.now)

    async def call(self, method: str = "INVITE") -> SipMessage:
        self.caller.send(request(method, "sip:bob@example.com", via="SIP/2.0/UDP 198.51.100.9"))
        await self.settle()
        return self.phone.take()

    def statuses(self) -> list[int]:
        return [msg.status for msg in self.caller.got]


def run(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(play())


def busy(phone: Peer, invite: SipMessage) -> None:
    phone.send(answer(invite, 486))


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_the_answer_waits_for_the_route(method: str) -> None:
    async def play() -> None:
        office = Office()
        await office.open()
        invite = await office.call(method)
        office.table.turn.clear()
        busy(office.phone, invite)
        await asyncio.sleep(0)
        office.drain()
        first = [100] if method == "INVITE" else []
        assert office.statuses() == first, "nobody knows yet whether 486 is the answer"
        office.table.turn.set()
        await office.settle()
        second = office.mailbox.take()
        assert second.ruri == b"sip:mailbox@10.0.0.8"
        office.mailbox.send(answer(second, 200))
        assert office.statuses() == [*first, 200]

    run(play)


def test_a_route_that_does_nothing_lets_the_best_answer_go() -> None:
    async def play() -> None:
        office = Office()
        await office.open(mailbox=False)
        busy(office.phone, await office.call())
        await office.settle()
        assert office.statuses() == [100, 486]

    run(play)


def test_a_route_that_fails_is_500() -> None:
    async def play() -> None:
        office = Office(
            SOURCE.replace(
                "    if await ksr.registrar.reg", "    undefined()\n    if await ksr.registrar.reg"
            )
        )
        await office.open()
        busy(office.phone, await office.call())
        await office.settle()
        assert office.statuses() == [100, 500]
        assert office.mailbox.silent()

    run(play)


def test_cancelled_while_the_route_waits() -> None:
    async def play() -> None:
        office = Office()
        await office.open()
        invite = await office.call()
        office.table.turn.clear()
        busy(office.phone, invite)
        await asyncio.sleep(0)
        office.caller.send(request("CANCEL", "sip:bob@example.com", via="SIP/2.0/UDP 198.51.100.9"))
        office.table.turn.set()
        await office.settle()
        assert office.mailbox.silent()
        assert office.statuses() == [100, 200, 486], "200 is for the CANCEL"

    run(play)


def test_each_failure_may_have_a_route_of_its_own() -> None:
    """The second one waits when the first one is over: the answer is that of the second."""

    async def play() -> None:
        before, relay, _ = SOURCE.rpartition("        ksr.tm.t_relay(msg)\n")
        source = f"""{before}
        ksr.tm.t_on_failure(msg, "last")
{relay}
        await first.wait()

async def last(ksr, msg):
    await second.wait()
    ksr.tm.t_reply(msg, 404, "Nowhere")
"""
        office = Office(source)
        gates = {"first": asyncio.Event(), "second": asyncio.Event()}
        office.edge.config.routes["request_route"].__globals__.update(gates)
        await office.open()
        busy(office.phone, await office.call())
        while office.mailbox.silent():
            await asyncio.sleep(0)
        busy(office.mailbox, office.mailbox.take())
        for _ in range(5):
            await asyncio.sleep(0)
        gates["first"].set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert office.statuses() == [100]
        gates["second"].set()
        await office.settle()
        assert office.statuses() == [100, 404]

    run(play)


@pytest.mark.rfc("HPX-09", "HPX-08")
def test_a_registration_that_overtakes_the_430_is_called_with_a_slow_table_too() -> None:
    async def play() -> None:
        office = Office()
        await office.open(mailbox=False)
        invite = await office.call()
        office.register(office.phone, path="<sip:new@192.0.2.1:5060;lr;ob>")
        await office.settle()
        assert office.phone.take().status == 200
        office.table.turn.clear()
        office.phone.send(answer(invite, 430))
        await asyncio.sleep(0)
        assert office.phone.take().method == b"ACK"
        assert office.statuses() == [100]
        office.table.turn.set()
        await office.settle()
        again = office.phone.take()
        assert again.method == b"INVITE"
        assert again.values(b"route") == [b"<sip:new@192.0.2.1:5060;lr;ob>"]
        office.phone.send(answer(again, 200))
        assert office.statuses() == [100, 200]
        assert len(office.rows(b"bob@example.com")) == 1

    run(play)


@pytest.mark.parametrize("how", ["cancelled", "away", "nothing there"])
def test_what_becomes_of_the_call_while_the_table_is_asked(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        office = Office(SOURCE.replace("ksr.tm.t_on_failure(msg, failure_route)", "pass"))
        await office.open(mailbox=False)
        invite = await office.call()
        office.table.turn.clear()
        office.phone.send(answer(invite, 430))
        await asyncio.sleep(0)
        if how == "cancelled":
            office.caller.send(
                request("CANCEL", "sip:bob@example.com", via="SIP/2.0/UDP 198.51.100.9")
            )
            assert office.statuses() == [100, 200, 487]
        office.table.away = how == "away"
        office.table.turn.set()
        await office.settle()
        ends = [100, 200, 487] if how == "cancelled" else [100, 480]
        assert office.statuses() == ends
        assert len(office.rows(b"bob@example.com")) == (how == "away")
        assert [msg.method for msg in office.phone.got] == [b"ACK"]
        assert "exception" not in caplog.text

    run(play)
