"""The pseudo-variables of module tls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sipedge.modules.tls.pv import pseudo_variables
from sipedge.sip.message import SipMessage, parse
from sipedge.tls_settings import TlsFacts
from tests.helpers_tls import Site, TlsSim, options
from tests.test_tls_settings import der


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def values(sim: TlsSim, msg: SipMessage) -> dict[str, Any]:
    get = sim.edge.ksr.pv.get
    return {pv.name: get(msg, f"${pv.name}") for pv in pseudo_variables()}


def message(sim: TlsSim, flow: Any) -> SipMessage:
    msg = parse(options("127.0.0.9"))
    msg.flow = flow
    return msg


@pytest.mark.rfc("TLS-05")
def test_a_peer_with_a_certificate(site: Site) -> None:
    sim = TlsSim(site)
    pem, _ = site.ca.sign(
        ["phone.example.com"], uris=["sip:example.com"], addresses=["192.0.2.1"], cn="phone"
    )
    msg = message(sim, sim.tls("127.0.0.9", certificate=der(pem)).flow)
    found = values(sim, msg)
    assert found.pop("tls_peer_serial").isdigit()
    assert found.pop("tls_peer_notBefore") < found.pop("tls_peer_notAfter")
    assert found == {
        "tls_version": "TLSv1.3",
        "tls_cipher_info": "TLS_AES_128_GCM_SHA256",
        "tls_cipher_bits": 128,
        "tls_peer_server_name": "e",
        "tls_peer_verified": 1,
        "tls_peer_subject": "/CN=phone",
        "tls_peer_subject_cn": "phone",
        "tls_peer_issuer": "/CN=ca",
        "tls_peer_issuer_cn": "ca",
        "tls_peer_san_hostname": "phone.example.com",
        "tls_peer_san_uri": "sip:example.com",
        "tls_peer_san_email": None,
        "tls_peer_san_ip": "192.0.2.1",
    }
    assert sim.edge.ksr.tls.is_peer_verified(msg) == 1


@pytest.mark.rfc("TLS-05")
def test_a_peer_without(site: Site) -> None:
    sim = TlsSim(site)
    msg = message(sim, sim.tls("127.0.0.9").flow)
    found = values(sim, msg)
    assert found["tls_version"] == "TLSv1.3"
    assert found["tls_peer_verified"] == 0
    assert found["tls_peer_subject"] is None
    assert sim.edge.ksr.tls.is_peer_verified(msg) == -1


def test_a_message_that_came_otherwise(site: Site) -> None:
    sim = TlsSim(site)
    msg = message(sim, sim.udp().flow)
    assert set(values(sim, msg).values()) == {None}
    assert sim.edge.ksr.tls.is_peer_verified(msg) == -1


def test_names_that_are_no_text_of_ours(site: Site) -> None:
    facts = TlsFacts("TLSv1.3", "", 0, "a\udc80b", None)
    sim = TlsSim(site)
    flow = sim.tls("127.0.0.9").flow
    flow.facts = {"tls": facts}
    assert sim.edge.ksr.pv.get(message(sim, flow), "$tls_peer_server_name") == "a\\udc80b"
    with pytest.raises(ValueError, match="takes no key"):
        sim.edge.ksr.pv.get(message(sim, flow), "$tls_version(x)")
    with pytest.raises(ValueError, match="takes no key"):
        sim.edge.ksr.pv.get(message(sim, flow), "$tls_peer_subject(x)")
