"""RFC 3263 and RFC 2782, with a zone in a dict."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from sipedge import locate
from sipedge.blocklist import Blocklist
from sipedge.flow import TCP, TLS, UDP, WS, FlowTable, Listener
from sipedge.forward import Hop, HopCache, Place
from sipedge.locate import Locator, by_weight
from sipedge.lookups import Answer, Lookups, Naptr, Srv
from sipedge.settings import Settings
from tests.builds import change

U, T, S = "_sip._udp.", "_sip._tcp.", "_sips._tcp."


def naptr(order: int, service: str, to: str, preference: int = 50, flags: str = "s") -> Naptr:
    return Naptr(order, preference, flags, service, "", to)


class Dns(Settings):
    """A locator, and the questions that it asked of ``zone``."""

    def __init__(self, *transports: int, v6: bool = False) -> None:
        self.now = 1000.0
        self.zone: dict[tuple[str, str], tuple[Any, ...]] = {}
        self.ttl: dict[tuple[str, str], float] = {}
        self.asked: list[tuple[str, str]] = []
        self.flows = FlowTable()
        for transport in transports or (UDP, TCP, TLS):
            self.flows.add_listener(Listener(transport, "192.0.2.10", 5060))
            if v6:
                self.flows.add_listener(Listener(transport, "2001:db8::10", 5060))
        self.lookups = Lookups(self)
        self.blocklist = Blocklist()
        random = Random(3263)
        self.locator = Locator(
            self, self.lookups, self.flows, self.blocklist, lambda most: random.randint(0, most)
        )
        self.uris = HopCache()

    def a(self, name: str, *addresses: str) -> None:
        self.zone["A", name] = addresses

    def srv(self, name: str, *records: tuple[int, int, int, str]) -> None:
        self.zone["SRV", name] = tuple(Srv(*record) for record in records)

    def find(self, uri: str | Place) -> list[Hop]:
        place = uri if isinstance(uri, Place) else self.uris.of_uri(uri.encode())
        if not isinstance(place, Place):
            return [place]
        found: list[list[Hop]] = []
        self.asked = []
        self.locator.locate(place, found.append)
        while lookups := self.lookups.drain():
            for lookup in lookups:
                key = lookup.kind, lookup.name
                self.asked.append(key)
                answer = Answer(self.zone.get(key, ()), self.ttl.get(key, 60.0))
                self.lookups.answer(lookup, answer)
        (hops,) = found
        return hops


@pytest.fixture
def dns() -> Dns:
    return Dns()


# -- transport, numeric host, port ----------------------------------------------------------------


@pytest.mark.rfc("DNS-01")
@pytest.mark.parametrize(
    ("uri", "hop"),
    [
        ("sip:192.0.2.1", (UDP, "192.0.2.1", 5060)),
        ("sip:192.0.2.1:5070", (UDP, "192.0.2.1", 5070)),
        ("sip:192.0.2.1;transport=tcp", (TCP, "192.0.2.1", 5060)),
        ("sip:192.0.2.1;transport=TLS", (TLS, "192.0.2.1", 5061)),
        ("sips:192.0.2.1", (TLS, "192.0.2.1", 5061)),
        ("sips:192.0.2.1:5071;transport=tcp", (TLS, "192.0.2.1", 5071)),
        ("sip:[2001:db8:0::1]", (UDP, "2001:db8::1", 5060)),
        ("sip:a.example;maddr=192.0.2.9", (UDP, "192.0.2.9", 5060)),
    ],
)
def test_a_number_needs_no_dns(dns: Dns, uri: str, hop: tuple[int, str, int]) -> None:
    (found,) = dns.find(uri)
    assert found[:3] == hop
    assert dns.asked == []


@pytest.mark.rfc("DNS-01", "DNS-04")
@pytest.mark.parametrize(
    ("uri", "transport", "port"),
    [
        ("sip:a.example:5060", UDP, 5060),
        ("sip:a.example:5070;transport=tcp", TCP, 5070),
        ("sips:a.example:5061", TLS, 5061),
    ],
)
def test_a_port_means_addresses_only(dns: Dns, uri: str, transport: int, port: int) -> None:
    dns.a("a.example", "192.0.2.1", "192.0.2.2")
    dns.srv(U + "a.example", (0, 0, 9, "wrong.example"))
    assert dns.find(uri) == [(transport, f"192.0.2.{n}", port, "a.example") for n in (1, 2)]
    assert dns.asked == [("A", "a.example")]


@pytest.mark.rfc("DNS-01")
@pytest.mark.parametrize(
    ("uri", "head", "transport", "port"),
    [
        ("sip:a.example;transport=udp", U, UDP, 5060),
        ("sip:a.example;transport=tcp", T, TCP, 5060),
        ("sip:a.example;transport=tls", S, TLS, 5061),
        ("sips:a.example;transport=tcp", S, TLS, 5061),
    ],
)
def test_a_transport_parameter_wins(
    dns: Dns, uri: str, head: str, transport: int, port: int
) -> None:
    dns.zone["NAPTR", "a.example"] = (naptr(1, "SIP+D2U", "wrong.example"),)
    dns.a("a.example", "192.0.2.1")
    assert dns.find(uri) == [(transport, "192.0.2.1", port, "a.example")]
    assert dns.asked == [("SRV", head + "a.example"), ("A", "a.example")]
    dns.locator.flush()
    dns.lookups.flush()
    dns.srv(head + "a.example", (0, 0, 5099, "a.example"))
    assert dns.find(uri) == [(transport, "192.0.2.1", 5099, "a.example")]


def test_the_name_is_that_of_the_uri_and_not_what_dns_made_of_it(dns: Dns) -> None:
    """RFC 5922 §7.3 (requirement TLS-01): what the certificate has to say."""
    dns.zone["NAPTR", "a.example"] = (naptr(1, "SIPS+D2T", S + "other.example"),)
    dns.srv(S + "other.example", (0, 0, 5061, "host.third.example"))
    dns.a("host.third.example", "192.0.2.1")
    assert dns.find("sip:a.example") == [(TLS, "192.0.2.1", 5061, "a.example")]


# -- NAPTR ----------------------------------------------------------------------------------------


def school(dns: Dns) -> None:
    """The example of RFC 3263 §4.1, and a record of RFC 7118 §8.1."""
    dns.zone["NAPTR", "a.example"] = (
        naptr(90, "SIP+D2T", T + "b.example"),
        naptr(20, "SIP+D2W", "_ws._tcp.b.example"),
        naptr(100, "sip+d2u", U + "b.example"),
        naptr(50, "SIPS+D2T", S + "b.example"),
        naptr(10, "SIP+D2S", "_sip._sctp.b.example"),
        naptr(5, "SIPS+D2U", "_sips._udp.b.example"),
        naptr(6, "SIP+D2U", "b.example", flags="a"),
        Naptr(7, 0, "s", "SIP+D2U", "!.*!x!", ""),
    )
    for head, port in ((S, 5061), (T, 5062), (U, 5063)):
        dns.srv(head + "b.example", (0, 0, port, "host.b.example"))
    dns.a("host.b.example", "192.0.2.1")


@pytest.mark.rfc("DNS-02")
@pytest.mark.parametrize(
    ("ours", "expected"),
    [((UDP, TCP, TLS), (TLS, 5061)), ((UDP, TCP, WS), (TCP, 5062)), ((UDP,), (UDP, 5063))],
)
def test_naptr_says_which_transport_of_ours(
    ours: tuple[int, ...], expected: tuple[int, int]
) -> None:
    dns = Dns(*ours)
    school(dns)
    assert [(hop[0], hop[2]) for hop in dns.find("sip:a.example")] == [expected]
    assert [kind for kind, _ in dns.asked] == ["NAPTR", "SRV", "A"]


@pytest.mark.rfc("DNS-02")
def test_of_one_order_the_next_service_is_tried_after_the_first(dns: Dns) -> None:
    dns.zone["NAPTR", "a.example"] = (
        naptr(10, "SIP+D2U", U + "a.example", 30),
        naptr(10, "SIP+D2T", T + "a.example", 20),
        naptr(20, "SIPS+D2T", S + "a.example", 10),
    )
    for head in (U, T, S):
        dns.srv(head + "a.example", (0, 0, 5060, "h.example"))
    dns.a("h.example", "192.0.2.1")
    assert [hop[0] for hop in dns.find("sip:a.example")] == [TCP, UDP]


@pytest.mark.rfc("DNS-02")
def test_sips_takes_nothing_but_sips(dns: Dns) -> None:
    school(dns)
    assert [hop[0] for hop in dns.find("sips:a.example")] == [TLS]
    dns = Dns(UDP, TCP)  # nothing that could speak TLS
    school(dns)
    dns.a("a.example", "192.0.2.1")
    assert dns.find("sips:a.example") == []
    dns = Dns()
    dns.zone["NAPTR", "a.example"] = (naptr(1, "SIP+D2T", T + "a.example"),)
    dns.srv(T + "a.example", (0, 0, 5060, "h.example"))
    dns.a("h.example", "192.0.2.1")
    dns.a("a.example", "192.0.2.2")
    assert dns.find("sips:a.example") == [(TLS, "192.0.2.2", 5061, "a.example")]
    assert ("SRV", T + "a.example") not in dns.asked


def test_naptr_can_be_switched_off(dns: Dns) -> None:
    school(dns)
    dns.dns_try_naptr = False
    dns.a("a.example", "192.0.2.7")
    assert dns.find("sip:a.example") == [(UDP, "192.0.2.7", 5060, "a.example")]
    assert ("NAPTR", "a.example") not in dns.asked


# -- SRV ------------------------------------------------------------------------------------------


@pytest.mark.rfc("DNS-03")
def test_without_naptr_srv_for_each_transport_then_addresses(dns: Dns) -> None:
    dns.a("a.example", "192.0.2.1")
    assert dns.find("sip:a.example") == [(UDP, "192.0.2.1", 5060, "a.example")]
    assert dns.asked == [
        ("NAPTR", "a.example"), ("SRV", U + "a.example"), ("SRV", T + "a.example"),
        ("A", "a.example"),
    ]  # fmt: skip
    assert dns.find("sips:a.example") == [(TLS, "192.0.2.1", 5061, "a.example")]
    assert dns.asked == [("SRV", S + "a.example")]  # the rest is known
    dns.srv(T + "b.example", (0, 0, 5066, "a.example"))
    assert dns.find("sip:b.example") == [(TCP, "192.0.2.1", 5066, "b.example")]


@pytest.mark.rfc("DNS-03")
def test_a_service_that_is_not_offered_is_not_replaced_by_addresses(dns: Dns) -> None:
    dns.srv(U + "a.example", (0, 0, 0, "."))
    dns.a("a.example", "192.0.2.1")
    assert dns.find("sip:a.example;transport=udp") == []
    assert dns.find("sip:a.example") == []
    dns.locator.flush()
    dns.lookups.flush()
    dns.srv(T + "a.example", (0, 0, 5060, "a.example"))
    assert [hop[0] for hop in dns.find("sip:a.example")] == [TCP]


@pytest.mark.rfc("DNS-03", "DNS-05")
def test_priorities_come_in_order(dns: Dns) -> None:
    dns.srv(
        U + "a.example",
        (30, 0, 3, "h3.example"), (10, 0, 1, "h1.example"), (20, 0, 2, "h2.example"),
        (15, 0, 9, "nowhere.example"),
    )  # fmt: skip
    for n in (1, 2, 3):
        dns.a(f"h{n}.example", f"192.0.2.{n}", f"198.51.100.{n}")
    hops = dns.find("sip:a.example")
    assert [(hop[1], hop[2]) for hop in hops] == [
        ("192.0.2.1", 1), ("198.51.100.1", 1), ("192.0.2.2", 2), ("198.51.100.2", 2),
        ("192.0.2.3", 3), ("198.51.100.3", 3),
    ]  # fmt: skip


@pytest.mark.rfc("DNS-05")
def test_weights_share_the_load(dns: Dns) -> None:
    dns.srv(
        U + "a.example",
        (10, 60, 1, "h1.example"), (10, 30, 2, "h2.example"), (10, 10, 3, "h3.example"),
        (10, 0, 4, "h4.example"),
    )  # fmt: skip
    for n in (1, 2, 3, 4):
        dns.a(f"h{n}.example", f"192.0.2.{n}")
    firsts: Counter[int] = Counter()
    for _ in range(4000):
        hops = dns.find("sip:a.example")
        assert sorted(hop[2] for hop in hops) == [1, 2, 3, 4]
        firsts[hops[0][2]] += 1
    assert 2200 < firsts[1] < 2600
    assert 1050 < firsts[2] < 1350
    assert 300 < firsts[3] < 500
    assert 0 < firsts[4] < 100  # RFC 2782: a very small chance


def test_without_weights_everybody_has_a_turn() -> None:
    random = Random(1)
    servers: list[tuple[int, list[Hop]]] = [
        (0, [(UDP, f"192.0.2.{n}", 5060, "")]) for n in range(3)
    ]
    drawn = by_weight(servers, lambda most: random.randint(0, most))
    assert sorted(drawn) == servers


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.rfc("DNS-03")
def test_both_families_if_we_have_both() -> None:
    dns = Dns(UDP, v6=True)
    dns.a("a.example", "192.0.2.1")
    dns.zone["AAAA", "a.example"] = ("2001:db8::1",)
    assert [hop[1] for hop in dns.find("sip:a.example:5060")] == ["2001:db8::1", "192.0.2.1"]
    dns.dns_try_ipv6 = False
    dns.locator.flush()
    assert [hop[1] for hop in dns.find("sip:a.example:5060")] == ["192.0.2.1"]
    dns = Dns(UDP)
    dns.zone["AAAA", "a.example"] = ("2001:db8::1",)
    assert dns.find("sip:a.example:5060") == []
    assert dns.asked == [("A", "a.example")]


def test_a_place_with_a_numeric_host_is_where_it_says(dns: Dns) -> None:
    """RFC 3263 §5: the sent-by of a Via."""
    assert dns.find(Place("192.0.2.1", 0, TCP)) == [(TCP, "192.0.2.1", 5060, "192.0.2.1")]
    assert dns.find(Place("192.0.2.1", 5070, TLS)) == [(TLS, "192.0.2.1", 5070, "192.0.2.1")]


# -- what is remembered, and bounds ---------------------------------------------------------------


@pytest.mark.rfc("DNS-09")
def test_a_location_lives_as_long_as_the_shortest_of_its_records(dns: Dns) -> None:
    school(dns)
    dns.ttl = {("NAPTR", "a.example"): 900.0, ("SRV", S + "b.example"): 300.0}
    dns.ttl["A", "host.b.example"] = 30.0
    first = dns.find("sip:a.example")
    dns.a("host.b.example", "192.0.2.99")
    dns.now += 29.0
    assert dns.find("sip:alice@a.example") == first
    assert dns.asked == []
    dns.now += 2.0
    assert dns.find("sip:a.example") == [(TLS, "192.0.2.99", 5061, "a.example")]
    assert dns.asked == [("A", "host.b.example")]
    dns.now += 300.0
    dns.find("sip:a.example")
    assert dns.asked == [("SRV", S + "b.example"), ("A", "host.b.example")]


@pytest.mark.rfc("DNS-09")
def test_nothing_is_remembered_too(dns: Dns) -> None:
    assert dns.find("sip:nobody.example") == []
    assert len(dns.asked) == 4
    dns.now += 50.0
    assert dns.find("sip:nobody.example") == []
    assert dns.asked == []


@pytest.mark.rfc("DNS-09")
@pytest.mark.parametrize("host", ["x1y2.invalid", "1.2.3", "a" * 64, "a..example"])
def test_what_cannot_exist_costs_nothing(dns: Dns, host: str) -> None:
    assert dns.find(f"sip:{host}") == []
    assert dns.asked == []


@pytest.mark.rfc("DNS-09")
def test_the_fan_out_is_bounded(dns: Dns) -> None:
    heads = [f"_sip{n}._udp.a.example" for n in range(30)]
    dns.zone["NAPTR", "a.example"] = tuple(naptr(1, "SIP+D2U", head) for head in heads)
    for at, head in enumerate(heads):
        dns.srv(head, *((n, 0, 5060, f"h{at}-{n}.example") for n in range(100)))
        for n in range(100):
            dns.a(f"h{at}-{n}.example", *(f"10.{at}.{n}.{i}" for i in range(1, 100)))
    hops = dns.find("sip:a.example")
    assert len(hops) == locate.MOST_HOPS
    kinds = Counter(kind for kind, _ in dns.asked)
    assert kinds == {"NAPTR": 1, "SRV": locate.MOST_SERVICES, "A": locate.MOST_SERVERS}


@pytest.mark.rfc("DNS-09")
def test_srv_records_that_point_to_each_other_are_followed_once(dns: Dns) -> None:
    dns.srv(U + "a.example", (0, 0, 5060, U + "a.example"))
    dns.zone["NAPTR", "a.example"] = (naptr(1, "SIP+D2U", U + "a.example"),)
    assert dns.find("sip:a.example") == []
    assert len(dns.asked) == 3


def test_locations_are_bounded(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, Locator, "MAX", 10)
    for n in range(25):
        dns.find(f"sip:{n}.example")
    assert len(dns.locator._known) <= 10


@pytest.mark.rfc("DNS-08")
def test_failed_servers_come_last(dns: Dns) -> None:
    dns.a("a.example", "192.0.2.1", "192.0.2.2")
    first, second = dns.find("sip:a.example")
    dns.blocklist.failed(first, dns.now + 60.0)
    assert dns.find("sip:a.example") == [second, first]
    dns.now += 61.0
    assert dns.find("sip:a.example") == [first, second]
