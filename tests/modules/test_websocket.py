"""Module websocket: parameters, the policy of the configuration file, functions and commands."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.commands import Commands
from sipedge.config import load_source
from sipedge.errors import ConfigError
from sipedge.module import CommandError
from sipedge.websocket import Close, Ping, Pong, Request, Settings
from tests.sim import Sim, request

VIA = "SIP/2.0/WS df7jal23ls0d.invalid"
SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
listen("ws:127.0.0.1:8080")
loadmodule("sl")
loadmodule("pv")
loadmodule("websocket")
{more}
def request_route(ksr, msg):
    ksr.sl.send_reply(msg, 200, "OK")
"""


def sim(more: str = "") -> Sim:
    return Sim(SOURCE.replace("{more}", more))


def settings(**params: object) -> Settings:
    lines = [f'modparam("websocket", "{name}", {value!r})' for name, value in params.items()]
    found = sim("\n".join(lines)).core.websocket
    assert found is not None
    return found


def refused(more: str, source: str = SOURCE) -> str:
    with pytest.raises(ConfigError) as caught:
        load_source(source.replace("{more}", more), "edge.py")
    return str(caught.value)


# -- parameters --------------------------------------------------------------------------------


def test_defaults() -> None:
    found = settings()
    assert (found.keepalive_mechanism, found.keepalive_timeout) == (1, 60)
    assert found.ping_application_data == b"sipedge"
    assert found.allowed_origins is None
    assert found.policy is None
    assert "cookie" in found.keep_headers


def test_values() -> None:
    found = settings(
        keepalive_mechanism=2,
        keepalive_timeout=25,
        ping_application_data="é",
        sub_protocols=3,
        cors_mode=2,
        allowed_origins=["https://Phone.example.com/", "null"],
        max_message_size=4096,
        keep_headers="X-One,x-two ,",
    )
    assert (found.keepalive_mechanism, found.keepalive_timeout, found.cors_mode) == (2, 25, 2)
    assert found.ping_application_data == "é".encode()
    assert found.allowed_origins == {"https://phone.example.com", "null"}
    assert found.max_message_size == 4096
    assert found.keep_headers == {"x-one", "x-two"}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("keepalive_mechanism", 4, "the most is 3"),
        ("keepalive_timeout", 0, "the least is 1"),
        ("keepalive_timeout", 3601, "the most is 3600"),
        ("sub_protocols", 2, "SIP only"),
        ("sub_protocols", 0, "the least is 1"),
        ("cors_mode", 3, "the most is 2"),
        ("ping_application_data", "", "0 octets"),
        ("ping_application_data", "x" * 126, "126 octets"),
        ("allowed_origins", ["phone.example.com"], "is no origin"),
        ("allowed_origins", [1], "is no origin"),
        ("max_message_size", 10, "the least is 1024"),
    ],
)
def test_values_that_cannot_be(name: str, value: object, why: str) -> None:
    problem = refused(f'modparam("websocket", "{name}", {value!r})')
    assert problem.startswith("edge.py:8: ")
    assert why in problem


def test_a_listener_takes_the_module() -> None:
    problem = refused("", SOURCE.replace('loadmodule("websocket")', ""))
    assert problem.startswith("edge.py:4: ")
    assert "loadmodule('websocket')" in problem


# -- the policy --------------------------------------------------------------------------------


def ask(world: Sim, **headers: str) -> Request:
    one = Request("/", list(headers.items()), ("192.0.2.1", 1), ("127.0.0.1", 8080))
    assert world.core.websocket is not None
    assert world.core.websocket.policy is not None
    world.core.websocket.policy(one)
    return one


def test_policy() -> None:
    world = sim(
        "def websocket_request(ksr, request):\n"
        "    if request.cookie('session') is None:\n"
        "        ksr.info('no cookie')\n"
        "        request.refuse(403)\n"
    )
    assert ask(world).refusal == (403, "Forbidden", ())
    assert ask(world, Cookie="session=1").refusal is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("async def websocket_request(ksr, request): pass", "is async"),
        ("def websocket_request(request): pass", "two arguments"),
    ],
)
def test_policies_that_cannot_be(line: str, why: str) -> None:
    problem = refused(line)
    assert problem.startswith("edge.py:8: ")
    assert why in problem
    assert "def websocket_request(ksr, request):" in problem


