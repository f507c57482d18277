"""B10, digest authentication, row by row, on whole edges without sockets; and scenario S36."""

from __future__ import annotations

import hmac
import logging
from typing import Any

import pytest

from sipedge.core import Core
from sipedge.flow import TCP
from sipedge.modules.auth import credentials, digest, verify
from sipedge.sip.message import SipMessage
from tests.digest import answer, parse_challenge
from tests.modules.auth.client import Client, challenges_in, codes, edge
from tests.sim import Sim
from tests.sim import answer as reply
from tests.world import HOME, Phone, World

ALGORITHMS = ["SHA-256", "MD5"]
ALL = 'modparam("auth", "algorithms", "SHA-512-256, SHA-256, MD5")'
ELSEWHERE = "sip:bob@127.0.0.9:5060"


@pytest.mark.rfc("AUT-01")
def test_401_from_the_registrar_407_from_the_proxy() -> None:
    alice = Client(edge())
    register = alice.exchange(alice.data("REGISTER"))
    invite = alice.exchange(alice.data("INVITE", ELSEWHERE))
    assert (register.status, register.reason) == (401, b"Unauthorized")
    assert (invite.status, invite.reason) == (407, b"Proxy Authentication Required")
    assert register.rows(b"www-authenticate")
    assert not register.rows(b"proxy-authenticate")
    assert invite.rows(b"proxy-authenticate")
    assert not invite.rows(b"www-authenticate")


@pytest.mark.rfc("AUT-02")
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", ["SHA-256", "MD5"]),
        (ALL, ["SHA-512-256", "SHA-256", "MD5"]),
        ('modparam("auth", "algorithms", "MD5,sha-256")', ["MD5", "SHA-256"]),
        ('modparam("auth", "algorithms", "SHA-256")', ["SHA-256"]),
    ],
)
def test_one_challenge_an_algorithm_the_preferred_one_on_top(
    more: str, expected: list[str]
) -> None:
    for method in ("REGISTER", "INVITE"):
        challenges = Client(edge(more)).challenges(method)
        assert [parse_challenge(each)["algorithm"] for each in challenges] == expected
        assert {parse_challenge(each)["realm"] for each in challenges} == {'"example.com"'}


@pytest.mark.rfc("AUT-03", "AUT-16")
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "SHA-512-256", "none"])
def test_a_client_takes_the_algorithm_that_it_has(algorithm: str) -> None:
    sim = edge(ALL)
    alice = Client(sim)
    offered = {parse_challenge(each)["algorithm"]: each for each in alice.challenges()}
    if algorithm == "none":  # RFC 3261 §22.4 item 7: it is MD5
        assert alice.login(offered["MD5"], algorithm="") == 200
    else:
        assert alice.login(offered[algorithm]) == 200


@pytest.mark.rfc("AUT-04")
def test_qop_is_quoted_in_challenges_algorithm_and_stale_are_not() -> None:
    sim = edge()
    alice = Client(sim)
    old = alice.challenges()
    sim.advance(301)
    row = alice.credentials(old[0])
    for challenge in challenges_in(alice.exchange(alice.data(headers=row))):
        params = parse_challenge(challenge)
        assert params["qop"] == '"auth"'
        assert params["algorithm"] in ALGORITHMS
        assert params["stale"] == "true"
        assert params["nonce"].strip('"').isascii()


@pytest.mark.rfc("AUT-04")
def test_quoted_forms_of_a_client_are_tolerated() -> None:
    alice = Client(edge())
    row = alice.credentials(alice.challenges()[0], qop='"auth"', algorithm='"SHA-256"')
    row = row.replace("nc=00000001", 'nc="00000001"').replace(", ", " ,\t")
    assert row.count('"') == 18
    assert alice.send(headers=row) == 200


@pytest.mark.rfc("AUT-05")
def test_a_response_without_qop_counts_unless_it_is_refused() -> None:
    sim = edge()
    alice = Client(sim)
    challenge = alice.challenges()[1]
    assert alice.login(challenge, None) == 200
    assert alice.login(challenge, None) == 401  # without a count, the nonce is used up
    strict = Client(edge('modparam("auth", "require_qop", 1)'))
    assert strict.login(strict.challenges()[1], None) == 401
    assert strict.login(strict.challenges()[1]) == 200


def is_stale(msg: SipMessage) -> bool:
    """All challenges say so, or none."""
    flags = {parse_challenge(each).get("stale") for each in challenges_in(msg)}
    assert len(flags) == 1
    return flags == {"true"}


KEY = 'modparam("auth", "secret", b"0123456789abcdef")'


