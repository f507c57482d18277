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

    def forget(self, port: int) -> None:
        """The NAT loses what it knows of the phone's TCP connection from ``port``.

        It tells nobody: whatever either side sends on that connection is dropped from now on.
        """
        drop = "insert rule ip filter through ip {} 10.99.1.2 tcp {} {} drop\n"
        rules = drop.format("saddr", "sport", port) + drop.format("daddr", "dport", port)
        self._inside(self.nat, [self._nft, "-f", "-"], rules)

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


class Link:
    """A cable with IPv6 link-local addresses only: ``here`` (fe80::1) and ``there`` (fe80::2).

    Both ends are called eth0, in two namespaces of their own.
    """

    HERE: Final = "fe80::1"
    THERE: Final = "fe80::2"

    def __init__(self, crew: Crew) -> None:
        ip = need("ip")
        base = f"sipedge{os.getpid()}"
        self.here, self.there = f"{base}h", f"{base}t"
        for name in (self.here, self.there):
            _checked([ip, "netns", "add", name])
            crew.callback(_checked, [ip, "netns", "delete", name])
            _checked([ip, "-n", name, "link", "set", "lo", "up"])
        cable = [ip, "link", "add", "eth0", "netns", self.here, "type", "veth"]
        _checked([*cable, "peer", "name", "eth0", "netns", self.there])
        for name, address in ((self.here, self.HERE), (self.there, self.THERE)):
            set_link = [ip, "-n", name, "link", "set", "eth0"]
            _checked([*set_link, "addrgenmode", "none"])  # no address of its own making
            _checked([*set_link, "up"])
            # nodad: it can be used at once (RFC 4862 §5.4)
            _checked([ip, "-n", name, "address", "add", f"{address}/64", "dev", "eth0", "nodad"])


def _checked(command: list[str], text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")


def socket_in(
    namespace: str | None,
    kind: socket.SocketKind,
    family: socket.AddressFamily = socket.AF_INET,
) -> socket.socket:
    """A socket that lives in ``namespace``, for use from here; ``None``: where we are.

    A socket stays in the namespace where it was made, and a namespace is an attribute of a thread:
    so a thread goes there, makes the socket, and ends.
    """
    if namespace is None:
        return socket.socket(family, kind)
    made: list[socket.socket | OSError] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with (Path("/var/run/netns") / namespace).open() as space:
            if libc.setns(space.fileno(), _CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), f"setns to {namespace}"))
                return
        made.append(socket.socket(family, kind))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]
