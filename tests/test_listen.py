"""The texts of listen and alias lines, alone and in a configuration."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sipedge.config import load_source
from sipedge.errors import ConfigError
from sipedge.flow import TCP, Listener
from sipedge.listen import expand, parse_advertise, parse_alias, parse_listen, parse_proxies

ROUTE = "def request_route(ksr, msg): pass\n"
LISTEN = 'listen("udp:127.0.0.1:5060")\n'


def refused(text: str, line: int) -> str:
    with pytest.raises(ConfigError) as caught:
        load_source(text, "edge.py")
    assert (caught.value.file, caught.value.line) == ("edge.py", line)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("udp:127.0.0.1:5060", (1, "127.0.0.1", 5060)),
        ("udp:127.0.0.1", (1, "127.0.0.1", 5060)),
        ("TCP:127.0.0.1:0", (2, "127.0.0.1", 0)),
        ("tcp:[::1]:5070", (2, "::1", 5070)),
        ("udp:[2001:DB8:0::1]", (1, "2001:db8::1", 5060)),
        ("udp:[FE80::1%eth0]", (1, "fe80::1%eth0", 5060)),
        ("udp:[::ffff:127.0.0.1]", (1, "127.0.0.1", 5060)),
    ],
)
def test_listen_texts(text: str, parsed: tuple[int, str, int]) -> None:
    assert parse_listen(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("", "127.0.0.1:5060", "udp", "udp:", "sctp:127.0.0.1", "tls:127.0.0.1:5061", "udp:::1"),
        *("udp:localhost:5060", "udp:127.0.0.1:x", "udp:127.0.0.1:65536", "udp:127.0.0.1:-1"),
        *("udp:127.0.0.1:", "udp:[::1", "udp:[::1]5060", "udp:[fe80::1]:5060", "udp:127.1"),
        *("udp:[::1%lo]:5060", "tcp:[2001:db8::1%eth0]"),
        *("udp:127.0.0.1:5060 ", "udp:127.0.0.1:\u0665"),
    ],
)
def test_listen_texts_that_are_refused(text: str) -> None:
    refused(ROUTE + f"listen({text!r})\n", 2)


def test_the_same_address_twice_is_refused_but_free_ports_are_not() -> None:
    assert "already" in refused(LISTEN + ROUTE + LISTEN, 3)
    load_source(ROUTE + 'listen("udp:127.0.0.1:0")\nlisten("udp:127.0.0.1:0")\n')
    load_source(LISTEN + ROUTE + 'listen("tcp:127.0.0.1:5060")\n')


@pytest.mark.parametrize("text", ["x y", "ex_ample.com", "-x", "", "a..b", "example.com:99999"])
def test_names_that_are_no_hosts_are_refused(text: str) -> None:
    refused(LISTEN + ROUTE + f"alias({text!r})\n", 3)
    refused(ROUTE + f"listen('udp:127.0.0.1:5060', advertise={text!r})\n", 2)


def test_alias_texts() -> None:
    assert parse_alias("EXAMPLE.com") == ("example.com", None)
    assert parse_alias("[2001:db8::1]:5080") == ("2001:db8::1", 5080)


def test_wildcards_become_concrete_addresses() -> None:
    local = ["127.0.0.1", "192.0.2.1", "::1", "fe80::1%eth0", "2001:db8::1", "192.0.2.1"]
    text = ROUTE + 'listen("udp:0.0.0.0:5060")\nlisten("tcp:[::]:5062", advertise="edge.test")\n'
    edge = load_source(text, "edge.py", local_addresses=lambda: local)
    assert [listener.name for listener in edge.config.listeners] == [
        "udp:127.0.0.1:5060",
        "udp:192.0.2.1:5060",
        "tcp:[::1]:5062",
        "tcp:[2001:db8::1]:5062",
    ]
    assert edge.config.listeners[3].uri_hostport == b"edge.test:5062"


def test_wildcards_that_stand_for_nothing_are_refused() -> None:
    text = ROUTE + 'listen("udp:[::]:5060")\n'
    assert "not known" in refused(text, 2)
    with pytest.raises(ConfigError, match="no such address"):
        load_source(text, "edge.py", local_addresses=lambda: ["127.0.0.1"])
    assert expand("::", []) == []


def test_advertise_texts() -> None:
    assert parse_advertise("edge.example.com") == ("edge.example.com", None)
    assert parse_advertise("Edge.example.com:5070") == ("Edge.example.com", 5070)
    assert parse_advertise("[2001:db8::1]:5070") == ("2001:db8::1", 5070)


@pytest.mark.parametrize("parse", [parse_listen, parse_advertise, parse_alias])
@pytest.mark.parametrize("value", [None, 5060, b"udp:127.0.0.1:5060", ("udp", "127.0.0.1")])
def test_only_texts_are_taken(parse: Callable[[object], object], value: object) -> None:
    with pytest.raises(ConfigError, match="takes a text"):
        parse(value)


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ((), []),
        ("192.0.2.7", ["192.0.2.7"]),
        (["10.0.0.0/8", "2001:db8::/32"], ["10.255.0.1", "2001:db8::7", "::ffff:10.0.0.1"]),
    ],
)
def test_load_balancers(value: object, hosts: list[str]) -> None:
    listener = Listener(TCP, "127.0.0.1", 5060, proxies=parse_proxies(value))
    assert all(listener.is_proxy(host) for host in hosts)
    assert not listener.is_proxy("192.0.2.8")
    assert not listener.is_proxy("2001:db9::1")


@pytest.mark.parametrize("value", ["10.0.0.1/8", "lb.example.com", 7, ["10.0.0.0/8", 7], [""], ""])
def test_load_balancers_that_are_refused(value: object) -> None:
    refused(ROUTE + f"listen('tcp:127.0.0.1:0', proxy_protocol={value!r})\n", 2)
