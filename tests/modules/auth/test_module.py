"""The functions and parameters of the module, on a whole edge without sockets."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sipedge.config import load_config, load_source
from sipedge.errors import ConfigError
from sipedge.modules.auth.passwords import password_line, write_password
from sipedge.modules.auth.subscribers import SCHEMA
from sipedge.net.server import Server
from tests.digest import hashed, parse_challenge
from tests.modules.auth.client import SOURCE, Client, ask, challenges_in, codes, edge
from tests.modules.conftest import arrived
from tests.sim import Sim, request

BASE = """
listen("udp:127.0.0.1:5060")
loadmodule("tm")
loadmodule("sl")
loadmodule("auth")
{more}
def request_route(ksr, msg):
    pass
"""


def refused(more: str, file: str = "edge.py") -> str:
    with pytest.raises(ConfigError) as caught:
        load_source(BASE.replace("{more}", more), file)
    return str(caught.value)


# parameters


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("", r"edge.py:5: auth: credentials: says where the users are; write modparam"),
        ('modparam("auth", "credentials", "users")', "edge.py:6: .*says where the users are"),
        ('modparam("auth", "credentials", "file:")', "says where the users are"),
        ('modparam("auth", "credentials", "sqlite:s.db")', "says where the users are"),
        ('modparam("auth", "credentials", "file:nowhere")', "nowhere: there is none; make one"),
        ('modparam("auth", "credentials", "sqlite:///nowhere.db")', "unable to open"),
        ('modparam("auth", "credentials", "postgresql://h/db?x=1")', "invalid URI query"),
        ('modparam("auth", "credentials", 7)', "wants str or function, not int"),
        ('modparam("auth", "table", "a b")', "'a b' is no name of a table"),
        ('modparam("auth", "algorithms", "")', "each at most once"),
        ('modparam("auth", "algorithms", "MD5, md5")', "each at most once"),
        ('modparam("auth", "algorithms", "MD5, SHA-1")', "of: MD5, SHA-256, SHA-512-256"),
        ('modparam("auth", "secret", b"short")', "shorter than 16 octets; make one with"),
        ('modparam("auth", "secret", ())', "shorter than 16 octets"),
        ('modparam("auth", "nonce_expire", 0)', "too small"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(more: str, why: str) -> None:
    assert re.search(why, refused(more))


@pytest.mark.parametrize("name", ["www_authenticate", "proxy_authenticate", "auth_check"])
def test_plain_functions_and_a_source_that_waits_are_found_at_the_start(name: str) -> None:
    text = f"""listen("udp:127.0.0.1:5060")
loadmodule("auth")
async def users(user, realm):
    return None
modparam("auth", "credentials", users)
def request_route(ksr, msg):
    ksr.auth.auth_challenge(msg, "{name}")
    def inside():
        ksr.auth.{name}(msg, "example.com")
"""
    with pytest.raises(ConfigError) as caught:
        load_source(text, "edge.py")
    assert str(caught.value).startswith("edge.py:9: the credentials come from a source that has ")
    assert f"write await ksr.auth.{name}_async(...) instead" in str(caught.value)
    load_source(text.replace(f"ksr.auth.{name}(", f"ksr.auth.{name}_async("), "edge.py")


def test_a_plain_function_called_all_the_same_says_so() -> None:
    sim = Sim(BASE.replace("{more}", """
async def users(user, realm):
    return None
