"""Questions for DNS that requests wait for, and the answers that are remembered (stop 7).

Strategy: the core asks, ``net.resolve`` answers; a question that was answered lately never gets out
of here.  One question at a time a name and kind, however many wait.  Names come from the wire, so
everything is bounded: the length of a name, the questions under way, what is remembered.  When no
DNS server answers, what was known before goes on for a while (RFC 8767).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mypy_extensions import mypyc_attr

from sipedge.errors import ConfigError
from sipedge.listen import parse_server

A: Final = "A"
AAAA: Final = "AAAA"
SRV: Final = "SRV"
NAPTR: Final = "NAPTR"

LONGEST_NAME: Final = 253  # RFC 1035 §2.3.4
ASKING: Final = 256  # questions under way; more count as not answered
REMEMBERED: Final = 8192  # answers
FAILED_S: Final = 5.0  # until a question that nobody answered is asked again
STALE_S: Final = 30.0  # the same, while an old answer is used instead (RFC 8767 §5)
STALEST_S: Final = 86400.0  # how long after its time an answer may be used at all

_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*+")


@mypyc_attr(allow_interpreted_subclasses=True)
class DnsSettings:
    """What an operator may set about finding servers; ``Core`` inherits it.

    The names are Kamailio's where it has such a setting.  All times are seconds.
    """

    #: the time of the event, monotonic
    now: float
    #: ask for NAPTR records first (RFC 3263 §4.1)
    dns_try_naptr: bool = True
    #: ask for AAAA records if there is a listener for IPv6
    dns_try_ipv6: bool = True
    #: complete short names by the search list of resolv.conf
    dns_use_search_list: bool = True
    #: until a question is asked again, of the next server if there is one
    dns_retr_time: float = 1.0
    #: how often it is asked again
    dns_retr_no: int = 2
    dns_cache_min_ttl: float = 0.0
    dns_cache_max_ttl: float = 86400.0
    #: how long "there is no such record" is believed at most
    dns_cache_negative_ttl: float = 60.0
    #: for how long a server that failed is tried after the others; 0: do not remember that
    dst_blocklist_expire: float = 60.0
    #: octets of a request that make it leave over TCP instead of UDP; 0: never
    udp_mtu: int = 1300
    #: numeric address and port of each DNS server; empty: those of resolv.conf
    servers: tuple[tuple[str, int], ...] = ()

    @property
    def dns_servers(self) -> list[str]:
        """The DNS servers to ask, ``192.0.2.53`` or ``192.0.2.53:5353``; empty: resolv.conf."""
        return [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers
        ]

    @dns_servers.setter
    def dns_servers(self, texts: list[str]) -> None:
        given: list[Any] = list(texts)
        if not all(isinstance(text, str) for text in given):
            raise ConfigError("dns_servers takes a list of texts like '192.0.2.53'")
        self.servers = tuple(parse_server(text, 53) for text in given)


class Srv(NamedTuple):
    """An SRV record (RFC 2782); ``target`` is ``.`` where the service is not offered."""

    priority: int
    weight: int
    port: int
    target: str


class Naptr(NamedTuple):
    """A NAPTR record (RFC 3403 §4.1)."""

    order: int
    preference: int
    flags: str
    service: str
    regexp: str
    replacement: str


class Answer:
    """The records of one name and kind: addresses as text, ``Srv`` or ``Naptr``; perhaps none.

    ``ttl``: seconds that DNS lets us believe it, the absence of records too.  ``failed``: nobody
    answered.  ``expires``: when to ask again, set by ``Lookups``.
    """

    __slots__ = ("expires", "failed", "records", "ttl")

    def __init__(self, records: tuple[Any, ...], ttl: float, failed: bool = False) -> None:
        self.records = records
        self.ttl = ttl
        self.failed = failed
        self.expires = 0.0


Answered = Callable[[Answer], None]


class Lookup:
    """One question, and who waits for its answer."""

    __slots__ = ("kind", "name", "waiting")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.waiting: list[Answered] = []

    def __repr__(self) -> str:
        return f"<Lookup {self.kind} {self.name}>"


class Lookups:
    """Questions under way, and answers while they are good."""

    __slots__ = ("_known", "_new", "_pending", "_settings")

    def __init__(self, settings: DnsSettings) -> None:
        self._settings = settings
        self._known: dict[tuple[str, str], Answer] = {}
        self._pending: dict[tuple[str, str], Lookup] = {}
        self._new: list[Lookup] = []

    def ask(self, kind: str, name: str, done: Answered) -> None:
        """Call ``done`` with the answer: at once if it is known or if the name cannot exist.

        RFC 7118 §5.4, RFC 6761 §6.4: browsers write ``.invalid``, and nobody is ever asked for it.
        """
        now = self._settings.now
        key = (kind, name)
        known = self._known.get(key)
        if known is not None and now < known.expires:
            done(known)
            return
        pending = self._pending.get(key)
        if pending is None:
            if not can_exist(name):
                done(_nothing(now + self._settings.dns_cache_negative_ttl))
                return
            if len(self._pending) >= ASKING:
                done(_nothing(now))
                return
            pending = self._pending[key] = Lookup(kind, name)
            self._new.append(pending)
        pending.waiting.append(done)

    def drain(self) -> list[Lookup]:
        """What was asked for since the last call."""
        new, self._new = self._new, []
        return new

    def answer(self, lookup: Lookup, answer: Answer) -> None:
        """Remember the answer and tell all who wait for it."""
        key = (lookup.kind, lookup.name)
        self._pending.pop(key, None)
        answer = self._remember(key, answer)
        for done in lookup.waiting:
            done(answer)

    def flush(self) -> int:
        """Forget all answers; returns how many there were."""
        count = len(self._known)
        self._known.clear()
        return count

    def _remember(self, key: tuple[str, str], answer: Answer) -> Answer:
        settings = self._settings
        now = settings.now
        old = self._known.pop(key, None)
        if answer.failed:
            if old is not None and old.records and now < old.expires + STALEST_S:
                # what is left of the day counts from the time when it was good
                left = old.expires + STALEST_S - now
                stale = Answer(old.records, left)
                stale.expires = now + STALE_S
                answer = stale
            else:
                answer.expires = now + FAILED_S
        elif answer.records:
            ttl = max(answer.ttl, settings.dns_cache_min_ttl)
            answer.expires = now + min(ttl, settings.dns_cache_max_ttl)
        else:
            answer.expires = now + min(answer.ttl, settings.dns_cache_negative_ttl)
        while len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[key] = answer
        return answer


def can_exist(name: str) -> bool:
    """Whether a name is worth a question: well-formed, not too long, not of ``.invalid``, and no
    misspelt IPv4 address (no top-level domain is a number)."""
    if len(name) > LONGEST_NAME or _NAME.fullmatch(name) is None:
        return False
    top = name.rpartition(".")[2]
    return top != "invalid" and not top.isdigit()


def _nothing(expires: float) -> Answer:
    answer = Answer((), 0.0)
    answer.expires = expires
    return answer
