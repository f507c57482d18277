"""A phone behind a NAT that masquerades, and that lets nobody in who was not asked for.

The NAT is Linux's own, between network namespaces; edge and registrar are ``sipedge run`` in the
core namespace, which has no route to the phone.  The edge is killed with -9 and started again with
the same key: the phone is not told, and does not register again.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

import pytest

from tests.peerlib.baresip import Baresip
from tests.peerlib.netns import EDGE, HOME, OUTSIDE, PEER, PHONE, Nat
from tests.peerlib.process import Crew
from tests.peerlib.sipedge import Sipedge, edge, registrar
from tests.peerlib.ua import Message, Phone

EDGE_AT = (EDGE, 5060)
HOME_AT = (HOME, 5070)


@dataclass
class Net:
    """The NAT, our edge and our registrar."""

    nat: Nat
    edge: Sipedge
    home: Sipedge

    def phone(self, user: str, transport: str) -> Phone:
        """A phone behind the NAT."""
        return Phone(user, EDGE_AT, transport, PHONE, 0, self.nat.phone)

    def peer(self, user: str) -> Phone:
        """Somebody in the core, a client of the registrar."""
        return Phone(user, HOME_AT, "udp", PEER, 0, self.nat.core)

    def home_proxy(self) -> Phone:
        """Stands where the home proxy stands, and sends to the edge."""
        return Phone("home", EDGE_AT, "udp", HOME, 0, self.nat.core)


@pytest.fixture
def net(crew: Crew) -> Net:
    nat = Nat(crew)
    home = registrar(crew, *HOME_AT, namespace=nat.core)
    return Net(nat, edge(crew, home.address, *EDGE_AT, namespace=nat.core), home)


def rings(caller: Phone, phone: Phone, *route: str) -> Message:
    """A call of ``caller`` reaches ``phone``, which is busy; the INVITE as it arrived."""
    branch = caller.invite(phone.aor, *route)
    invite = phone.expect("INVITE")
    phone.respond(invite, 486, "Busy Here")
    caller.ack_failure(phone.aor, branch, caller.expect("486"), *route)
    phone.expect("ACK")
    return invite


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.rfc("INC-03", "INC-08", "TRN-02", "TRN-03", "HPX-05")
def test_reachable(net: Net, transport: str) -> None:
    with net.phone("bob", transport) as bob, net.peer("alice") as alice:
        answer = bob.register()
        # the NAT gave it another address and another port, and the edge says so
        assert f"received={OUTSIDE}" in answer.get("Via")
        assert f"rport={bob.port}" not in answer.get("Via")
        assert "outbound" in answer.get("Require")
        invite = rings(alice, bob)
        assert invite.uri == bob.contact


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.rfc("OUT-01", "OUT-03", "INC-06", "INC-09")
def test_a_call_from_behind_the_nat_ends_from_outside(net: Net, transport: str) -> None:
    with net.phone("bob", transport) as bob, net.peer("alice") as alice:
        alice.register()
        bob.register()
        bob.invite(alice.aor)
        invite = alice.expect("INVITE")
        alice.respond(invite, 200, "OK")
        ok = bob.expect("200")
        route = [f"Route: {value}" for value in reversed(ok.all("Record-Route"))]
        ends = (f"From: {ok.get('From')}", f"To: {ok.get('To')}")
        bob.request("ACK", alice.contact, *route, *ends, cseq=2)
        alice.expect("ACK")
        # the other way: alice's BYE names bob's private address and follows her route set
        back = [f"Route: {value}" for value in invite.all("Record-Route")]
        ends = (f"From: {ok.get('To')}", f"To: {ok.get('From')}")
        call = f"Call-ID: {ok.get('Call-ID')}"
        alice.request("BYE", bob.contact, *back, *ends, call)
        bob.respond(bob.expect("BYE"), 200, "OK")
        alice.expect("200")


@pytest.mark.rfc("TOK-03", "INC-03")
def test_udp_phone_rings_after_the_edge_was_killed(net: Net) -> None:
    with net.phone("bob", "udp") as bob, net.peer("alice") as alice:
        bob.register()
        rings(alice, bob)
        net.edge.kill()
        net.edge.start()
        rings(alice, bob)


@pytest.mark.rfc("TOK-03", "INC-04", "EPR-05", "HPX-08")
def test_tcp_phone_is_430_after_the_edge_was_killed(net: Net) -> None:
    with net.phone("bob", "tcp") as bob, net.peer("alice") as alice:
        route = f"Route: {bob.register().get('Path')}"
        with net.home_proxy() as home:
            rings(home, bob, route)
            net.edge.kill()
            net.edge.start()
            branch = home.invite(bob.contact, route)
            home.ack_failure(bob.contact, branch, home.expect("430"), route)
        # the caller of the real home proxy is spared the 430, and the dead binding is gone
        branch = alice.invite(bob.aor)
        alice.ack_failure(bob.aor, branch, alice.expect("480"))
        alice.user, alice.aor = bob.user, bob.aor
        assert alice.bindings() == []
        # the phone comes back on a new connection, as the same flow
        with net.phone("bob", "tcp") as again:
            again.instance = bob.instance
            again.register()
            with net.peer("carol") as carol:
                rings(carol, again)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.rfc("RGO-04", "INC-03", "OUT-03", "OUT-06")
def test_baresip_behind_the_nat(net: Net, transport: str, crew: Crew) -> None:
    bob = Baresip(crew, "bob", EDGE_AT, transport=transport, host=PHONE, namespace=net.nat.phone)
    alice = Baresip(crew, "alice", EDGE_AT, transport=transport, host=PEER, namespace=net.nat.core)
    alice.registered()
    bob.registered()
    # once each way, and the called one hangs up: its BYE has to find the caller
    for caller, called in ((alice, bob), (bob, alice)):
        caller.call(called)
        called.answer()
        caller.in_call()
        called.in_call()
        called.hang_up()
        caller.call_ended()
        called.call_ended()


@pytest.mark.rfc("INC-04", "INC-14", "TOK-02", "KA-16", "KA-27", "HPX-08")
def test_a_nat_that_forgets_a_connection(crew: Crew) -> None:
    """Neither side is told: no FIN, no reset, no ICMP.

    The next call fails with 430 as soon as the phone must have sent a keep-alive, and not when TCP
    gives up minutes later; the phone registers again on a new connection and is reached there.
    """
    nat = Nat(crew)
    home = registrar(crew, *HOME_AT, namespace=nat.core)
    quick = {"FLOW_TIMER = 20": "FLOW_TIMER = 2", "FLOW_TIMER + 10": "FLOW_TIMER + 4"}
    site = edge(crew, home.address, *EDGE_AT, namespace=nat.core, more=quick)
    net = Net(nat, site, home)
    with net.phone("bob", "tcp") as bob, net.home_proxy() as proxy, net.peer("alice") as alice:
        answer = bob.register()
        assert answer.get("Flow-Timer") == "2"
        route = f"Route: {answer.get('Path')}"
        rings(proxy, bob, route)
        nat.forget(bob.port)
        branch = proxy.invite(bob.contact, route)
        proxy.ack_failure(bob.contact, branch, proxy.expect("430"), route)
        # who calls the ordinary way is told that there is no phone
        branch = alice.invite(bob.aor)
        alice.ack_failure(bob.aor, branch, alice.expect("480"))
        with net.phone("bob", "tcp") as again:
            again.instance = bob.instance
            again.register()
            rings(alice, again)
            # the token of the connection that was does not lead to the one that is
            branch = proxy.invite(bob.contact, route)
            proxy.ack_failure(bob.contact, branch, proxy.expect("430"), route)


@pytest.mark.rfc("INC-04", "TOK-02")
def test_another_client_with_the_same_address(net: Net) -> None:
    """Same ip:port, another connection: what was for the first one never reaches the second."""
    with net.home_proxy() as home:
        with Phone("bob", EDGE_AT, "tcp", PEER, 45678, net.nat.core) as bob:
            route = f"Route: {bob.register().get('Path')}"
            rings(home, bob, route)
            reset = struct.pack("ii", 1, 0)
            bob.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        with Phone("mallory", EDGE_AT, "tcp", PEER, 45678, net.nat.core) as mallory:
            mallory.register()
            branch = home.invite(bob.contact, route)
            home.ack_failure(bob.contact, branch, home.expect("430"), route)
            mallory.silence(0.3)