modparam("auth", "credentials", users)
"""))  # fmt: skip
    with pytest.raises(ConfigError, match="_async"):
        sim.edge.ksr.auth.www_authenticate(arrived(sim, request()), "example.com")


# the functions


def test_challenges_by_header_and_method() -> None:
    sim = edge()
    auth = sim.edge.ksr.auth
    for method, function, status in (
        ("REGISTER", auth.auth_challenge, 401),
        ("INVITE", auth.auth_challenge, 407),
        ("INVITE", auth.www_challenge, 401),
        ("REGISTER", auth.proxy_challenge, 407),
    ):
        msg = arrived(sim, request(method))
        assert function(msg, b"example.com") == 1
        assert function(msg, b"example.com") == -1  # it has its answer
        sim.drain()
        got = sim.udp().take()
        assert got.status == status
        assert len(challenges_in(got)) == 2


@pytest.mark.parametrize(("flags", "stale"), [(0, False), (1, False), (5, False), (17, True)])
def test_flags_of_a_challenge(flags: int, stale: bool) -> None:
    sim = edge()
    msg = arrived(sim, request("REGISTER"))
    assert sim.edge.ksr.auth.www_challenge(msg, "example.com", flags)
    sim.drain()
    for challenge in challenges_in(sim.udp().take()):
        assert ("stale" in parse_challenge(challenge)) == stale
        assert b'qop="auth"' in challenge


def test_flags_that_do_not_exist() -> None:
    sim = edge()
    msg = arrived(sim, request("REGISTER"))
    with pytest.raises(ValueError, match="there are 1, 4 and 16"):
        sim.edge.ksr.auth.www_challenge(msg, "example.com", 2)  # auth-int
    with pytest.raises(ValueError, match=r"there is 1 \(identity\)"):
        sim.edge.ksr.auth.auth_check(msg, "example.com", 2)


def test_codes() -> None:
    sim = edge()
    alice = Client(sim)
    challenge = alice.challenges()[0]
    assert alice.login(challenge) == 200
    assert alice.login(challenge) == 401  # the same nonce count
    assert Client(sim, "alice", "wrong").login(challenge) == 401
    assert Client(sim, "carol", "secret").login(challenge) == 401
    assert alice.login(challenge, algorithm="MD5-sess") == 401
    assert alice.login(challenge, 2, nonce='"forged"') == 401  # and so the response is wrong
    sim.advance(301)
    assert alice.login(challenge, 2) == 401
    assert codes(sim) == [-5, 1, -6, -2, -3, -1, -2, -4]
    stats = sim.core.stats
    assert stats["auth_challenges"] == 7
    assert stats["auth_ok"] == stats["auth_replay"] == stats["auth_stale_nonce"] == 1
    assert (stats["auth_wrong_password"], stats["auth_unknown_user"]) == (2, 1)


def test_asking_twice_about_one_request_is_no_replay() -> None:
    sim = edge()
    alice = Client(sim)
    row = alice.credentials(alice.challenges()[0])
    msg = arrived(sim, alice.data(headers=row))
    auth = sim.edge.ksr.auth
    assert auth.has_credentials(msg, "example.com") == 1
    assert auth.has_credentials(msg, "example.org") == -1
    assert auth.www_authenticate(msg, "example.com") == 1
    assert auth.auth_check(msg, "example.com", 1) == 1
    assert auth.www_authenticate(msg, "example.org") == -5
    assert auth.proxy_authenticate(msg, "example.com") == -5
    assert auth.is_user(msg, "alice") == 1
    assert auth.is_user(msg, "bob") == -1
    assert sim.edge.ksr.pv.get(msg, "$au") == "alice"
    assert sim.edge.ksr.pv.get(msg, "$ar") == "example.com"


def test_who_was_not_authenticated_is_nobody() -> None:
    sim = edge()
    msg = arrived(sim, Client(sim, "alice", "wrong").data())
    assert sim.edge.ksr.auth.is_user(msg, "alice") == -1
    assert sim.edge.ksr.pv.get(msg, "$au") is None
    assert sim.edge.ksr.pv.get(msg, "$ar") is None
    assert sim.edge.ksr.auth.consume_credentials(msg) == -1


def test_ack_and_cancel_get_no_challenge_whatever_a_route_does() -> None:
    sim = edge()
    for method in ("ACK", "CANCEL"):
        msg = arrived(sim, request(method))
        for function in ("www_challenge", "proxy_challenge", "auth_challenge"):
            assert getattr(sim.edge.ksr.auth, function)(msg, "example.com") == -1
    sim.drain()
    assert sim.udp().silent()


def test_an_ack_is_not_asked_and_loses_what_is_for_us() -> None:
    sim = edge()
    alice = Client(sim)
    row = alice.credentials(alice.challenges("INVITE")[0], "INVITE")
    other = 'Proxy-Authorization: Digest username="x", realm="y", nonce="z", uri="sip:y", '
    other += "response=00\r\n"
    msg = arrived(sim, alice.data("ACK", headers=other + row))
    auth = sim.edge.ksr.auth
    assert auth.proxy_authenticate(msg, "example.com") == 1
    assert auth.auth_check(msg, "example.com") == 1
    assert auth.consume_credentials(msg) == 1
    assert msg.rows(b"proxy-authorization") == [other.strip().partition(": ")[2].encode()]
    assert auth.consume_credentials(msg) == -1
    # within a dialog nobody need be asked, and still nobody else shall see what is for us
    msg = arrived(sim, alice.data("BYE", headers=row + other))
    assert auth.consume_credentials(msg) == -1
    assert auth.consume_credentials(msg, "example.com") == 1
    assert len(msg.rows(b"proxy-authorization")) == 1


def test_an_invite_that_is_repeated_is_absorbed_whatever_the_route_answers() -> None:
    """A final answer without state would let the retransmission in, with a used nonce count."""
    sim = edge()
    alice = Client(sim)
    row = alice.credentials(alice.challenges("INVITE")[0], "INVITE")
    data = alice.data("INVITE", headers=row)
    assert alice.exchange(data).status == 200
    alice.peer.got.clear()
    alice.peer.send(data)
    assert [msg.status for msg in alice.peer.got if msg.status != 200] == []
    assert codes(sim) == [-5, 1]


# who owns an address


@pytest.mark.parametrize(
    ("aor", "status"),
    [
        ("sip:alice@example.com", 200),
        ("sips:%61lice@EXAMPLE.com:5070", 200),
        ("sip:bob@example.com", 403),
        ("sip:Alice@example.com", 403),
        ("sip:alice@example.org", 403),  # ours as well, but of another realm
        ("sip:alice@127.0.0.1", 403),
        ("sip:example.com", 403),
        ("tel:+123", 403),
    ],
)
def test_one_may_register_oneself_only(aor: str, status: int) -> None:
    alice = Client(edge('alias("example.org")'))
    for method in ("REGISTER", "MESSAGE"):
        row = alice.credentials(alice.challenges(method)[0], method)
        assert alice.send(method, headers=row, aor=aor) == status
    assert codes(alice.sim)[1::2] == [1 if status == 200 else -8] * 2


@pytest.mark.parametrize(
    ("method", "owner", "other"), [("REGISTER", b"To", b"From"), ("MESSAGE", b"From", b"To")]
)
def test_the_address_is_that_of_to_or_from(method: str, owner: bytes, other: bytes) -> None:
    alice = Client(edge())
    for header, status in ((other, 200), (owner, 403)):
        row = alice.credentials(alice.challenges(method)[0], method)
        mine = b"%s: <sip:alice@example.com>" % header
        data = alice.data(method, headers=row)
        assert mine in data
        assert alice.exchange(data.replace(mine, mine.replace(b"alice", b"bob"))).status == status


def test_a_realm_that_is_no_domain_stands_for_all_domains() -> None:
    text = SOURCE.replace('"example.com")\n', '"asterisk")\n').replace(
        'alias("asterisk")', 'alias("example.com", "example.org")'
    )
    text = text.replace('realm == "example.com"', 'realm == "asterisk"')
    sim = Sim(text.replace("{more}", ""))
    alice = Client(sim)
    for aor, status in (
        ("sip:alice@example.com", 200),
        ("sip:alice@example.org", 200),
        ("sip:alice@example.net", 403),
        ("sip:bob@example.com", 403),
    ):
        row = alice.credentials(alice.challenges()[0])
        assert alice.send(headers=row, aor=aor) == status


def test_a_user_with_a_domain_of_its_own() -> None:
    more = 'USERS["alice@example.org"] = "x"\nalias("example.org")'
    sim = edge(more)
    alice = Client(sim, "alice@example.org", "x")
    for aor, status in (("sip:alice@example.org", 200), ("sip:alice@example.com", 403)):
        row = alice.credentials(alice.challenges()[0])
        assert alice.send(headers=row, aor=aor) == status


# sources


def test_a_password_file_is_read_again_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    write_password(path, "alice", "example.com", password_line("alice", "example.com", "secret"))
    sim = edge(f'modparam("auth", "credentials", "file:{path}")')
    alice = Client(sim)
    assert alice.login(alice.challenges()[0]) == 200
    assert alice.login(alice.challenges()[1]) == 200
    line = password_line("alice", "example.com", "changed")
    write_password(path, "alice", "example.com", line)
    sim.advance(1.1)
    assert alice.login(alice.challenges()[0]) == 401
    alice.password = "changed"
    assert alice.login(alice.challenges()[0]) == 200
    sim.edge.destroy()


def test_a_relative_path_begins_at_the_configuration(tmp_path: Path) -> None:
    write_password(tmp_path / "passwords", "alice", "r", "alice:r:plain:secret")
    config = tmp_path / "edge.py"
    config.write_text(BASE.replace("{more}", 'modparam("auth", "credentials", "file:passwords")'))
    load_config(config).destroy()


def test_sqlite_and_a_subscriber_without_a_hash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digits = hashed("MD5", "alice:example.com:secret")
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as db:
        db.execute(SCHEMA)
        db.execute(f"INSERT INTO subscriber VALUES ('alice', 'example.com', '{digits}', '', '')")
    sim = edge(f'modparam("auth", "credentials", "sqlite:///{tmp_path}/s.db")')
    alice = Client(sim)
    sha, md5 = alice.challenges()
    assert alice.login(md5) == 200
    assert alice.login(sha) == 401
    # what is not there is no hash either that somebody could compute with
    asked = parse_challenge(sha)["nonce"].strip('"')
    ha2 = hashed("SHA-256", "REGISTER:sip:example.com")
    forged = hashed("SHA-256", f":{asked}:00000002:0a4f113b:auth:{ha2}")
    assert alice.login(sha, 2, response=f'"{forged}"') == 401
    assert "there is no hash for SHA-256 of user 'alice'" in caplog.text
    assert digits not in caplog.text
    sim.edge.destroy()


ASYNC = """
listen("udp:127.0.0.1:0")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("auth")
import asyncio
async def password(user, realm):
    await asyncio.sleep(0.01)
    return "secret" if user == "alice" else None
