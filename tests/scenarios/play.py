"""The stage of the SIPp scenarios: where the XML files are, and how a test casts them.

A site is what the phones see: one address that they register and call at.  It is either edge and
registrar in one process, or an edge and a registrar as two.

The Contact of every phone is an address where nobody listens, as good as the private address of a
phone behind a NAT: what reaches a phone came over its flow.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any, Final

from tests.peerlib.process import LOOPBACK, Crew, free_port
from tests.peerlib.sipedge import CORE, Sipedge, all_in_one, edge, registrar
from tests.peerlib.sipp import Agent

_XML: Final = Path(__file__).parent / "xml"
DOMAIN: Final = "example.com"
SITES: Final = ("all in one", "edge and registrar")
_LINES: Final = re.MULTILINE | re.DOTALL
UDP: Final = "u1"  # SIPp's names: one socket for all calls
TCP: Final = "t1"


def open_site(kind: str, crew: Crew) -> Sipedge:
    """Start a site; what the phones talk to."""
    if kind == "all in one":
        return all_in_one(crew)
    return edge(crew, registrar(crew).address)


def token_route(messages: str) -> tuple[str, str]:
    """(token, whole value) of the topmost Record-Route with a token in the first INVITE."""
    invite = messages[messages.index("\nINVITE sip:") :]
    found = re.search(r"Record-Route:[^@]*(<sip:([^@>]+)@[^>]+>)", invite)
    assert found, invite
    return found[2], found[1]


def changed(token: str, place: int) -> str:
    """The token with another character at ``place``, and nothing else."""
    other = "B" if token[place] == "A" else "A"
    return token[:place] + other + token[place:][1:]


def top_branch(messages: str, method: str) -> str:
    """The branch of the topmost Via in the first ``method`` request."""
    found = re.search(rf"^{method} sip:.*?^Via: .*?;branch=([^;,\s]+)", messages, _LINES)
    assert found, messages
    return found[1]


class Cast:
    """The agents of one test; all take part in what is one call to SIPp."""

    def __init__(self, crew: Crew, proxy: tuple[str, int] | None = None) -> None:
        self._crew = crew
        self.proxy = proxy
        self._call_id = secrets.token_hex(8)
        self._instances: dict[str, str] = {}

    def phone(
        self,
        scenario: str,
        user: str = "bob",
        peer: str = "alice",
        transport: str = UDP,
        reg_id: int = 1,
        proxy: tuple[str, int] | None = None,
        **keys: str,
    ) -> Agent:
        """A phone plays ``uac_<scenario>.xml``; every phone of ``user`` is the same instance."""
        instance = self._instances.setdefault(
            user, f"00000000-0000-4000-8000-{secrets.token_hex(6)}"
        )
        values = {"user": user, "peer": peer, "instance": instance, "regid": str(reg_id), **keys}
        return self._agent(f"uac_{scenario}", values, proxy or self.proxy, transport=transport)

    def probe(self, route: str, status: int, home: bool = False) -> Agent:
        """Somebody sends an INVITE with ``route`` and must be answered with ``status``.

        He pretends to be within a dialog; or, with ``home``, is the home proxy with a new call.
        """
        keys = {"route": route, "status": str(status), "to_tag": "" if home else ";tag=1"}
        return self._agent("uac_probe", keys, self.proxy, host=CORE if home else LOOPBACK)

    def home(self, scenario: str, user: str = "bob", peer: str = "alice", **keys: str) -> Agent:
        """SIPp plays home proxy and registrar of ``user`` with ``uas_<scenario>.xml``, over UDP."""
        return self._agent(f"uas_{scenario}", {"user": user, "peer": peer, **keys}, host=CORE)

    def crowd(self, scenario: str, **load: int) -> Agent:
        """Many calls at a time of ``<scenario>.xml``, each with a Call-ID of its own."""
        proxy = self.proxy if scenario.startswith("uac") else None
        host = LOOPBACK if proxy else CORE
        return self._agent(scenario, {}, proxy, host=host, call_id="", **load)

    def _agent(
        self,
        name: str,
        keys: dict[str, str],
        proxy: tuple[str, int] | None = None,
        host: str = LOOPBACK,
        **settings: Any,
    ) -> Agent:
        settings.setdefault("call_id", self._call_id)
        return Agent(
            self._crew,
            _XML / f"{name}.xml",
            proxy,
            {"domain": DOMAIN, **keys},
            local=(host, free_port(host)),
            **settings,
        )
