"""A phone that registers while a call for its user is ringing (RFC 3261 §16.5)."""

from __future__ import annotations

from typing import Any

import pytest

from registrar_plugin.plugin import RegistrarPlugin
from sipedge.sip.message import SipMessage
from tests.registrar_plugin.home import I1, I2, outbound_contact, register_text
from tests.sim import Peer, Sim, answer, request

SOURCE = """
listen("udp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("registrar")
modparam("registrar", "append_late_branches", 1)
def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg, "other" if msg.call_id.startswith(b"other") else "location")
    elif ksr.registrar.lookup(msg):
        ksr.tm.t_relay(msg)
"""


class Office:
    """A home proxy with phones of one user; each has a flow of its own."""

    def __init__(self, source: str = SOURCE) -> None:
        self.sim = Sim(source)
        self.caller = self.sim.udp()
        self.count = 0

    def phone(self, n: int, instance: str = "", more: str = "", **how: Any) -> Peer:
        """Register, or refresh, the phone at 127.0.1.<n>."""
        self.count += 1
        peer = self.sim.udp(f"127.0.1.{n}")
        uri = f"sip:bob@127.0.1.{n}:5060"
        contact = outbound_contact(how.pop("reg_id", 1), instance, uri, more) if instance else (
            f"<{uri}>{more}"
        )  # fmt: skip
        values: dict[str, Any] = {
            "path": (),
            "vias": 1,
            "via_host": f"127.0.1.{n}",
            "call_id": f"r{n}",
        }
        peer.send(
            register_text(
                contact, cseq=self.count, branch=f"z9hG4bKr{self.count}", **(values | how)
            )
        )
        assert [msg.status for msg in peer.got if not msg.is_request][-1:] == [200]
        peer.got[:] = [msg for msg in peer.got if msg.is_request]
        return peer

    def call(self, uri: str = "sip:bob@example.com", **how: Any) -> None:
        self.caller.send(request(uri=uri, **how))

    def finals(self) -> list[int]:
        return [msg.status for msg in self.caller.got if msg.status >= 200]

    @property
    def watched(self) -> int:
        plugin = self.sim.edge.modules["registrar"]
        assert isinstance(plugin, RegistrarPlugin)
        assert plugin._lookup.late is not None
        return len(plugin._lookup.late)


def ringing(peer: Peer) -> SipMessage:
    invite = peer.take()
    assert invite.method == b"INVITE"
    peer.send(answer(invite, 180))
    return invite


@pytest.mark.rfc("HPX-19")
def test_it_rings_and_may_answer() -> None:
    office = Office()
    desk = office.phone(1, I1)
    office.call()
    first = ringing(desk)
    mobile = office.phone(2, I2)
    second = ringing(mobile)
    assert first.via().branch != second.via().branch
    mobile.send(answer(second, 200))
    assert desk.take().method == b"CANCEL"
    assert office.finals() == [200]


@pytest.mark.rfc("HPX-19")
@pytest.mark.parametrize("instance", [I1, ""])
def test_each_phone_only_once(instance: str) -> None:
    office = Office()
    desk = office.phone(1, instance)
    office.call()
    invite = ringing(desk)
    office.phone(1, instance)  # a refresh
    assert desk.silent()
    if instance:
        another_flow = office.phone(3, instance, reg_id=2)
        assert another_flow.silent()
    mobile = office.phone(2, I2)
    ringing(mobile)
    office.phone(2, I2)
    assert mobile.silent()
    desk.send(answer(invite, 486))
    assert desk.take().method == b"ACK"
    office.phone(1, instance)
    assert desk.silent(), "busy is an answer"


def test_a_phone_whose_flow_had_failed_is_tried_again() -> None:
    office = Office()
    desk, lobby = office.phone(1, I1), office.phone(2, I2)
    office.call()
    ringing(lobby)
    desk.send(answer(desk.take(), 430))
    assert desk.take().method == b"ACK"
    ringing(office.phone(3, I1))


def test_lower_q_waits_for_its_turn() -> None:
    office = Office()
    desk = office.phone(1, I1, ";q=0.9")
    lowest = office.phone(4, "urn:x:4", ";q=0.1")
    office.call()
    invite = ringing(desk)
    low = office.phone(2, I2, ";q=0.5")
    equal = office.phone(3, "urn:x:3", ";q=0.9")
    second = ringing(equal)
    office.phone(2, I2, ";q=0.5")
    assert (low.silent(), lowest.silent()) == (True, True)
    for peer, msg in ((desk, invite), (equal, second)):
        peer.send(answer(msg, 486))
    third = ringing(low)
    assert lowest.silent()
    low.send(answer(third, 486))
    ringing(lowest)


@pytest.mark.parametrize("how", ["answered", "declined", "cancelled", "over"])
def test_not_when_it_is_too_late(how: str) -> None:
    office = Office()
    desk = office.phone(1, I1)
    office.call()
    invite = ringing(desk)
    if how == "cancelled":
        office.caller.send(request("CANCEL", "sip:bob@example.com"))
    else:
        desk.send(answer(invite, {"answered": 200, "declined": 603, "over": 404}[how]))
    assert office.phone(2, I2).silent()


def test_not_for_others() -> None:
    office = Office()
    desk = office.phone(1, I1)
    office.call()
    ringing(desk)
    for_carol = office.phone(2, I2, to="<sip:carol@example.com>")
    other_table = office.phone(3, I2, call_id="other")
    gone = office.phone(1, I1, ";expires=0")
    assert (for_carol.silent(), other_table.silent(), gone.silent()) == (True, True, True)


def test_a_call_to_a_gruu_rings_at_that_phone_only() -> None:
    office = Office()
    office.phone(1, I1)
    office.call(f"sip:bob@example.com;gr={I1}")
    assert office.phone(2, I2).silent()


def test_nothing_is_kept_of_calls_that_are_over() -> None:
    office = Office()
    desk = office.phone(1, I1)
    office.call()
    invite = ringing(desk)
    office.sim.advance(3)
    assert office.watched == 1
    desk.send(answer(invite, 486))
    office.caller.send(request("ACK", "sip:bob@example.com", to_tag="t1"))
    office.sim.advance(40)
    assert office.watched == 0


def test_requests_that_do_not_ring_are_not_watched() -> None:
    office = Office()
    office.phone(1, I1)
    office.caller.send(request("MESSAGE", "sip:bob@example.com"))
    office.call(branch="z9hG4bKb", to_tag="t")
    assert office.watched == 0


def test_only_if_the_operator_wants_it() -> None:
    office = Office(SOURCE.replace('"append_late_branches", 1', '"append_late_branches", 0'))
    office.phone(1, I1)
    office.call()
    assert office.phone(2, I2).silent()


def test_not_when_a_route_drives_the_contacts_by_hand() -> None:
    by_hand = "ksr.tm.t_load_contacts(msg); ksr.tm.t_next_contacts(msg); ksr.tm.t_relay(msg)"
    office = Office(SOURCE.replace("ksr.tm.t_relay(msg)", by_hand))
    ringing_desk = office.phone(1, I1)
    office.call()
    ringing(ringing_desk)
    assert office.phone(2, I2).silent()
