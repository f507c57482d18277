"""What ``save`` does besides the rules of the RFCs: flags, codes, answers, flows of plain UAs."""

from __future__ import annotations

from typing import Any

import pytest

from registrar_plugin.save import NO_REPLY, PREPARE_REPLY
from sipedge.flow import CLOSED
from sipedge.sip.message import SipMessage, parse
from tests.registrar_plugin.home import (
    EDGE1,
    EDGE2,
    Home,
    contacts,
    outbound_contact,
    register_text,
    why,
)

BOB = "<sip:bob@10.0.0.9>"


def test_codes() -> None:
    home = Home()
    codes = []
    for values in ((BOB,), (BOB,), (), (f"{BOB};expires=0",), (f"{BOB};expires=0",), ("tel:1",)):
        home.register(*values)
        codes.append(home.code)
    assert codes == [1, 2, 4, 3, 1, -1]
    assert home.core.stats["accepted_regs"] == 5
    assert home.core.stats["rejected_regs"] == 1


def test_the_code_is_that_of_the_last_contact() -> None:
    home = Home()
    home.register(BOB)
    home.register("<sip:new@10.0.0.1>", f"{BOB};expires=0")
    assert home.code == 3
    home.register(f"{BOB};expires=0", "<sip:new@10.0.0.1>")
    assert home.code == 2


def test_one_answer_whatever_the_route_does_afterwards() -> None:
    home = Home()

    def route(ksr: object, msg: SipMessage) -> None:
        home.route(ksr, msg)
        home.core.reply(msg, 500, b"Server Internal Error")

    home.core.request_route = route
    # Home.send checks that there is one answer
    assert home.register(outbound_contact(), path=()).status == 439
    assert home.register(outbound_contact()).status == 200


def test_flag_no_reply_and_the_prepared_answer() -> None:
    home = Home()
    results: list[Any] = []

    def route(ksr: object, msg: SipMessage) -> None:
        results.append(home.registrar.reg_send_reply(msg))
        results.append(home.registrar.save(msg, flags=NO_REPLY | PREPARE_REPLY))
        results.append(home.registrar.reg_send_reply(msg))
        results.append(home.registrar.reg_send_reply(msg))

    home.core.request_route = route
    answer = home.register(BOB)
    assert contacts(answer) == [f"{BOB};expires=3600".encode()]
    assert results == [-1, 1, 1, -1]
    results.clear()
    assert home.register("<mailto:bob@example.com>").status == 403
    assert results == [-1, -1, 1, -1]


def test_flag_no_reply_alone_sends_nothing() -> None:
    home = Home()
    home.flags = NO_REPLY
    home.core.receive(register_text(BOB, cseq=1), home.edge, home.now)
    assert home.core.sends() == []
    assert len(home.bindings()) == 1


def test_flag_only_this_contact() -> None:
    home = Home()
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    home.flags = 0x04
    answer = home.register(BOB)
    assert contacts(answer) == [f"{BOB};expires=3600".encode()]
    home.register(outbound_contact(1))
    assert [binding.reg_id for binding in home.bindings()] == [1]


@pytest.mark.parametrize("flags", [-1, 0x20])
def test_flags_that_do_not_exist(flags: int) -> None:
    home = Home()
    home.flags = flags
    assert home.register(BOB).status == 500
    assert home.core.stats["exceptions"] == 1


def test_only_register_is_saved() -> None:
    home = Home()
    data = register_text(BOB, cseq=1).replace(b"REGISTER", b"OPTIONS")
    home.core.receive(data, home.edge, home.now)
    assert home.core.sends() == []
    assert home.code == -1
    assert home.bindings() == ()


def test_tables_are_apart() -> None:
    home = Home()
    home.core.request_route = lambda ksr, msg: home.registrar.save(msg, "other")
    home.register(BOB)
    assert home.lookup()[0] == -1
    assert len(home.registrar._location.table("other").fetch(b"bob@example.com", home.now)) == 1


def test_max_contacts_counts_what_will_be_there() -> None:
    home = Home(max_contacts=2)
    assert home.register(BOB, "<sip:b@10.0.0.2>").status == 200
    assert home.register("<sip:c@10.0.0.3>").status == 503
    assert home.register("<sip:c@10.0.0.3>", f"{BOB};expires=0").status == 200
    assert home.code == 3
    assert len(home.bindings()) == 2


def test_who_is_there_may_stay_when_the_limit_was_lowered() -> None:
    home = Home()
    home.register(BOB, "<sip:b@10.0.0.2>")
    home.registrar.params.max_contacts = 1
    assert home.register(BOB).status == 200
    assert home.register("<sip:c@10.0.0.3>").status == 503


def test_a_request_with_very_many_contacts_is_refused() -> None:
    home = Home(max_contacts=0)
    many = [f"<sip:b@10.0.0.{n}>" for n in range(101)]
    assert home.register(*many).status == 400
    assert home.register(*many[1:]).status == 200
    assert len(home.bindings()) == 100


def test_one_contact_twice_in_one_request_is_one_binding() -> None:
    home = Home()
    answer = home.register(f"{BOB};expires=100", f"{BOB};expires=200")
    assert contacts(answer) == [f"{BOB};expires=200".encode()]
    home.register(f"{BOB};expires=100", f"{BOB};expires=0")
    assert home.bindings() == ()


def test_use_path_0_neither_stores_nor_shows_it_but_outbound_looks_at_it() -> None:
    home = Home(use_path=0)
    answer = home.register(outbound_contact())
    assert (answer.first(b"path"), answer.first(b"require")) == (None, b"outbound")
    assert [target.path for target in home.lookup()[1]] == [[]]
    assert home.register(outbound_contact(), path=()).status == 439


