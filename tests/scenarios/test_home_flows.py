"""S07 to S11, S30, S37, S38 and S44: what the home proxy does when flows of a phone are dead.

Two edges and the registrar are processes of ours; the phones are scripted, so that each test reads
like the ladder of its scenario.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.peerlib.process import Crew
from tests.peerlib.sipedge import CORE, Sipedge, edge, registrar
from tests.peerlib.ua import Message, Phone


class Site:
    """Our registrar behind two edges of ours, and phones of them."""

    def __init__(self, crew: Crew, stack: ExitStack) -> None:
        self.crew = crew
        self.stack = stack
        self.home = registrar(crew)
        self.edges = [edge(crew, self.home.address), edge(crew, self.home.address)]

    def phone(self, user: str, at: Sipedge, transport: str = "udp", reg_id: int = 1) -> Phone:
        return self.stack.enter_context(Phone(user, at.at, transport, reg_id=reg_id))

    def flows(self, user: str, transport: str = "udp") -> list[Phone]:
        """A phone with a flow to each edge; the second one is the newest and is tried first."""
        first, second = (
            self.phone(user, at, transport, reg_id) for reg_id, at in enumerate(self.edges, 1)
        )
        second.instance, second.contact = first.instance, first.contact
        first.register()
        second.register()
        return [first, second]

    def caller(self, user: str = "alice") -> Phone:
        return self.phone(user, self.home)


@pytest.fixture
def site(crew: Crew) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(crew, stack)


def bound(site: Site, user: str) -> int:
    return len([row for row in site.phone(user, site.home).bindings() if row])


def answers(caller: Phone, last: str) -> list[str]:
    """The statuses that a caller gets, 100 left out, up to and with ``last``."""
    seen: list[str] = []
    while last not in seen:
        message = caller.receive()
        if message.what != "100":
            seen.append(message.what)
    return seen


def refuse(phone: Phone, invite: Message, status: int, reason: str) -> None:
    phone.respond(invite, status, reason)
    phone.expect("ACK")


@pytest.mark.rfc("HPX-03")
def test_s07_busy_on_one_flow_is_busy(site: Site) -> None:
    first, second = site.flows("bob")
    alice = site.caller()
    branch = alice.invite(first.aor)
    refuse(second, second.expect("INVITE"), 486, "Busy Here")
    alice.ack_failure(first.aor, branch, alice.expect("486"))
    first.silence(0.5)
    assert bound(site, "bob") == 2


@pytest.mark.rfc("HPX-15", "HPX-01", "HPX-02")
def test_s08_an_edge_that_is_silent(site: Site) -> None:
    first, second = site.flows("bob")
    alice = site.caller()
    os.kill(site.edges[1].program.pid, signal.SIGSTOP)
    try:
        alice.invite(first.aor)
        invite = first.expect("INVITE")  # after the registrar's patience
        first.respond(invite, 180, "Ringing")
        alice.expect("180")
    finally:
        os.kill(site.edges[1].program.pid, signal.SIGCONT)
    # it comes round, and is told that it is too late: the phone does not ring twice
    late = second.expect("INVITE")
    second.respond(late, 180, "Ringing")
    cancel = second.expect("CANCEL")
    second.respond(cancel, 200, "OK")
    refuse(second, late, 487, "Request Terminated")
    first.respond(invite, 200, "OK")
    assert answers(alice, "200") == ["200"], "one 180 and one 200"


@pytest.mark.rfc("HPX-08", "HPX-09")
def test_s09_both_flows_are_dead(site: Site) -> None:
    flows = site.flows("bob", "tcp")
    for flow in flows:
        flow.socket.close()
    alice = site.caller()
    branch = alice.invite(flows[0].aor)
    last = alice.expect("480", "430", "403", "408", "500")
    assert last.what == "480"
    alice.ack_failure(flows[0].aor, branch, last)
    alice.silence(0.5)
    assert bound(site, "bob") == 0


@pytest.mark.rfc("RGO-05", "TOK-02", "INC-04")
def test_s10_a_flow_is_replaced(site: Site) -> None:
    old = site.phone("bob", site.edges[0], "tcp")
    new = site.phone("bob", site.edges[0], "tcp")
    new.instance, new.contact = old.instance, old.contact
    was = old.register().get("Path")
    assert new.register().get("Path") != was
    assert bound(site, "bob") == 1
    alice = site.caller()
    branch = alice.invite(old.aor)
    refuse(new, new.expect("INVITE"), 486, "Busy Here")
    alice.ack_failure(old.aor, branch, alice.expect("486"))
    old.silence(0.3)
    # the old token leads to the old connection while that is open, and nowhere afterwards
    core = site.stack.enter_context(Phone("core", site.edges[0].at, host=CORE))
    for status in ("486", "430"):
        branch = core.invite(old.contact, f"Route: {was}", f"Call-ID: {status}")
        if status == "486":
            refuse(old, old.expect("INVITE"), 486, "Busy Here")
        core.ack_failure(old.contact, branch, core.expect(status), f"Call-ID: {status}")
        old.socket.close()
    new.silence(0.3)


class FakeEdge(Phone):
    """Stands where an edge stands: it registers phones by its Path, and is asked for them."""

    def register_for(self, user: str, token: str, instance: str, cseq: int) -> Message:
        self.request(
            "REGISTER",
            "sip:example.com",
            f"Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKp{cseq}",
            f"From: <sip:{user}@example.com>;tag=f",
            f"To: <sip:{user}@example.com>",
            f"Call-ID: of-{user}",
            f'Contact: <sip:{user}@10.0.0.9;ob>;+sip.instance="<{instance}>";reg-id=1',
            f"Path: <sip:{token}@{self.address};lr;ob>",
            "Supported: path, outbound",
            cseq=cseq,
        )
        return self.expect("200")


@pytest.mark.rfc("HPX-09")
def test_s11_a_430_races_with_a_registration(site: Site) -> None:
    slow = site.stack.enter_context(FakeEdge("edge", site.home.at, host=CORE))
    slow.register_for("bob", "tok1", slow.instance, 1)
    alice = site.caller()
    alice.invite("sip:bob@example.com")
    invite = slow.expect("INVITE")
    assert "tok1@" in invite.get("Route")
    slow.register_for("bob", "tok2", slow.instance, 2)
    slow.respond(invite, 430, "Flow Failed")
    ack, again = slow.expect("ACK", "INVITE"), slow.expect("ACK", "INVITE")
    if ack.what == "INVITE":
        ack, again = again, ack
    assert "tok2@" in again.get("Route")
    slow.respond(again, 200, "OK")
    assert answers(alice, "200") == ["200"]
    assert bound(site, "bob") == 1


@pytest.mark.rfc("HPX-01", "HPX-11", "HPX-14")
def test_s30_two_phones_with_two_flows_each(site: Site) -> None:
    desk, mobile = site.flows("bob", "tcp"), site.flows("bob", "tcp")
    desk[1].socket.close()  # its newest flow, so the other edge has to be asked
    alice = site.caller()
    alice.invite(desk[0].aor)
    at_mobile = mobile[1].expect("INVITE")
    mobile[1].respond(at_mobile, 180, "Ringing")
    at_desk = desk[0].expect("INVITE")
    desk[0].respond(at_desk, 180, "Ringing")
    mobile[1].respond(at_mobile, 200, "OK")
    cancel = desk[0].expect("CANCEL")
    desk[0].respond(cancel, 200, "OK")
    refuse(desk[0], at_desk, 487, "Request Terminated")
    assert answers(alice, "200") == ["180", "180", "200"]
    mobile[0].silence(0.5)


@pytest.mark.rfc("INC-14", "HPX-02")
def test_s37_a_connection_is_lost_while_it_rings(site: Site) -> None:
    first, second = site.flows("bob", "tcp")
    alice = site.caller()
    alice.invite(first.aor)
    second.respond(second.expect("INVITE"), 180, "Ringing")
    alice.expect("180")
    second.socket.close()
    again = first.expect("INVITE")
    first.respond(again, 180, "Ringing")
    first.respond(again, 200, "OK")
    assert answers(alice, "200") == ["180", "200"]
    assert bound(site, "bob") == 1


@pytest.mark.rfc("INC-13", "RGO-05")
def test_s38_a_nat_gives_a_udp_phone_another_port(site: Site) -> None:
    bob = site.phone("bob", site.edges[0])
    was = bob.register().get("Path")
    bob.socket.close()  # nothing comes in by the old mapping, as behind a NAT
    alice = site.caller()
    branch = alice.invite(bob.aor)
    alice.ack_failure(bob.aor, branch, alice.expect("480"))
    again = site.phone("bob", site.edges[0])
    again.instance, again.contact, again.call_id = bob.instance, bob.contact, bob.call_id
    again.cseq = bob.cseq
    assert again.register().get("Path") != was
    assert bound(site, "bob") == 1
    alice.invite(bob.aor, "Call-ID: again")
    refuse(again, again.expect("INVITE"), 486, "Busy Here")
    alice.expect("486")


def message(caller: Phone, uri: str, number: int) -> None:
    caller.request(
        "MESSAGE", uri, f"From: <{caller.aor}>;tag=m{number}", f"To: <{uri}>",
        f"Call-ID: message-{number}",
    )  # fmt: skip


@pytest.mark.rfc("HPX-02", "HPX-08")
def test_s44_a_message_to_a_dead_flow(site: Site) -> None:
    first, second = site.flows("bob", "tcp")
    alice = site.caller()
    second.socket.close()
    message(alice, first.aor, 1)
    first.respond(first.expect("MESSAGE"), 200, "OK")
    alice.expect("200")
    first.socket.close()
    message(alice, first.aor, 2)
    alice.expect("480")
    assert bound(site, "bob") == 0


@pytest.mark.rfc("HPX-15", "TXN-09")
def test_s44_a_message_to_a_phone_that_is_silent(crew: Crew) -> None:
    """The sender's own timer ends it; nobody says 408, and it is not delivered twice."""
    load = 'loadmodule("tm")'
    changes = {
        "127.0.0.2:5060": "@here@",
        load: f'{load}\nmodparam("tm", "fr_timer", 1000)',
    }
    home = Sipedge(crew, "registrar", CORE, 0, changes)
    edges = edge(crew, home.address), edge(crew, home.address)
    with (
        Phone("bob", edges[0].at, "tcp") as first,
        Phone("bob", edges[1].at, "tcp", reg_id=2) as second,
        Phone("alice", home.at) as alice,
    ):
        second.instance, second.contact = first.instance, first.contact
        first.register()
        second.register()
        message(alice, first.aor, 1)
        second.expect("MESSAGE")
        first.silence(2.5)
        with pytest.raises(TimeoutError):  # 100 would be passed over
            alice.expect("408", timeout=0.5)
