"""A real Kamailio, as edge proxy or as registrar, with a configuration written for the test.

Strategy: two templates, ``kamailio_edge.cfg`` and ``kamailio_registrar.cfg``, do what the manuals
of Kamailio's outbound and registrar modules describe; ``@name@`` in them is filled in here.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from tests.certs import Pair
from tests.peerlib.process import LOOPBACK, Crew, free_port
from tests.peers import need

_HERE: Final = Path(__file__).parent
DOMAIN: Final = "example.com"
#: where distributions put the modules
_MODULES: Final = (
    "/usr/lib/x86_64-linux-gnu/kamailio/modules",
    "/usr/lib/aarch64-linux-gnu/kamailio/modules",
    "/usr/lib64/kamailio/modules",
    "/usr/lib/kamailio/modules",
)


#: what the edge needs for browsers: the manual of Kamailio's websocket module has it so
_WEBSOCKET: Final = """
tcp_accept_no_cl=yes
loadmodule "xhttp.so"
loadmodule "websocket.so"

event_route[xhttp:request] {
    set_reply_close();
    set_reply_no_connect();
    if ($hdr(Upgrade) =~ "websocket" && $hdr(Connection) =~ "Upgrade") {
        ws_handle_handshake();
        exit;
    }
    xhttp_reply("404", "Not Found", "", "");
}
"""


#: mutual TLS, and connections that go both ways (RFC 5923)
_TLS: Final = """
enable_tls=yes
tcp_accept_aliases=yes
listen=tls:{at}
loadmodule "tls.so"
modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "certificate", "{certificate}")
modparam("tls", "private_key", "{private_key}")
modparam("tls", "ca_list", "{ca}")
modparam("tls", "verify_certificate", 1)
modparam("tls", "require_certificate", 1)
"""


class Kamailio:
    """A Kamailio that listens for UDP and TCP at ``at`` (host, port) until the crew ends."""

    tls_port: int

    def __init__(self, crew: Crew, template: str, host: str, **values: str) -> None:
        self.at = (host, free_port(host))
        self.address = f"{host}:{self.at[1]}"
        directory = crew.place(Path(template).stem)
        values.update(host=host, port=str(self.at[1]), domain=DOMAIN, mpath=_module_path())
        text = (_HERE / template).read_text()
        config = directory / template
        config.write_text(re.sub("@([a-z_]+)@", lambda m: values[m[1]], text))
        self.program = crew.start(
            directory,
            [
                need("kamailio"), "-DD", "-E", "-m", "32", "-M", "8", "-f", str(config),
                "-w", str(directory), "-Y", str(directory), "-P", str(directory / "kamailio.pid"),
            ],
        )  # fmt: skip
        self.program.wait_output("kamailio is ready")


def kamailio_registrar(crew: Crew, host: str) -> Kamailio:
    """A registrar and home proxy for ``example.com``, with outbound, GRUU and Path."""
    return Kamailio(crew, "kamailio_registrar.cfg", host, tls="")


def kamailio_registrar_tls(crew: Crew, host: str, pair: Pair, ca: Path) -> Kamailio:
    """The same with TLS at ``tls_port``, for those who have a certificate of ``ca``."""
    port = free_port(host)
    tls = _TLS.format(
        at=f"{host}:{port}", certificate=pair.certificate, private_key=pair.private_key, ca=ca
    )
    home = Kamailio(crew, "kamailio_registrar.cfg", host, tls=tls)
    home.tls_port = port
    return home


def kamailio_edge(
    crew: Crew, registrar: str, secret: str = "", websocket: bool = False
) -> Kamailio:
    """An edge proxy before ``registrar`` (host:port).

    ``secret`` sets flow_token_secret; with ``websocket`` its TCP port takes browsers too.
    """
    host, _, port = registrar.partition(":")
    return Kamailio(
        crew,
        "kamailio_edge.cfg",
        LOOPBACK,
        registrar_host=host,
        registrar_port=port,
        secret=f'modparam("outbound", "flow_token_secret", "{secret}")' if secret else "",
        websocket=_WEBSOCKET if websocket else "",
    )


def secret_that_counts(secret: str) -> str:
    """The secret that the installed Kamailio signs with when it is given ``secret``.

    5.6.0 to 5.7.6 and 5.8.0 to 5.8.5 lose its length: to them it is always the empty one.
    """
    text = subprocess.run([need("kamailio"), "-v"], capture_output=True, text=True, check=True)
    found = re.search(r"kamailio (\d+)\.(\d+)\.(\d+)", text.stdout)
    assert found, text.stdout
    version = (int(found[1]), int(found[2]), int(found[3]))
    lost = (5, 6, 0) <= version < (5, 7, 7) or (5, 8, 0) <= version < (5, 8, 6)
    return "" if lost else secret


def _module_path() -> str:
    for path in _MODULES:
        if Path(path).is_dir():
            return path
    raise AssertionError(f"Kamailio's modules are in none of {', '.join(_MODULES)}")
