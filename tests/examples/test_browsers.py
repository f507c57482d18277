"""``examples/browsers.py``: browsers and phones reach each other, strangers nobody.

With real browsers: ``tests/interop/test_browsers.py``.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sipedge.config import load_config
from sipedge.flow import TRANSPORT_NAME
from sipedge.self_signed import self_signed
from sipedge.sip.names import RECORD_ROUTE
from tests.sim import Peer, Sim, request

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "browsers.py"
CONTACT = b"sip:k2j9@x7f3.invalid;transport=ws"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Key and certificate, as they lie beside the example."""
    certificate, key = self_signed([], time.time())
    (tmp_path / "tls.pem").write_bytes(certificate)
    for name, text in (("tls.key", key), ("flow_token.key", b"00" * 20)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(text)
    (tmp_path / EXAMPLE.name).write_bytes(EXAMPLE.read_bytes())
    return tmp_path


@pytest.fixture
def sim(directory: Path) -> Sim:
    text = EXAMPLE.read_text().replace('"tls.', f'"{directory}/tls.')
    text = text.replace('"sqlite:///location.sqlite"', '""')
    return Sim(text.replace('keyfile("flow_token.key")', 'b"k" * 20'))


def browser(sim: Sim) -> Peer:
    """Bob, registered as JsSIP does it."""
    peer = sim.ws()
    peer.send(
        request(
            "REGISTER",
            "sip:example.com",
            via="SIP/2.0/WS x7f3.invalid",
            headers=f"Contact: <{CONTACT.decode()}>;reg-id=1"
            ';+sip.instance="<urn:uuid:00000000-0000-4000-8000-00000000000b>";expires=600\r\n'
            "Supported: path,gruu,outbound\r\n",
        )
    )
    answer = peer.take()
    assert answer.status == 200
    assert b"outbound" in answer.options(b"require")
    return peer


def test_it_loads_as_it_stands(directory: Path) -> None:
    edge = load_config(directory / EXAMPLE.name)
    ways = [TRANSPORT_NAME[listener.transport] for listener in edge.config.listeners]
    assert ways == ["udp", "tcp", "tls", "ws", "wss"]
    assert edge.loader.warnings == []
    assert edge.loader.modules["rr"].bound["bind_ob"] == "outbound"


@pytest.mark.rfc("INC-03", "OUT-03", "WSK-05")
def test_a_call_reaches_the_browser_on_its_socket(sim: Sim) -> None:
    bob = browser(sim)
    alice = sim.udp()
    alice.send(request("INVITE", "sip:bob@example.com"))
    invite = bob.take()
    assert invite.ruri == CONTACT
    ws, udp = invite.values(RECORD_ROUTE)
    assert b";transport=ws;" in ws
    assert b"@" in ws
    assert b";transport=ws" not in udp
    assert b"@" in udp
    assert not sim.dialed


def test_a_closed_socket_is_nobody(sim: Sim) -> None:
    bob = browser(sim)
    bob.close()
    alice = sim.udp()
    alice.send(request("INVITE", "sip:bob@example.com"))
    assert alice.take().status == 480


@pytest.mark.parametrize("headers", ["", "Route: <sip:127.0.0.99:5060;lr>\r\n"])
def test_nothing_is_relayed_for_strangers(sim: Sim, headers: str) -> None:
    stranger = sim.ws()
    stranger.send(
        request("INVITE", "sip:x@127.0.0.99:5060", via="SIP/2.0/WS y.invalid", headers=headers)
    )
    assert stranger.take().status == 403
