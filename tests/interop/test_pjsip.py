"""PJSIP as the phone, with SIP Outbound on; its digest knows SHA-256 (RFC 8760).

What it needs of a registrar is strict: its own Contact byte for byte in the 200, and ``Require:
outbound`` if and only if outbound is in use.  It says itself whether it found that.
"""

from __future__ import annotations

import re

import pytest

from tests.peerlib.kamailio import kamailio_registrar
from tests.peerlib.pjsip import Pjsip
from tests.peerlib.process import Crew
from tests.peerlib.sipedge import CORE, all_in_one, edge
from tests.scenarios.test_digest import site

HAPPY = "SIP outbound status for acc 0 is active"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("SHA-256, MD5", "SHA-256"), ("SHA-512-256, MD5", "MD5"), ("MD5", "MD5"),
     ("SHA-256", "SHA-256")],
)  # fmt: skip
@pytest.mark.rfc("AUT-02", "AUT-03")
def test_it_registers_with_a_password(
    offered: str, chosen: str, transport: str, crew: Crew
) -> None:
    """Of what is offered it takes the first that it knows; this build has no SHA-512-256."""
    home = site(crew, f'modparam("auth", "algorithms", "{offered}")')
    phone = Pjsip(crew, "bob", home.at, transport, "b0b")
    phone.registered()
    used = re.findall(r"^Authorization: Digest .*?algorithm=([^,\s]+)", phone.messages, re.M)
    assert set(used) == {chosen}


@pytest.mark.rfc("AUT-03")
def test_a_wrong_password_is_refused(crew: Crew) -> None:
    home = site(crew, 'modparam("auth", "algorithms", "SHA-256")')
    phone = Pjsip(crew, "bob", home.at, "udp", "wrong")
    phone.program.wait_output("registration: 401")
    assert "registration: 200" not in phone.messages


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.rfc("RGO-04", "RGO-09")
def test_it_finds_outbound_in_the_answer(transport: str, crew: Crew) -> None:
    phone = Pjsip(crew, "bob", all_in_one(crew).at, transport)
    phone.registered()
    if transport == "tcp":  # over UDP it does without
        phone.program.wait_output(HAPPY)
        contact = re.search(
            r"^Contact: (<.*>);reg-id=1;(\+sip.instance=\S+)$", phone.messages, re.M
        )
        assert contact
        answer = phone.messages.rpartition("SIP/2.0 200 OK")[2]
        assert contact[1] in answer
        assert contact[2] in answer


@pytest.mark.parametrize("place", ["all in one, with passwords", "before a kamailio"])
@pytest.mark.parametrize("transports", ["udp udp", "tcp tcp", "udp tcp"])
@pytest.mark.rfc("INC-03", "INC-08", "OUT-03", "OUT-06", "AUT-01")
def test_a_call(place: str, transports: str, crew: Crew) -> None:
    """The called one hangs up: its BYE has to find the caller."""
    if place == "before a kamailio":
        at = edge(crew, kamailio_registrar(crew, CORE).address).at
    else:
        at = site(crew, 'modparam("auth", "algorithms", "SHA-256")').at
    calling, called = transports.split()
    bob = Pjsip(crew, "bob", at, called, "b0b")
    bob.registered()
    alice = Pjsip(crew, "alice", at, calling, "a1", "sip:bob@example.com")
    for phone in (alice, bob):
        phone.call_is("CONFIRMED")
        phone.call_is("DISCONNECTED")
        phone.call_is("over")
