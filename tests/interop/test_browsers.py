"""Browsers as phones: JsSIP in headless Chromium over ws and wss, and baresip on the other side.

What is easily lost is the BYE of the callee.  A browser calls itself by a name that nobody can look
up (``sip:x@y.invalid;transport=ws``), or by its GRUU, and in neither is an address: where it is,
only the edge knows, by the flow token that it put into Record-Route.  Kamailio's edge, set up as
its manual has it, leaves the token out there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.peerlib.baresip import Baresip
from tests.peerlib.browser import BrowserPhone, Chromium
from tests.peerlib.kamailio import kamailio_edge, kamailio_registrar
from tests.peerlib.process import Crew
from tests.peerlib.sipedge import CORE, Sipedge, edge_for_browsers, every_way, registrar

SITES: Final[dict[str, Callable[[Crew], Sipedge]]] = {
    "edge and registrar in one": every_way,
    "our registrar": lambda crew: edge_for_browsers(crew, registrar(crew).address),
    "kamailio": lambda crew: edge_for_browsers(crew, kamailio_registrar(crew, CORE).address),
}


class Cast:
    """The phones of one test, all at the same edge, by what they are."""

    def __init__(self, crew: Crew, site: Sipedge) -> None:
        self._crew = crew
        self._site = site
        self._chromium: Chromium | None = None

    def phone(self, user: str, kind: str, webrtc: bool) -> Any:
        """A registered phone: ``ws`` and ``wss`` are browsers, the others transports of baresip."""
        phone: BrowserPhone | Baresip
        if kind in ("ws", "wss"):
            self._chromium = self._chromium or Chromium(self._crew, self._site.certificate)
            phone = BrowserPhone(self._chromium, user, self._site.url(kind))
        else:
            host, port = self._site.at
            at = (host, self._site.ports.get(kind, port))
            phone = Baresip(self._crew, user, at, transport=kind, webrtc=webrtc)
        phone.registered()
        return phone

    def pair(self, kinds: str) -> tuple[Any, Any]:
        """Alice and Bob; ``kinds`` is two words."""
        webrtc = "ws" in kinds
        alice, bob = (
            self.phone(user, kind, webrtc)
            for user, kind in zip(("alice", "bob"), kinds.split(), strict=True)
        )
        return alice, bob


def call(caller: Any, callee: Any) -> None:
    """A call that is answered, and heard."""
    caller.call(callee)
    callee.answer()
    caller.in_call()
    callee.in_call()
    for phone in (caller, callee):
        if isinstance(phone, BrowserPhone):
            phone.hears()


def hang_up(ends: Any, sees: Any) -> None:
    """One ends the call, and it is over for both."""
    ends.hang_up()
    sees.call_ended()
    ends.call_ended()


def call_each_other(alice: Any, bob: Any) -> None:
    """Each calls the other and each hangs up, which makes four calls, one after the other."""
    for caller, callee in ((alice, bob), (bob, alice)):
        for ends, sees in ((caller, callee), (callee, caller)):
            call(caller, callee)
            hang_up(ends, sees)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kinds", ["ws ws", "wss wss", "ws wss"])
@pytest.mark.rfc("INC-03", "OUT-03", "OUT-06", "WSK-05", "WSK-07")
def test_browsers(site: str, kinds: str, crew: Crew) -> None:
    alice, bob = Cast(crew, SITES[site](crew)).pair(kinds)
    alice.message(bob, "où es-tu ?")
    assert bob.event("message")["text"] == "où es-tu ?"
    bob.message(alice, "ici")
    assert alice.event("message")["text"] == "ici"
    call_each_other(alice, bob)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kinds", ["ws udp", "wss udp", "wss tcp", "wss tls", "tls udp"])
@pytest.mark.rfc("INC-03", "OUT-03", "WSK-07")
def test_everybody_calls_everybody(site: str, kinds: str, crew: Crew) -> None:
    call_each_other(*Cast(crew, SITES[site](crew)).pair(kinds))


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.rfc("RGO-02", "RGO-04", "RGO-09", "WSK-04", "WSK-07")
def test_jssip_accepts_the_answers_of_the_registrar(scheme: str, crew: Crew) -> None:
    """With outbound on; JsSIP looks for its own instance and reg-id among the Contacts."""
    cast = Cast(crew, edge_for_browsers(crew, registrar(crew).address))
    phone = cast.phone("alice", scheme, webrtc=True)
    [request] = phone.messages(sent=True)
    [answer] = phone.messages(sent=False)
    assert f"\r\nVia: SIP/2.0/{scheme.upper()} " in answer
    assert "\r\nRequire: outbound\r\n" in answer
    assert "\r\nFlow-Timer: 20\r\n" in answer
    contact = next(line for line in request.split("\r\n") if line.startswith("Contact: "))
    assert f"\r\n{contact.removesuffix(';expires=600')};" in answer
    [path] = [line for line in answer.split("\r\n") if line.startswith("Path: ")]
    assert "transport" not in path, "it is for the registrar, which comes over UDP"
    assert path.endswith(";lr;ob>")


@pytest.mark.rfc("RGO-04", "RGO-09")
def test_our_registrar_behind_kamailios_edge(crew: Crew) -> None:
    """The callee does not hang up: that BYE is the one which this edge loses."""
    edge = kamailio_edge(crew, registrar(crew).address, websocket=True)
    chromium = Chromium(crew)
    alice, bob = (BrowserPhone(chromium, user, f"ws://{edge.address}") for user in ("alice", "bob"))
    alice.registered()
    bob.registered()
    alice.message(bob, "hello")
    assert bob.event("message")["text"] == "hello"
    for caller, callee in ((alice, bob), (bob, alice)):
        call(caller, callee)
        hang_up(caller, callee)


@pytest.mark.rfc("INC-06", "OUT-03", "WSK-05")
def test_contacts_that_nobody_can_look_up(crew: Crew) -> None:
    """Without GRUUs a browser's Contact is in ``.invalid``, in dialogs too."""
    without = {'"flow_timer", FLOW_TIMER)': '"flow_timer", FLOW_TIMER)\n'
               'modparam("registrar", "gruu_enabled", 0)'}  # fmt: skip
    alice, bob = Cast(crew, every_way(crew, without)).pair("ws wss")
    call_each_other(alice, bob)
    [contact] = {
        line
        for text in alice.messages(sent=True)
        for line in text.split("\r\n")
        if text.startswith("INVITE ") and line.startswith("Contact: ")
    }
    assert contact.endswith(".invalid;transport=ws;ob>")