@pytest.mark.rfc("AUT-06")
def test_an_expired_nonce_is_stale_for_who_knows_the_password() -> None:
    sim = edge('modparam("auth", "nonce_expire", 60)')
    alice = Client(sim)
    challenge = alice.challenges()[0]
    sim.advance(60)
    assert alice.login(challenge) == 200
    sim.advance(1)
    again = alice.exchange(alice.data(headers=alice.credentials(challenge, nc=2)))
    assert again.status == 401
    assert is_stale(again)
    assert alice.login(challenges_in(again)[0]) == 200
    # who does not is told nothing of the nonce
    eve = Client(sim, "alice", "guess")
    assert not is_stale(eve.exchange(eve.data(headers=eve.credentials(challenge, nc=3))))


@pytest.mark.rfc("AUT-06")
def test_a_nonce_of_somebody_else_is_stale() -> None:
    first, second = edge(), edge()
    alice = Client(first)
    challenge = alice.challenges()[0]
    at_second = Client(second)
    stale = at_second.exchange(at_second.data(headers=at_second.credentials(challenge)))
    assert stale.status == 401
    assert is_stale(stale)
    assert at_second.login(challenges_in(stale)[0]) == 200


@pytest.mark.rfc("AUT-06")
def test_registrars_with_one_secret_know_each_others_nonces() -> None:
    challenge = Client(edge(KEY)).challenges()[0]
    assert Client(edge(KEY)).login(challenge) == 200


@pytest.mark.rfc("AUT-06", "AUT-07")
def test_after_a_restart_an_older_nonce_is_stale_even_with_the_same_secret() -> None:
    """What was used before, the new process cannot know."""
    challenge = Client(edge(KEY)).challenges()[0]
    sim = edge(KEY)
    sim.advance(5)
    sim.edge.child_init(0)
    alice = Client(sim)
    stale = alice.exchange(alice.data(headers=alice.credentials(challenge)))
    assert is_stale(stale)
    assert alice.login(challenges_in(stale)[0]) == 200


@pytest.mark.rfc("AUT-07")
def test_a_replay_is_stale_and_counts_in_any_order_are_not() -> None:
    sim = edge()
    alice = Client(sim)
    challenge = alice.challenges()[0]
    assert [alice.login(challenge, nc) for nc in (1, 3, 2, 4)] == [200] * 4
    for nc in (1, 2, 3, 4):
        captured = alice.data(headers=alice.credentials(challenge, nc=nc))
        replayed = alice.exchange(captured)
        assert replayed.status == 401
        assert is_stale(replayed)
    assert alice.login(challenge, 5) == 200


@pytest.mark.rfc("AUT-07")
def test_a_datagram_that_comes_twice_gets_the_same_answer() -> None:
    sim = edge()
    alice = Client(sim)
    for method, uri in (("REGISTER", "sip:example.com"), ("INVITE", "sip:example.com")):
        row = alice.credentials(alice.challenges(method, uri)[0], method, uri)
        data = alice.data(method, uri, headers=row)
        assert alice.exchange(data).status == 200
        answered = alice.peer.raw[-1]
        asked = len(codes(sim))
        alice.peer.send(data)
        assert alice.peer.raw[-1] == answered  # once more, or nothing new (RFC 6026 §7.1)
        assert len(codes(sim)) == asked  # no route ran
    # and with another branch it is another request
    replayed = data.replace(b"branch=z9hG4bK", b"branch=z9hG4bKreplayed")
    assert alice.exchange(replayed).status == 407


@pytest.mark.rfc("AUT-08")
@pytest.mark.parametrize(
    ("uri", "ruri", "status"),
    [
        ("sip:example.com", "sip:example.com;transport=tcp", 200),
        ("sip:example.com", "sip:127.0.0.1", 200),
        ("sip:127.0.0.1:5060", "sip:example.com", 200),  # SIPp writes where it sends to
        ("sip:alice@example.com;x=y", "sip:example.com", 200),
        ("sip:example.net", "sip:example.com", 401),
        ("sip:example.com.evil.net", "sip:example.com", 401),
        ("example.com", "sip:example.com", 401),
        ("*", "sip:example.com", 401),
    ],
)
def test_the_uri_counts_as_it_was_sent(uri: str, ruri: str, status: int) -> None:
    alice = Client(edge())
    row = alice.credentials(alice.challenges()[0], "REGISTER", uri)
    assert alice.send("REGISTER", ruri, headers=row) == status


