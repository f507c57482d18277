"""For tests of TLS without sockets: a configuration with certificates, and connections whose
handshake somebody else has done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sipedge.config import load_config
from sipedge.errors import ConfigError
from sipedge.flow import TLS, Flow
from sipedge.tls_settings import TlsFacts
from tests.certs import Authority, Pair
from tests.sim import Peer, Sim, request

SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tls:127.0.0.1:5061", advertise="edge.example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("pv")
loadmodule("tls")
{params}
def request_route(ksr, msg):
    ksr.tm.t_relay(msg)
"""
FILES = """
modparam("tls", "certificate", "edge.pem")
modparam("tls", "private_key", "edge.key")
"""


class Site:
    """A directory with a configuration, an authority and certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = Authority(directory)
        self.edge = self.pair("edge", "edge.example.com")

    def pair(self, stem: str, *names: str, **how: object) -> Pair:
        return self.ca.pair(stem, *names, **how)

    def source(self, params: str = "", text: str = SOURCE, files: str = FILES) -> Path:
        config = self.directory / "edge.py"
        config.write_text(text.replace("{params}", files + params))
        return config

    def load(self, params: str = "", text: str = SOURCE, files: str = FILES) -> Any:
        return load_config(self.source(params, text, files))

    def problem(self, params: str = "", files: str = FILES) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(params, files=files)
        assert caught.value.file == str(self.directory / "edge.py")
        lines = (self.directory / "edge.py").read_text().splitlines()
        line = lines[(caught.value.line or 0) - 1]
        return f"{line.split(chr(34))[3] if 'modparam' in line else line}: {caught.value.message}"


class TlsSim(Sim):
    """An edge, and connections over TLS whose handshake somebody else has done."""

    def __init__(self, site: Site, params: str = "", text: str = SOURCE) -> None:
        config = site.source(params, text)
        super().__init__(
            config.read_text()
            .replace('"edge.', f'"{site.directory}/edge.')
            .replace(f'"{site.directory}/edge.example.com"', '"edge.example.com"')
        )

    def tls(self, host: str, port: int = 40000, certificate: bytes | None = None) -> Peer:
        flow = self.core.flows.accept(self.listener(TLS), (host, port))
        flow.facts = {"tls": TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, "e", certificate)}
        self.core.flow_opened(flow, self.now)
        return self._peer(flow)

    def dialed_to(self) -> list[Flow]:
        return [flow for flow in self.dialed if flow.transport == TLS]


def options(via: str, uri: str = "sip:127.0.0.1:5061;transport=tls", **more: Any) -> bytes:
    return request("OPTIONS", uri, via=f"SIP/2.0/TLS {via}", **more)
