"""Where a SIP server is: NAPTR, SRV, A and AAAA (RFC 3263 §4, RFC 2782).  Part of stop 7.

Strategy: a search is a generator.  It yields questions, is sent their answers, and returns a
``Location``: for each transport and priority the servers with their weights and addresses.  That is
remembered for as long as the shortest-lived record of it; each request draws its own order from it.
No IO, no clock: a test plays DNS by hand.

The fan-out is bounded at each step, and there are three steps, so no zone can make us ask for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from sipedge.flow import DEFAULT_PORT, TCP, TLS, UDP
from sipedge.forward import Hop, Place, is_numeric, is_unicast
from sipedge.lookups import AAAA, NAPTR, SRV, A, Answer, Lookups, Naptr, Srv

if TYPE_CHECKING:
    from sipedge.blocklist import Blocklist
    from sipedge.flow import FlowTable
    from sipedge.lookups import DnsSettings

MOST_SERVICES: Final = 6  # NAPTR records that are followed
MOST_SERVERS: Final = 16  # SRV records of one location
MOST_ADDRESSES: Final = 8  # of one server
MOST_HOPS: Final = 32  # of one location

#: RFC 3263 §4.1, §8.1.  Not here: D2S, and D2W (RFC 7118 §8.1), as nobody dials a WebSocket
_SERVICES: Final = {"sip+d2u": UDP, "sip+d2t": TCP, "sips+d2t": TLS}
_SRV_HEAD: Final = {UDP: "_sip._udp.", TCP: "_sip._tcp.", TLS: "_sips._tcp."}

Question = tuple[str, str]
#: transport -> kinds of addresses that we have a listener for, in the order to try
Reach = dict[int, tuple[str, ...]]
Service = tuple[int, str]  # transport, and the name of its SRV records
Weighted = tuple[int, list[Hop]]
Found = Callable[[list[Hop]], None]


class Location:
    """What DNS said of a place: ``ranks`` in the order to try, servers of a rank by weight."""

    __slots__ = ("expires", "ranks")

    def __init__(self, ranks: list[list[Weighted]], expires: float) -> None:
        self.ranks = ranks
        self.expires = expires

    def draw(self, draw: Callable[[int], int]) -> list[Hop]:
        """The addresses in the order to try them; ``draw(n)`` is a number from 0 to n."""
        hops: list[Hop] = []
        for rank in self.ranks:
            for _, addresses in by_weight(rank, draw) if len(rank) > 1 else rank:
                hops += addresses
        return hops[:MOST_HOPS]


def by_weight(servers: list[Weighted], draw: Callable[[int], int]) -> list[Weighted]:
    """RFC 2782: the next server is drawn from those that are left, in proportion to its weight."""
    left = sorted(servers, key=lambda server: server[0] > 0)  # weight 0 first, order kept
    ordered = []
    while left:
        number = draw(sum(weight for weight, _ in left))
        for at, (weight, _) in enumerate(left):
            number -= weight
            if number <= 0:
                ordered.append(left.pop(at))
                break
    return ordered


class Search:
    """One search; drive ``run`` and read ``expires`` when it has returned."""

    __slots__ = ("_naptr", "_place", "_reach", "expires")

    def __init__(self, place: Place, reach: Reach, naptr: bool) -> None:
        """``naptr``: ask for NAPTR records where RFC 3263 does."""
        self._place = place
        self._reach = reach
        self._naptr = naptr
        self.expires = inf

    def run(self) -> Generator[list[Question], list[Answer], list[list[Weighted]]]:
        """RFC 3263 §4.1 and §4.2."""
        place = self._place
        ours = [place.transport] if place.transport else [TLS] if place.secure else [UDP, TCP]
        if place.port:  # §4.1: even 5060 means A and AAAA only
            return (yield from self._addresses(ours[0], place.port))
        services: list[Service] = []
        if self._naptr and not place.transport:
            services = yield from self._services()
        if not services:
            services = [(one, _SRV_HEAD[one] + place.host) for one in ours if one in self._reach]
        if not services:
            return []
        servers = yield from self._servers(services)
        if servers is not None:
            return servers
        transport = services[0][0]
        return (yield from self._addresses(transport, DEFAULT_PORT[transport]))

    def _ask(
        self, questions: list[Question]
    ) -> Generator[list[Question], list[Answer], list[Answer]]:
        answers = yield questions
        self.expires = min(self.expires, min((one.expires for one in answers), default=inf))
        return answers

    def _services(self) -> Generator[list[Question], list[Answer], list[Service]]:
        """The transports that the domain wants most: NAPTR records of the lowest order that has
        any that we can use (RFC 3403 §4.1), by preference."""
        (answer,) = yield from self._ask([(NAPTR, self._place.host)])
        records: Iterable[Naptr] = sorted(answer.records, key=attrgetter("order", "preference"))
        found: list[Service] = []
        order = -1
        for record in records:
            transport = _SERVICES.get(record.service.lower(), 0)
            if record.flags.lower() != "s" or record.regexp or transport not in self._reach:
                continue
            if self._place.secure and transport != TLS:
                continue  # §4.1: never another service for a sips URI
            if found and record.order != order:
                break
            order = record.order
            found.append((transport, record.replacement))
        return found[:MOST_SERVICES]

    def _servers(
        self, services: list[Service]
    ) -> Generator[list[Question], list[Answer], list[list[Weighted]] | None]:
        """SRV records of all services, and the addresses of their targets; None without any SRV."""
        answers = yield from self._ask([(SRV, name) for _, name in services])
        if not any(answer.records for answer in answers):
            return None
        groups: list[tuple[int, list[Srv]]] = []  # transport, servers of one priority
        left = MOST_SERVERS
        for (transport, _), answer in zip(services, answers, strict=True):
            records = sorted(answer.records, key=attrgetter("priority"))[:left]
            left -= len(records)
            for _, same in groupby(records, attrgetter("priority")):
                # RFC 2782: a single "." says that this service is not offered here
                groups.append((transport, [one for one in same if one.target not in (".", "")]))
        wanted = dict.fromkeys(
            (kind, server.target)
            for transport, group in groups
            for server in group
            for kind in self._reach[transport]
        )
        questions = list(wanted)
        found = dict(zip(questions, (yield from self._ask(questions)), strict=True))
        ranks = []
        for transport, group in groups:
            rank: list[Weighted] = []
            for server in group:
                kinds = self._reach[transport]
                texts = [text for kind in kinds for text in found[kind, server.target].records]
                if texts and server.port:
                    rank.append((server.weight, self._hops(transport, texts, server.port)))
            if rank:
                ranks.append(rank)
        return ranks

    def _addresses(
        self, transport: int, port: int
    ) -> Generator[list[Question], list[Answer], list[list[Weighted]]]:
        """A and AAAA records of the host itself."""
        kinds = self._reach.get(transport, ())
        answers = yield from self._ask([(kind, self._place.host) for kind in kinds])
        texts = [text for answer in answers for text in answer.records]
        return [[(0, self._hops(transport, texts, port))]] if texts else []

    def _hops(self, transport: int, texts: list[str], port: int) -> list[Hop]:
        # RFC 5922 §7.3: a certificate must be for the host of the URI, whatever DNS made of it
        name = self._place.host
        return [
            (transport, text, port, name) for text in texts[:MOST_ADDRESSES] if is_unicast(text)
        ]


class Locator:
    """Searches, and what they found while it is good."""

    MAX: Final = 4096

    def __init__(
        self,
        settings: DnsSettings,
        lookups: Lookups,
        flows: FlowTable,
        blocklist: Blocklist,
        draw: Callable[[int], int] = lambda most: random.randint(0, most),
    ) -> None:
        self._settings = settings
        self._lookups = lookups
        self._flows = flows
        self._blocklist = blocklist
        self._draw = draw
        self._known: dict[Place, Location] = {}

    def locate(self, place: Place, found: Found) -> None:
        """Call ``found`` with the addresses to try, in order; at once if they are known."""
        known = self._known.get(place)
        if known is not None and self._settings.now < known.expires:
            self._deliver(known, found)
            return
        if is_numeric(place.host):  # the sent-by of a Via (RFC 3263 §5)
            transport = place.transport or (TLS if place.secure else UDP)
            port = place.port or DEFAULT_PORT[transport]
            found([(transport, place.host, port, place.host)])
            return
        search = Search(place, self._reach(), self._settings.dns_try_naptr)
        self._step(search, search.run(), None, place, found)

    def flush(self) -> None:
        """Forget all locations."""
        self._known.clear()

    def _step(
        self,
        search: Search,
        run: Generator[list[Question], list[Answer], list[list[Weighted]]],
        answers: list[Answer] | None,
        place: Place,
        found: Found,
    ) -> None:
        """Send the answers of one step into a search, and ask what it wants to know next."""
        while True:
            try:
                questions = next(run) if answers is None else run.send(answers)
            except StopIteration as end:
                self._deliver(self._remember(place, Location(end.value, search.expires)), found)
                return
            got: list[Answer | None] = [None] * len(questions)
            waiting = _Waiting(got, lambda all_: self._step(search, run, all_, place, found))
            for at, (kind, name) in enumerate(questions):
                self._lookups.ask(kind, name, waiting.slot(at))
            if waiting.missing:
                waiting.later = True
                return
            answers = [answer for answer in got if answer is not None]

    def _remember(self, place: Place, location: Location) -> Location:
        if location.expires > self._settings.now:
            if len(self._known) >= self.MAX:
                self._known.clear()
            self._known[place] = location
        return location

    def _deliver(self, location: Location, found: Found) -> None:
        hops = location.draw(self._draw)
        found(self._blocklist.arrange(hops, self._settings.now))

    def _reach(self) -> Reach:
        """Transports that we have a listener for, and the address families of each.

        IPv6 first, as RFC 6724 would have it where both work (RFC 7984 §4).
        """
        kinds: dict[int, set[str]] = {}
        for listener in self._flows.listeners:
            if listener.transport in _SRV_HEAD:
                kinds.setdefault(listener.transport, set()).add(AAAA if listener.is_v6 else A)
        order = (AAAA, A) if self._settings.dns_try_ipv6 else (A,)
        return {
            transport: tuple(kind for kind in order if kind in have)
            for transport, have in kinds.items()
        }


class _Waiting:
    """The answers of one step; ``done`` is called with all of them if the last one came later."""

    __slots__ = ("_done", "_got", "later", "missing")

    def __init__(self, got: list[Answer | None], done: Callable[[list[Answer]], None]) -> None:
        self._got = got
        self._done = done
        self.missing = len(got)
        self.later = False

    def slot(self, at: int) -> Callable[[Answer], None]:
        def arrived(answer: Answer) -> None:
            self._got[at] = answer
            self.missing -= 1
            if not self.missing and self.later:
                self._done([one for one in self._got if one is not None])

        return arrived
