"""Module tm: contacts that a route drives by hand (Kamailio's ``t_load_contacts`` and its kin)."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.forward import Target
from sipedge.sip.message import SipMessage
from sipedge.tm.contacts import Contacts
from sipedge.tm.relay import group_targets
from tests.sim import RELAY_ALL, Peer, Sim, answer, request

#: as in the README of Kamailio's module outbound, without guards for a single contact
BY_HAND = (
    RELAY_ALL.replace("def request_route", "def unused")
    + """
def request_route(ksr, msg):
    LOG.clear()
    TARGETS(msg)
    if not ksr.tm.t_load_contacts(msg) or not ksr.tm.t_next_contacts(msg):
        return ksr.sl.send_reply(msg, 500, "No contacts")
    ksr.tm.t_on_failure(msg, "next_group")
    ksr.tm.t_on_branch_failure(msg, "next_flow")
    ksr.tm.t_relay(msg)

def next_group(ksr, msg):
    LOG.append("failure")
    rc = ksr.tm.t_next_contacts(msg)
    LOG.append(int(rc))
    if rc:
        ksr.tm.t_on_failure(msg, "next_group")
        ksr.tm.t_relay(msg)

def next_flow(ksr, msg):
    LOG.append(STATUS(msg))
    if ksr.tm.t_check_status(msg, "430|403"):
        rc = ksr.tm.t_next_contact_flow(msg)
        LOG.append(int(rc))
        if rc:
            ksr.tm.t_relay(msg)