@pytest.mark.rfc("AUT-08")
def test_the_uri_is_part_of_what_is_proven() -> None:
    alice = Client(edge())
    assert alice.login(alice.challenges()[0], uri='"sip:alice@example.com"') == 401


@pytest.mark.rfc("AUT-09")
def test_ack_and_cancel_are_never_challenged() -> None:
    sim = edge()
    alice = Client(sim)
    row = alice.credentials(alice.challenges("INVITE", ELSEWHERE)[0], "INVITE", ELSEWHERE)
    invite = alice.data("INVITE", ELSEWHERE, headers=row, branch="z9hG4bKcall", call_id="call")
    alice.peer.send(invite)
    bob = sim.udp("127.0.0.9")
    ringing = bob.take()
    bob.send(reply(ringing, 180))
    alice.peer.got.clear()
    cancel = b"\r\n".join(
        line
        for line in invite.replace(b"INVITE ", b"CANCEL ").replace(b" INVITE", b" CANCEL")
        .split(b"\r\n")
        if not line.startswith(b"Proxy-Authorization")
    )  # fmt: skip
    alice.peer.send(cancel)
    assert alice.peer.take().status == 200
    assert bob.take().method == b"CANCEL"
    # an ACK of its own transaction runs the route, and goes through
    ack = alice.data("ACK", ELSEWHERE, to_tag="t1")
    alice.peer.got.clear()
    alice.peer.send(ack)
    assert alice.peer.silent()
    assert bob.take().method == b"ACK"


@pytest.mark.rfc("AUT-10")
def test_only_what_is_for_us_is_taken_and_the_rest_goes_on_as_it_is() -> None:
    sim = edge()
    alice = Client(sim)
    foreign = (
        'Proxy-Authorization:  Digest realm="example.net" ,username="alice",nonce="n",'
        'uri="sip:x", response="00"\r\n'
        'authorization: Digest username="alice", realm="example.com", nonce="m", uri="sip:x",'
        " response=11\r\n"
        "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
    )
    for mine_is_first in (True, False):
        challenge = alice.challenges("INVITE", ELSEWHERE)[0]
        mine = alice.credentials(challenge, "INVITE", ELSEWHERE)
        headers = mine + foreign if mine_is_first else foreign + mine
        alice.peer.send(alice.data("INVITE", ELSEWHERE, headers=headers))
        forwarded = sim.udp("127.0.0.9").take()
        kept = [
            line
            for line, name in zip(forwarded.lines, forwarded.ids, strict=True)
            if name in (b"proxy-authorization", b"authorization")
        ]
        assert kept == foreign.encode().split(b"\r\n")[:-1]


@pytest.mark.rfc("AUT-11")
@pytest.mark.parametrize(
    "value", ["Basic YWxpY2U6c2VjcmV0", "NoOneKnowsThisScheme opaque-data=here", "Digest nonsense"]
)
def test_basic_and_unknown_schemes_get_a_digest_challenge(value: str) -> None:
    alice = Client(edge())
    got = alice.exchange(alice.data(headers=f"Authorization: {value}\r\n"))
    assert got.status == 401
    assert not is_stale(got)
    assert b"Basic" not in b"".join(got.lines)


FORK = """
listen("udp:127.0.0.1:5060")
loadmodule("tm")
def request_route(ksr, msg):
    ksr.tm.append_branch(msg, "sip:bob@127.0.0.8:5060")
    ksr.tm.t_relay(msg)
"""


@pytest.mark.rfc("AUT-12")
@pytest.mark.parametrize("statuses", [(401, 407), (407, 401), (401, 401)])
def test_the_challenges_of_all_branches_come_back_in_their_order(
    statuses: tuple[int, int],
) -> None:
    sim = Sim(FORK)
    alice = Client(sim)
    alice.peer.send(alice.data("INVITE", ELSEWHERE))
    for host, status, realm in (
        ("127.0.0.9", statuses[0], "nine"),
        ("127.0.0.8", statuses[1], "eight"),
    ):
        name = "WWW" if status == 401 else "Proxy"
        rows = "".join(
            f'{name}-Authenticate: Digest realm="{realm}", nonce="n", qop="auth", algorithm={a}\r\n'
            for a in ALGORITHMS
        )
        bob = sim.udp(host)
        bob.send(reply(bob.take(), status, headers=rows))
    got = [msg for msg in alice.peer.got if msg.status >= 200]
    assert len(got) == 1
    found = [
        (name.decode().partition("-")[0], parse_challenge(got[0].row_value(at)))
        for at, name in enumerate(got[0].ids)
        if name in (b"www-authenticate", b"proxy-authenticate")
    ]
    for status, realm in zip(statuses, ("nine", "eight"), strict=True):
        mine = [(n, p["algorithm"]) for n, p in found if p["realm"] == f'"{realm}"']
        name = "www" if status == 401 else "proxy"
        assert mine == [(name, a) for a in ALGORITHMS]
    assert len(found) == 4


