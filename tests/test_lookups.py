"""Questions for DNS: one at a time a name and kind, answers while they are good."""

from __future__ import annotations

import pytest

from sipedge import lookups as module
from sipedge.errors import ConfigError
from sipedge.lookups import AAAA, NAPTR, SRV, A, Answer, Lookups, can_exist
from sipedge.settings import Settings
from tests.builds import change


class Asked(Settings):
    """Lookups, and the answers that came."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lookups = Lookups(self)
        self.got: list[tuple[object, ...]] = []

    def ask(self, kind: str, name: str) -> None:
        self.lookups.ask(kind, name, lambda answer: self.got.append(answer.records))

    def answer(self, *records: object, ttl: float = 60.0, failed: bool = False) -> None:
        for lookup in self.lookups.drain():
            self.lookups.answer(lookup, Answer(records, ttl, failed))

    def is_asked(self, kind: str, name: str) -> bool:
        """Whether the question leaves now; nobody answers it."""
        self.ask(kind, name)
        return [(one.kind, one.name) for one in self.lookups.drain()] == [(kind, name)]


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_one_question_and_everybody_gets_the_answer(asked: Asked) -> None:
    asked.ask(A, "a.example")
    asked.ask(A, "a.example")
    asked.ask(AAAA, "a.example")
    first, second = asked.lookups.drain()
    assert (first.kind, first.name, second.kind) == (A, "a.example", AAAA)
    assert asked.lookups.drain() == []
    assert asked.got == []
    asked.lookups.answer(first, Answer(("192.0.2.1", "192.0.2.2"), 60.0))
    assert asked.got == [("192.0.2.1", "192.0.2.2")] * 2
    asked.lookups.answer(second, Answer((), 60.0))
    assert asked.got[2:] == [()]


@pytest.mark.rfc("DNS-09")
@pytest.mark.parametrize(
    ("ttl", "minimum", "maximum", "seconds"),
    [(300.0, 0, 86400, 300), (300.0, 0, 100, 100), (1.0, 30, 86400, 30), (0.0, 0, 86400, 0)],
)
def test_answers_live_as_long_as_they_say(
    asked: Asked, ttl: float, minimum: float, maximum: float, seconds: float
) -> None:
    asked.dns_cache_min_ttl, asked.dns_cache_max_ttl = minimum, maximum
    asked.ask(A, "a.example")
    asked.answer("192.0.2.1", ttl=ttl)
    if seconds:
        asked.now += seconds - 0.1
        asked.ask(A, "a.example")
        assert asked.got == [("192.0.2.1",)] * 2
        asked.now += 0.2
    assert asked.is_asked(A, "a.example")


@pytest.mark.rfc("DNS-09")
def test_that_there_is_nothing_is_remembered_too_but_not_for_long(asked: Asked) -> None:
    asked.ask(SRV, "_sip._udp.a.example")
    asked.answer(ttl=3600.0)
    asked.now += 59.0
    asked.ask(SRV, "_sip._udp.a.example")
    assert asked.got == [(), ()]
    asked.now += 2.0
    assert asked.is_asked(SRV, "_sip._udp.a.example")


@pytest.mark.rfc("DNS-09")
def test_a_server_that_does_not_answer_is_not_asked_by_every_request(asked: Asked) -> None:
    asked.ask(A, "a.example")
    asked.answer(failed=True)
    asked.now += 4.9
    asked.ask(A, "a.example")
    assert asked.got == [(), ()]
    asked.now += 0.2
    assert asked.is_asked(A, "a.example")


def test_old_answers_are_used_while_no_server_answers(asked: Asked) -> None:
    asked.ask(A, "a.example")
    asked.answer("192.0.2.1", ttl=60.0)
    for _ in range(3):
        asked.now += 61.0
        asked.ask(A, "a.example")
        asked.answer(failed=True)
    assert asked.got == [("192.0.2.1",)] * 4
    asked.now += 31.0
    asked.ask(A, "a.example")
    asked.answer()  # it is back, and says that the name is gone
    asked.now += 86400.0
    asked.ask(A, "a.example")
    asked.answer(failed=True)
    assert asked.got[4:] == [(), ()]


def test_answers_are_not_used_for_ever(asked: Asked) -> None:
    asked.ask(A, "a.example")
    asked.answer("192.0.2.1", ttl=60.0)
    asked.now += 86461.0
    asked.ask(A, "a.example")
    asked.answer(failed=True)
    assert asked.got == [("192.0.2.1",), ()]


BAD = [
    "", "x.invalid", "invalid", "a" * 64 + ".example", ".".join(["abcdefgh"] * 29), "a..b", ".a",
    "a b", "1.2.3.4.5", "256.1.1.1", "a.example.", "A.example", "\udcff.example", "a\0b",
]  # fmt: skip


@pytest.mark.rfc("DNS-09", "WSK-05")
@pytest.mark.parametrize("name", BAD)
def test_names_that_cannot_exist_are_never_asked_for(asked: Asked, name: str) -> None:
    asked.ask(NAPTR, name)
    assert asked.got == [()]
    assert asked.lookups.drain() == []


def test_names_that_can_exist() -> None:
    for name in ("localhost", "a.example", "_sip._udp.a.example", "xn--bcher-kva.example", "a_b.c"):
        assert can_exist(name)
    assert can_exist(".".join(["a" * 63] * 3 + ["b" * 61]))


@pytest.mark.rfc("DNS-09")
def test_everything_is_bounded(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, module, "ASKING", 5)
    change(monkeypatch, module, "REMEMBERED", 10)
    for i in range(8):
        asked.ask(A, f"{i}.example")
    assert asked.got == [()] * 3
    asked.answer("192.0.2.1")
    assert asked.is_asked(A, "7.example")  # that there was no room is not remembered
    for i in range(10, 30):
        asked.ask(A, f"{i}.example")
        asked.answer("192.0.2.1")
    assert len(asked.lookups._known) == 10
    assert asked.lookups.flush() == 10


def test_servers_of_the_operator() -> None:
    settings = Settings()
    assert settings.dns_servers == []
    settings.dns_servers = ["192.0.2.53", "192.0.2.54:5353", "2001:db8::1", "[2001:db8::2]:54"]
    assert settings.servers[2:] == (("2001:db8::1", 53), ("2001:db8::2", 54))
    assert settings.dns_servers == [
        "192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::1]:53", "[2001:db8::2]:54",
    ]  # fmt: skip
    for bad in (["dns.example"], ["192.0.2.53:99999"], [53]):
        with pytest.raises(ConfigError):
            settings.dns_servers = bad  # type: ignore[assignment]
