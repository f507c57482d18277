"""The resolver against a real DNS server, and files of the test's own in place of those in /etc."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sipedge.lookups import AAAA, NAPTR, SRV, A, Answer, Lookup, Naptr, Srv
from sipedge.net.resolve import HOSTS_TTL, Resolver, host_of, usable
from sipedge.settings import Settings
from tests.helpers_net import PATIENCE, udp_peer
from tests.peerlib.dns import Nsd
from tests.peerlib.fixtures import module_crew, pytest_runtest_makereport
from tests.peerlib.process import Crew

__all__ = ["module_crew", "pytest_runtest_makereport"]

Factory = Callable[[], asyncio.AbstractEventLoop]
MANY = "".join(f"many IN SRV {n} 0 5060 a-rather-long-name-number-{n}\n" for n in range(60))
RECORDS = (
    """
@ 900 IN NAPTR 50 10 "s" "SIPS+D2T" "" _sips._tcp
@ 900 IN NAPTR 90 10 "S" "SIP+D2U" "" _sip._udp.Other.Test.
_sip._udp 120 IN SRV 1 2 5070 Host
none IN SRV 0 0 0 .
host 30 IN A 127.0.0.9
host 30 IN A 127.0.0.8
host IN AAAA ::1
odd IN AAAA fe80::1
odd IN A 0.0.0.0
alias1 200 IN CNAME alias2
alias2 10 IN CNAME host
loop1 IN CNAME loop2
loop2 IN CNAME loop1
"""
    + MANY
)


@pytest.fixture(scope="module")
def nsd(module_crew: Crew) -> Nsd:
    return Nsd(module_crew, RECORDS, negative=7)


class Asking:
    """A resolver in a loop."""

    def __init__(self, settings: Settings, **files: Any) -> None:
        self._answers: dict[Lookup, asyncio.Future[Answer]] = {}
        loop = asyncio.get_running_loop()
        files = {"hosts": "/nonexistent", "resolv_conf": "/nonexistent"} | files
        self.resolver = Resolver(loop, settings, self._answered, **files)

    def _answered(self, lookup: Lookup, answer: Answer) -> None:
        self._answers.pop(lookup).set_result(answer)

    async def ask(self, kind: str, name: str) -> Answer:
        lookup = Lookup(kind, name)
        self._answers[lookup] = future = asyncio.get_running_loop().create_future()
        self.resolver.ask(lookup)
        async with asyncio.timeout(PATIENCE):
            return await future


@asynccontextmanager
async def asking(*servers: str, **more: Any) -> AsyncIterator[Asking]:
    settings = Settings()
    settings.dns_servers = list(servers)
    for name in ("dns_retr_time", "dns_retr_no", "dns_use_search_list"):
        if name in more:
            setattr(settings, name, more.pop(name))
    box = Asking(settings, **{name: str(path) for name, path in more.items()})
    yield box
    await box.resolver.close()


def run(main: Callable[[], Any], factory: Factory = uvloop.new_event_loop) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


# -- records --------------------------------------------------------------------------------------


@pytest.mark.rfc("DNS-02", "DNS-03", "DNS-09")
@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_records_of_all_kinds_and_their_ttl(nsd: Nsd, factory: Factory) -> None:
    async def main() -> None:
        async with asking(nsd.server) as dns:
            answer = await dns.ask(NAPTR, "example.test")
            assert sorted(answer.records) == [
                Naptr(50, 10, "s", "SIPS+D2T", "", "_sips._tcp.example.test"),
                Naptr(90, 10, "S", "SIP+D2U", "", "_sip._udp.other.test"),
            ]
            assert answer.ttl == 900
            answer = await dns.ask(SRV, "_sip._udp.example.test")
            assert answer.records == (Srv(1, 2, 5070, "host.example.test"),)
            assert (await dns.ask(SRV, "none.example.test")).records[0].target == "."
            answer = await dns.ask(A, "host.example.test")
            assert sorted(answer.records) == ["127.0.0.8", "127.0.0.9"]
            assert answer.ttl == 30
            assert (await dns.ask(AAAA, "host.example.test")).records == ("::1",)

    run(main, factory)


@pytest.mark.rfc("DNS-09")
def test_that_there_is_nothing_has_a_ttl_too(nsd: Nsd) -> None:
    async def main() -> None:
        async with asking(nsd.server) as dns:
            for kind, name in ((A, "no.example.test"), (NAPTR, "host.example.test")):
                answer = await dns.ask(kind, name)
                assert (answer.records, answer.ttl, answer.failed) == ((), 7, False)

    run(main)


@pytest.mark.rfc("DNS-09")
def test_other_names_of_a_host_and_names_that_go_round_in_circles(nsd: Nsd) -> None:
    async def main() -> None:
        async with asking(nsd.server) as dns:
            answer = await dns.ask(A, "alias1.example.test")
            assert sorted(answer.records) == ["127.0.0.8", "127.0.0.9"]
            assert answer.ttl == 10  # of the shortest-lived link
            assert (await dns.ask(A, "loop1.example.test")).records == ()

    run(main)


@pytest.mark.rfc("DNS-09")
def test_an_answer_that_is_too_big_for_a_datagram_comes_over_tcp(nsd: Nsd) -> None:
    async def main() -> None:
        async with asking(nsd.server) as dns:
            answer = await dns.ask(SRV, "many.example.test")
            assert [one.priority for one in sorted(answer.records)] == list(range(60))

    run(main)


def test_addresses_where_nothing_can_be_sent(nsd: Nsd) -> None:
    async def main() -> None:
        async with asking(nsd.server) as dns:
            assert (await dns.ask(A, "odd.example.test")).records == ()
            assert (await dns.ask(AAAA, "odd.example.test")).records == ()

    run(main)
    assert usable("192.0.2.1") == "192.0.2.1"
    assert usable("2001:DB8:0::1") == "2001:db8::1"
    assert [usable(text) for text in ("::", "224.0.0.1", "ff02::1", "fe80::1", "x")] == [None] * 5


# -- servers --------------------------------------------------------------------------------------


@pytest.mark.rfc("DNS-09")
def test_a_server_that_refuses_and_one_that_is_silent(nsd: Nsd) -> None:
    async def main() -> None:
        async with asking(nsd.server) as dns:
            assert (await dns.ask(A, "host.other.test")).failed  # not its zone
        with udp_peer() as silent:
            server = f"127.0.0.1:{silent.getsockname()[1]}"
            async with asking(server, dns_retr_time=0.05, dns_retr_no=3) as dns:
                assert (await dns.ask(A, "host.example.test")).failed
            questions = 0
            silent.setblocking(False)
            try:
                while silent.recv(2048):
                    questions += 1
            except BlockingIOError:
                assert 1 < questions <= 4
            async with asking(server, nsd.server, dns_retr_time=0.2) as dns:
                assert len((await dns.ask(A, "host.example.test")).records) == 2

    run(main)


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    with udp_peer() as silent:
        silent.setblocking(False)

        async def main() -> None:
            async with asking(resolv_conf=conf, dns_retr_time=0.05, dns_retr_no=0) as dns:
                assert (await dns.ask(A, "a.example.test")).failed  # no such file
                conf.write_text("nameserver 127.0.0.1\nsearch one.test two.test\noptions ndots:2\n")
                resolver = dns.resolver._resolver()
                assert resolver is not None
                assert [str(name) for name in resolver.search] == ["one.test.", "two.test."]
                assert dns.resolver._resolver() is resolver
                conf.write_text("nameserver 127.0.0.2\n")
                again = dns.resolver._resolver()
                assert again is not None
                assert again is not resolver
                assert again.nameservers == ["127.0.0.2"]

        run(main)


def test_short_names_are_completed_and_whole_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dns.asyncresolver import Resolver as DnsResolver
    from dns.exception import Timeout

    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nsearch one.test\n")
    asked: list[tuple[str, bool]] = []

    async def resolve(self: object, name: str, kind: str, *, search: bool, **_: Any) -> None:
        asked.append((name, search))
        raise Timeout

    monkeypatch.setattr(DnsResolver, "resolve", resolve)

    async def main() -> None:
        async with asking(resolv_conf=conf) as dns:
            for name in ("core", "_sip._udp.core", "core.example.test"):
                await dns.ask(A, name)
        async with asking(resolv_conf=conf, dns_use_search_list=False) as dns:
            await dns.ask(A, "core")

    run(main)
    assert asked == [
        ("core", True), ("_sip._udp.core", True), ("core.example.test.", False), ("core.", False),
    ]  # fmt: skip


# -- /etc/hosts -----------------------------------------------------------------------------------


@pytest.mark.rfc("DNS-09")
def test_what_the_hosts_file_says_counts_and_nobody_is_asked(tmp_path: Path, nsd: Nsd) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "# a comment\n192.0.2.1 Core.Example.Test core # and another\n\n2001:db8::1 core\n"
        "192.0.2.2 core\nnonsense core\nfe80::1%eth0 core\n"
    )

    async def main() -> None:
        async with asking(hosts=hosts) as dns:  # there is no DNS server to ask
            answer = await dns.ask(A, "core")
            assert (answer.records, answer.ttl) == (("192.0.2.1", "192.0.2.2"), HOSTS_TTL)
            assert (await dns.ask(AAAA, "core")).records == ("2001:db8::1",)
            for kind, name in ((NAPTR, "core.example.test"), (SRV, "_sip._udp.core.example.test")):
                answer = await dns.ask(kind, name)
                assert (answer.records, answer.failed) == ((), False)
            hosts.write_text("192.0.2.9 core\n")
            os.utime(hosts, ns=(1, 1))
            assert (await dns.ask(A, "core")).records == ("192.0.2.9",)
        async with asking(nsd.server, hosts=hosts) as dns:
            assert len((await dns.ask(A, "host.example.test")).records) == 2

    run(main)


def test_localhost_needs_no_file() -> None:
    async def main() -> None:
        async with asking() as dns:
            assert (await dns.ask(A, "localhost")).records == ("127.0.0.1",)
            assert (await dns.ask(AAAA, "sip.localhost")).records == ("::1",)
            assert (await dns.ask(SRV, "_sip._udp.localhost")).records == ()

    run(main)


def test_host_of() -> None:
    assert host_of("_sip._udp.a.example") == "a.example"
    assert host_of("a_b.example") == "a_b.example"
    assert host_of("_x") == "_x"


# -- the end --------------------------------------------------------------------------------------


def test_closing_gives_up() -> None:
    async def main() -> None:
        with udp_peer() as silent:
            async with asking(f"127.0.0.1:{silent.getsockname()[1]}", dns_retr_time=60.0) as dns:
                waiting = asyncio.ensure_future(dns.ask(A, "slow.example.test"))
                while True:
                    await asyncio.sleep(0.01)
                    try:
                        silent.setblocking(False)
                        silent.recv(2048)
                        break
                    except BlockingIOError:
                        continue
            waiting.cancel()

    run(main)


def test_whoever_waits_hears_of_our_mistakes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with asking("127.0.0.1:1") as dns:
            monkeypatch.setattr(dns.resolver, "_resolver", lambda: 1 / 0)
            assert (await dns.ask(A, "a.example.test")).failed

    with caplog.at_level(logging.ERROR):
        run(main)
    assert "ZeroDivisionError" in caplog.text


def test_no_port_of_its_own_stays_open(nsd: Nsd) -> None:
    def sockets() -> int:
        count = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
            except OSError:
                continue
        return count

    async def main() -> None:
        async with asking(nsd.server) as dns:
            await dns.ask(A, "host.example.test")
            before = sockets()
            for _ in range(20):
                await dns.ask(A, "host.example.test")
                await dns.ask(SRV, "many.example.test")
            await asyncio.sleep(0.05)
            assert sockets() <= before + 2

    if not socket.has_ipv6 or not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    run(main)
