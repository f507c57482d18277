"""S36, digest over real sockets: SIPp with MD5, a scripted phone with the algorithms SIPp has not.

SIPp 3.6 takes the first challenge of an answer and gives up unless that is MD5, so for it the
order of the algorithms is turned round; the scripted phone sees them as an operator has them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.digest import answer, parse_challenge
from tests.peerlib.process import LOOPBACK, Crew
from tests.peerlib.sipedge import Sipedge, edge
from tests.peerlib.sipp import Agent
from tests.peerlib.ua import Message, Phone
from tests.scenarios.play import DOMAIN, TCP, UDP

SCENARIO = Path(__file__).parent / "xml" / "uac_digest.xml"
URI = f"sip:{DOMAIN}"
EXAMPLE = "registrar_with_passwords"
PASSWORDS = {"alice": "a1", "bob": "b0b"}
#: what the example says about users, and what is written for a test: a file with one user
USERS = 'modparam("auth", "credentials", "file:passwords")'


def site(crew: Crew, more: str = "", behind_edge: bool = False) -> Sipedge:
    """The example with the users alice and bob, as phones see it."""
    functions = f"lambda user, realm: {PASSWORDS}.get(user)"
    changes = {"127.0.0.1:5060": "@here@", USERS: f'modparam("auth", "credentials", {functions})'}
    if more:
        changes['modparam("auth", "max_failures", 20)'] = more
    host = "127.0.0.2" if behind_edge else LOOPBACK
    home = Sipedge(crew, EXAMPLE, host, 0, changes)
    return edge(crew, home.address) if behind_edge else home


MD5_ONLY = 'modparam("auth", "algorithms", "MD5")'
MD5_FIRST = 'modparam("auth", "algorithms", "MD5, SHA-256")'


sites = pytest.mark.parametrize("behind_edge", [False, True], ids=["all in one", "behind the edge"])


@sites
@pytest.mark.parametrize(
    ("transport", "offered"), [(UDP, MD5_FIRST), (TCP, MD5_ONLY)], ids=["udp", "tcp"]
)
@pytest.mark.rfc("AUT-03")
def test_sipp_registers_with_md5(
    transport: str, behind_edge: bool, offered: str, crew: Crew
) -> None:
    proxy = site(crew, offered, behind_edge).at
    for password, status in (("wrong", "401"), ("b0b", "200")):
        keys = {
            "domain": DOMAIN, "user": "bob", "password": password, "status": status, "regid": "1",
            "instance": "00000000-0000-4000-8000-000000000001",
        }  # fmt: skip
        # by itself SIPp writes the address of the edge, which the registrar behind it is not
        phone = Agent(crew, SCENARIO, proxy, keys, transport=transport, auth_uri=DOMAIN)
        phone.finish()


class Account(Phone):
    """A scripted phone with a password."""

    #: what it sent last
    sent = ""

    def __enter__(self) -> Account:
        return self

    def send(self, text: str, to: tuple[str, int] | None = None) -> None:
        self.sent = text
        super().send(text, to)

    def register_by_digest(
        self,
        password: str,
        algorithm: str,
        answered: Message | None = None,
        nc: int = 1,
        *more: str,
        aor: str = "",
        branch: str = "",
    ) -> Message:
        """The answer to a REGISTER; ``answered``: the challenge that it takes up."""
        self.cseq += 1
        headers = [
            f"From: <{self.aor}>;tag={self.tag}", f"To: <{aor or self.aor}>",
            f"Contact: <{self.contact}>;reg-id=1;+sip.instance=\"<{self.instance}>\"",
            "Supported: path, outbound", "Expires: 600", *more,
        ]  # fmt: skip
        if answered is not None:
            challenge = next(
                value
                for value in answered.all("WWW-Authenticate")
                if parse_challenge(value)["algorithm"] == algorithm
            )
            value = answer(challenge, self.user, password, "REGISTER", URI, nc=nc)
            headers.append(f"Authorization: {value}")
        self.request("REGISTER", URI, *headers, cseq=self.cseq, branch=branch)
        return self.receive()

    def registered(self) -> list[str]:
        """The Contacts that the registrar has for it."""
        challenge = self.register_by_digest("", "SHA-256")
        value = answer(
            challenge.get("WWW-Authenticate"), self.user, PASSWORDS[self.user], "REGISTER", URI
        )
        self.cseq += 1
        self.request(
            "REGISTER", URI, f"From: <{self.aor}>;tag={self.tag}", f"To: <{self.aor}>",
            f"Authorization: {value}", cseq=self.cseq,
        )  # fmt: skip
        return self.expect("200").all("Contact")


@sites
@pytest.mark.parametrize(
    ("transport", "algorithm"), [("udp", "SHA-256"), ("tcp", "SHA-512-256"), ("udp", "MD5")]
)
@pytest.mark.rfc("AUT-02", "AUT-03", "AUT-06", "AUT-07")
def test_any_algorithm_over_real_sockets(
    algorithm: str, behind_edge: bool, transport: str, crew: Crew
) -> None:
    offered = ["SHA-512-256", "SHA-256", "MD5"]
    more = (
        f'modparam("auth", "algorithms", "{", ".join(offered)}")\n'
        'modparam("auth", "nonce_expire", 1)'
    )
    with Account("bob", site(crew, more, behind_edge).at, transport) as bob:
        first = bob.register_by_digest("b0b", algorithm)
        assert first.what == "401"
        challenges = [parse_challenge(value) for value in first.all("WWW-Authenticate")]
        assert [each["algorithm"] for each in challenges] == offered
        assert bob.register_by_digest("wrong", algorithm, first).what == "401"
        # however slow this machine is: a nonce of more than a second ago is stale, and replaced
        answered = bob.register_by_digest("b0b", algorithm, first)
        while answered.what == "401":
            assert parse_challenge(answered.get("WWW-Authenticate"))["stale"] == "true"
            answered = bob.register_by_digest("b0b", algorithm, answered)
        assert answered.what == "200"
        assert bob.contact in answered.get("Contact")
        bob.silence(1.1)
        late = bob.register_by_digest("b0b", algorithm, first, nc=2)
        assert late.what == "401"
        assert parse_challenge(late.get("WWW-Authenticate"))["stale"] == "true"


@pytest.mark.rfc("AUT-06")
def test_a_phone_survives_the_restart_of_its_registrar(crew: Crew) -> None:
    """Nonces of before are stale, not wrong: the phone needs no user to type his password."""
    home = site(crew)
    with Account("bob", home.at) as bob:
        challenge = bob.register_by_digest("b0b", "SHA-256")
        assert bob.register_by_digest("b0b", "SHA-256", challenge).what == "200"
        home.kill()
        home.start()
        stale = bob.register_by_digest("b0b", "SHA-256", challenge, nc=2)
        assert stale.what == "401"
        assert parse_challenge(stale.get("WWW-Authenticate"))["stale"] == "true"
        assert bob.register_by_digest("b0b", "SHA-256", stale).what == "200"


@sites
@pytest.mark.rfc("REG-03", "RGO-19")
def test_a_user_may_register_nobody_else(behind_edge: bool, crew: Crew) -> None:
    """Good credentials of alice, the address of bob: 403, and nothing is stored of it."""
    at = site(crew, behind_edge=behind_edge).at
    evil = "Path: <sip:192.0.2.66;lr;ob>"
    with Account("alice", at) as alice, Account("bob", at) as bob:
        challenge = bob.register_by_digest("b0b", "SHA-256")
        assert bob.register_by_digest("b0b", "SHA-256", challenge).what == "200"
        before = bob.registered()
        assert len(before) == 1
        challenge = alice.register_by_digest("a1", "SHA-256")
        stolen = alice.register_by_digest("a1", "SHA-256", challenge, 1, evil, aor=bob.aor)
        assert stolen.what == "403"
        challenge = alice.register_by_digest("wrong", "SHA-256")
        wrong = alice.register_by_digest("wrong", "SHA-256", challenge, 1, evil)
        assert wrong.what == "401"
        assert [row.partition(";expires")[0] for row in bob.registered()] == [
            row.partition(";expires")[0] for row in before
        ]
        assert alice.registered() == []


@sites
@pytest.mark.rfc("AUT-07")
def test_what_was_overheard_is_of_no_use(behind_edge: bool, crew: Crew) -> None:
    """A retransmission is answered as before; the same credentials by another way are not."""
    at = site(crew, behind_edge=behind_edge).at
    with Account("bob", at) as bob, Account("bob", at) as eve:
        challenge = bob.register_by_digest("b0b", "SHA-256")
        accepted = bob.register_by_digest("b0b", "SHA-256", challenge)
        assert accepted.what == "200"
        overheard = bob.sent
        bob.send(overheard)
        assert bob.receive().text == accepted.text
        branch = re.search("branch=([^;]+)", overheard)
        assert branch
        eve.send(overheard.replace(branch[1], "z9hG4bKeve").replace(bob.address, eve.address))
        assert eve.receive().what == "401"
        assert len(bob.registered()) == 1
        assert eve.address not in bob.registered()[0]
