"""Phones whose only address is an IPv6 link-local one, over UDP and TCP (RFC 4007, RFC 6874).

Zones mean something to one machine only: they are in the configuration and on our sockets, and
never in a message or a token.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.peerlib.netns import Link, socket_in
from tests.peerlib.process import Crew, Program
from tests.peerlib.sipedge import PROGRAM
from tests.peerlib.ua import Message

CONFIG = """
listen("udp:[fe80::1%eth0]:5060")
listen("tcp:[fe80::1%eth0]:5060")
listen("udp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("rr")
loadmodule("path")
modparam("outbound", "flow_token_key", b"johndoessecretphrase")
def request_route(ksr, msg):
    if msg.method == b"REGISTER":
        ksr.path.add_path(msg)
        ksr.setdsturi(msg, "sip:127.0.0.1:5070")
        ksr.tm.t_relay(msg)
    elif ksr.rr.loose_route(msg):
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 404, "Not Found")
"""


@pytest.fixture
def link(crew: Crew) -> Link:
    return Link(crew)


def start(crew: Crew, link: Link) -> Program:
    directory = crew.place("edge")
    (directory / "edge.py").write_text(CONFIG)
    program = crew.start(directory, [str(PROGRAM), "run", "edge.py"], link.here)
    program.wait_output("sipedge is listening on ")
    return program


@pytest.fixture
def home(link: Link, crew: Crew) -> Iterator[socket.socket]:
    """The registrar, and whoever calls."""
    with socket_in(link.here, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 5070))
        sock.settimeout(30)
        yield sock


def phone(link: Link, kind: socket.SocketKind) -> socket.socket:
    sock = socket_in(link.there, kind, socket.AF_INET6)
    # eth0 has the same number in both namespaces only by chance: ask in there
    scope = scope_in(link.there)
    sock.bind((Link.THERE, 0, 0, scope))
    sock.settimeout(30)
    sock.connect((Link.HERE, 5060, 0, scope))
    return sock


def scope_in(namespace: str) -> int:
    """The number of eth0 in a namespace."""
    command = ["ip", "netns", "exec", namespace, "cat", "/sys/class/net/eth0/ifindex"]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def request(method: str, uri: str, via: str, *headers: str) -> bytes:
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: {via};branch=z9hG4bK{method}{len(headers)};rport",
        "Max-Forwards: 70",
        "From: <sip:bob@example.com>;tag=1",
        "To: <sip:bob@example.com>",
        f"Call-ID: {method}",
        f"CSeq: 1 {method}",
        *headers,
        "Content-Length: 0",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


@pytest.mark.rfc("OPS-01")
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_a_phone_on_the_link(
    link: Link, home: socket.socket, crew: Crew, kind: socket.SocketKind
) -> None:
    program = start(crew, link)
    name = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    with phone(link, kind) as bob:
        contact = 'Contact: <sip:bob@[fe80::2]:5060;ob>;reg-id=1;+sip.instance="<urn:uuid:1>"'
        bob.sendall(
            request("REGISTER", "sip:example.com", f"SIP/2.0/{name} [fe80::2]:5060", contact,
                    "Supported: path, outbound")
        )  # fmt: skip
        data, edge = home.recvfrom(65536)
        seen = Message(data.decode())
        assert "%" not in seen.text
        assert f";rport={bob.getsockname()[1]};received=fe80::2" in seen.text
        copied = [f"{n}: {v}" for n, v in seen.headers if n in ("Via", "From", "To", "Call-ID")]
        answer = ["SIP/2.0 200 OK", *copied, "CSeq: 1 REGISTER", "Content-Length: 0", "", ""]
        home.sendto("\r\n".join(answer).encode(), edge)
        assert bob.recv(65536).startswith(b"SIP/2.0 200 ")
        [path] = seen.all("Path")
        assert "@127.0.0.1:5060;" in path, "the side of the core, the token names the other one"
        routes = [f"Route: {path}"]
        via = "SIP/2.0/UDP 127.0.0.1:5070"
        home.sendto(request("MESSAGE", "sip:bob@[fe80::2]:5060", via, *routes), edge)
        got = Message(bob.recv(65536).decode())
        assert got.start.startswith("MESSAGE sip:bob@[fe80::2]:5060 ")
        assert f"SIP/2.0/{name} [fe80::1]:5060" in got.get("Via")
        if kind == socket.SOCK_DGRAM:  # a token is enough: the link is the listener's
            program.kill()
            start(crew, link)
            again = [*routes, "Subject: after a restart"]
            home.sendto(request("MESSAGE", "sip:bob@[fe80::2]:5060", via, *again), edge)
            assert b"after a restart" in bob.recv(65536)