def test_contact_max_size() -> None:
    home = Home(contact_max_size=64)
    assert home.register(f"<sip:{'b' * 53}@10.0.0.9>").status == 400
    assert why(home.register(f"<sip:{'b' * 53}@10.0.0.9>")) == b"Contact is too long"
    assert home.register(f"<sip:{'b' * 51}@10.0.0.9>").status == 200


def test_received_param_shows_the_address_of_the_flow() -> None:
    home = Home(received_param="received")
    row = contacts(home.register(outbound_contact(), flow=home.udp("198.51.100.7", 40001)))[0]
    assert row.endswith(b';expires=3600;received="sip:198.51.100.7:40001"')
    row = contacts(home.register(outbound_contact(), flow=home.tcp("2001:db8::7", 40001)))[0]
    assert row.endswith(b';received="sip:[2001:db8::7]:40001;transport=tcp"')
    assert b"received" not in contacts(home.register(outbound_contact()))[0]


@pytest.mark.parametrize("received", [';received="sip:192.0.2.66:5060"', ";received=192.0.2.66"])
def test_received_of_the_client_does_not_route(received: str) -> None:
    home = Home()
    home.register(f"{BOB}{received}", path=())
    _, (target,) = home.lookup()
    assert (target.uri, target.dst_uri, target.flow) == (b"sip:bob@10.0.0.9", None, None)


# plain UAs that are directly connected

SOURCE = ("198.51.100.7", 40001)


@pytest.mark.parametrize(
    ("transport", "uri", "via_host", "on_flow"),
    [
        # behind a NAT: the UA calls itself so in Via, too, or nobody can reach what it says
        ("udp", "sip:bob@10.0.0.9:5060", "10.0.0.9", True),
        ("udp", "sip:bob@phone.lan", "phone.lan", True),
        ("udp", "sip:bob@192.168.1.5", "10.0.0.9", True),
        ("tcp", "sip:bob@abc.invalid;transport=ws", "xyz.invalid", True),
        ("udp", "sip:bob@[fd00::9]", "10.0.0.9", True),
        # somebody else is registered
        ("udp", "sip:bob@203.0.114.9:5060", "10.0.0.9", False),
        ("udp", "sip:bob@voicemail.example.com", "10.0.0.9", False),
        # no NAT: the UA means the port that it says
        ("udp", "sip:bob@198.51.100.7:40001", "198.51.100.7", True),
        ("udp", "sip:bob@198.51.100.7:5060", "198.51.100.7", False),
        ("udp", "sip:bob@198.51.100.7:40001;transport=tcp", "198.51.100.7", False),
        ("tcp", "sip:bob@198.51.100.7:5060;transport=tcp", "198.51.100.7", True),
        ("tcp", "sip:bob@198.51.100.7:5060", "198.51.100.7", False),
    ],
)
def test_when_a_plain_contact_is_called_over_the_flow(
    transport: str, uri: str, via_host: str, on_flow: bool
) -> None:
    home = Home()
    flow = home.udp(*SOURCE) if transport == "udp" else home.tcp(*SOURCE)
    assert home.register(f"<{uri}>", flow=flow, via_host=via_host).status == 200
    _, (target,) = home.lookup()
    assert target.flow is (flow if on_flow else None)


@pytest.mark.parametrize(
    ("contact", "via_host", "stays"),
    [
        ("<sip:bob@198.51.100.7:5060;transport=tcp>", "198.51.100.7", True),
        ("<sip:bob@198.51.100.7;transport=tcp>", "198.51.100.7", True),
        ("<sip:bob@198.51.100.7:40001;transport=tcp>", "198.51.100.7", False),
        ("<sip:bob@10.0.0.9:5060;transport=tcp>", "10.0.0.9", False),
        (outbound_contact(uri="sip:bob@198.51.100.7:5060;transport=tcp"), "198.51.100.7", False),
    ],
)
def test_a_plain_phone_that_listens_outlives_its_connection(
    contact: str, via_host: str, stays: bool
) -> None:
    home = Home()
    flow = home.tcp(*SOURCE)
    home.register(contact, flow=flow, via_host=via_host)
    assert [target.flow for target in home.lookup()[1]] == [flow]
    home.core.flow_closed(flow, "idle", home.now)
    assert [target.flow for target in home.lookup()[1]] == ([None] if stays else [])
    assert home.core.stats["contacts_lost_with_flow"] == (not stays)


def test_a_plain_contact_behind_a_proxy_without_path_is_called_by_its_uri() -> None:
    home = Home()
    home.register(BOB, path=())
    _, (target,) = home.lookup()
    assert (target.flow, target.path) == (None, [])


def test_a_ua_that_brings_its_own_path_is_called_along_it() -> None:
    home = Home()
    home.register(outbound_contact(), flow=home.udp(), path=(EDGE1,))
    _, (target,) = home.lookup()
    assert (target.flow, target.path) == (None, [EDGE1.encode()])


@pytest.mark.parametrize("known", [False, True])
def test_a_flow_that_closed_while_the_route_waited_is_not_stored(known: bool) -> None:
    home = Home()
    flow = home.tcp()
    if known:
        home.register(outbound_contact(), flow=flow)
        home.core.flow_closed(flow, "reset", home.now)
    msg = parse(register_text(outbound_contact(), cseq=5, path=(), vias=1))
    msg.flow, msg.now = flow, home.now
    flow.state = CLOSED
    assert home.registrar.save(msg) == -1
    assert home.bindings() == ()
