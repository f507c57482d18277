"""``examples/registrar_with_passwords.py``: who gets in, and who does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipedge.cli import main
from sipedge.config import load_config
from sipedge.errors import ConfigError
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from tests.modules.auth.client import Client, challenges_in
from tests.sim import Peer, Sim, answer, request

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "registrar_with_passwords.py"
USERS = {"alice": "secret", "bob": "b0b"}


def prepare(directory: Path) -> Path:
    config = directory / EXAMPLE.name
    config.write_bytes(EXAMPLE.read_bytes())
    keys = directory / "flow_token.key"
    keys.touch(0o600)
    keys.write_text("00" * 20)
    return config


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sim:
    """The example beside a password file that ``sipedge passwd`` wrote."""
    config = prepare(tmp_path)
    for user, password in USERS.items():
        monkeypatch.setattr("sys.stdin", Typed(password))
        with pytest.raises(SystemExit) as ended:
            main(["passwd", str(tmp_path / "passwords"), user, "example.com"])
        assert ended.value.code == 0
    text = config.read_text().replace('"file:passwords"', f'"file:{tmp_path}/passwords"')
    text = text.replace('"sqlite:///location.sqlite"', '""')
    return Sim(text.replace('keyfile("flow_token.key")', 'b"k" * 20'))


class Typed:
    """Standard input that is no terminal."""

    def __init__(self, line: str) -> None:
        self._line = line

    def isatty(self) -> bool:
        return False

    def readline(self) -> str:
        return self._line + "\n"


def phone(sim: Sim, user: str) -> Client:
    """A registered user on a UDP flow."""
    host = f"127.0.0.{11 + list(USERS).index(user)}"
    client = Client(sim, user, USERS[user], sim.udp(host, 40000))
    row = client.credentials(client.challenges()[0])
    assert client.send(headers=row + contact(client)) == 200
    return client


def contact(client: Client) -> str:
    host, port = client.peer.flow.remote
    number = client.user.encode().hex().zfill(12)[:12]
    return (
        f"Contact: <sip:{client.user}@{host}:{port};ob>;reg-id=1"
        f';+sip.instance="<urn:uuid:00000000-0000-4000-8000-{number}>"\r\n'
        "Supported: path, outbound\r\n"
    )


def test_it_loads_as_it_stands_once_there_are_users(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    with pytest.raises(ConfigError, match="make one with: sipedge passwd"):
        load_config(config)
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    passwords.write_text("alice:example.com:plain:secret\n")
    edge = load_config(config)
    assert edge.loader.warnings == []
    edge.destroy()


def test_two_users_call_each_other(sim: Sim) -> None:
    alice, bob = phone(sim, "alice"), phone(sim, "bob")
    row = alice.credentials(
        alice.challenges("INVITE", "sip:bob@example.com")[0], "INVITE", "sip:bob@example.com"
    )
    invite = alice.data(
        "INVITE", "sip:bob@example.com", headers=row + contact(alice), call_id="the-call"
    )
    alice.peer.got.clear()
    bob.peer.got.clear()
    alice.peer.send(invite)
    rings = bob.peer.take()
    assert rings.method == b"INVITE"
    assert not rings.has(b"proxy-authorization")
    bob.peer.send(answer(rings, 200, "OK", headers=contact(bob)))
    ok = next(msg for msg in alice.peer.got if msg.status == 200)
    # alice goes on sending her credentials; bob never sees them, and nobody is asked again
    for method in ("ACK", "BYE"):
        alice.peer.send(in_dialog(alice, ok, method, row))
        heard = bob.peer.take()
        assert heard.method == method.encode()
        assert not heard.has(b"proxy-authorization")
    bob.peer.send(answer(heard, 200, "OK"))
    assert alice.peer.got[-1].status == 200


def in_dialog(client: Client, ok: SipMessage, method: str, row: str) -> bytes:
    routes = "".join(f"Route: {v.decode()}\r\n" for v in reversed(ok.values(b"record-route")))
    target = parse_nameaddr(ok.first(b"contact") or b"").uri.decode()
    return client.data(
        method, target, headers=routes + row, call_id="the-call", to_tag=ok.to_tag.decode()
    )


STRANGER = ("127.0.0.66", 5060)


def stranger(sim: Sim) -> Peer:
    return sim.udp(*STRANGER)


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE"])
def test_a_stranger_is_asked_for_a_password(sim: Sim, method: str) -> None:
    bob = phone(sim, "bob")
    bob.peer.got.clear()
    for uri in ("sip:bob@example.com", "sip:example.com", "sip:bob@127.0.0.99"):
        eve = Client(sim, "bob", "guess", stranger(sim))
        got = eve.exchange(eve.data(method, uri))
        assert got.status == (401 if method == "REGISTER" else 407)
        assert len(challenges_in(got)) == 2
    assert bob.peer.silent()


def test_a_user_is_nobody_else(sim: Sim) -> None:
    alice, bob = phone(sim, "alice"), phone(sim, "bob")
    row = alice.credentials(alice.challenges()[0])
    assert alice.send(headers=row + contact(alice), aor="sip:bob@example.com") == 403
    uri = "sip:bob@example.com"
    row = alice.credentials(alice.challenges("INVITE", uri)[0], "INVITE", uri)
    bob.peer.got.clear()
    assert alice.send("INVITE", uri, headers=row, aor="sip:bob@example.com") == 403
    assert bob.peer.silent()


def test_a_to_tag_is_no_way_in(sim: Sim) -> None:
    bob = phone(sim, "bob")
    bob.peer.got.clear()
    route = "Route: <sip:127.0.0.1:5060;lr>\r\n"
    for headers in ("", route):
        for uri in ("sip:bob@example.com", "sip:bob@127.0.0.12:40000", "sip:x@127.0.0.99"):
            eve = Client(sim, "bob", "guess", stranger(sim))
            got = eve.exchange(eve.data("INVITE", uri, headers=headers, to_tag="t1"))
            assert got.status in (403, 404)
    assert bob.peer.silent()
    assert [peer for peer in sim.peers.values() if peer.flow.remote[0] == "127.0.0.99"] == []


def test_no_relay_for_users_either(sim: Sim) -> None:
    alice = phone(sim, "alice")
    uri = "sip:bob@127.0.0.99"
    row = alice.credentials(alice.challenges("INVITE", uri)[0], "INVITE", uri)
    assert alice.send("INVITE", uri, headers=row) == 403


def test_max_forwards_0_ends_here(sim: Sim) -> None:
    peer = stranger(sim)
    peer.send(request("INVITE", "sip:bob@example.com", max_forwards=0))
    assert peer.take().status == 483
