"""What becomes of bindings: counters, binds of other modules, the operator's function."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registrar_plugin.api import Binding, RegistrarBinds
from sipedge.errors import ConfigError
from tests.registrar_plugin.home import EDGE2, I2, Home, outbound_contact
from tests.sim import Sim

SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
alias("example.com")
loadmodule("registrar")
seen = []
"""
ROUTE = """
def request_route(ksr, msg):
    ksr.registrar.save(msg, "location")
"""

Seen = list[tuple[str, bytes, str]]


class Listening(Home):
    """A registrar to which somebody listens."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.seen: Seen = []
        binds = self.exports["bind_registrar"]
        assert isinstance(binds, RegistrarBinds)
        self.binds = binds
        binds.on_event(self.hear)

    def hear(self, name: str, aor: bytes, binding: Binding) -> None:
        self.seen.append((name, aor, f"{binding.uri.decode()} {binding.reg_id}"))

    def take(self) -> Seen:
        seen, self.seen = self.seen, []
        return seen

    def counted(self) -> dict[str, int]:
        """Counters of contacts since the last time."""
        stats = self.core.stats
        names = [name for name in stats if name.startswith("contacts_")]
        return {name: stats.pop(name) for name in names}


BOB = b"bob@example.com"
ONE = ("sip:bob@10.0.0.9 1", "sip:bob@10.0.0.9 2")


@pytest.fixture
def home() -> Listening:
    return Listening()


def test_registered_and_refreshed_by_either_way(home: Listening) -> None:
    assert home.register(outbound_contact()).status == 200
    assert home.take() == [("registered", BOB, ONE[0])]
    assert home.register(outbound_contact()).status == 200  # word for word: the fast path
    assert home.take() == [("refreshed", BOB, ONE[0])]
    assert home.register(outbound_contact(uri="sip:bob@10.0.0.10")).status == 200
    assert home.take() == [("refreshed", BOB, "sip:bob@10.0.0.10 1")]
    assert home.counted() == {"contacts_registered": 1, "contacts_refreshed": 2}
    assert home.core.stats["accepted_regs"] == 3


def test_a_second_flow_is_a_registration_of_its_own(home: Listening) -> None:
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    assert home.take() == [("registered", BOB, ONE[0]), ("registered", BOB, ONE[1])]
    home.register(outbound_contact(2), path=(EDGE2,))
    assert home.take() == [("refreshed", BOB, ONE[1])]


def test_without_outbound_the_uri_is_the_key(home: Listening) -> None:
    home.register("<sip:bob@192.0.2.9>", "<sip:bob@192.0.2.10>")
    assert [event[0] for event in home.take()] == ["registered", "registered"]
    home.register("<sip:bob@192.0.2.9>;q=0.1")
    assert home.take() == [("refreshed", BOB, "sip:bob@192.0.2.9 0")]


def test_unregistered_alone_and_with_others(home: Listening) -> None:
    home.register("<sip:bob@192.0.2.9>", "<sip:bob@192.0.2.10>", "<sip:bob@192.0.2.11>")
    home.take()
    home.register("<sip:bob@192.0.2.9>;expires=0", "<sip:bob@192.0.2.10>")
    assert home.take() == [
        ("refreshed", BOB, "sip:bob@192.0.2.10 0"),
        ("unregistered", BOB, "sip:bob@192.0.2.9 0"),
    ]
    home.register("*", headers="Expires: 0\r\n")
    assert [event[0] for event in home.take()] == ["unregistered"] * 2
    assert home.counted() == {
        "contacts_registered": 3, "contacts_refreshed": 1, "contacts_unregistered": 3,
    }  # fmt: skip


def test_what_only_this_flag_removes_is_unregistered(home: Listening) -> None:
    home.register("<sip:bob@192.0.2.9>")
    home.take()
    home.flags = 0x04
    home.register("<sip:bob@192.0.2.10>")
    assert [event[0] for event in home.take()] == ["registered", "unregistered"]


def test_nothing_happened_nothing_is_told(home: Listening) -> None:
    home.register("<sip:bob@192.0.2.9>;expires=0")
    home.register()
    assert home.register("<sip:bob@192.0.2.9>;expires=1").status == 423
    assert (home.take(), home.counted()) == ([], {})
    assert home.core.stats["rejected_regs"] == 1
    assert home.core.stats["accepted_regs"] == 2


def test_expired(home: Listening) -> None:
    home.register(outbound_contact(1, more=";expires=60"))
    home.register(outbound_contact(2, more=";expires=600"))
    home.take()
    home.advance(59)
    assert home.take() == []
    home.advance(3)
    assert home.take() == [("expired", BOB, ONE[0])]
    home.advance(600)
    assert home.take() == [("expired", BOB, ONE[1])]
    assert home.counted()["contacts_expired"] == 2


def test_flow_lost(home: Listening) -> None:
    phone = home.tcp()
    home.register(outbound_contact(), flow=phone)
    home.take()
    home.core.flow_closed(phone, "closed by the peer", home.now)
    assert home.take() == [("flow lost", BOB, ONE[0])]
    assert home.counted()["contacts_lost_with_flow"] == 1


def test_a_flow_that_failed_at_another_edge_is_lost_too(home: Listening) -> None:
    home.register(outbound_contact())
    home.take()
    _, (target,) = home.lookup()
    assert target.on_failed is not None
    target.on_failed(target, 408)
    assert home.take() == [], "silence is no dead flow"
    target.on_failed(target, 430)
    assert home.take() == [("flow lost", BOB, ONE[0])]
    assert home.counted()["contacts_failed"] == 1


def test_a_phone_that_listens_elsewhere_is_not_lost(home: Listening) -> None:
    phone = home.tcp("198.51.100.7", 40001)
    home.register("<sip:bob@198.51.100.7:5060;transport=tcp>", flow=phone)
    home.take()
    home.core.flow_closed(phone, "idle", home.now)
    assert home.take() == []
    assert len(home.bindings()) == 1


def test_unregister_of_a_route(home: Listening) -> None:
    home.register(outbound_contact(1), path=(EDGE2,))
    home.register(outbound_contact(1, I2))
    home.take()
    ruid = home.bindings()[0].ruid
    msg: Any = type("Msg", (), {"now": home.now})()
    assert home.registrar.unregister(msg, "location", "sip:bob@example.com", ruid) == 1
    assert home.take() == [("unregistered", BOB, ONE[0])]


# who listens


def test_all_are_told_whatever_one_of_them_raises(
    home: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str, aor: bytes, binding: Binding) -> None:
        raise ValueError("a mistake of the listener")

    last: list[str] = []
    home.binds.on_event(broken)
    home.binds.on_event(lambda name, aor, binding: last.append(name))
    assert home.register(outbound_contact()).status == 200
    assert len(home.bindings()) == 1
    assert (len(home.take()), last) == (1, ["registered"])
    assert home.core.stats["event_exceptions"] == 1
    assert "a mistake of the listener" in caplog.text


def test_nobody_listens() -> None:
    home = Home()
    home.register(outbound_contact())
    home.register(outbound_contact())
    assert home.registrar._location.events.tell is None
    assert home.core.stats["contacts_refreshed"] == 1


def register(sim: Sim, cseq: int = 1) -> int:
    peer = sim.udp("192.0.2.9")
    peer.send(
        f"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK{cseq}\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:bob@example.com>;tag=f\r\nTo: <sip:bob@example.com>\r\n"
        f"Call-ID: c\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:bob@192.0.2.9>\r\n\r\n".encode()
    )
    return peer.take().status


TELL = """
def location_event(ksr, event):
    ksr.info("told")
    seen.append((event.name, event.aor, event.binding.uri))
