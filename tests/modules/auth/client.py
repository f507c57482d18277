"""An edge with the module auth, without sockets, and a client that can answer its challenges."""

from __future__ import annotations

import asyncio
from itertools import count

from sipedge.sip.message import SipMessage, parse
from tests.digest import answer
from tests.sim import Peer, Sim, request

#: checks who it is, then answers 200 to whatever is for example.com, and relays the rest
SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("pv")
loadmodule("auth")
USERS = {"alice": "secret", "bob": "b0b"}
def password(user, realm):
    return USERS.get(user) if realm == "example.com" else None
modparam("auth", "credentials", password)
{more}
CODES = []
def request_route(ksr, msg):
    rc = ksr.auth.auth_check(msg, "example.com")
    CODES.append(int(rc))
    if not rc:
        ksr.auth.auth_challenge(msg, "example.com")
        return
    ksr.auth.consume_credentials(msg)
    if ksr.is_myself(msg.ruri):
        ksr.sl.send_reply(msg, 200, "OK")
    else:
        ksr.tm.t_relay(msg)
"""


_NUMBERS = count(1)  # no two requests of any client are one transaction


class Client:
    """A UA at ``host``; each request is a new one unless ``branch`` says otherwise."""

    def __init__(
        self, sim: Sim, user: str = "alice", password: str = "secret", peer: Peer | None = None
    ) -> None:
        self.sim = sim
        self.user = user
        self.password = password
        self.peer = peer or sim.udp()

    def data(
        self,
        method: str = "REGISTER",
        uri: str = "sip:example.com",
        *,
        headers: str = "",
        aor: str = "",
        branch: str = "",
        call_id: str = "",
        to_tag: str = "",
    ) -> bytes:
        """A request of ``aor`` (default: this user) to itself."""
        number = next(_NUMBERS)
        data = request(
            method,
            uri,
            headers=headers,
            branch=branch or f"z9hG4bK{number}",
            cseq=number,
            call_id=call_id or f"call{number}",
            to_tag=to_tag,
        )
        own = (aor or f"sip:{self.user}@example.com").encode()
        for name in (b"alice", b"bob"):
            data = data.replace(b"<sip:%s@example.com>" % name, b"<%s>" % own)
        return data

    def send(self, method: str = "REGISTER", uri: str = "sip:example.com", **more: str) -> int:
        """Status of the answer to a request."""
        return self.exchange(self.data(method, uri, **more)).status

    def exchange(self, data: bytes) -> SipMessage:
        """The final answer to a request, or what was relayed instead."""
        self.peer.got.clear()
        self.peer.send(data)
        got = [msg for msg in self.peer.got if msg.status != 100]
        assert len(got) == 1, got
        return got[0]

    def challenges(self, method: str = "REGISTER", uri: str = "sip:example.com") -> list[bytes]:
        """The challenges to a request without credentials, in order."""
        return challenges_in(self.exchange(self.data(method, uri)))

    def credentials(
        self,
        challenge: bytes,
        method: str = "REGISTER",
        uri: str = "sip:example.com",
        nc: int | None = 1,
        **changes: str,
    ) -> str:
        """A whole header row that answers a challenge."""
        value = answer(challenge, self.user, self.password, method, uri, nc=nc, **changes)
        return f"{'' if method == 'REGISTER' else 'Proxy-'}Authorization: {value}\r\n"

    def login(
        self, challenge: bytes, nc: int | None = 1, method: str = "REGISTER", **changes: str
    ) -> int:
        """Status of the answer to a request that answers ``challenge``."""
        return self.send(method, headers=self.credentials(challenge, method, nc=nc, **changes))


def challenges_in(msg: SipMessage) -> list[bytes]:
    www = msg.rows(b"www-authenticate")
    proxy = msg.rows(b"proxy-authenticate")
    assert bool(www) == (msg.status == 401), msg.lines
    assert bool(proxy) == (msg.status == 407), msg.lines
    return www + proxy


def edge(more: str = "") -> Sim:
    return Sim(SOURCE.replace("{more}", more))


def codes(sim: Sim) -> list[int]:
    """What ``auth_check`` has returned so far."""
    found: list[int] = sim.core.request_route.__globals__["CODES"]  # type: ignore[union-attr]
    return found


class _Socket(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.got.put_nowait(data)


async def ask(port: int, data: bytes) -> SipMessage:
    """The answer of an edge that really listens on loopback, to one request over UDP."""
    transport, socket = await asyncio.get_running_loop().create_datagram_endpoint(
        _Socket, remote_addr=("127.0.0.1", port)
    )
    try:
        transport.sendto(data)
        return parse(await asyncio.wait_for(socket.got.get(), 30))
    finally:
        transport.close()
