"""Several edges without sockets, their datagrams carried from one to the other; and phones.

The whole of it is bytes and one clock: a scenario of requirements section C runs in milliseconds
and replays exactly.
"""

from __future__ import annotations

from sipedge.config import load_source
from sipedge.core import Core
from sipedge.flow import TCP, UDP, VIA_TOKEN, WS, Address, Flow
from sipedge.sip.message import SipMessage, parse
from tests.sim import answer, request

KEY = "b'01234567890123456789'"
#: of the listeners that phones connect to
PORTS = {UDP: 5060, TCP: 5060, WS: 8080}

MODULES = """
loadmodule("tm")
loadmodule("sl")
{outbound}
loadmodule("rr")
loadmodule("path")
loadmodule("registrar")
loadmodule("maxfwd")
loadmodule("textops")
loadmodule("siputils")
"""

OUTBOUND = 'loadmodule("outbound")\nmodparam("outbound", "flow_token_key", %s)'

DIALOG = """
def within_dialog(ksr, msg):
    rc = ksr.rr.loose_route(msg)
    if rc == -2:
        ksr.sl.send_reply(msg, 403, "Forbidden")
    elif not rc:
        ksr.sl.send_reply(msg, 404, "Not Found")
    else:
        ksr.tm.t_relay(msg)
"""

EDGE = (
    """
listen("udp:{ip}:5060")
listen("tcp:{ip}:5060")
"""
    + MODULES
    + DIALOG
    + """
def request_route(ksr, msg):
    if msg.to_tag:
        return within_dialog(ksr, msg)
    if msg.method == b"REGISTER":
        ksr.textops.remove_hf(msg, "Route")
        ksr.path.add_path(msg)
        ksr.setdsturi(msg, "sip:127.0.1.1:5060")
        ksr.tm.t_relay(msg)
        return
    if msg.method != b"MESSAGE":
        ksr.rr.record_route(msg)
    if msg.flow.remote[0] == "127.0.1.1":
        rc = ksr.rr.loose_route(msg)
        if rc == -2:
            ksr.sl.send_reply(msg, 403, "Forbidden")
        elif not rc:
            ksr.sl.send_reply(msg, 404, "Not Found")
        else:
            ksr.tm.t_relay(msg)
        return
    ksr.textops.remove_hf(msg, "Route")
    ksr.setdsturi(msg, "sip:127.0.1.1:5060")
    ksr.tm.t_relay(msg)

def reply_route(ksr, msg):
    if msg.cseq()[1] == b"REGISTER" and b"outbound" in msg.options(b"require"):
        ksr.textops.insert_hf(msg, "Flow-Timer: 20\\r\\n", "Call-ID")
"""
)

HOME = (
    """
listen("udp:{ip}:5060")
listen("tcp:{ip}:5060")
alias("example.com")
"""
    + MODULES
    + DIALOG
    + """
def request_route(ksr, msg):
    if msg.to_tag:
        return within_dialog(ksr, msg)
    if msg.method != b"MESSAGE":
        ksr.rr.record_route(msg)
    ksr.textops.remove_hf(msg, "Route")
    if msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    elif ksr.registrar.lookup(msg, "location"):
        ksr.tm.t_relay(msg)
    else:
        ksr.sl.send_reply(msg, 480, "Temporarily Unavailable")
"""
)


