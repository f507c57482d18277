"""A network of its own, made of network namespaces: a phone behind a NAT, and the world.

::

    phone 10.99.1.2 ── 10.99.1.1 nat 10.99.2.2 ── 10.99.2.1 core (and .3, .4)

``nat`` masquerades what goes out, with other ports than the phone's, and drops whatever comes in
without having been asked for; ``core`` has no route to the phone.  No namespace has a link to the
machine's own network.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Final

from tests.peerlib.process import Crew
from tests.peers import need

PHONE: Final = "10.99.1.2"
INSIDE: Final = "10.99.1.1"
OUTSIDE: Final = "10.99.2.2"
EDGE: Final = "10.99.2.1"
HOME: Final = "10.99.2.3"
PEER: Final = "10.99.2.4"

_CLONE_NEWNET: Final = 0x40000000

_RULES: Final = """\
table ip nat {
    chain out {
        type nat hook postrouting priority 100;
        oifname "outside" masquerade random
    }
}
table ip filter {
    chain through {
        type filter hook forward priority 0; policy drop;
        iifname "inside" accept
        ct state established,related accept
    }
    chain to_me {
        type filter hook input priority 0;
        iifname "outside" drop
    }
}
"""


class Nat:
    """The three namespaces, named ``phone``, ``nat`` and ``core``; gone when the crew ends."""

    def __init__(self, crew: Crew) -> None:
        self._ip = need("ip")
        self._nft = need("nft")
        base = f"sipedge{os.getpid()}"
        self.phone, self.nat, self.core = f"{base}p", f"{base}n", f"{base}c"
        for name in (self.phone, self.nat, self.core):
            self._run("netns", "add", name)
            crew.callback(self._run, "netns", "delete", name)
            self._run("-n", name, "link", "set", "lo", "up")
        self._link(self.phone, "eth0", PHONE, self.nat, "inside", INSIDE)
        self._link(self.core, "eth0", EDGE, self.nat, "outside", OUTSIDE)
        for more in (HOME, PEER):
            self._run("-n", self.core, "address", "add", f"{more}/24", "dev", "eth0")
        self._run("-n", self.phone, "route", "add", "default", "via", INSIDE)
        self._inside(self.nat, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        self._inside(self.nat, [self._nft, "-f", "-"], _RULES)

    def _link(self, a: str, a_name: str, a_ip: str, b: str, b_name: str, b_ip: str) -> None:
        """A cable between two namespaces."""
        self._run(
            "link", "add", a_name, "netns", a, "type", "veth", "peer", "name", b_name, "netns", b
        )
        for space, name, address in ((a, a_name, a_ip), (b, b_name, b_ip)):
            self._run("-n", space, "address", "add", f"{address}/24", "dev", name)
            self._run("-n", space, "link", "set", name, "up")

    def _run(self, *arguments: str) -> None:
        _checked([self._ip, *arguments])

    def _inside(self, space: str, command: list[str], text: str | None = None) -> None:
        _checked([self._ip, "netns", "exec", space, *command], text)


def _checked(command: list[str], text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")


def socket_in(namespace: str | None, kind: socket.SocketKind) -> socket.socket:
    """An IPv4 socket that lives in ``namespace``, for use from here; ``None``: where we are.

    A socket stays in the namespace where it was made, and a namespace is an attribute of a thread:
    so a thread goes there, makes the socket, and ends.
    """
    if namespace is None:
        return socket.socket(socket.AF_INET, kind)
    made: list[socket.socket | OSError] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with (Path("/var/run/netns") / namespace).open() as space:
            if libc.setns(space.fileno(), _CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), f"setns to {namespace}"))
                return
        made.append(socket.socket(socket.AF_INET, kind))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]
