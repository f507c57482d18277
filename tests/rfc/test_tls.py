"""B18 end to end without sockets: sips (RFC 5630), what URIs say, and what a phone is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipedge.core import run_to_end
from sipedge.sip.message import SipMessage
from tests.helpers_tls import Site, TlsSim
from tests.sim import Peer, answer, request

HOME = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
listen("tls:127.0.0.1:5061", advertise="edge.example.com")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("rr")
loadmodule("registrar")
loadmodule("tls")
modparam("outbound", "flow_token_key", b"k" * 20)
{params}
def request_route(ksr, msg):
    if msg.to_tag:
        ksr.rr.loose_route(msg)
        ksr.tm.t_relay(msg)
    elif msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    elif ksr.registrar.lookup(msg, "location"):
        ksr.rr.record_route(msg)
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 404, b"Not Found")
"""


@pytest.fixture
def sim(tmp_path: Path) -> TlsSim:
    return TlsSim(Site(tmp_path), text=HOME)


def register(peer: Peer, contact: str, uri: str = "sip:example.com") -> SipMessage:
    headers = f"Contact: {contact}\r\nSupported: path, outbound\r\nExpires: 600\r\n"
    peer.send(
        request("REGISTER", uri, via="SIP/2.0/TLS 127.0.0.9:40000", headers=headers, call_id="reg")
    )
    return peer.take()


def bob_by_tls(sim: TlsSim) -> Peer:
    """Registered with a sips Contact over TLS."""
    bob = sim.tls("127.0.0.9")
    instance = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-000000000001>";reg-id=1'
    assert register(bob, f"<sips:bob@127.0.0.9;ob>;{instance}", "sips:example.com").status == 200
    return bob


def invite(uri: str, transport: str = "TLS") -> bytes:
    return request("INVITE", uri, via=f"SIP/2.0/{transport} 127.0.0.3:40000")


@pytest.mark.rfc("TLS-08")
def test_a_sips_request_goes_to_a_sips_contact_over_its_tls_flow(sim: TlsSim) -> None:
    bob, alice = bob_by_tls(sim), sim.tls("127.0.0.3")
    alice.send(invite("sips:bob@example.com"))
    got = bob.take()
    assert got.ruri == b"sips:bob@127.0.0.9;ob"
    # RFC 3261 §16.6 item 4: then Record-Route is sips too
    assert all(value.startswith(b"<sips:") for value in got.values(b"record-route"))
    assert b"transport=" not in b"".join(got.values(b"record-route"))
    bob.send(answer(got, 200))
    assert [msg.status for msg in alice.got] == [100, 200]


@pytest.mark.rfc("TLS-08")
def test_a_sip_request_stays_sip_and_goes_over_tls_all_the_same(sim: TlsSim) -> None:
    bob, alice = bob_by_tls(sim), sim.udp("127.0.0.3", 40000)
    alice.send(invite("sip:bob@example.com", "UDP"))
    got = bob.take()
    assert got.ruri == b"sip:bob@127.0.0.9;ob"
    assert all(value.startswith(b"<sip:") for value in got.values(b"record-route"))


@pytest.mark.rfc("TLS-08")
@pytest.mark.parametrize("path", ["", "<sips:127.0.0.7;lr>"])
def test_a_sip_request_to_a_sips_contact_without_a_flow_is_sent_by_tls(
    sim: TlsSim, path: str
) -> None:
    """Along a sips Path, or straight to the Contact: never by UDP."""
    add = sim.edge.config.commands["ul.add"].call
    run_to_end(add("location", "bob@example.com", "sips:bob@127.0.0.8:5071", 600, path=path))
    sim.udp("127.0.0.3", 40000).send(invite("sip:bob@example.com", "UDP"))
    (flow,) = sim.dialed_to()
    assert flow.remote == (("127.0.0.7", 5061) if path else ("127.0.0.8", 5071))
    assert sim._peer(flow).take().ruri == b"sip:bob@127.0.0.8:5071"


@pytest.mark.rfc("TLS-08", "INC-21")
def test_a_sips_request_is_not_for_who_registered_without(sim: TlsSim) -> None:
    bob, alice = sim.tcp("127.0.0.9"), sim.tls("127.0.0.3")
    assert register(bob, "<sip:bob@127.0.0.9;transport=tcp>").status == 200
    alice.send(invite("sips:bob@example.com"))
    refused = alice.take()
    assert refused.status == 480
    assert (refused.first(b"warning") or b"").startswith(b"380 edge.example.com:5061 ")
    assert bob.silent()
    alice.send(invite("sips:nobody@example.com").replace(b"z9hG4bKa1", b"z9hG4bKa2"))
    assert alice.take().status == 404


@pytest.mark.rfc("TLS-09", "OUT-05", "OUT-13")
def test_what_a_tls_phone_is_told_leads_back_to_its_connection(sim: TlsSim) -> None:
    """The name is in the certificate, the port and the transport are those of the listener."""
    phone, bob = sim.tls("127.0.0.3"), sim.udp("127.0.0.9")
    assert register(bob, "<sip:bob@127.0.0.9>").status == 200
    phone.send(
        request(
            "INVITE",
            "sip:bob@example.com",
            via="SIP/2.0/TLS 127.0.0.3:40000",
            headers="Contact: <sip:alice@127.0.0.3:40000;transport=tls;ob>\r\n",
        )
    )
    facing = bob.take().values(b"record-route")[-1]
    user, _, place = facing.partition(b"@")
    assert user.startswith(b"<sip:")
    assert place.startswith(b"edge.example.com:5061;transport=tls;")
    settings = sim.core.tls
    assert settings is not None
    pair = settings.settings.pair_for("edge.example.com")
    assert pair == settings.settings.default


@pytest.mark.rfc("TLS-09")
def test_a_route_with_transport_tls_is_always_taken(sim: TlsSim) -> None:
    phone, bob = sim.tls("127.0.0.3"), sim.udp("127.0.0.9")
    assert register(bob, "<sip:bob@127.0.0.9>").status == 200
    for number, route in enumerate(
        ("sip:edge.example.com:5061;transport=tls;lr", "sip:edge.example.com;transport=tls;lr")
    ):
        phone.send(
            request(
                "MESSAGE",
                "sip:bob@127.0.0.9",
                via="SIP/2.0/TLS 127.0.0.3:40000",
                to_tag="t",
                branch=f"z9hG4bKr{number}",
                headers=f"Route: <{route}>\r\n",
            )
        )
        assert bob.take().values(b"route") == []