@pytest.mark.rfc("AUT-13")
def test_a_connection_is_not_authenticated_by_one_request_on_it() -> None:
    sim = edge()
    alice = Client(sim, peer=sim.tcp())
    row = alice.credentials(alice.challenges("INVITE")[0], "INVITE")
    assert alice.send("INVITE", headers=row) == 200
    assert alice.send("INVITE") == 407
    assert Client(sim, "bob", "b0b", alice.peer).send("MESSAGE") == 407


@pytest.mark.rfc("AUT-14")
def test_who_is_not_there_looks_like_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sim = edge()
    work: list[str] = []

    def counted(function: Any, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            work.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(verify, "response", counted(digest.response, "response"))
    monkeypatch.setattr(verify, "hash_of", counted(credentials.hash_of, "hash"))
    monkeypatch.setattr(hmac, "compare_digest", counted(hmac.compare_digest, "compare"))
    seen = []
    for user, password in (("alice", "wrong"), ("carol", "wrong")):
        client = Client(sim, user, password)
        challenge = client.challenges()[0]
        work.clear()
        got = client.exchange(client.data(headers=client.credentials(challenge)))
        assert not is_stale(got)
        seen.append((got.lines[0], got.ids, list(work)))
        assert not any(word in caplog.text for word in ("secret", "b0b", "response"))
        assert parse_challenge(challenge)["nonce"].strip('"') not in caplog.text
    assert seen[0] == seen[1]
    assert seen[0][2] == ["hash", "response", "compare"]
    assert codes(sim)[1::2] == [-2, -3]
    assert "wrong password, user 'alice'" in caplog.text
    assert "no such user, user 'carol'" in caplog.text


@pytest.mark.rfc("AUT-14")
def test_who_fails_too_often_has_to_wait() -> None:
    sim = edge('modparam("auth", "max_failures", 3)\nmodparam("auth", "failure_period", 20)')
    alice = Client(sim)
    eve = Client(sim, "alice", "guess", sim.udp("127.0.0.66"))
    challenge = alice.challenges()[0]
    assert [eve.login(challenge, n) for n in (1, 2, 3)] == [401] * 3
    blocked = eve.exchange(eve.data(headers=eve.credentials(challenge, nc=4)))
    assert blocked.status == 503
    assert blocked.first(b"retry-after") == b"20"
    eve.password = "secret"
    assert eve.login(challenge, 4) == 503  # found or not: it is not told
    assert alice.login(challenge) == 200
    sim.advance(20)
    assert eve.login(challenge, 5) == 200
    assert sim.core.stats["auth_throttled"] == 2


@pytest.mark.rfc("AUT-15")
@pytest.mark.parametrize("method", ["REGISTER", "INVITE"])
def test_a_challenge_that_is_repeated_has_the_same_to_tag(method: str) -> None:
    alice = Client(edge())
    data = alice.data(method)
    tags = {alice.exchange(data).to_tag for _ in range(3)}
    assert len(tags) == 1
    assert tags != {b""}


@pytest.mark.rfc("AUT-16")
@pytest.mark.parametrize(
    "changes",
    [
        {"qop": "auth-int"},
        {"algorithm": "SHA-256-sess"},
        {"algorithm": "MD5-sess"},
        {"algorithm": "SHA-512-256"},
        {"algorithm": "SHA-1"},
        {"userhash": "true"},
    ],
)
def test_what_is_not_offered_is_challenged_again(changes: dict[str, str]) -> None:
    alice = Client(edge())
    challenges = alice.challenges()
    for challenge in challenges:
        assert b"auth-int" not in challenge
        assert b"-sess" not in challenge
        assert b"userhash" not in challenge
    row = alice.credentials(challenges[0], nc=1, **changes)
    got = alice.exchange(alice.data(headers=row))
    assert got.status == 401
    assert not is_stale(got)
    assert codes(alice.sim)[-1] == -1


# S36: digest through the edge

AUTH = """
loadmodule("auth")
modparam("auth", "credentials", lambda user, realm: {"alice": "a1", "bob": "b0b"}.get(user))
modparam("auth", "nonce_expire", 60)
"""
CHECK = """
    if msg.method == b"REGISTER":
        if not ksr.auth.auth_check(msg, "example.com"):
            ksr.auth.auth_challenge(msg, "example.com")
            return
"""
HOME_WITH_PASSWORDS = (
    HOME.replace("def within_dialog", AUTH + "def within_dialog", 1)
    .replace("def request_route(ksr, msg):\n", "def request_route(ksr, msg):\n" + CHECK, 1)
)  # fmt: skip


class Behind:
    """Bob behind an edge; his registrar wants his password."""

    def __init__(self) -> None:
        self.world = World()
        self.world.edge("127.0.2.1")
        self.home: Core = self.world.core("127.0.1.1", HOME_WITH_PASSWORDS, "")
        self.bob = Phone(self.world, "bob", "127.0.2.1", ("198.51.100.7", 49152))
        self.count = 0

    def register(self, authorization: str = "", user: str = "bob") -> SipMessage:
        self.last = self.data(authorization, user)
        self.bob.send(self.last)
        return self.answer()

    def data(self, authorization: str, user: str = "bob") -> bytes:
        self.count += 1
        headers = (
            f"Contact: {self.bob.contact};reg-id=1;expires=600"
            f';+sip.instance="<{self.bob.instance}>"\r\nSupported: path, outbound\r\n'
        )
        if authorization:
            headers += f"Authorization: {authorization}\r\n"
        data = self.bob.request(
            "REGISTER", "sip:example.com", headers=headers, cseq=self.count, call_id="reg"
        )
        return data.replace(b"alice@example.com", b"%s@example.com" % user.encode())

    def answer(self) -> SipMessage:
        heard = [msg for msg in self.bob.heard if msg.status != 100]
        self.bob.heard.clear()
        assert len(heard) == 1, heard
        return heard[0]

    def login(self, challenge: bytes, user: str = "bob", password: str = "b0b", nc: int = 1) -> str:
        return answer(challenge, user, password, "REGISTER", "sip:example.com", nc=nc)

    def bindings(self) -> list[bytes]:
        save = self.home.ksr.registrar.save
        rows = save.__self__._location.table("location").fetch(b"bob@example.com", self.world.now)
        return [binding.path for binding in rows]


@pytest.mark.rfc("AUT-02", "AUT-03")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_s36_challenges_reach_the_phone_in_order_and_either_will_do(algorithm: str) -> None:
    behind = Behind()
    first = behind.register()
    challenges = challenges_in(first)
    assert [parse_challenge(each)["algorithm"] for each in challenges] == ALGORITHMS
    assert behind.bindings() == []
    assert behind.register(behind.login(challenges[ALGORITHMS.index(algorithm)])).status == 200
    assert len(behind.bindings()) == 1
    assert behind.bindings()[0].startswith(b"<sip:")


@pytest.mark.rfc("AUT-06", "AUT-07")
def test_s36_stale_replayed_and_repeated() -> None:
    behind = Behind()
    challenge = challenges_in(behind.register())[0]
    assert behind.register(behind.login(challenge)).status == 200
    good, stored = behind.last, behind.bindings()
    # over UDP it may come twice
    behind.bob.send(good)
    assert behind.answer().status == 200
    # captured, and sent with another branch from elsewhere
    eve = Phone(behind.world, "eve", "127.0.2.1", ("198.51.100.66", 5060))
    eve.send(good.replace(b"branch=z9hG4bK", b"branch=z9hG4bKeve"))
    replayed = eve.take(401)
    assert is_stale(replayed)
    assert behind.bindings() == stored
    behind.world.advance(61)
    late = behind.register(behind.login(challenge, nc=2))
    assert late.status == 401
    assert is_stale(late)
    assert behind.register(behind.login(challenges_in(late)[0])).status == 200


@pytest.mark.rfc("AUT-14")
def test_s36_nobody_registers_for_somebody_else() -> None:
    behind = Behind()
    challenge = challenges_in(behind.register())[0]
    assert behind.register(behind.login(challenge, "alice", "a1")).status == 403
    assert behind.bindings() == []
    assert behind.register(behind.login(challenge, "bob", "wrong")).status == 401
    assert behind.bindings() == []


@pytest.mark.rfc("AUT-13")
def test_the_phone_behind_the_same_edge_is_asked_too() -> None:
    """All phones of an edge share its connection to the registrar."""
    behind = Behind()
    behind.register(behind.login(challenges_in(behind.register())[0]))
    other = Phone(behind.world, "alice", "127.0.2.1", ("198.51.100.8", 40000), transport=TCP)
    other.send(behind.data("").replace(b"bob@", b"alice@"))
    assert other.take(401)