LOG = []
"""
)


class Hand:
    """An edge with that script, whose targets are flows of phones."""

    def __init__(self, source: str = BY_HAND) -> None:
        self.sim = Sim(source)
        self.caller = self.sim.udp()
        self.targets: list[Target] = []
        names = self.sim.edge.config.routes["request_route"].__globals__
        names["TARGETS"] = self.give
        names["STATUS"] = lambda msg: msg.via_branch.status
        self.log: list[Any] = names["LOG"]
        self.failed: list[tuple[int, int]] = []

    def give(self, msg: SipMessage) -> None:
        msg.targets = list(self.targets)

    def add(self, n: int, instance: bytes = b"", q: float = 1.0) -> Peer:
        """A phone at 127.0.0.1<n>."""
        peer = self.sim.udp(f"127.0.0.1{n}")

        def on_failed(target: Target, status: int) -> list[Target]:
            self.failed.append((target.reg_id, status))
            return []

        uri = b"sip:bob@127.0.0.1%d" % n
        self.targets.append(
            Target(uri, flow=peer.flow, q=q, instance=instance, reg_id=n, on_failed=on_failed)
        )
        return peer

    def call(self, method: str = "INVITE", branch: str = "z9hG4bKa1") -> None:
        self.caller.send(request(method, branch=branch))

    def finals(self) -> list[int]:
        return [msg.status for msg in self.caller.got if msg.status >= 200]


def reply(peer: Peer, status: int) -> None:
    msg = peer.take()
    while msg.method == b"ACK":
        msg = peer.take()
    peer.send(answer(msg, status))


def test_one_contact_is_enough() -> None:
    """Kamailio makes no list then, so that its own example answers 500."""
    hand = Hand()
    phone = hand.add(1)
    hand.call()
    reply(phone, 200)
    assert hand.finals() == [200]
    assert hand.log == []


def test_without_lookup_the_request_uri_is_the_one_contact() -> None:
    hand = Hand()
    hand.give = lambda msg: None  # type: ignore[method-assign]
    hand.sim.edge.config.routes["request_route"].__globals__["TARGETS"] = hand.give
    hand.call()
    reply(hand.sim.udp("127.0.0.9"), 200)
    assert hand.finals() == [200]


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_groups_of_falling_q_one_after_the_other(method: str) -> None:
    hand = Hand()
    low, high, also_high = hand.add(1, q=0.1), hand.add(2, q=0.9), hand.add(3, q=0.9)
    hand.call(method)
    assert low.silent()
    reply(high, 404)
    assert low.silent(), "somebody else may still answer"
    reply(also_high, 480)
    assert hand.finals() == []
    reply(low, 486)
    assert hand.finals() == [404]
    assert hand.log == [404, 480, "failure", 1, 486, "failure", -2]


@pytest.mark.rfc("HPX-01", "HPX-02")
def test_one_flow_of_an_instance_at_a_time_and_the_next_one_by_hand() -> None:
    hand = Hand()
    one, two = hand.add(1, b"I"), hand.add(2, b"I")
    other = hand.add(3, b"J")
    hand.call()
    assert two.silent()
    reply(one, 430)
    reply(two, 430)
    assert hand.log == [430, 1, 430, -2]
    assert hand.finals() == []
    reply(other, 200)
    assert hand.finals() == [200]
    assert hand.failed == [(1, 430), (2, 430)], "the registrar hears of dead flows"


def test_codes_of_next_contact_flow() -> None:
    hand = Hand()
    one, two, three = hand.add(1, b"I"), hand.add(2, b"I"), hand.add(3, b"J")
    plain = hand.add(4)
    hand.call()
    reply(plain, 403)
    assert hand.log == [403, -2], "no instance"
    reply(three, 430)
    assert hand.log[2:] == [430, -1], "another instance has flows left"
    reply(one, 430)
    reply(two, 430)
    assert hand.log[4:] == [430, 1, 430, -2, "failure", -2]
    assert hand.finals() == [403]


def test_without_the_branch_failure_route_no_flow_follows() -> None:
    hand = Hand(BY_HAND.replace('    ksr.tm.t_on_branch_failure(msg, "next_flow")\n', ""))
    one, two = hand.add(1, b"I"), hand.add(2, b"I")
    hand.call()
    reply(one, 430)
    assert two.silent()
    assert hand.finals() == [480]
    assert hand.log == ["failure", -2]


def test_not_by_hand_the_next_flow_follows_by_itself() -> None:
    source = BY_HAND.replace(
        "not ksr.tm.t_load_contacts(msg) or not ksr.tm.t_next_contacts(msg)", "0"
    )
    hand = Hand(source)
    one, two = hand.add(1, b"I"), hand.add(2, b"I")
    hand.call()
    reply(one, 430)
    reply(two, 200)
    assert hand.finals() == [200]
    assert hand.log == [430, -2], "the route is asked, and there is nothing to do by hand"


def test_dead_flows_and_silence_are_asked_about_too() -> None:
    hand = Hand()
    dead = hand.sim.tcp("127.0.0.11")
    hand.add(1, b"I")
    hand.targets[0].flow = dead.flow
    dead.close()
    two = hand.add(2, b"I")
    three = hand.add(3, b"I")
    hand.call()
    assert hand.log == [430, 1], "before anything was sent"
    assert three.silent()
    assert two.take().method == b"INVITE"
    hand.sim.advance(33)
    assert hand.log[2:] == [430, 1]
    reply(three, 200)
    assert hand.finals() == [200]


def test_the_branch_failure_route_of_a_branch_that_failed_at_once_in_a_group() -> None:
    """The rest of the group is started all the same, and the answer waits for it."""
    hand = Hand()
    dead = hand.sim.tcp("127.0.0.11")
    hand.add(1, b"I")
    hand.targets[0].flow = dead.flow
    dead.close()
    other = hand.add(2, b"J")
    hand.call()
    assert hand.finals() == []
    assert "failure" not in hand.log
    reply(other, 486)
    assert hand.finals() == [486]
    assert hand.log == [430, -2, 486, "failure", -2]


def test_what_the_registrar_offers_instead_is_not_tried_by_itself() -> None:
    hand = Hand(BY_HAND.replace('    ksr.tm.t_on_branch_failure(msg, "next_flow")\n', ""))
    one = hand.add(1, b"I")
    fresh = hand.sim.udp("127.0.0.12")
    hand.targets[0].on_failed = lambda target, status: [Target(b"sip:b@c", flow=fresh.flow)]
    hand.call()
    reply(one, 430)
    assert fresh.silent()
    assert hand.finals() == [480]


def test_the_branch_of_a_route_stays_its_own_whatever_happens_to_others() -> None:
    relayed = "            ksr.tm.t_relay(msg)\n"
    logged = "            LOG.append(msg.via_branch.target.reg_id)\n"
    hand = Hand(BY_HAND.replace(relayed, relayed + logged))
    one = hand.add(1, b"I")
    dead = hand.sim.tcp("127.0.0.12")
    hand.add(2, b"I")
    hand.targets[1].flow = dead.flow
    dead.close()
    three = hand.add(3, b"I")
    hand.call()
    reply(one, 403)
    # the second one failed at once, while the route for the first one was still running
    assert hand.log == [403, 1, 430, 1, 2, 1]
    reply(three, 200)
    assert hand.finals() == [200]


def test_after_a_cancel_nothing_is_tried() -> None:
    hand = Hand()
    one, two = hand.add(1, b"I"), hand.add(2, b"I")
    hand.call()
    invite = one.take()
    one.send(answer(invite, 180))
    hand.caller.send(request("CANCEL"))
    one.take()
    one.send(answer(invite, 430))
    assert two.silent()
    assert hand.log == []
    assert hand.finals() == [200, 480], "to the CANCEL, to the INVITE"


def test_after_6xx_and_2xx_nothing_is_tried() -> None:
    hand = Hand()
    one, two, other = hand.add(1, b"I"), hand.add(2, b"I"), hand.add(3, b"J")
    hand.call()
    first = one.take()
    reply(other, 603)
    one.send(answer(first, 430))
    assert two.silent()
    assert hand.finals() == [603]


def test_t_relay_in_that_route_needs_something_to_relay_to() -> None:
    source = BY_HAND.replace('if ksr.tm.t_check_status(msg, "430|403"):', "if 0:").replace(
        "    LOG.append(STATUS(msg))\n",
        "    LOG.append(int(ksr.tm.t_relay(msg)))\n"
        '    ksr.tm.append_branch(msg, "sip:mailbox@127.0.0.19")\n'
        "    LOG.append(int(ksr.tm.t_relay(msg)))\n",
    )
    hand = Hand(source)
    one = hand.add(1, b"I")
    hand.call()
    reply(one, 486)
    assert hand.log == [-1, 1]
    reply(hand.sim.udp("127.0.0.19"), 200)
    assert hand.finals() == [200]


def test_an_exception_in_that_route_is_500_and_not_silence() -> None:
    hand = Hand(BY_HAND.replace("LOG.append(STATUS(msg))", "raise ValueError"))
    one = hand.add(1, b"I")
    hand.call()
    reply(one, 430)
    assert hand.finals() == [500]
    assert hand.sim.core.stats["exceptions"] == 1


def test_nothing_was_loaded() -> None:
    hand = Hand(BY_HAND.replace("not ksr.tm.t_load_contacts(msg) or ", ""))
    hand.add(1)
    hand.call()
    assert hand.finals() == [500]


def test_append_branch_counts_too() -> None:
    load = "    if not ksr.tm.t_load"
    append = '    ksr.tm.append_branch(msg, "sip:b@127.0.0.19", 0.5)\n'
    hand = Hand(BY_HAND.replace(load, append + load))
    one = hand.add(1)
    hand.call()
    mailbox = hand.sim.udp("127.0.0.19")
    assert mailbox.silent()
    reply(one, 486)
    reply(mailbox, 200)
    assert hand.finals() == [200]


def test_the_mode_of_kamailio_changes_nothing() -> None:
    hand = Hand(BY_HAND.replace("t_load_contacts(msg)", "t_load_contacts(msg, 1)"))
    one = hand.add(1)
    hand.call()
    reply(one, 200)
    assert hand.finals() == [200]


def test_contacts_hand_out_groups_and_flows() -> None:
    flows = [Target(b"%d" % n, instance=b"I", q=0.5 + n / 10) for n in range(3)]
    other = Target(b"x", q=0.1)
    contacts = Contacts(group_targets([*flows, other]))
    assert contacts.next_group() == [flows[2]]
    assert contacts.has_flows()
    assert [contacts.next_flow(b"I") for _ in range(3)] == [flows[1], flows[0], None]
    assert contacts.next_flow(b"") is None
    assert not contacts.has_flows()
    assert [contacts.next_group(), contacts.next_group()] == [[other], []]


@pytest.mark.rfc("GRU-04")
def test_an_ack_goes_to_the_first_target_of_a_lookup() -> None:
    head = "def request_route(ksr, msg):\n"
    hand = Hand(RELAY_ALL.replace(head, f"LOG = []\n{head}    TARGETS(msg)\n"))
    one, two = hand.add(1), hand.add(2)
    hand.call("ACK")
    assert one.take().ruri == b"sip:bob@127.0.0.11"
    assert two.silent()
