"""Which layers a connection has, by transport and by where it comes from."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sipedge.flow import TCP, TLS, WS, WSS, Flow, Listener
from sipedge.net.proxy_protocol import ProxyLayer
from sipedge.net.stacks import Stacks
from sipedge.net.tls import TlsLayer
from sipedge.net.websocket import WebSocketLayer
from sipedge.tls_settings import KeyPair, Tls, TlsSettings
from sipedge.websocket import Settings
from tests.certs import Authority

BALANCER = ("192.0.2.1", 50000)
PHONE = ("198.51.100.1", 50000)


@pytest.fixture
def stacks(tmp_path: Path) -> Stacks:
    pair = Authority(tmp_path).pair("edge", "edge.example.com")
    settings = TlsSettings(KeyPair(str(pair.certificate), str(pair.private_key)))
    core: Any = SimpleNamespace(tls=Tls(settings), websocket=Settings())
    return Stacks(core)


@pytest.mark.parametrize(
    ("transport", "layers"),
    [
        (TCP, []),
        (TLS, [TlsLayer]),
        (WS, [WebSocketLayer]),
        (WSS, [TlsLayer, WebSocketLayer]),
    ],
)
def test_accepted(stacks: Stacks, transport: int, layers: list[type]) -> None:
    proxies = (ip_network("192.0.2.0/24"),)
    listener = Listener(transport, "127.0.0.1", 5060, proxies=proxies)
    assert [type(layer) for layer in stacks.accepted(listener, PHONE)] == layers
    assert [type(layer) for layer in stacks.accepted(listener, BALANCER)] == [ProxyLayer, *layers]


@pytest.mark.parametrize(("transport", "layers"), [(TCP, []), (TLS, [TlsLayer])])
def test_dialed(stacks: Stacks, transport: int, layers: list[type]) -> None:
    flow = Flow(Listener(transport, "127.0.0.1", 5060), BALANCER, None, b"1", True, "x")
    assert [type(layer) for layer in stacks.dialed(flow)] == layers