class World:
    """Cores by address, phones by address, and one clock (seconds)."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cores: dict[str, Core] = {}
        self.phones: dict[tuple[int, Address], Phone] = {}
        self.down: set[str] = set()
        self.refused: list[Flow] = []
        #: every message that went over the wire: (from, to, bytes)
        self.wire: list[tuple[str, str, bytes]] = []

    def edge(self, ip: str = "127.0.2.1", key: str = KEY) -> Core:
        return self.core(ip, EDGE, OUTBOUND % key)

    def home(self, ip: str = "127.0.1.1") -> Core:
        return self.core(ip, HOME, "")

    def all_in_one(self, ip: str = "127.0.1.1", key: str = KEY) -> Core:
        return self.core(ip, HOME, OUTBOUND % key)

    def core(self, ip: str, text: str, outbound: str) -> Core:
        text = text.replace("{ip}", ip).replace("{outbound}", outbound)
        core = self.cores[ip] = load_source(text).core
        core.on_timer(self.now)
        return core

    def restart(self, ip: str, text: str = EDGE, key: str = KEY) -> Core:
        """kill -9 and start again: all connections are gone, the key file is not."""
        return self.core(ip, text, OUTBOUND % key)

    def run(self) -> None:
        """Carry messages until nobody has anything to say."""
        busy = True
        while busy:
            busy = False
            for ip, core in list(self.cores.items()):
                if ip in self.down:
                    continue
                self._dial(core)
                for data, flow in core.sends():
                    busy = True
                    self._carry(ip, core, data, flow)
                core.closes()

    def _dial(self, core: Core) -> None:
        for flow in core.flows.dials:
            self.refused.append(flow)
            core.flow_closed(flow, "refused", self.now)
        core.flows.dials.clear()

    def _carry(self, ip: str, core: Core, data: bytes, flow: Flow) -> None:
        self.wire.append((ip, f"{flow.remote[0]}:{flow.remote[1]}", data))
        assert len(self.wire) < 2000, "a storm"
        host = flow.remote[0]
        phone = self.phones.get((flow.transport, flow.remote))
        if phone is not None:
            if flow.transport == UDP or phone.flow is flow:
                phone.hears(data, flow)
        elif host in self.down or (host not in self.cores and flow.transport == UDP):
            core.flow_unreachable(flow, self.now)
        elif host in self.cores:
            other = self.cores[host]
            listener = other.flows.find_listener(UDP, host, flow.remote[1])
            assert listener is not None
            other.receive(data, other.flows.udp(listener, flow.local), self.now)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = min((core.next_timer() or end + 1) for core in self.cores.values())
            if due > end:
                break
            self.now = max(self.now, due)
            for ip, core in self.cores.items():
                if ip not in self.down:
                    core.on_timer(self.now)
            self.run()
        self.now = end


class Phone:
    """A UA that does what compliant ones do: one flow, route sets, its own Contact."""

    def __init__(
        self,
        world: World,
        name: str,
        edge: str,
        address: Address,
        *,
        transport: int = UDP,
        reg_id: int = 1,
        ob: bool = True,
        instance: str = "",
    ) -> None:
        self.world = world
        self.name = name
        self.edge = edge
        self.address = address
        self.transport = transport
        self.reg_id = reg_id
        self.instance = instance or f"urn:uuid:00000000-0000-1000-8000-{abs(hash(name)):012x}"[:45]
        #: private address: nobody but the edge's flow can reach it (RFC 7118 §5.2: browsers have
        #: none at all)
        self.host = "df7jal23ls0d.invalid" if transport == WS else "10.0.0.9:5060"
        named = {TCP: ";transport=tcp", WS: ";transport=ws"}.get(transport, "")
        self.contact = f"<sip:{name}@{self.host}{named}{';ob' if ob else ''}>"
        self.heard: list[SipMessage] = []
        self.all: list[SipMessage] = []
        self.count = 0
        self.connect(address)

    def connect(self, address: Address) -> None:
        self.address = address
        core = self.world.cores[self.edge]
        listener = core.flows.find_listener(self.transport, self.edge, PORTS[self.transport])
        assert listener is not None
        if self.transport == UDP:
            self.flow = core.flows.udp(listener, address)
        else:
            self.flow = core.flows.accept(listener, address)
            core.flow_opened(self.flow, self.world.now)
        self.world.phones[self.transport, address] = self

    def hang_connection(self) -> None:
        self.world.phones.pop((self.transport, self.address), None)
        self.world.cores[self.edge].flow_closed(self.flow, "FIN", self.world.now)
        self.world.run()

    def hears(self, data: bytes, flow: Flow) -> None:
        if data.strip() and data.__class__ is bytes:  # no keep-alive, no control frame
            self.heard.append(parse(data))
            self.all.append(self.heard[-1])

    def send(self, data: bytes) -> None:
        core = self.world.cores[self.edge]
        flow = self.flow
        if self.transport == UDP:  # the edge may be another process by now
            listener = core.flows.find_listener(UDP, self.edge, 5060)
            assert listener is not None
            flow = core.flows.udp(listener, self.address)
        core.receive(data, flow, self.world.now)
        self.world.run()

    def take(self, what: bytes | int) -> SipMessage:
        """The oldest unread message with that method or status; 100s are skipped."""
        self.heard = [m for m in self.heard if m.status != 100]
        assert self.heard, f"{self.name} heard nothing, not {what!r}"
        msg = self.heard.pop(0)
        assert (msg.status or msg.method) == what, f"{msg.lines[0]!r} instead of {what!r}"
        return msg

    def silent(self) -> bool:
        return not [m for m in self.heard if m.status != 100]

    def request(self, method: str, uri: str, **more: object) -> bytes:
        self.count += 1
        headers = str(more.pop("headers", ""))
        token = VIA_TOKEN[self.transport].decode()
        if method not in ("ACK", "BYE", "CANCEL") and "Contact:" not in headers:
            headers += f"Contact: {self.contact}\r\n"
        return request(
            method,
            uri,
            branch=str(more.pop("branch", f"z9hG4bK{self.name}{self.reg_id}{self.count}")),
            via=f"SIP/2.0/{token} {self.host}",
            headers=headers,
            call_id=str(more.pop("call_id", f"{self.name}-{self.reg_id}-{self.count}")),
            **more,  # type: ignore[arg-type]
        )

    def register(self, cseq: int = 1, call_id: str = "", **more: object) -> SipMessage:
        contact = (
            f"Contact: {self.contact};reg-id={self.reg_id}"
            f';+sip.instance="<{self.instance}>";expires={more.pop("expires", 600)}\r\n'
            "Supported: path, outbound\r\n"
        )
        data = self.request(
            "REGISTER",
            "sip:example.com",
            headers=contact,
            cseq=cseq,
            call_id=call_id or f"reg-{self.name}-{self.reg_id}",
        )
        self.send(data.replace(b"bob@example.com", self.name.encode() + b"@example.com"))
        self.heard = [m for m in self.heard if m.status != 100]
        return self.heard.pop(0)

    def call(self, user: str, **more: object) -> bytes:
        data = self.request("INVITE", f"sip:{user}@example.com", **more)
        self.send(data)
        return data

    def reply(self, msg: SipMessage, status: int, reason: str = "OK") -> None:
        self.send(
            answer(msg, status, reason, tag=f"t{self.name}", headers=f"Contact: {self.contact}\r\n")
        )

    def in_dialog(
        self, method: str, remote: SipMessage, *, uac: bool, cseq: int = 2, flip: bool = True
    ) -> bytes:
        """A request within the dialog that ``remote`` (the 200 if uac, else the INVITE) made."""
        routes = remote.values(b"record-route")
        if uac:
            routes.reverse()
        contact = remote.values(b"contact")[0]
        uri = contact[contact.index(b"<") + 1 : contact.index(b">")].decode()
        route = "".join(f"Route: {value.decode()}\r\n" for value in routes)
        own, other = (
            (remote.from_tag, remote.to_tag) if uac else (f"t{self.name}".encode(), remote.from_tag)
        )
        return self.request(
            method, uri, headers=route, cseq=cseq, call_id=remote.call_id.decode(),
            from_tag=own.decode(), to_tag=other.decode(),
        )  # fmt: skip
