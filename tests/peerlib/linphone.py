"""A real softphone: Linphone's daemon without sound card, driven over its control socket.

Strategy: one command a line, one answer a packet.  Nothing is pushed to us, so that every wait is
a question asked again.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.peerlib.process import PATIENCE, Crew, free_port, wait_for
from tests.peers import need

_CONFIG: Final = """\
[sip]
sip_port={udp}
sip_tcp_port={tcp}
sip_tls_port=0
default_proxy=0
media_encryption=none
use_ipv6=0

[rtp]
audio_rtp_port={rtp}

[proxy_0]
reg_proxy=<sip:{host}:{port};transport={transport}>
reg_route=<sip:{host}:{port};transport={transport};lr>
reg_identity=sip:{user}@{domain}
reg_expires=600
reg_sendregister=1
{more}
"""


class Linphone:
    """One softphone with the account ``sip:user@example.com`` and one outbound proxy ``edge``.

    ``transport`` is ``udp`` or ``tcp``.  Debian 12's Linphone says that it supports outbound and
    sends its instance, but no reg-id; with ``reg_id`` its parameters of Contact are set to one.
    """

    def __init__(
        self,
        crew: Crew,
        user: str,
        edge: tuple[str, int],
        transport: str = "udp",
        reg_id: int = 0,
        domain: str = "example.com",
    ) -> None:
        self.user = user
        self.uri = f"sip:{user}@{domain}"
        directory = crew.place(user)
        # without this place for its database it does not get as far as opening a socket
        (directory / ".local/share/linphone").mkdir(parents=True)
        port = free_port(count=5)
        config = directory / "linphonerc"
        config.write_text(
            _CONFIG.format(
                udp=port if transport == "udp" else 0,
                tcp=port if transport == "tcp" else 0,
                rtp=port + 2,
                host=edge[0],
                port=edge[1],
                transport=transport,
                user=user,
                domain=domain,
                more=f"contact_parameters=reg-id={reg_id}" if reg_id else "",
            )
        )
        self._log = directory / "log.txt"
        name = f"sipedge-linphone-{port}"  # it takes a name, which it puts into /tmp
        crew.callback(Path("/tmp", name).unlink, missing_ok=True)
        self.program = crew.start(
            directory,
            [
                "env", f"HOME={directory}", need("linphone"), "--config", str(config),
                "--pipe", name, "--log", str(self._log), "--disable-stats-events",
            ],
        )  # fmt: skip
        self._control = crew.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._control.settimeout(PATIENCE)
        wait_for("Linphone takes commands", lambda: self._connected(f"/tmp/{name}"))

    def registered(self) -> None:
        """Wait until it has accepted the registrar's answer."""
        self._wait("LinphoneRegistrationOk", "register-status ALL")

    def call(self, other: Any) -> None:
        """Call another phone; returns at once."""
        self.command(f"call {other.uri}")

    def answer(self) -> None:
        """Wait until it rings, and take the call."""
        self._wait("LinphoneCallIncomingReceived", "call-status")
        self.command("answer")

    def in_call(self) -> None:
        """Wait until the call is established."""
        self._wait("LinphoneCallStreamsRunning", "call-status")

    def hang_up(self) -> None:
        """End the call."""
        self.command("terminate")

    def call_ended(self, timeout: float = PATIENCE) -> None:
        """Wait until it sees the call end."""
        self._wait("No current call", "call-status", timeout)

    def log(self) -> str:
        """What it did so far, and every message that it sent or received."""
        return self._log.read_text(errors="replace")

    def command(self, text: str) -> str:
        """Give a command; its answer."""
        self._control.sendall(text.encode() + b"\n")
        return self._control.recv(65536).decode()

    def _wait(self, text: str, command: str, timeout: float = PATIENCE) -> None:
        wait_for(f"{self.user}: {text}", lambda: text in self.command(command), timeout)

    def _connected(self, path: str) -> bool:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            self._control.connect(path)
            return True
        return False
