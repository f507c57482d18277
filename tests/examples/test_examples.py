"""The examples run as they stand, do what they say, and are typed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from sipedge.config import Edge, load_config, load_source
from sipedge.demo import Ladder, Phone, call
from sipedge.net.server import Server
from tests.sim import Sim, request

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NAMES = ("edge", "registrar", "edge_and_registrar")


def text_of(name: str, **changes: str) -> str:
    """An example with a key in it instead of the key file; ``changes`` must be found."""
    text = (EXAMPLES / f"{name}.py").read_text()
    text = text.replace('keyfile("flow_token.key")', 'b"k" * 20')
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def edge_of(text: str) -> Edge:
    return load_source(text, "example.py")


@pytest.mark.parametrize("name", NAMES)
def test_each_loads_as_it_stands(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_bytes((EXAMPLES / f"{name}.py").read_bytes())
    keys = tmp_path / "flow_token.key"
    keys.touch(0o600)
    keys.write_text("00" * 20)
    edge = load_config(tmp_path / f"{name}.py")
    assert edge.config.listeners
    assert edge.loader.warnings == []
    if "outbound" in edge.modules:
        assert edge.loader.modules["rr"].bound["bind_ob"] == "outbound"


def test_edge_and_registrar_carry_calls_of_phones() -> None:
    """Alice over UDP and Bob over TCP, through the edge, known only to the registrar behind it."""

    async def play() -> None:
        registrar = edge_of(text_of("registrar", **{"127.0.0.2:5060": "127.0.0.2:0"}))
        async with Server(registrar):
            port = registrar.config.listeners[0].port
            changes = {
                "sip:127.0.0.2:5060": f"sip:127.0.0.2:{port}",
                "127.0.0.1:5060": "127.0.0.1:0",
            }
            edge = edge_of(text_of("edge", **changes))
            ladder = Ladder(lambda line: None)
            alice = Phone("alice", ladder, is_left=True)
            bob = Phone("bob", ladder, is_left=False)
            async with Server(edge):
                udp, tcp = (listener.port for listener in edge.config.listeners)
                try:
                    await alice.open_udp(udp)
                    await bob.open_tcp(tcp)
                    await alice.register()
                    await bob.register()
                    for caller, callee in ((alice, bob), (bob, alice)):
                        await call(caller, callee, caller_hangs_up=True)
                        await call(caller, callee, caller_hangs_up=False)
                finally:
                    await alice.close()
                    await bob.close()

    asyncio.run(play())


# the edge: what a stranger can make it do

CORE = ("127.0.0.2", 5060)
STRANGER = ("127.0.0.66", 5060)


def sent_to(sim: Sim, data: bytes, *peer: tuple[str, int]) -> list[str]:
    """What the edge sent when a peer sent ``data``: "method or status -> host"."""
    sender = sim.udp(*(peer[0] if peer else STRANGER))
    sender.send(data)
    return [
        f"{msg.method.decode() if msg.is_request else msg.status} -> {other.flow.remote[0]}"
        for other in sim.peers.values()
        for msg in other.got
        if msg.is_request or msg.status >= 200
    ]


def test_a_route_of_a_stranger_is_not_followed() -> None:
    data = request(
        "INVITE", "sip:bob@127.0.0.99:5060", headers="Route: <sip:127.0.0.99:5060;lr>\r\n"
    )
    assert sent_to(Sim(text_of("edge")), data) == ["INVITE -> 127.0.0.2"]


def test_a_second_via_does_not_make_a_stranger_the_core() -> None:
    data = request(
        "INVITE",
        "sip:bob@127.0.0.99:5060",
        headers="Via: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bKforged\r\n"
        "Route: <sip:127.0.0.1:5060;lr>, <sip:127.0.0.99:5060;lr>\r\n",
    )
    assert sent_to(Sim(text_of("edge")), data) == ["INVITE -> 127.0.0.2"]


def test_the_core_reaches_phones_by_path_only() -> None:
    data = request("INVITE", "sip:bob@127.0.0.99:5060", via="SIP/2.0/UDP 127.0.0.2:5060")
    assert sent_to(Sim(text_of("edge")), data, CORE) == ["404 -> 127.0.0.2"]
    routed = request("INVITE", "sip:bob@127.0.0.99", headers="Route: <sip:127.0.0.1:5060;lr>\r\n")
    assert sent_to(Sim(text_of("edge")), routed, CORE) != []


def test_a_token_that_is_none_is_forbidden_in_and_out_of_dialogs() -> None:
    for to_tag, peer in (("t1", STRANGER), ("", CORE)):
        data = request(
            "INVITE",
            "sip:bob@127.0.0.99:5060",
            to_tag=to_tag,
            headers="Route: <sip:AAAA@127.0.0.1:5060;lr>\r\n",
        )
        assert sent_to(Sim(text_of("edge")), data, peer) == [f"403 -> {peer[0]}"]


def test_the_edge_says_flow_timer_only_if_outbound_was_applied() -> None:
    for require, expected in (("Require: outbound\r\n", b"20"), ("", None)):
        sim = Sim(text_of("edge"))
        phone = sim.udp("127.0.0.9", 40000)
        phone.send(
            request(
                "REGISTER",
                "sip:example.com",
                via="SIP/2.0/UDP 127.0.0.9:40000",
                headers="Contact: <sip:alice@127.0.0.9:40000;ob>;reg-id=1"
                ';+sip.instance="<urn:uuid:00000000-0000-1000-8000-000000000001>"\r\n'
                "Supported: path, outbound\r\n",
            )
        )
        core = sim.udp(*CORE)
        forwarded = core.take()
        assert forwarded.values(b"path")
        lines = [line for line in forwarded.lines if line.lower().startswith((b"via", b"from"))]
        lines += [line for line in forwarded.lines if line.lower().startswith((b"to:", b"c"))]
        head = b"\r\n".join([b"SIP/2.0 200 OK", *lines])
        core.send(head + b"\r\nFlow-Timer: 999\r\n" + require.encode() + b"\r\n")
        assert phone.take().first(b"flow-timer") == expected


@pytest.mark.parametrize("name", NAMES)
def test_options_to_the_edge_itself_are_answered(name: str) -> None:
    host = "127.0.0.2" if name == "registrar" else "127.0.0.1"
    data = request("OPTIONS", f"sip:{host}:5060")
    assert sent_to(Sim(text_of(name)), data) == [f"200 -> {STRANGER[0]}"]


@pytest.mark.parametrize("name", ["registrar", "edge_and_registrar"])
def test_nothing_is_relayed_for_strangers(name: str) -> None:
    for method in ("INVITE", "MESSAGE", "OPTIONS"):
        data = request(method, "sip:bob@127.0.0.99:5060")
        assert sent_to(Sim(text_of(name)), data) == [f"403 -> {STRANGER[0]}"]
    data = request("INVITE", "sip:nobody@example.com")
    assert sent_to(Sim(text_of(name)), data) == [f"480 -> {STRANGER[0]}"]


@pytest.mark.rfc("OUT-10")
@pytest.mark.parametrize("name", ["edge", "edge_and_registrar"])
@pytest.mark.parametrize("route", ["", "sip:127.0.0.1:5060;lr", "sip:127.0.0.98:5060;lr"])
def test_no_tag_makes_a_stranger_part_of_a_dialog(name: str, route: str) -> None:
    headers = f"Route: <{route}>\r\n" if route else ""
    for method in ("INVITE", "BYE"):
        data = request(method, "sip:bob@127.0.0.99:5060", to_tag="t1", headers=headers)
        assert sent_to(Sim(text_of(name)), data) == [f"403 -> {STRANGER[0]}"]


@pytest.mark.parametrize("name", NAMES)
def test_max_forwards_0_ends_here(name: str) -> None:
    data = request("INVITE", "sip:bob@example.com", max_forwards=0)
    assert sent_to(Sim(text_of(name)), data) == [f"483 -> {STRANGER[0]}"]


# types


def test_editors_and_mypy_know_every_function(tmp_path: Path) -> None:
    """Each function of each exports table is typed in a configuration; wrong calls are found."""
    from sipedge.loader import Loader

    loader = Loader()
    lines = [
        "from __future__ import annotations",
        "from typing import TYPE_CHECKING, Any",
        "if TYPE_CHECKING:",
        "    from sipedge.script import Ksr, SipMessage",
        "def request_route(ksr: Ksr, msg: SipMessage) -> None:",
        "    functions: list[Any] = []",
    ]
    ours = sorted(set(loader.installed()) - {"hello"})
    for line, name in enumerate(ours, 1):
        loader.loadmodule(name, ("edge.py", line))
        functions = loader.modules[name].exports.functions
        lines += [f"    functions.append(ksr.{name}.{function.name})" for function in functions]
    assert len(lines) > 50
    lines.append("    ksr.tm.t_relay()")
    lines.append("    ksr.rr.no_such_function(msg)")
    lines.append("    ksr.setflag(msg, 'five')")
    config = tmp_path / "every_function.py"
    config.write_text("\n".join(lines) + "\n")
    files = [config, *EXAMPLES.glob("*.py")]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *map(str, files)],
        capture_output=True,
        text=True,
        cwd=EXAMPLES.parent,
        timeout=600,
        check=False,
    )
    places = []
    for line in result.stdout.splitlines():
        # by name: mypy remembers the directory that the file was in when it first saw it
        path, _, rest = line.partition(":")
        if ": error:" in rest and Path(path).name in {file.name for file in files}:
            places.append(f"{Path(path).name}:{rest.partition(':')[0]}")
    last = len(lines)
    expected = [f"{config.name}:{line}" for line in (last - 2, last - 1, last)]
    assert places == expected, result.stdout
