"""A registrar on a real core, without sockets or other modules: REGISTERs in, answers out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from registrar_plugin.api import Binding
from registrar_plugin.plugin import RegistrarPlugin
from sipedge.core import Core
from sipedge.errors import ConfigError
from sipedge.flow import TCP, UDP, Flow, Listener
from sipedge.forward import Target
from sipedge.module import Rc
from sipedge.sip.message import SipMessage, parse

I1 = "urn:uuid:00000000-0000-1000-8000-aabbccddee01"
I2 = "urn:uuid:00000000-0000-1000-8000-aabbccddee02"
EDGE1 = "<sip:tok1@192.0.2.1:5060;lr;ob>"
EDGE2 = "<sip:tok2@192.0.2.2:5060;lr;ob>"
EDGE_WITHOUT_OB = "<sip:tok1@192.0.2.1:5060;lr>"
BOTH = "Supported: path, outbound\r\n"


def outbound_contact(
    reg_id: int | str = 1, instance: str = I1, uri: str = "sip:bob@10.0.0.9", more: str = ""
) -> str:
    return f'<{uri}>;+sip.instance="<{instance}>";reg-id={reg_id}{more}'


class Context:
    """What ``mod_init`` is given."""

    def __init__(self, core: Core, exports: dict[str, object]) -> None:
        self.core = core
        self.flows = core.flows
        self.config: Any = SimpleNamespace(file="edge.py")
        self.module = "registrar"
        self.exports = exports

    def export(self, name: str, api: object) -> None:
        self.exports[name] = api

    def find_export(self, name: str) -> object | None:
        return self.exports.get(name)

    def param_error(self, name: str, message: str) -> Exception:
        return ConfigError(f"{name}: {message}")


class Home:
    """One registrar for example.com; its clock is ``now``."""

    def __init__(self, exports: dict[str, object] | None = None, **params: Any) -> None:
        self.core = Core()
        self.now = self.core.now = 1000.0
        self.udp_listener = self.core.flows.add_listener(Listener(UDP, "127.0.0.1", 5060))
        self.tcp_listener = self.core.flows.add_listener(Listener(TCP, "127.0.0.1", 5060))
        self.core.learn_own_addresses()
        self.core.add_alias("example.com")
        self.exports = {} if exports is None else exports
        self.registrar = RegistrarPlugin()
        for name, value in params.items():
            setattr(self.registrar.params, name, value)
        self.registrar.mod_init(Context(self.core, self.exports))
        self.core.hooks_flow_closed = (self.registrar.flow_closed,)
        self.core.request_route = self.route
        self.flags = 0
        self.code: Rc | None = None
        self.edge = self.udp("192.0.2.1", 5060)
        self._requests = 0

    def route(self, ksr: object, msg: SipMessage) -> None:
        self.code = self.registrar.save(msg, "location", self.flags)

    def udp(self, host: str = "198.51.100.7", port: int = 40001) -> Flow:
        return self.core.flows.udp(self.udp_listener, (host, port))

    def tcp(self, host: str = "198.51.100.7", port: int = 40001) -> Flow:
        flow = self.core.flows.accept(self.tcp_listener, (host, port))
        self.core.flow_opened(flow, self.now)
        return flow

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.core.on_timer(self.now)

    def send(self, data: bytes, flow: Flow) -> SipMessage:
        """The one answer to a request."""
        self.core.receive(data, flow, self.now)
        answers = self.core.sends()
        assert len(answers) == 1, answers
        assert answers[0][1] is flow
        return parse(answers[0][0])

    def register(self, *contacts: str, flow: Flow | None = None, **more: Any) -> SipMessage:
        """Over ``flow`` directly, else through an edge; see ``register_text``."""
        self._requests += 1
        more.setdefault("cseq", self._requests)
        more.setdefault("branch", f"z9hG4bK{self._requests}")
        if flow is not None:
            more.setdefault("path", ())
            more.setdefault("vias", 1)
        data = register_text(*contacts, **more)
        return self.send(data, flow if flow is not None else self.edge)

    def bindings(self, aor: bytes = b"bob@example.com") -> tuple[Binding, ...]:
        return self.registrar._location.table("location").fetch(aor, self.now)

    def lookup(
        self, uri: str = "sip:bob@example.com", method: str = "INVITE", to_tag: str = ""
    ) -> tuple[Rc, list[Target]]:
        msg = parse(
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.9;branch=z9hG4bKx\r\n"
            f"From: <sip:alice@example.com>;tag=a\r\nTo: <{uri}>{to_tag}\r\n"
            f"Call-ID: call\r\nCSeq: 1 {method}\r\n\r\n".encode()
        )
        msg.flow, msg.now = self.edge, self.now
        rc = self.registrar.lookup(msg)
        return rc, msg.targets or []


def register_text(
    *contacts: str,
    cseq: int,
    path: tuple[str, ...] = (EDGE1,),
    vias: int = 2,
    headers: str = BOTH,
    call_id: str = "c1",
    to: str = "<sip:bob@example.com>",
    ruri: str = "sip:example.com",
    via_host: str = "10.0.0.9",
    branch: str = "z9hG4bK1",
) -> bytes:
    """A REGISTER as it arrives from a UA (one Via), or through one or more edges."""
    hops = "".join(
        f"Via: SIP/2.0/UDP 192.0.2.{n}:5060;branch={branch}e{n};rport\r\n" for n in range(1, vias)
    )
    lines = (
        f"REGISTER {ruri} SIP/2.0\r\n{hops}"
        f"Via: SIP/2.0/UDP {via_host};branch={branch};rport\r\n"
        f"From: <sip:bob@example.com>;tag=f\r\nTo: {to}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n"
        + "".join(f"Path: {value}\r\n" for value in path)
        + "".join(f"Contact: {value}\r\n" for value in contacts)
        + headers
    )
    return f"{lines}Content-Length: 0\r\n\r\n".encode()


def contacts(answer: SipMessage) -> list[bytes]:
    return answer.values(b"contact")


def why(answer: SipMessage) -> bytes:
    return answer.first(b"p-registrar-error") or b""
