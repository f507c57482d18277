"""A whole edge without sockets: bytes and a clock in, bytes out (design: the core does no IO)."""

from __future__ import annotations

from typing import Any

from sipedge.config import Edge, load_source
from sipedge.core import Core
from sipedge.flow import TCP, WS, Flow, Listener
from sipedge.lookups import Answer, Lookup
from sipedge.sip.message import SipMessage, parse

#: relays everything to wherever the request says, with a transaction
RELAY_ALL = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
alias("edge.example.com")
loadmodule("tm")
loadmodule("sl")
def request_route(ksr, msg):
    ksr.tm.t_relay(msg)
"""


class Peer:
    """One remote address, and what the edge has sent to it."""

    def __init__(self, sim: Sim, flow: Flow) -> None:
        self.sim = sim
        self.flow = flow
        self.got: list[SipMessage] = []
        self.raw: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sim.core.receive(data, self.flow, self.sim.now)
        self.sim.drain()

    def take(self) -> SipMessage:
        """The oldest message that was not taken yet."""
        assert self.got, f"{self.flow.name} got nothing"
        return self.got.pop(0)

    def silent(self) -> bool:
        return not self.got

    def close(self) -> None:
        self.sim.core.flow_closed(self.flow, "closed by the peer", self.sim.now)
        self.sim.drain()


class Sim:
    """An edge from a configuration text, and its peers."""

    def __init__(self, source: str = RELAY_ALL) -> None:
        self.edge: Edge = load_source(source)
        self.core: Core = self.edge.core
        self.now = 1000.0
        self.core.now = self.now
        self.peers: dict[tuple[int, tuple[str, int]], Peer] = {}
        self.dialed: list[Flow] = []
        self.closed: list[tuple[Flow, str]] = []
        self.asked: list[Lookup] = []
        #: what DNS has, by kind and name; as long as it is None, tests answer by hand
        self.zone: dict[tuple[str, str], tuple[Any, ...]] | None = None
        self.ttl = 60.0
        self.core.on_timer(self.now)

    def listener(self, transport: int) -> Listener:
        return next(x for x in self.core.flows.listeners if x.transport == transport)

    def udp(self, host: str = "127.0.0.2", port: int = 5060) -> Peer:
        flow = self.core.flows.udp(self.core.flows.listeners[0], (host, port))
        return self._peer(flow)

    def tcp(self, host: str = "127.0.0.2", port: int = 40000) -> Peer:
        """A connection that a client opened."""
        flow = self.core.flows.accept(self.listener(TCP), (host, port))
        self.core.flow_opened(flow, self.now)
        return self._peer(flow)

    def ws(self, host: str = "127.0.0.2", port: int = 41000) -> Peer:
        """A browser."""
        flow = self.core.flows.accept(self.listener(WS), (host, port))
        self.core.flow_opened(flow, self.now)
        return self._peer(flow)

    def _peer(self, flow: Flow) -> Peer:
        key = (flow.transport, flow.remote)
        peer = self.peers.get(key)
        if peer is None or peer.flow.conn_id != flow.conn_id:
            peer = self.peers[key] = Peer(self, flow)
        return peer

    def drain(self) -> None:
        self.dialed += self.core.flows.dials
        self.core.flows.dials.clear()
        while lookups := self.core.lookups():
            self.asked += lookups
            for lookup in lookups if self.zone is not None else ():
                self.answer(lookup)
        self.dialed += self.core.flows.dials
        self.core.flows.dials.clear()
        for data, flow in self.core.sends():
            peer = self._peer(flow)
            peer.raw.append(data)
            if data[:4].strip() and data[0] > 3 and data.__class__ is bytes:
                peer.got.append(parse(data))
        self.closed += self.core.closes()

    def answer(self, lookup: Lookup) -> None:
        """What ``zone`` has for this question."""
        records = (self.zone or {}).get((lookup.kind, lookup.name), ())
        self.core.resolved(lookup, Answer(records, self.ttl), self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while True:
            due = self.core.next_timer()
            if due is None or due > end:
                break
            # a little later, as net does: rounding could make it too early, and then for ever
            self.now = max(self.now, due + 1e-6)
            self.core.on_timer(self.now)
            self.drain()
        self.now = max(self.now, end)


def request(
    method: str = "INVITE",
    uri: str = "sip:bob@127.0.0.9:5060",
    *,
    branch: str = "z9hG4bKa1",
    via: str = "SIP/2.0/UDP 127.0.0.2:5060",
    headers: str = "",
    call_id: str = "c1@127.0.0.2",
    cseq: int = 1,
    to_tag: str = "",
    from_tag: str = "f1",
    max_forwards: int | None = 70,
    body: str = "",
) -> bytes:
    """A request as a simple client writes it; ``headers`` are whole lines, each with its CRLF."""
    tag = f";tag={to_tag}" if to_tag else ""
    mf = "" if max_forwards is None else f"Max-Forwards: {max_forwards}\r\n"
    return (
        f"{method} {uri} SIP/2.0\r\nVia: {via};branch={branch};rport\r\n{mf}"
        f"From: <sip:alice@example.com>;tag={from_tag}\r\nTo: <sip:bob@example.com>{tag}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def answer(
    msg: SipMessage, status: int, reason: str = "X", *, tag: str = "t1", headers: str = ""
) -> bytes:
    """The response of a simple UAS to a request that it received."""
    lines = [f"SIP/2.0 {status} {reason}".encode()]
    for line, name in zip(msg.lines, msg.ids, strict=True):
        if name in (b"via", b"from", b"call-id", b"cseq", b"record-route"):
            lines.append(line)
        elif name == b"to":
            lines.append(
                line if b";tag=" in line or status == 100 else line + b";tag=" + tag.encode()
            )
    text = headers.encode() + b"Content-Length: 0\r\n\r\n"
    return b"\r\n".join(lines) + b"\r\n" + text