"""


@pytest.mark.parametrize(
    "text",
    [
        TELL + 'modparam("registrar", "event_callback", location_event)\n',
        'modparam("registrar", "event_callback", "location_event")\n' + TELL,
    ],
)
def test_a_function_of_the_configuration(text: str) -> None:
    sim = Sim(SOURCE + text + ROUTE)
    assert register(sim) == 200
    seen = sim.edge.config.routes["location_event"].__globals__["seen"]
    assert seen == [("registered", BOB, b"sip:bob@192.0.2.9")]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_exception_in_it_costs_nobody_an_answer(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"{kind} told(ksr, event):\n    raise KeyError(event.name)\n"
    text += 'modparam("registrar", "event_callback", told)\n'
    sim = Sim(SOURCE + text + ROUTE)
    assert register(sim) == 200
    assert sim.core.stats["event_exceptions"] == 1
    assert "KeyError: 'registered'" in caplog.text


def test_it_may_be_async() -> None:
    text = """
import asyncio
async def told(ksr, event):
    await asyncio.sleep(0)
    seen.append(event.name)
modparam("registrar", "event_callback", told)
"""
    sim = Sim(SOURCE + text + ROUTE)
    tasks: list[Any] = []
    sim.core.spawn = tasks.append
    assert register(sim) == 200
    asyncio.run(tasks[0])
    assert sim.edge.config.routes["told"].__globals__["seen"] == ["registered"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('modparam("registrar", "event_callback", "gone")\n', r"write: def gone\(ksr, event\):"),
        (
            'def told(event): pass\nmodparam("registrar", "event_callback", told)\n',
            "told must take two arguments",
        ),
        ('modparam("registrar", "event_callback", 7)\n', "wants str or function, not int"),
    ],
)
def test_what_cannot_be_told_refuses_the_start(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Sim(SOURCE + text + ROUTE)
    assert caught.value.line == (SOURCE + text).count("\n")
