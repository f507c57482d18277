"""Answers the core's questions for DNS (RFC 3263): /etc/hosts first, then the DNS servers.

Strategy: dnspython asks (identifiers and ports that cannot be guessed, the next server when one is
silent, TCP when an answer is truncated), one task a question; how many there are at a time and what
is remembered is the core's business.  A name that stands in /etc/hosts is never asked for, whatever
the kind, so that what is written there counts.  resolv.conf and hosts are read again when changed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sipedge.lookups import AAAA, NAPTR, SRV, A, Answer, Naptr, Srv

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as DnsResolver

    from sipedge.lookups import DnsSettings, Lookup

log = logging.getLogger(__name__)

HOSTS: Final = "/etc/hosts"
RESOLV_CONF: Final = "/etc/resolv.conf"
HOSTS_TTL: Final = 5.0  # seconds
PAYLOAD: Final = 1232  # octets of an answer over UDP; what is bigger comes over TCP
MOST_RECORDS: Final = 64  # of one answer

_LOOPBACK: Final[dict[str, tuple[str, ...]]] = {A: ("127.0.0.1",), AAAA: ("::1",)}

Deliver = Callable[["Lookup", Answer], None]


class Resolver:
    """Answers lookups, later, through ``deliver(lookup, answer)``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: DnsSettings,
        deliver: Deliver,
        *,
        hosts: str = HOSTS,
        resolv_conf: str = RESOLV_CONF,
    ) -> None:
        """``hosts``, ``resolv_conf``: the paths of those files."""
        self._loop = loop
        self._settings = settings
        self._deliver = deliver
        self._tasks: set[asyncio.Task[None]] = set()
        self._hosts = Hosts(hosts)
        self._resolv_conf = resolv_conf
        self._made: tuple[Any, DnsResolver | None] = (None, None)

    def ask(self, lookup: Lookup) -> None:
        """Find the answer to one question."""
        task = self._loop.create_task(self._ask(lookup))
        self._tasks.add(task)  # the loop itself refers to tasks only weakly
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is being asked for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, lookup: Lookup) -> None:
        answer = self._local(lookup)
        if answer is None:
            try:
                answer = await self._from_dns(lookup)
            except Exception:  # whoever waits must hear something
                log.exception("%s %s: no answer could be had", lookup.kind, lookup.name)
                answer = Answer((), 0.0, failed=True)
        self._deliver(lookup, answer)

    def _local(self, lookup: Lookup) -> Answer | None:
        """What /etc/hosts says; RFC 6761 §6.3: localhost is this machine everywhere."""
        host = host_of(lookup.name)
        known = self._hosts.find(host)
        if known is None and (host == "localhost" or host.endswith(".localhost")):
            known = _LOOPBACK
        if known is None:
            return None
        return Answer(known.get(lookup.kind, ()), HOSTS_TTL)

    async def _from_dns(self, lookup: Lookup) -> Answer:
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN

        resolver = self._resolver()
        if resolver is None:
            return Answer((), 0.0, failed=True)
        # names with enough dots are whole already, so nobody else is asked about them
        dots = 1 if resolver.ndots is None else resolver.ndots
        search = self._settings.dns_use_search_list and host_of(lookup.name).count(".") < dots
        try:
            found = await resolver.resolve(
                lookup.name if search else lookup.name + ".",
                lookup.kind,
                search=search,
                raise_on_no_answer=False,
            )
            chain = found.chaining_result
            records = _records(lookup.kind, found.rrset) if found.rrset is not None else ()
            return Answer(records, float(chain.minimum_ttl))
        except NXDOMAIN as exc:
            responses: dict[Any, Any] = exc.kwargs["responses"]
            ttls = [one.resolve_chaining().minimum_ttl for one in responses.values()]
            return Answer((), float(min(ttls, default=0)))
        except (DNSException, OSError, EOFError) as exc:
            log.info("%s %s: no answer: %s", lookup.kind, lookup.name, exc)
            return Answer((), 0.0, failed=True)

    def _resolver(self) -> DnsResolver | None:
        """The resolver for what the settings and resolv.conf say now; None if that is nothing."""
        settings = self._settings
        made_from = (
            settings.servers, settings.dns_retr_time, settings.dns_retr_no,
            None if settings.servers else _version(self._resolv_conf),
        )  # fmt: skip
        if made_from != self._made[0]:
            self._made = made_from, self._make()
        return self._made[1]

    def _make(self) -> DnsResolver | None:
        # imported when the first name turns up: many edges know numbers only
        from dns.asyncresolver import Resolver as DnsResolver
        from dns.nameserver import Do53Nameserver
        from dns.resolver import NoResolverConfiguration

        settings = self._settings
        resolver = DnsResolver(configure=False)
        if settings.servers:
            resolver.nameservers = [Do53Nameserver(host, port) for host, port in settings.servers]
        else:
            try:
                resolver.read_resolv_conf(self._resolv_conf)
            except NoResolverConfiguration as exc:
                log.warning("%s: %s; no name can be resolved", self._resolv_conf, exc)
                return None
        resolver.timeout = settings.dns_retr_time
        resolver.lifetime = settings.dns_retr_time * (settings.dns_retr_no + 1)
        resolver.use_edns(0, 0, PAYLOAD)
        return resolver


class Hosts:
    """/etc/hosts: name -> kind of address -> addresses."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read: tuple[int, int] | None = None
        self._names: dict[str, dict[str, tuple[str, ...]]] = {}

    def find(self, name: str) -> dict[str, tuple[str, ...]] | None:
        """The addresses of a name by kind; None if it is not there."""
        version = _version(self._path)
        if version != self._read:
            self._read = version
            self._names = self._parse() if version is not None else {}
        return self._names.get(name)

    def _parse(self) -> dict[str, dict[str, tuple[str, ...]]]:
        names: dict[str, dict[str, tuple[str, ...]]] = {}
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError as exc:
            log.warning("%s: %s", self._path, exc.strerror)
            return names
        for line in lines:
            words = line.partition("#")[0].split()
            address = usable(words[0]) if words else None
            if address is None:
                continue
            kind = AAAA if ":" in address else A
            for name in words[1:]:
                kinds = names.setdefault(name.rstrip(".").lower(), {})
                kinds[kind] = (*kinds.get(kind, ()), address)
        return names


def host_of(name: str) -> str:
    """The name without the labels of a service: ``_sip._udp.example.com``."""
    while name.startswith("_") and "." in name:
        name = name.partition(".")[2]
    return name


def usable(text: str) -> str | None:
    """The canonical address, or None if no request can be sent there.

    A link-local address needs a zone, which no record has.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_unspecified or address.is_multicast:
        return None
    if address.version == 6 and address.is_link_local:
        return None
    return str(address)


def _records(kind: str, rrset: Any) -> tuple[Any, ...]:
    records: list[Any] = []
    for one in list(rrset)[:MOST_RECORDS]:
        if kind == SRV:
            target = one.target.to_text(omit_final_dot=True).lower()
            records.append(Srv(one.priority, one.weight, one.port, target))
        elif kind == NAPTR:
            flags, service, regexp = (
                text.decode("ascii", "replace") for text in (one.flags, one.service, one.regexp)
            )
            replacement = one.replacement.to_text(omit_final_dot=True).lower()
            record = Naptr(one.order, one.preference, flags, service, regexp, replacement)
            records.append(record)
        else:
            address = usable(one.address)
            if address is not None:
                records.append(address)
    return tuple(records)


def _version(path: str) -> tuple[int, int] | None:
    """Changes when the file does; None if it is not there."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
