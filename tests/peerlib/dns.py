"""A DNS server as a child of a test: NSD, with one zone, on a port of its own.

Strategy: the zone is a text in the format of RFC 1035; ``zone`` writes another one and starts the
server anew, which takes some tens of milliseconds.  NSD answers with authority only, so everything
that a test looks up must stand in its zone.
"""

from __future__ import annotations

from typing import Final

from tests.peerlib.process import LOOPBACK, Crew, Program, free_port
from tests.peers import need

ZONE: Final = "example.test"

_HEAD: Final = """$ORIGIN {zone}.
$TTL {ttl}
@ IN SOA ns hostmaster {serial} 3600 600 86400 {negative}
@ IN NS ns
ns IN A 127.0.0.1
"""

_CONF: Final = """server:
    ip-address: {host}@{port}
    username: ""
    chroot: ""
    zonesdir: "{place}"
    database: ""
    pidfile: "{place}/nsd.pid"
    xfrdfile: "{place}/xfrd.state"
    xfrdir: "{place}"
    zonelistfile: "{place}/zone.list"
    server-count: 1
    verbosity: 1
    rrl-ratelimit: 0
    rrl-whitelist-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: {zone}
    zonefile: zone
"""


class Nsd:
    """NSD with the zone ``example.test``; ``server`` is what ``core.dns_servers`` takes."""

    program: Program

    def __init__(
        self, crew: Crew, records: str = "", *, ttl: int = 300, negative: int = 60
    ) -> None:
        """``records``: lines of the zone.  ``ttl`` is theirs where they say nothing, ``negative``
        that of "there is no such record" (seconds)."""
        self._nsd = need("nsd")
        self._crew = crew
        self._place = crew.place("nsd")
        self._serial = 0
        self.port = free_port()
        self.server = f"{LOOPBACK}:{self.port}"
        conf = _CONF.format(host=LOOPBACK, port=self.port, place=self._place, zone=ZONE)
        (self._place / "nsd.conf").write_text(conf)
        self._write(records, ttl, negative)
        self.start()

    def zone(self, records: str, *, ttl: int = 300, negative: int = 60) -> None:
        """Serve these records from now on."""
        self.stop()
        self._write(records, ttl, negative)
        self.start()

    def start(self) -> None:
        """Serve; returns when it does."""
        conf = str(self._place / "nsd.conf")
        self.program = self._crew.start(self._place, [self._nsd, "-d", "-c", conf])
        self.program.wait_output("nsd started")

    def stop(self) -> None:
        """Nobody answers any more."""
        self.program.stop()

    def _write(self, records: str, ttl: int, negative: int) -> None:
        self._serial += 1
        head = _HEAD.format(zone=ZONE, ttl=ttl, negative=negative, serial=self._serial)
        (self._place / "zone").write_text(head + records)
