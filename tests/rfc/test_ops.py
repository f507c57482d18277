"""B20: what operators see, and what strangers cannot have us do."""

from __future__ import annotations

import pytest

from sipedge.core import COMPLAINTS
from sipedge.flow import TCP
from tests.sim import Sim, request
from tests.world import Phone, World


@pytest.mark.rfc("OPS-06")
def test_what_happens_to_flows_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = World()
    edge, home = world.edge(), world.home()
    bob = Phone(world, "bob", "127.0.2.1", ("127.0.0.3", 40001), transport=TCP)
    alice = Phone(world, "alice", "127.0.2.1", ("127.0.0.4", 5060))
    assert edge.stats["flows_opened"] == 1
    bob.register()
    bob.register(cseq=2)
    assert home.stats["contacts_registered"] == 1
    assert home.stats["contacts_refreshed"] == 1
    bob.send(b"\r\n\r\n")
    assert edge.stats["pings_answered"] == 1
    bob.send(b"\r\n\r\n")
    assert edge.stats["pings_answered"] == 2
    world.advance(edge.tcp_connection_lifetime + 1)
    assert edge.stats["flows_idle"] == edge.stats["flows_closed"] == 1
    assert "flow closed: tcp:" in caplog.text
    alice.call("bob")
    world.run()
    assert edge.stats["flows_failed"] == 1
    assert alice.take(480)
    forged = "Route: <sip:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd@127.0.2.1;lr;ob>\r\n"
    alice.send(alice.request("MESSAGE", "sip:bob@example.com", to_tag="x", headers=forged))
    world.run()
    assert alice.take(403)
    assert edge.stats["flow_tokens_bad"] == 1
    proxy = Phone(world, "carol", "127.0.1.1", ("127.0.0.5", 5060))  # it has no outbound
    contact = f'{proxy.contact};reg-id=1;+sip.instance="<{proxy.instance}>"'
    register = proxy.request(
        "REGISTER", "sip:example.com", headers=f"Contact: {contact}\r\nSupported: outbound\r\n"
    )
    own_via = b"Via: SIP/2.0/UDP 127.0.0.5:5060;branch=z9hG4bKproxy\r\nVia: "
    proxy.send(register.replace(b"Via: ", own_via))
    assert proxy.take(439)
    assert home.stats["regs_without_outbound_edge"] == 1
    assert "01234567890123456789" not in caplog.text  # the key


@pytest.mark.rfc("OPS-08")
@pytest.mark.parametrize("host", ["255.255.255.255", "224.0.1.75", "0.0.0.0", "[ff02::1]"])
def test_no_request_goes_to_many(host: str) -> None:
    sim = Sim()
    peer = sim.udp()
    peer.send(request("MESSAGE", f"sip:x@{host}:5060"))
    assert peer.take().status == 403
    assert list(sim.peers) == [(peer.flow.transport, peer.flow.remote)]


@pytest.mark.rfc("OPS-08")
def test_garbage_is_answered_within_limits() -> None:
    sim = Sim()
    good = sim.udp("127.0.0.3")
    garbage = request("MESSAGE").replace(b"Forwards: 70", b"Forwards: 7_0")
    forged = [sim.udp("127.0.0.2", port) for port in range(10_000, 10_000 + 3 * COMPLAINTS)]
    for peer in forged:
        peer.send(garbage)
    assert sum(len(peer.got) for peer in forged) == COMPLAINTS
    good.send(request("MESSAGE", max_forwards=0))
    assert good.take().status == 483
    sim.advance(1.0)
    forged[-1].send(garbage)
    assert forged[-1].take().status == 400
    assert sim.core.stats["parse_errors"] == 3 * COMPLAINTS + 1
    assert sim.core.stats["parse_errors_unanswered"] == 2 * COMPLAINTS
