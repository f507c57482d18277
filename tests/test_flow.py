"""Flows: where they go, which listener they leave from, and those behind a load balancer."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from sipedge.flow import TCP, UDP, Behind, FlowTable, Listener, is_link_local, same_flow
from tests.builds import change

LB = ("10.0.0.1", 7001)
LB2 = ("10.0.0.1", 7002)
CLIENT = ("192.0.2.7", 5060)
OTHER = ("192.0.2.8", 5060)


@pytest.fixture
def listener() -> Listener:
    listener = Listener(UDP, "10.0.0.9", 5060, proxies=(ip_network("10.0.0.0/24"),))
    listener.index = 0
    return listener


def test_a_client_behind_a_load_balancer_is_one_flow(listener: Listener) -> None:
    behind = Behind()
    flow, over = behind.seen(listener, LB, CLIENT)
    assert (flow.remote, flow.via, over) == (CLIENT, LB, [])
    assert behind.seen(listener, LB, CLIENT) == (flow, [])
    assert behind.find(listener, CLIENT) is behind.at(listener, LB) is flow


@pytest.mark.rfc("OPS-07", "TOK-02")
def test_a_port_that_was_given_to_somebody_else(listener: Listener) -> None:
    behind = Behind()
    flow, _ = behind.seen(listener, LB, CLIENT)
    other, over = behind.seen(listener, LB, OTHER)
    assert over == [flow]
    assert other.remote == OTHER
    assert behind.find(listener, CLIENT) is None
    assert behind.at(listener, LB) is other


def test_a_client_that_was_moved_to_another_port(listener: Listener) -> None:
    behind = Behind()
    flow, _ = behind.seen(listener, LB, CLIENT)
    assert behind.seen(listener, LB2, CLIENT) == (flow, [])
    assert flow.via == LB2
    assert behind.at(listener, LB) is None
    # whoever gets the old port now does not end it
    assert behind.seen(listener, LB, OTHER)[1] == []
    assert behind.find(listener, CLIENT) is flow


def test_two_clients_that_change_places(listener: Listener) -> None:
    behind = Behind()
    flow, _ = behind.seen(listener, LB, CLIENT)
    other, _ = behind.seen(listener, LB2, OTHER)
    assert behind.seen(listener, LB2, CLIENT) == (flow, [other])
    assert behind.find(listener, OTHER) is None
    again, over = behind.seen(listener, LB, OTHER)
    assert over == []
    assert again is not other
    assert behind.find(listener, CLIENT) is flow


def test_a_closed_flow_is_made_anew(listener: Listener) -> None:
    table = FlowTable()
    flow, _ = table.behind.seen(listener, LB, CLIENT)
    table.closed(flow)
    again, over = table.behind.seen(listener, LB, CLIENT)
    assert again.alive
    assert again is not flow
    assert over == [flow]  # told twice does no harm: it is closed


def test_the_least_recent_one_makes_room(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch, Behind, "LIMIT", 3)
    behind = Behind()
    clients = [("192.0.2.7", port) for port in range(4)]
    flows = [
        behind.seen(listener, ("10.0.0.1", 7000 + port), (host, port))[0]
        for host, port in clients[:3]
    ]
    behind.seen(listener, ("10.0.0.1", 7000), clients[0])  # refreshed
    _, over = behind.seen(listener, ("10.0.0.1", 7003), clients[3])
    assert over == [flows[1]]
    assert behind.find(listener, clients[0]) is flows[0]


def test_the_table_knows_who_is_behind(listener: Listener) -> None:
    table = FlowTable()
    table.add_listener(listener)
    direct = table.udp(listener, OTHER)
    flow, _ = table.behind.seen(listener, LB, CLIENT)
    assert table.udp(listener, CLIENT) is flow
    assert table.udp(listener, OTHER) is direct
    assert direct.via is None
    assert not same_flow(flow, direct)


@pytest.mark.parametrize(
    ("host", "link"),
    [("fe80::1", True), ("FEBF::1", True), ("fec0::1", False), ("fe8::1", False), ("::1", False),
     ("2001:db8::1", False), ("127.0.0.1", False)],
)  # fmt: skip
def test_link_local_addresses(host: str, link: bool) -> None:
    assert is_link_local(host) is link


def test_a_zone_is_nobody_elses_business() -> None:
    listener = Listener(TCP, "fe80::1%eth0", 5060)
    assert (listener.address, listener.zone) == ("fe80::1", "eth0")
    assert listener.name == "tcp:[fe80::1%eth0]:5060"
    assert listener.sent_by == listener.uri_hostport == b"[fe80::1]:5060"
    assert Listener(TCP, "::1", 5060).zone == ""


def test_which_listener_reaches_whom() -> None:
    table = FlowTable()
    world, link, loop = (
        table.add_listener(Listener(UDP, host, 5060))
        for host in ("2001:db8::1", "fe80::1%eth0", "::1")
    )
    assert table.towards(UDP, "2001:db8::7", None) is world
    assert table.towards(UDP, "fe80::7", None) is link
    assert table.towards(UDP, "::1", None) is loop
    assert table.towards(UDP, "fe80::7", world) is link
    assert table.towards(UDP, "2001:db8::7", link) is world
    assert table.towards(UDP, "fe80::7", link) is link
    assert table.towards(UDP, "192.0.2.7", None) is None
