"""A real phone: baresip without sound card or keyboard, driven over its control socket.

Strategy: its module ``ctrl_tcp`` takes commands and reports events, JSON in netstrings.  Events are
read by waiting for one: nothing runs in the background.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, Final

from tests.peerlib.netns import socket_in
from tests.peerlib.process import LOOPBACK, PATIENCE, Crew, Program, free_port, wait_for
from tests.peers import need

_MODULES: Final = (
    "/usr/lib/baresip/modules",
    "/usr/lib/x86_64-linux-gnu/baresip/modules",
    "/usr/local/lib/baresip/modules",
)

_CONFIG: Final = """\
poll_method             epoll
sip_listen              {host}:{port}
call_local_timeout      120
call_max_calls          4
audio_player            aubridge,phone
audio_source            aubridge,phone
audio_alert             aubridge,phone
rtp_ports               {rtp}-{rtp_end}
jitter_buffer_delay     5-10
module_path             {modules}
module                  g711.so
module                  aubridge.so
{media}module_tmp              uuid.so
module_tmp              account.so
module_app              ctrl_tcp.so
module_app              menu.so
ctrl_tcp_listen         {host}:{control}
{ca}"""

_WEBRTC: Final = """\
module                  ice.so
module                  srtp.so
module                  dtls_srtp.so
rtcp_mux                yes
"""


class Baresip:
    """One phone with one account ``sip:user@example.com``.

    ``edges`` are its outbound proxies (host, port), two at most, one flow with a reg-id of its own
    to each; ``transport`` is ``udp`` or ``tcp``.  It registers for ``interval`` seconds at a time.
    ``webrtc``: media as browsers want it (ICE, DTLS-SRTP, RTCP on the same port).  ``ca``: who it
    believes that signs certificates (version 1 believes everybody all the same).
    """

    program: Program

    def __init__(
        self,
        crew: Crew,
        user: str,
        *edges: tuple[str, int],
        transport: str = "udp",
        domain: str = "example.com",
        host: str = LOOPBACK,
        namespace: str | None = None,
        interval: int = 600,
        webrtc: bool = False,
        ca: Path | None = None,
    ) -> None:
        self.user = user
        self.domain = domain
        self.transport = transport.upper()
        self.uri = f"sip:{user}@{domain}"
        self.host = host
        self.port = free_port() if namespace is None else 5060
        control = free_port()
        self.directory = crew.place(user)
        rtp = free_port(count=6)
        (self.directory / "config").write_text(
            _CONFIG.format(
                host=host,
                port=self.port,
                control=control,
                media=_WEBRTC if webrtc else "",
                ca="" if ca is None else f"sip_cafile {ca}\n",
                modules=_module_path(),
                rtp=rtp,
                rtp_end=rtp + 5,
            )
        )
        outbound = "".join(
            f';outbound{"" if n == 0 else n + 1}="sip:{edge[0]}:{edge[1]};transport={transport}"'
            for n, edge in enumerate(edges)
        )
        media = ";medianat=ice;mediaenc=dtls_srtp" if webrtc else ""
        (self.directory / "accounts").write_text(
            f"<{self.uri}>{outbound};sipnat=outbound;regint={interval};auth_pass=none"
            f";answermode=manual{media}\n"
        )
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        # -s writes every SIP message to the output, where a failing test shows it
        self.program = crew.start(
            self.directory, [need("baresip"), "-s", "-f", str(self.directory)], namespace
        )
        self.program.wait_output("baresip is ready")
        self._control = _connect(host, control, namespace)
        crew.callback(self._control.close)

    def registered(self, flows: int = 1) -> None:
        """Wait until all ``flows`` of the account are registered."""
        for reg_id in range(1, flows + 1):
            # not by event: it may have happened before we were connected
            self.program.wait_output(f"{{{reg_id}/{self.transport}/v4}} 200 OK")

    def call(self, other: Baresip) -> None:
        """Call another phone; returns at once."""
        self.command("dial", other.uri)

    def answer(self) -> None:
        """Wait until it rings, and take the call."""
        self.event("CALL_INCOMING")
        self.command("accept")

    def in_call(self) -> None:
        """Wait until the call is established."""
        self.event("CALL_ESTABLISHED")

    def hang_up(self) -> None:
        """End the call."""
        self.command("hangup")

    def call_ended(self, timeout: float = PATIENCE) -> None:
        """Wait until it sees the call end."""
        self.event("CALL_CLOSED", timeout)

    def command(self, name: str, params: str = "") -> None:
        """Give a command of baresip's menu."""
        text = json.dumps({"command": name, "params": params, "token": name}).encode()
        self._control.sendall(b"%d:%s," % (len(text), text))

    def event(self, kind: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait for the next event of that type; events of other types are left for later."""
        deadline = time.monotonic() + timeout
        while True:
            for number, event in enumerate(self._events):
                if event.get("type") == kind:
                    return self._events.pop(number)
            left = deadline - time.monotonic()
            if left <= 0:
                seen = [event.get("type") for event in self._events]
                raise TimeoutError(f"{self.user}: no {kind} within {timeout:g} s, only {seen}")
            self._control.settimeout(left)
            try:
                self._read()
            except TimeoutError:
                continue

    def _read(self) -> None:
        data = self._control.recv(65536)
        if not data:
            raise AssertionError(f"{self.user}: baresip closed its control socket")
        self._buffer += data
        while True:
            length, colon, rest = self._buffer.partition(b":")
            if not colon or len(rest) <= int(length):
                return
            message = json.loads(rest[: int(length)])
            self._buffer = rest[int(length) + 1 :]
            if message.get("event"):
                self._events.append(message)


def _connect(host: str, port: int, namespace: str | None) -> socket.socket:
    control = socket_in(namespace, socket.SOCK_STREAM)

    def connected() -> bool:
        try:
            control.connect((host, port))
        except ConnectionRefusedError:
            return False
        return True

    wait_for("baresip takes commands", connected)
    return control


def _module_path() -> str:
    for path in _MODULES:
        if Path(path).is_dir():
            return path
    raise AssertionError(f"baresip's modules are in none of {', '.join(_MODULES)}")
