"""Requirements PXT: which targets a request has (RFC 3261 §16.5)."""

from __future__ import annotations

import pytest

from tests.registrar_plugin.home import register_text
from tests.sim import Peer, Sim, answer, request

SOURCE = """
listen("udp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("registrar")
def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    elif not ksr.is_myself(msg.ruri) or ksr.registrar.lookup(msg, "location"):
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 480, "Nobody")
"""
FOREIGN = "sip:bob@127.0.0.7:5070;x=%41;transport=udp;method=INVITE"


def registered(sim: Sim, contact: str = "<sip:bob@127.0.1.1:5060>") -> Peer:
    phone = sim.udp("127.0.1.1")
    phone.send(register_text(contact, cseq=1, path=(), vias=1, via_host="127.0.1.1"))
    assert phone.take().status == 200
    return phone


@pytest.mark.rfc("PXT-01")
def test_a_foreign_uri_is_the_only_target_and_stays_as_it_is() -> None:
    sim = Sim(SOURCE)
    bob = registered(sim)
    caller = sim.udp()
    caller.send(request("INVITE", FOREIGN))
    foreign = sim.udp("127.0.0.7", 5070).take()
    assert foreign.ruri == FOREIGN.encode()
    assert bob.silent(), "the same user, but of another domain"


@pytest.mark.rfc("PXT-01")
def test_a_uri_of_ours_is_looked_up() -> None:
    sim = Sim(SOURCE)
    caller = sim.udp()
    caller.send(request("INVITE", "sip:bob@example.com"))
    assert caller.take().status == 480
    bob = registered(sim)
    for number, uri in enumerate(("sip:bob@example.com", "sip:BOB@EXAMPLE.COM;user=phone")):
        caller.send(request("INVITE", uri, branch=f"z9hG4bKt{number}"))
        assert bob.take().ruri == b"sip:bob@127.0.1.1:5060"


@pytest.mark.parametrize("status", [300, 301, 302, 305])
@pytest.mark.rfc("PXT-02")
def test_a_redirection_of_others_is_passed_on(status: int) -> None:
    sim = Sim(SOURCE)
    caller, elsewhere = sim.udp(), sim.udp("127.0.0.9")
    caller.send(request("INVITE", FOREIGN))
    foreign = sim.udp("127.0.0.7", 5070)
    contacts = "Contact: <sip:bob@127.0.0.9:5060>;q=0.5, <sip:bob@example.com>\r\n"
    foreign.send(answer(foreign.take(), status, headers=contacts))
    assert foreign.take().method == b"ACK"
    final = caller.got[-1]
    assert (final.status, final.first(b"contact")) == (status, contacts[9:-2].encode())
    assert elsewhere.silent()
