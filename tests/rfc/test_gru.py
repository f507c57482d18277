"""GRUUs (RFC 5627, requirements GRU-xx, S40): the registrar alone, and with edges and phones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from registrar_plugin.api import Binding
from sipedge.errors import SipError
from sipedge.module import Rc
from sipedge.sip.message import SipMessage, parse
from tests.registrar_plugin.home import (
    BOTH,
    EDGE1,
    EDGE2,
    EDGE_WITHOUT_OB,
    I1,
    I2,
    Home,
    contacts,
    outbound_contact,
    why,
)
from tests.world import KEY, Phone, World

GRUU = "Supported: path, outbound, gruu\r\n"
PUBLIC = f"sip:bob@example.com;gr={I1}"
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def gruus(row: bytes) -> tuple[str, str]:
    """The public and the temporary GRUU of a Contact; "" for what is not there."""
    public = re.search(rb';pub-gruu="([^"]+)"(?=;|$)', row)
    hidden = re.search(rb';temp-gruu="([^"]+)"(?=;|$)', row)
    return (public[1].decode() if public else "", hidden[1].decode() if hidden else "")


def offered(home: Home, *more: str, **how: Any) -> tuple[str, str]:
    """Register reg-id 1 of I1 and return its GRUUs."""
    answer = home.register(*(more or (outbound_contact(),)), **({"headers": GRUU} | how))
    assert answer.status == 200
    rows = [row for row in contacts(answer) if b"reg-id=1" in row and I1.encode() in row]
    return gruus(rows[0])


def rc_of(home: Home, uri: str, **how: str) -> Rc:
    return home.lookup(uri, **how)[0]


# the registrar


@pytest.mark.rfc("GRU-01")
def test_both_are_given_to_who_can_use_them() -> None:
    home = Home()
    public, hidden = offered(home)
    assert public == PUBLIC
    assert re.fullmatch(r"sip:tgruu\.[\w-]{107}@example\.com;gr", hidden)
    assert "bob" not in hidden


@pytest.mark.rfc("GRU-01")
@pytest.mark.parametrize(
    ("contact", "headers", "params"),
    [
        (outbound_contact(), BOTH, {}),
        (outbound_contact(), "Require: path, gruu\r\n", {}),
        ("<sip:bob@10.0.0.9>", GRUU, {}),
        ("<sip:bob@10.0.0.9>;reg-id=1", GRUU, {}),
        (outbound_contact(), GRUU, {"gruu_enabled": 0}),
    ],
)
def test_none_for_others(contact: str, headers: str, params: dict[str, Any]) -> None:
    (row,) = contacts(Home(**params).register(contact, headers=headers))
    assert gruus(row) == ("", "")


@pytest.mark.rfc("GRU-01")
def test_a_contact_that_goes_gets_none() -> None:
    home = Home()
    offered(home)
    home.register(outbound_contact(2), path=(EDGE2,), headers=GRUU)
    answer = home.register(outbound_contact(2, more=";expires=0"), headers=GRUU)
    (row,) = contacts(answer)
    assert gruus(row)[0] == PUBLIC
    assert b"reg-id=1" in row


@pytest.mark.rfc("GRU-01")
def test_require_gruu_is_known_but_not_when_it_is_off() -> None:
    headers = f"{GRUU}Require: gruu\r\n"
    assert Home().register(outbound_contact(), headers=headers).status == 200
    answer = Home(gruu_enabled=0).register(outbound_contact(), headers=headers)
    assert (answer.status, answer.first(b"unsupported")) == (420, b"gruu")


@pytest.mark.rfc("GRU-02")
def test_the_public_one_stays_whatever_happens() -> None:
    home = Home()
    seen = {offered(home)[0], offered(home)[0], offered(home, call_id="reboot")[0]}
    second = outbound_contact(2, I1.upper(), "sip:bob@10.9.9.9")
    rows = contacts(home.register(second, headers=GRUU, path=(EDGE2,), call_id="c2"))
    seen |= {gruus(row)[0] for row in rows}
    home.register("*", headers="Expires: 0\r\n", cseq=99)
    seen.add(offered(home, cseq=100, to="<sip:B%6fb@EXAMPLE.com;user=phone>")[0])
    seen.add(offered(Home(gruu_key=b"k" * 20))[0])  # another registrar, with another key
    assert seen == {PUBLIC}


@pytest.mark.rfc("GRU-02")
def test_gruus_that_the_ua_sends_are_ignored() -> None:
    home = Home()
    theirs = ';pub-gruu="sip:evil@example.com;gr=x";temp-gruu="sip:evil2@example.com;gr"'
    answer = home.register(outbound_contact(more=theirs), headers=GRUU)
    (row,) = contacts(answer)
    assert b"evil" not in row
    assert gruus(row)[0] == PUBLIC
    assert b"gruu" not in home.bindings()[0].contact
    assert rc_of(home, "sip:evil2@example.com;gr") == -3


@pytest.mark.rfc("GRU-03")
def test_temporary_ones_accumulate_and_a_new_call_id_ends_them() -> None:
    home = Home(gruu_key=b"k" * 20)
    hidden = [offered(home)[1] for _ in range(5)]
    assert len(set(hidden)) == 5
    assert [rc_of(home, uri) for uri in hidden] == [1] * 5
    # one more flow of the phone, with a Call-ID of its own, ends nothing
    home.register(outbound_contact(2), path=(EDGE2,), headers=GRUU, call_id="other")
    assert [rc_of(home, uri) for uri in hidden] == [1] * 5
    fresh = offered(home, call_id="reboot")[1]
    assert [rc_of(home, uri) for uri in hidden] == [-3] * 5
    _, targets = home.lookup(fresh)
    assert [target.reg_id for target in targets] == [1, 2], "the other flow has it, too"
    # whoever comes back with the first Call-ID brings nothing back
    offered(home, call_id="c1", cseq=99)
    assert [rc_of(home, uri) for uri in hidden] == [-3] * 5


@pytest.mark.rfc("GRU-03")
def test_a_new_call_id_ends_them_even_without_support_in_that_request() -> None:
    home = Home()
    hidden = offered(home)[1]
    home.register(outbound_contact(), headers=BOTH)
    assert rc_of(home, hidden) == 1
    home.register(outbound_contact(), headers=BOTH, call_id="reboot")
    assert rc_of(home, hidden) == -3


@pytest.mark.rfc("GRU-03")
def test_revoked_ones_stay_revoked_when_the_flow_that_did_it_goes() -> None:
    home = Home()
    hidden = offered(home)[1]
    home.register(outbound_contact(2), path=(EDGE2,), headers=GRUU, call_id="other")
    offered(home, call_id="reboot")
    home.register(outbound_contact(more=";expires=0"), call_id="reboot")
    assert [binding.reg_id for binding in home.bindings()] == [2]
    assert rc_of(home, hidden) == -3


@pytest.mark.rfc("GRU-03")
def test_they_end_with_the_last_binding_of_the_instance() -> None:
    home = Home()
    hidden = offered(home)[1]
    home.register(outbound_contact(2), path=(EDGE2,), headers=GRUU, call_id="other")
    home.register(outbound_contact(more=";expires=0"))
    assert rc_of(home, hidden) == 1, "as long as one flow is registered"
    home.advance(4000)
    assert rc_of(home, hidden) == -3
    offered(home)  # the same Call-ID
    assert rc_of(home, hidden) == -3


@pytest.mark.rfc("GRU-03")
def test_a_plain_contact_that_came_back_with_another_call_id_ends_them() -> None:
    home = Home()
    first = f'<sip:bob@10.0.0.9:1111>;+sip.instance="<{I1}>"'
    second = f'<sip:bob@10.0.0.9:2222>;+sip.instance="<{I1}>"'
    (row,) = contacts(home.register(first, headers=GRUU))
    hidden = gruus(row)[1]
    rows = contacts(home.register(second, headers=GRUU, call_id="reboot"))
    assert len(rows) == 2
    assert rc_of(home, hidden) == -3
    assert {rc_of(home, gruus(row)[1]) for row in rows} == {1}


@pytest.mark.rfc("GRU-03", "RGO-12")
def test_they_survive_a_restart_when_the_key_is_given() -> None:
    def moved(bindings: tuple[Binding, ...], **params: Any) -> Home:
        home = Home(**params)
        home.registrar._location.table("location").replace(
            b"bob@example.com", (), bindings, home.now
        )
        return home

    home = Home(gruu_key=b"k" * 20)
    hidden = offered(home)[1]
    assert rc_of(moved(home.bindings(), gruu_key=b"k" * 20), hidden) == 1
    rotated = (b"n" * 32, b"k" * 20)
    assert rc_of(moved(home.bindings(), gruu_key=rotated), hidden) == 1
    assert rc_of(moved(home.bindings()), hidden) == -3


@pytest.mark.rfc("GRU-09")
def test_the_scheme_follows_the_contact_and_the_option_is_not_named() -> None:
    home = Home()
    sips = outbound_contact(uri="sips:bob@10.0.0.9")
    path = ("<sips:tok1@192.0.2.1;lr;ob>",)
    answer = home.register(sips, headers=GRUU, path=path, ruri="sips:example.com")
    (row,) = contacts(answer)
    public, hidden = gruus(row)
    assert public == f"sips:bob@example.com;gr={I1}"
    assert hidden.startswith("sips:tgruu.")
    assert b"gruu" not in answer.options(b"require") | answer.options(b"supported")
    assert [rc_of(home, uri) for uri in (public, hidden)] == [1, 1]
    home.register(outbound_contact(), headers=GRUU)  # the same flow, without TLS now
    with pytest.raises(SipError) as refused:  # requirement TLS-08: 480 and a Warning
        rc_of(home, public)
    assert refused.value.status == 480


@pytest.mark.rfc("REG-16")
@pytest.mark.parametrize("kind", [0, 1])
def test_a_gruu_of_the_user_is_no_contact(kind: int) -> None:
    home = Home()
    uri = offered(home)[kind]
    for contact in (f"<{uri}>", f"<{uri.replace('example.com', 'example.com:5070')}>"):
        answer = home.register(contact, headers=GRUU)
        assert answer.status == 403, contact
    assert why(answer) == b"Contact is a GRUU of the address-of-record"
    other = home.register(f"<{uri}>", to="<sip:carol@example.com>", call_id="x")
    assert other.status == 200, "another user may forward to it"


# the home proxy: what it finds


def two_phones() -> Home:
    home = Home()
    for instance, host in ((I1, 9), (I2, 10)):
        for reg_id, edge in ((1, EDGE1), (2, EDGE2)):
            contact = outbound_contact(reg_id, instance, f"sip:bob@10.0.0.{host}")
            home.register(contact, path=(edge,), call_id=f"{host}-{reg_id}", headers=GRUU)
    return home


@pytest.mark.rfc("GRU-04", "GRU-06")
@pytest.mark.parametrize(
    "uri",
    [PUBLIC, PUBLIC.upper().replace("BOB", "bob"), f"{PUBLIC};x=y", "sips:bob@example.com;gr=x"],
)
def test_one_instance_is_found_with_all_its_flows(uri: str) -> None:
    rc, targets = two_phones().lookup(uri)
    if uri.startswith("sips"):
        assert (rc, targets) == (-3, [])
        return
    assert rc == 1
    assert [(target.reg_id, target.uri) for target in targets] == [
        (2, b"sip:bob@10.0.0.9"), (1, b"sip:bob@10.0.0.9"),
    ]  # fmt: skip
    assert targets[0].path == [EDGE2.encode()]


@pytest.mark.rfc("GRU-04")
def test_without_gruus_gr_is_a_parameter_like_any_other() -> None:
    home = Home(gruu_enabled=0)
    home.register(outbound_contact())
    assert rc_of(home, "sip:bob@example.com;gr=x") == 1


@pytest.mark.rfc("GRU-05")
def test_valid_without_contacts_and_unknown() -> None:
    home = Home()
    hidden = offered(home)[1]
    unknown = (
        "sip:bob@example.com;gr=foreign",
        "sip:bob@example.com;gr",
        "sip:tgruu.AAAA@example.com;gr",
        hidden.replace("tgruu.", "tgruu.A"),
        hidden.replace("example.com", "example.net"),
        "tel:+1;gr=x",
    )
    assert [rc_of(home, uri) for uri in unknown] == [-3] * len(unknown)
    assert rc_of(home, PUBLIC.replace(I1, I2)) == -1
    home.register("*", headers="Expires: 0\r\n", cseq=99)
    assert [rc_of(home, uri) for uri in (PUBLIC, hidden)] == [-1, -3]


@pytest.mark.rfc("GRU-06")
def test_of_plain_contacts_the_most_recent_one_is_first_whatever_its_q() -> None:
    home = Home()
    for port, q in ((1111, "0.9"), (2222, "0.1")):
        contact = f'<sip:bob@10.0.0.9:{port}>;q={q};+sip.instance="<{I1}>"'
        home.register(contact, headers=GRUU, path=(EDGE_WITHOUT_OB,))
    _, targets = home.lookup(PUBLIC)
    assert [target.uri[-4:] for target in targets] == [b"2222", b"1111"]
    assert {target.q for target in targets} == {1.0}
    assert [target.uri[-4:] for target in home.lookup()[1]] == [b"1111", b"2222"]


@pytest.mark.rfc("GRU-07")
def test_path_is_left_out_only_within_a_dialog_with_routes() -> None:
    home = two_phones()
    for to_tag, routes, path in (
        (";tag=t", "Route: <sip:far.example.net;lr>\r\n", False),
        (";tag=t", "", True),
        ("", "Route: <sip:far.example.net;lr>\r\n", True),
    ):
        msg = parse(
            f"BYE {PUBLIC} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.9;branch=z9hG4bKx\r\n{routes}"
            f"From: <sip:alice@example.com>;tag=a\r\nTo: <{PUBLIC}>{to_tag}\r\n"
            "Call-ID: call\r\nCSeq: 1 BYE\r\n\r\n".encode()
        )
        msg.flow, msg.now = home.edge, home.now
        assert home.registrar.lookup(msg) == 1
        assert [bool(target.path) for target in msg.targets] == ([True, True] if path else [False])
        assert msg.targets[0].uri == b"sip:bob@10.0.0.9"
        assert (msg.targets[0].on_failed is not None) is path, "its binding did not fail"


def test_other_functions_take_gruus_too() -> None:
    home = two_phones()
    hidden = offered(home, call_id="9-1", cseq=99)[1]
    msg = _invite(home, hidden)
    registrar = home.registrar
    assert registrar.registered(msg) == 1
    assert registrar.registered(msg, "location", PUBLIC) == 1
    assert registrar.registered(msg, "location", "sip:bob@example.com;gr") == -1
    (one, two) = [row for row in home.bindings() if row.instance == I1.encode()]
    assert registrar.unregister(msg, "location", hidden, one.ruid) == 1
    assert registrar.unregister(msg, "location", hidden, one.ruid) == -3
    assert registrar.unregister(msg, "location", PUBLIC, two.ruid) == 1
    assert registrar.unregister(msg, "location", hidden) == -1, "it is gone"
    assert {row.instance for row in home.bindings()} == {I2.encode()}


def _invite(
    home: Home, uri: str, contact: str = "<sip:alice@10.0.0.1>", user: str = "bob"
) -> SipMessage:
    row = f"Contact: {contact}\r\n" if contact else ""
    msg = parse(
        f"INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.9;branch=z9hG4bKx\r\n{row}"
        f"From: <sip:{user}@example.com>;tag=a\r\nTo: <{uri}>\r\n"
        "Call-ID: call\r\nCSeq: 1 INVITE\r\n\r\n".encode()
    )
    msg.flow, msg.now = home.edge, home.now
    return msg


@pytest.mark.rfc("GRU-04")
@pytest.mark.parametrize(
    ("uri", "rc"),
    [
        (PUBLIC, 1),
        ("sip:tgruu.x@example.com;gr", 2),
        ("sip:bob@127.0.0.1:5060;GR=x", 1),
        ("sip:bob@example.net;gr=x", -1),
        ("sip:bob@127.0.0.1:5070;gr=x", -1),
        ("sip:bob@example.com", -1),
        ("sip:bob@example.com;grr=x", -1),
    ],
)
def test_which_gruus_are_in_our_domain(uri: str, rc: int) -> None:
    home = Home()
    assert home.registrar.own_gruu(_invite(home, uri)) == rc
    off = Home(gruu_enabled=0)
    assert off.registrar.own_gruu(_invite(off, uri)) == -1


@pytest.mark.rfc("GRU-08")
def test_whose_gruu_the_contact_is() -> None:
    home = Home()
    public, hidden = offered(home)

    def rc(contact: str, user: str = "bob", identity: str | None = None) -> Rc:
        msg = _invite(home, "sip:carol@example.com", contact, user)
        return home.registrar.contact_gruu(msg, "location", identity)

    assert [rc(f"<{uri}>") for uri in (public, hidden)] == [1, 1]
    assert [rc(f"<{uri}>", "mallory") for uri in (public, hidden)] == [-2, -2]
    # a private call: From hides the user, who was authenticated
    assert rc(f"<{hidden}>", "anonymous", "sip:bob@example.com") == 1
    assert rc(f"<{hidden}>", "bob", "sip:mallory@example.com") == -2
    for none in ("<sip:bob@10.0.0.9>", "", f"<{public}>, <{public}>", f"<sip:bob@a.net;gr={I1}>"):
        assert rc(none) == -1, none
    assert rc("<sip:tgruu.AAAA@example.com;gr>") == -3
    assert rc("<sip:bob@example.com;gr=foreign>") == -3


# phones, edges, and the examples as home proxies


def home_of(world: World, name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    text = text.replace('keyfile("flow_token.key")', KEY)
    for address in ("127.0.0.1:5060", "127.0.0.2:5060"):
        text = text.replace(address, "{ip}:5060")
    world.core("127.0.1.1", text, "")


def register(phone: Phone, call_id: str = "", cseq: int = 1, **more: object) -> tuple[str, str]:
    """Register with GRUUs; returns them."""
    expires = more.get("expires", 600)
    contact = f"<sip:{phone.name}@10.0.0.9:5060;ob>"
    headers = (
        f'Contact: {contact};reg-id={phone.reg_id};+sip.instance="<{phone.instance}>"'
        f";expires={expires}\r\n{GRUU}"
    )
    data = phone.request(
        "REGISTER", "sip:example.com", headers=headers, cseq=cseq,
        call_id=call_id or f"reg-{phone.name}-{phone.reg_id}",
    )  # fmt: skip
    phone.send(data.replace(b"bob@example.com", phone.name.encode() + b"@example.com"))
    ok = phone.take(200)
    return gruus(ok.values(b"contact")[-1]) if ok.has(b"contact") else ("", "")


def bob_and_alice(layout: str) -> tuple[World, Phone, Phone]:
    world = World()
    if layout == "apart":
        home_of(world, "registrar")
        world.edge("127.0.2.1")
        world.edge("127.0.2.2")
        edges = ("127.0.2.1", "127.0.2.2")
    else:
        home_of(world, "edge_and_registrar")
        edges = ("127.0.1.1", "127.0.1.1")
    alice = Phone(world, "alice", edges[0], ("127.0.3.1", 40001))
    bob = Phone(world, "bob", edges[1], ("127.0.3.2", 40002), instance=I1)
    return world, alice, bob


@pytest.mark.rfc("GRU-04", "GRU-07", "OUT-12", "HPX-16")
@pytest.mark.parametrize("layout", ["apart", "together"])
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("hang_up", ["caller", "callee"])
def test_a_call_between_gruus_and_its_end(layout: str, kind: int, hang_up: str) -> None:
    world, alice, bob = bob_and_alice(layout)
    call_uri = register(bob)[kind]
    alice.contact = f"<{register(alice)[kind]};ob>"
    alice.send(alice.request("INVITE", call_uri))
    invite = bob.take(b"INVITE")
    assert invite.ruri == b"sip:bob@10.0.0.9:5060;ob"
    bob.contact = f"<{register(bob, cseq=2)[kind]}>"
    bob.reply(invite, 200)
    ok = alice.take(200)
    alice.send(alice.in_dialog("ACK", ok, uac=True, cseq=1))
    assert bob.take(b"ACK").ruri == b"sip:bob@10.0.0.9:5060;ob"
    first, second = (alice, bob) if hang_up == "caller" else (bob, alice)
    start = len(world.wire)
    first.send(first.in_dialog("BYE", ok if first is alice else invite, uac=first is alice))
    bye = second.take(b"BYE")
    assert bye.ruri == f"sip:{second.name}@10.0.0.9:5060;ob".encode()
    assert not bye.has(b"route")
    second.reply(bye, 200)
    first.take(200)
    # each edge was passed once: the stored Path was not put before the route set (ruling A7)
    byes = [to for _, to, data in world.wire[start:] if data.startswith(b"BYE")]
    assert len(byes) == len(set(byes)) == (3 if layout == "apart" else 1)
    assert sum(core.stats["exceptions"] for core in world.cores.values()) == 0
    assert not world.refused


@pytest.mark.rfc("GRU-04")
@pytest.mark.parametrize("layout", ["apart", "together"])
def test_a_request_within_a_dialog_that_has_no_route_left(layout: str) -> None:
    """Nobody record-routed, or all that did are behind: the GRUU alone leads to the phone."""
    world, alice, bob = bob_and_alice(layout)
    uri = register(bob)[0]
    home = world.cores["127.0.1.1"]
    alice.register()
    peer = Phone(world, "peer", "127.0.1.1", ("127.0.3.9", 5060))
    for method in ("BYE", "ACK"):
        peer.send(peer.request(method, uri, to_tag="t1"))
        assert bob.take(method.encode()).ruri == b"sip:bob@10.0.0.9:5060;ob"
    peer.send(peer.request("BYE", uri.replace(I1, I2), to_tag="t1"))
    assert [msg.status for msg in peer.heard] == [480]
    peer.send(peer.request("BYE", "sip:tgruu.x@example.com;gr", to_tag="t1"))
    peer.send(peer.request("BYE", "sip:bob@far.example.net;gr=x", to_tag="t1"))
    foreign = 404 if layout == "apart" else 403  # an edge says that it is no relay
    assert [msg.status for msg in peer.heard[1:]] == [404, foreign]
    assert home.stats["exceptions"] == 0


@pytest.mark.rfc("GRU-04")
def test_a_phone_that_reconnected_is_found_by_its_gruu() -> None:
    """Edge and registrar in one: the flow of the binding counts, not the one in the Route."""
    world, alice, bob = bob_and_alice("together")
    uri = register(bob)[0]
    alice.register()
    alice.send(alice.request("INVITE", uri))
    invite = bob.take(b"INVITE")
    bob.contact = f"<{uri}>"
    bob.reply(invite, 200)
    ok = alice.take(200)
    bob.connect(("127.0.3.2", 40099))
    register(bob, cseq=2)
    alice.send(alice.in_dialog("BYE", ok, uac=True))
    bob.take(b"BYE")
    assert [to for _, to, data in world.wire if data.startswith(b"BYE")] == ["127.0.3.2:40099"]


@pytest.mark.rfc("GRU-03", "GRU-04", "GRU-05", "GRU-06")
def test_s40() -> None:
    world, alice, one = bob_and_alice("apart")
    two = Phone(world, "bob", "127.0.2.1", ("127.0.3.3", 40003), reg_id=2, instance=I1)
    desk = Phone(world, "bob", "127.0.2.1", ("127.0.3.4", 40004), instance=I2)
    alice.register()
    (public, hidden), (public_2, hidden_2) = register(one), register(two)
    register(desk, call_id="desk")
    assert public == public_2 == PUBLIC
    assert hidden != hidden_2
    # one instance, one flow; the other one on 430
    for uri in (public, hidden, hidden_2):
        register(two, cseq=alice.count + 10)
        alice.send(alice.request("INVITE", uri))
        invite = two.take(b"INVITE")
        assert (one.silent(), desk.silent()) == (True, True)
        two.reply(invite, 430, "Flow Failed")
        assert two.take(b"ACK")
        second = one.take(b"INVITE")
        one.reply(second, 486, "Busy Here")
        one.take(b"ACK")
        alice.take(486)
        alice.send(alice.request("ACK", uri, branch=f"z9hG4bKalice1{alice.count}"))
        two.heard.clear()
        one.heard.clear()
    # a reboot
    fresh = register(one, call_id="reboot")[1]
    for uri, status in ((hidden, 404), (fresh, 0), (f"sip:bob@example.com;gr={I1}x", 480)):
        alice.send(alice.request("MESSAGE", uri))
        if status:
            alice.take(status)
        else:
            one.take(b"MESSAGE")
    # nobody is there any more
    register(one, call_id="reboot", cseq=2, expires=0)
    register(two, cseq=99, expires=0)
    for uri, status in ((public, 480), (fresh, 404), ("sip:bob@example.com;gr=foreign", 404)):
        alice.send(alice.request("MESSAGE", uri))
        alice.take(status)
    assert desk.silent()
    assert sum(core.stats["exceptions"] for core in world.cores.values()) == 0


@pytest.mark.rfc("HPX-18", "GRU-08")
@pytest.mark.parametrize("uri", ["sip:bob@example.com", PUBLIC])
def test_the_home_proxy_record_routes_what_may_begin_a_dialog(uri: str) -> None:
    _, alice, bob = bob_and_alice("apart")
    register(bob)
    alice.contact = f"<{register(alice)[0]}>"
    for method in ("INVITE", "SUBSCRIBE", "REFER", "NOTIFY"):
        alice.send(alice.request(method, uri))
        routes = bob.take(method.encode()).values(b"record-route")
        assert [b"127.0.1.1" in route for route in routes].count(True) == 1