modparam("auth", "credentials", password)
async def request_route(ksr, msg):
    if not await ksr.auth.auth_check_async(msg, "example.com"):
        ksr.auth.auth_challenge(msg, "example.com")
    elif not await ksr.auth.www_authenticate_async(msg, "example.com"):
        ksr.sl.send_reply(msg, 500, "Asked twice")
    elif await ksr.auth.proxy_authenticate_async(msg, "example.com") != -5:
        ksr.sl.send_reply(msg, 500, "There is none")
    else:
        ksr.sl.send_reply(msg, 200, "OK")
"""


@pytest.mark.parametrize("waits", [True, False])
def test_async_routes_with_any_source(waits: bool) -> None:
    text = ASYNC
    if not waits:
        text = text.replace("async def password", "def password")
        text = text.replace("    await asyncio.sleep(0.01)\n", "")

    async def play() -> list[int]:
        loaded = load_source(text, "edge.py")
        async with Server(loaded):
            port = loaded.config.listeners[0].port
            alice = Client(Sim(BASE.replace("{more}", PLAIN)))
            first = await ask(port, alice.data())
            row = alice.credentials(challenges_in(first)[0])
            good = await ask(port, alice.data(headers=row))
            alice.password = "wrong"
            bad = await ask(port, alice.data(headers=alice.credentials(challenges_in(first)[0])))
            return [first.status, good.status, bad.status]

    assert asyncio.run(play()) == [401, 200, 401]


PLAIN = 'modparam("auth", "credentials", lambda user, realm: None)'


def test_an_exception_of_the_operator_s_function_is_500_and_nobody_gets_in() -> None:
    sim = edge("def password(user, realm):\n    raise KeyError(user)\n"
               'modparam("auth", "credentials", password)')  # fmt: skip
    alice = Client(sim)
    assert alice.login(alice.challenges()[0]) == 500


def test_exports_are_what_routes_see() -> None:
    functions: dict[str, Any] = vars(edge().edge.ksr.auth)
    assert {"www_challenge", "auth_check_async", "consume_credentials"} <= functions.keys()
