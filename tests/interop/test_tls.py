"""TLS with real peers: baresip and SIPp as phones, Kamailio as the registrar behind us."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.certs import Authority
from tests.peerlib.baresip import Baresip
from tests.peerlib.kamailio import DOMAIN, kamailio_registrar_tls
from tests.peerlib.process import LOOPBACK, PATIENCE, Crew, free_port
from tests.peerlib.sipedge import (
    CORE,
    PROGRAM,
    Sipedge,
    edge,
    edge_for_browsers,
    every_way,
    registrar,
)
from tests.peerlib.tunnel import TlsTunnel
from tests.peers import need
from tests.scenarios.play import TCP, UDP, Cast


def phone(crew: Crew, site: Sipedge, user: str, transport: str) -> Baresip:
    """A phone that has registered."""
    at = (site.at[0], site.ports["tls"]) if transport == "tls" else site.at
    found = Baresip(crew, user, at, transport=transport, ca=site.certificate)
    found.registered()
    return found


def call(calling: Baresip, called: Baresip, first: str) -> None:
    calling.call(called)
    called.answer()
    calling.in_call()
    called.in_call()
    ends, sees = (calling, called) if first == "caller" else (called, calling)
    ends.hang_up()
    sees.call_ended()
    ends.call_ended()


@pytest.mark.parametrize("site", ["one process", "edge and registrar"])
@pytest.mark.parametrize("transports", ["tls tls", "tls udp", "udp tls", "tls tcp", "tcp tls"])
@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.rfc("TRN-19", "TLS-05", "OUT-05", "INC-08", "INC-09")
def test_baresip(site: str, transports: str, first: str, crew: Crew) -> None:
    one = site == "one process"
    here = every_way(crew) if one else edge_for_browsers(crew, registrar(crew).address)
    calling, called = transports.split()
    alice, bob = phone(crew, here, "alice", calling), phone(crew, here, "bob", called)
    call(alice, bob, first)
    # RFC 5626 §4.3: a phone that follows Route finds the connection that it has
    for baresip, transport in ((alice, calling), (bob, called)):
        assert baresip.program.output.count(f"{{1/{transport.upper()}/v4}} 200 OK") == 1


@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.parametrize("callee", ["tls", "udp"])
@pytest.mark.rfc("TRN-19", "OUT-05", "RGO-04")
def test_sipp(first: str, callee: str, crew: Crew) -> None:
    here = every_way(crew)
    tunnel = TlsTunnel(crew, (LOOPBACK, here.ports["tls"]), here.certificate)
    cast = Cast(crew, here.at)
    called = "callee_waits" if first == "caller" else "callee_hangs_up"
    calling = "caller_hangs_up" if first == "caller" else "caller_waits"
    if callee == "tls":
        bob = cast.phone(called, "bob", transport=TCP, proxy=tunnel.at)
    else:
        bob = cast.phone(called, "bob", transport=UDP)
    bob.wait_log("registered")
    cast.phone(calling, "alice", "bob", transport=TCP, proxy=tunnel.at).finish()
    bob.finish()


@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.rfc("TLS-01", "TLS-06", "TRN-16")
def test_kamailio_as_the_registrar_over_tls(first: str, crew: Crew) -> None:
    """Mutual TLS: each side has a certificate of the same authority, and one connection is enough
    for both directions if Kamailio takes our alias."""
    need("kamailio")
    ca = Authority(crew.place("ca"))
    theirs = ca.pair("core", DOMAIN, addresses=[CORE])
    ours = ca.pair("edge", "edge.example.com", addresses=[LOOPBACK])
    home = kamailio_registrar_tls(crew, CORE, theirs, ca.file)
    port = free_port()
    tls = (
        f'listen("tls:{LOOPBACK}:{port}")\nloadmodule("tls")\n'
        f'modparam("tls", "certificate", "{ours.certificate}")\n'
        f'modparam("tls", "private_key", "{ours.private_key}")\n'
        f'modparam("tls", "ca_list", "{ca.file}")\n'
        'modparam("tls", "verify_certificate", 1)\n'
    )
    site = edge(
        crew,
        f"{home.at[0]}:{home.tls_port};transport=tls",
        more={'loadmodule("tm")\n': tls + 'loadmodule("tm")\n'},
    )
    site.ports["tls"] = port
    site.certificate = ca.file
    alice, bob = phone(crew, site, "alice", "tls"), phone(crew, site, "bob", "udp")
    call(alice, bob, first)
    flows = subprocess.run(
        [PROGRAM, "flows", "--config", str(site.config), "--json"],
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    rows = [json.loads(line) for line in flows.stdout.splitlines()]
    core = [row["direction"] for row in rows if row["remote"].startswith(f"{CORE}:")]
    assert core == ["out"]