# -- functions ---------------------------------------------------------------------------------


def closing(call: str) -> Sim:
    source = SOURCE.replace("{more}", "")
    return Sim(source + f"    msg.remember('rc', {call})\n")


@pytest.mark.parametrize(
    ("call", "payload"),
    [
        ("ksr.websocket.close(msg)", b"\x03\xe8Normal closure"),
        ("ksr.websocket.close_reason(msg, 4000, 'go')", b"\x0f\xa0go"),
        ("ksr.websocket.ws_close(msg, 1008)", b"\x03\xf0"),
    ],
)
def test_close(call: str, payload: bytes) -> None:
    world = closing(call)
    peer = world.ws()
    peer.send(request("OPTIONS", via=VIA))
    assert peer.take().status == 200  # what was sent before has gone before
    assert isinstance(peer.raw[-1], Close)
    assert peer.raw[-1] == payload
    assert world.closed == [(peer.flow, "closed by a route")]
    assert not peer.flow.alive


def test_only_a_websocket_is_closed() -> None:
    world = closing("ksr.websocket.close(msg)")
    peer = world.tcp()
    peer.send(request("OPTIONS", via="SIP/2.0/TCP 127.0.0.2"))
    assert peer.take().status == 200
    assert peer.flow.alive


# -- pseudo-variables --------------------------------------------------------------------------


def test_pseudo_variables() -> None:
    source = SOURCE.replace("{more}", "seen = {}")
    names = ["$ws_conid", "$ws_path", "$ws_query", "$ws_query(token)", "$ws_query(x)"]
    names += ["$ws_origin", "$ws_header(Cookie)", "$ws_header(x)", "$ws_header"]
    world = Sim(source + f"    seen.update((n, ksr.pv.get(msg, n)) for n in {names})\n")
    seen = world.core.request_route.__globals__["seen"]  # type: ignore[union-attr]
    headers = [("Origin", "https://a.example"), ("Cookie", "a=1")]
    peer = world.ws()
    peer.flow.facts = {
        "websocket": Request("/p?token=t%20u", headers, ("192.0.2.1", 1), ("127.0.0.1", 8080))
    }
    peer.send(request("OPTIONS", via=VIA))
    assert list(seen.values()) == [
        peer.flow.conn_id.hex(), "/p", "token=t%20u", "t u", None,
        "https://a.example", "a=1", None, None,
    ]  # fmt: skip
    seen.clear()
    world.udp().send(request("OPTIONS", branch="z9hG4bKudp"))
    assert list(seen.values()) == [None] * len(names)


# -- commands ----------------------------------------------------------------------------------


def command(world: Sim, name: str, *arguments: Any) -> Any:
    result = Commands(world.core, world.edge.config.commands).call(name, list(arguments))
    world.drain()
    return result


def test_dump() -> None:
    world = sim()
    peers = [world.ws(port=42000 + i) for i in range(3)]
    world.tcp()
    peers[0].flow.facts = {
        "websocket": Request("/p", [("Origin", "https://a")], ("192.0.2.1", 1), ("127.0.0.1", 1))
    }
    rows = list(command(world, "ws.dump"))
    assert [row["id"] for row in rows] == [peer.flow.conn_id.hex() for peer in peers]
    assert (rows[0]["path"], rows[0]["origin"]) == ("/p", "https://a")
    assert len(list(command(world, "ws.dump", 2))) == 2


def test_closing_and_pinging_by_id() -> None:
    world = sim()
    peer = world.ws()
    one = peer.flow.conn_id.hex()
    command(world, "ws.ping", one)
    command(world, "ws.pong", one)
    assert [type(data) for data in peer.raw] == [Ping, Pong]
    command(world, "ws.close", one)
    assert not peer.flow.alive
    for bad in (one, "zz", "", world.tcp().flow.conn_id.hex()):
        with pytest.raises(CommandError):
            command(world, "ws.close", bad)


def test_disable_and_enable() -> None:
    world = sim('modparam("websocket", "cors_mode", 1)')
    for name, enabled in (("ws.disable", False), ("ws.enable", True)):
        command(world, name)
        assert world.core.websocket is not None
        assert world.core.websocket.enabled == enabled
        assert world.core.websocket.cors_mode == 1
