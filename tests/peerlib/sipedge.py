"""Our own program as a peer: ``sipedge run FILE`` with the files of ``examples/``.

Only the addresses in an example are changed, each exactly where it stands, so that what the tests
prove is true of the examples as people copy them.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sipedge.keyfile import new_key
from sipedge.self_signed import CERTIFICATE, PRIVATE_KEY, self_signed
from tests.peerlib.process import LOOPBACK, Crew, Program, free_port

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
PROGRAM: Final = Path(sysconfig.get_path("scripts")) / "sipedge"
#: the examples tell the core from phones by its address, so it has one of its own
CORE: Final = "127.0.0.2"
#: the listeners of examples/browsers.py that the other examples do not have, and their ports
_MORE: Final = {"tls": 5061, "ws": 8080, "wss": 8443}


class Sipedge:
    """A running ``sipedge``; ``at`` is its (host, port) for UDP and TCP.

    ``changes`` says what is written in the example instead of what.  ``certificate``: one for this
    machine lies beside it, as ``sipedge init --tls`` makes it.  ``ports`` are those of more
    listeners, by transport.
    """

    program: Program

    def __init__(
        self,
        crew: Crew,
        example: str,
        host: str,
        port: int,
        changes: Mapping[str, str],
        namespace: str | None = None,
        certificate: bool = False,
    ) -> None:
        self.at = (host, port or free_port(host))
        self.ports: dict[str, int] = {}
        self.address = f"{host}:{self.at[1]}"
        self._crew = crew
        self._namespace = namespace
        self.directory = crew.place(example)
        text = (_EXAMPLES / f"{example}.py").read_text()
        for old, new in changes.items():
            assert old in text, f"examples/{example}.py has no {old}"
            text = text.replace(old, new.replace("@here@", self.address))
        self.config = self.directory / f"{example}.py"
        self.config.write_text(text)
        key = self.directory / "flow_token.key"
        key.touch(mode=0o600)
        key.write_text(new_key() + "\n")
        self.certificate = self.directory / CERTIFICATE
        if certificate:
            pem, private = self_signed([host], time.time())
            self.certificate.write_bytes(pem)
            (self.directory / PRIVATE_KEY).touch(mode=0o600)
            (self.directory / PRIVATE_KEY).write_bytes(private)
        self.start()

    def start(self) -> None:
        """Start it, with the same configuration and key as before if it ran before."""
        self.program = self._crew.start(
            self.directory, [str(PROGRAM), "run", str(self.config)], self._namespace
        )
        self.program.wait_output("sipedge is listening on ")

    def url(self, scheme: str) -> str:
        """Where browsers connect to; ``scheme`` is ``ws`` or ``wss``."""
        return f"{scheme}://{self.at[0]}:{self.ports[scheme]}"

    def kill(self) -> None:
        """``kill -9``: no farewell, and nothing is written down."""
        self.program.kill()


def all_in_one(crew: Crew, host: str = LOOPBACK) -> Sipedge:
    """``examples/edge_and_registrar.py``."""
    return Sipedge(crew, "edge_and_registrar", host, 0, {"127.0.0.1:5060": "@here@"})


def every_way(crew: Crew, more: Mapping[str, str] | None = None) -> Sipedge:
    """``examples/browsers.py``: ``all_in_one`` with TLS and WebSockets."""
    ports = {name: free_port() for name in _MORE}
    changes = {f"127.0.0.1:{_MORE[name]}": f"{LOOPBACK}:{port}" for name, port in ports.items()}
    changes.update({"127.0.0.1:5060": "@here@", **(more or {})})
    site = Sipedge(crew, "browsers", LOOPBACK, 0, changes, certificate=True)
    site.ports.update(ports)
    return site


def edge_for_browsers(crew: Crew, home: str) -> Sipedge:
    """``edge``, with the ways in that ``examples/browsers.py`` has."""
    ports = {name: free_port() for name in _MORE}
    listeners = "".join(f'listen("{name}:{LOOPBACK}:{port}")\n' for name, port in ports.items())
    more = {
        'loadmodule("tm")\n': f'{listeners}loadmodule("tls")\nloadmodule("websocket")\n'
        'modparam("tls", "certificate", "tls.pem")\nmodparam("tls", "private_key", "tls.key")\n'
        'loadmodule("tm")\n',
    }
    site = edge(crew, home, more=more, certificate=True)
    site.ports.update(ports)
    return site


def registrar(crew: Crew, host: str = CORE, port: int = 0, namespace: str | None = None) -> Sipedge:
    """``examples/registrar.py``: registrar and home proxy for ``example.com``."""
    return Sipedge(crew, "registrar", host, port, {"127.0.0.2:5060": "@here@"}, namespace)


def edge(
    crew: Crew,
    home: str,
    host: str = LOOPBACK,
    port: int = 0,
    namespace: str | None = None,
    more: Mapping[str, str] | None = None,
    certificate: bool = False,
) -> Sipedge:
    """``examples/edge.py`` before the registrar at ``home`` (host:port)."""
    changes = {
        "sip:127.0.0.2:5060": f"sip:{home}",
        '{"127.0.0.2"}': f'{{"{home.partition(":")[0]}"}}',
        "127.0.0.1:5060": "@here@",
        **(more or {}),
    }
    return Sipedge(crew, "edge", host, port, changes, namespace, certificate)