@pytest.mark.rfc("INC-03")
def test_calls_that_nobody_takes(crew: Crew) -> None:
    """CANCEL and a refusal find their way, too."""
    alice, bob = Cast(crew, edge_for_browsers(crew, registrar(crew).address)).pair("ws wss")
    alice.call(bob)
    bob.event("incoming")
    alice.hang_up()
    assert bob.call_failed() == "Canceled"
    assert alice.call_failed() == "Canceled"
    alice.call(bob)
    bob.event("incoming")
    bob.hang_up()
    assert alice.call_failed() == "Unavailable"  # JsSIP refuses with 480


@pytest.mark.parametrize("site", SITES)
@pytest.mark.rfc("WSK-12")
def test_a_page_that_was_closed_is_gone_at_once(site: str, crew: Crew) -> None:
    """It takes back nothing; yet nobody waits for a timer of a transaction (32 seconds)."""
    alice, bob = Cast(crew, SITES[site](crew)).pair("ws wss")
    began = time.monotonic()
    bob.vanish()
    alice.call(bob)
    assert alice.call_failed() == "Unavailable"
    assert time.monotonic() - began < 16


@pytest.mark.rfc("KA-25")
def test_a_silent_browser_stays(crew: Crew) -> None:
    """It sends nothing by itself but answers pings, and so outlives the life of a connection."""
    site = every_way(
        crew,
        {
            "core.tcp_connection_lifetime = FLOW_TIMER + 10": "core.tcp_connection_lifetime = 4",
            '"keepalive_timeout", FLOW_TIMER + 5)': '"keepalive_timeout", 1)',
        },
    )
    alice, bob = Cast(crew, site).pair("ws wss")
    time.sleep(10)
    call_each_other(alice, bob)
    for phone in (alice, bob):
        assert [one["kind"] for one in phone.evaluate("happened")].count("disconnected") == 0


def test_browsers_come_back_after_a_crash(crew: Crew) -> None:
    site = every_way(crew)
    alice, bob = Cast(crew, site).pair("ws wss")
    site.kill()
    site.start()
    alice.registered()
    bob.registered()
    call_each_other(alice, bob)
