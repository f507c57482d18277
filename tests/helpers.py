"""An edge of modules without a host: real flows, messages and modules, a core that only knows who
it is.  For tests that drive the functions of modules one by one; ``sim`` drives a whole edge."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from outbound_plugin.plugin import OutboundPlugin
from path_plugin.plugin import PathPlugin
from rr_plugin.plugin import RrPlugin
from sipedge.errors import ConfigError
from sipedge.flow import TCP, UDP, Flow, FlowTable, Listener
from sipedge.forward import Target, build_branch
from sipedge.module import REQUEST_ROUTE
from sipedge.sip.message import SipMessage, parse
from sipedge.sip.uri import Uri

KEY = b"!!!Kamailio rocks!!!"
HOST = "192.0.2.10"
MODULES: dict[str, type] = {"outbound": OutboundPlugin, "path": PathPlugin, "rr": RrPlugin}


class FakeCore:
    """``is_myself`` for the listeners and the name edge.example.com."""

    def __init__(self, flows: FlowTable) -> None:
        self.flows = flows
        self.stats: Counter[str] = Counter()

    def is_myself(self, uri: Uri) -> bool:
        if b"gr" in uri.params:
            return False
        port = uri.port or 5060
        own = {(listener.host.encode(), listener.port) for listener in self.flows.listeners}
        return uri.host == b"edge.example.com" or (uri.host, port) in own


class FakeContext:
    """``mod_init``'s argument; exports live in a dict."""

    def __init__(self, flows: FlowTable, exports: dict[str, object]) -> None:
        self.flows = flows
        self.core: Any = FakeCore(flows)
        self.config: Any = SimpleNamespace()
        self.module = ""
        self.exports = exports

    def export(self, name: str, api: object) -> None:
        self.exports[name] = api

    def find_export(self, name: str) -> object | None:
        return self.exports.get(name)

    def param_error(self, name: str, message: str) -> Exception:
        return ConfigError(f"{self.module}: {name}: {message}", "edge.py", 7)


class Modules:
    """Modules that were loaded in the order of ``names``, with parameters ``{"rr.double": 1}``.

    Listeners: UDP and TCP on 192.0.2.10:5060, and UDP on 192.0.2.20:5060, the core's side.
    """

    def __init__(self, *names: str, **params: object) -> None:
        self.flows = FlowTable()
        self.udp = self.flows.add_listener(Listener(UDP, HOST, 5060))
        self.tcp = self.flows.add_listener(Listener(TCP, HOST, 5060))
        self.core_side = self.flows.add_listener(Listener(UDP, "192.0.2.20", 5060))
        self.exports: dict[str, object] = {}
        for name in names:
            module = MODULES[name]()
            if name == "outbound":
                module.params.flow_token_key = KEY
            for param, value in params.items():
                owner, _, attribute = param.partition("__")
                if owner == name:
                    assert hasattr(module.params, attribute)
                    setattr(module.params, attribute, value)
            context = FakeContext(self.flows, self.exports)
            context.module = name
            module.mod_init(context)
            setattr(self, name, module)

    outbound: OutboundPlugin
    path: PathPlugin
    rr: RrPlugin

    @property
    def ob(self) -> Any:
        return self.exports["bind_ob"]

    def phone(self, port: int = 49152, host: str = "198.51.100.7") -> Flow:
        """A UDP flow."""
        return self.flows.udp(self.udp, (host, port))

    def tcp_phone(self, port: int = 49152, host: str = "198.51.100.7") -> Flow:
        """A TCP connection that a client opened."""
        return self.flows.accept(self.tcp, (host, port))

    def from_core(self) -> Flow:
        """The registrar, on the core's side."""
        return self.flows.udp(self.core_side, ("192.0.2.30", 5060))

    def token(self, flow: Flow) -> str:
        return self.ob.encode_flow_token(flow).decode()

    def sent(self, msg: SipMessage, send: Flow, on_flow: bool = False) -> SipMessage:
        """What leaves on ``send`` when the host forwards ``msg``."""
        data = build_branch(msg, Target(msg.ruri), send, on_flow, b"z9hG4bKsent")
        return parse(data)


def message(
    flow: Flow,
    method: str = "INVITE",
    *headers: str,
    uri: str = "sip:bob@example.com",
    from_tag: str = "caller",
    to_tag: str = "",
    vias: int = 1,
) -> SipMessage:
    """A request that came on ``flow``; ``headers`` are whole lines."""
    lines = [f"{method} {uri} SIP/2.0"]
    lines += [f"Via: SIP/2.0/UDP 203.0.113.{n + 1};branch=z9hG4bK{n}" for n in range(vias)]
    lines += [
        f"From: <sip:alice@example.com>;tag={from_tag}",
        "To: <sip:bob@example.com>" + (f";tag={to_tag}" if to_tag else ""),
        "Call-ID: c1@example.com",
        f"CSeq: 1 {method}",
        *headers,
        "Content-Length: 0",
    ]
    msg = parse("\r\n".join([*lines, "", ""]).encode())
    msg.flow = flow
    msg.route_kind = REQUEST_ROUTE
    return msg


def values(msg: SipMessage, name: str) -> list[str]:
    """The values of a header, as text."""
    return [value.decode() for value in msg.values(name.lower().encode())]
