"""Scenarios of requirements section C: edges, a home proxy, phones; the core without sockets."""

from __future__ import annotations

import pytest

from sipedge.flow import TCP, UDP
from sipedge.sip.message import SipMessage
from tests.world import HOME, Phone, World

EDGE1, EDGE2, HOME_IP = "127.0.2.1", "127.0.2.2", "127.0.1.1"


def one_edge() -> World:
    world = World()
    world.home()
    world.edge(EDGE1)
    return world


def phones(world: World, edge: str, kinds: tuple[int, int]) -> tuple[Phone, Phone]:
    alice = Phone(world, "alice", edge, ("127.0.3.1", 40001), transport=kinds[0])
    bob = Phone(world, "bob", edge, ("127.0.3.2", 40002), transport=kinds[1])
    for phone in (alice, bob):
        ok = phone.register()
        assert ok.status == 200
        assert ok.options(b"require") == {b"outbound"}
    return alice, bob


def talk(caller: Phone, callee: Phone) -> tuple[SipMessage, SipMessage]:
    """A call up to the ACK; the 200 as the caller saw it, the INVITE as the callee saw it."""
    caller.call(callee.name)
    invite = callee.take(b"INVITE")
    assert invite.ruri == callee.contact[1:-1].encode()
    callee.reply(invite, 180, "Ringing")
    caller.take(180)
    callee.reply(invite, 200)
    ok = caller.take(200)
    caller.send(caller.in_dialog("ACK", ok, uac=True, cseq=1))
    callee.take(b"ACK")
    return ok, invite


@pytest.mark.rfc(
    "INC-02", "INC-03", "INC-06", "INC-08", "INC-09", "OUT-01", "OUT-02", "OUT-03", "OUT-04",
    "LOP-02", "INC-17", "PXR-02", "EPR-01", "EPR-13",
)  # fmt: skip
@pytest.mark.parametrize("hang_up", ["caller", "callee"])
@pytest.mark.parametrize("kinds", [(UDP, UDP), (TCP, UDP), (UDP, TCP), (TCP, TCP)])
@pytest.mark.parametrize("layout", ["edge and home", "two edges", "all in one"])
def test_call_and_hang_up(layout: str, kinds: tuple[int, int], hang_up: str) -> None:
    world = World()
    if layout == "all in one":
        world.all_in_one(HOME_IP)
        alice, bob = phones(world, HOME_IP, kinds)
    else:
        world.home()
        world.edge(EDGE1)
        alice, bob = phones(world, EDGE1, kinds)
        if layout == "two edges":
            world.edge(EDGE2)
            bob = Phone(world, "bob", EDGE2, ("127.0.3.3", 40003), transport=kinds[1])
            assert bob.register(call_id="new").status == 200
    ok, invite = talk(alice, bob)
    assert not invite.has(b"route")
    assert all(b";ob" not in value for value in invite.values(b"record-route"))
    if hang_up == "caller":
        alice.send(alice.in_dialog("BYE", ok, uac=True))
        bye = bob.take(b"BYE")
        bob.reply(bye, 200)
        alice.take(200)
    else:
        bob.send(bob.in_dialog("BYE", invite, uac=False))
        bye = alice.take(b"BYE")
        alice.reply(bye, 200)
        bob.take(200)
    assert not bye.has(b"route")
    assert alice.silent()
    assert bob.silent()
    assert not world.refused  # nobody was dialed
    for core in world.cores.values():
        assert core.stats["exceptions"] == 0


@pytest.mark.rfc("OUT-02", "OUT-01")
def test_ob_alone_is_enough_for_a_token() -> None:
    """No REGISTER before, no Supported, no instance."""
    world = one_edge()
    bob = Phone(world, "bob", EDGE1, ("127.0.3.2", 40002))
    bob.register()
    alice = Phone(world, "alice", EDGE1, ("127.0.3.1", 40001), transport=TCP)
    ok, invite = talk(alice, bob)
    bob.send(bob.in_dialog("BYE", invite, uac=False))
    alice.take(b"BYE")
    assert ok.values(b"record-route") == invite.values(b"record-route")


@pytest.mark.rfc("TOK-03", "EPR-05")
def test_edge_restart_udp_phone_still_rings() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, UDP))
    world.restart(EDGE1)
    talk(alice, bob)


@pytest.mark.rfc("TOK-03", "INC-04", "HPX-08", "RGO-05")
def test_edge_restart_tcp_phone_is_430_then_heals() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, TCP))
    world.phones.pop((TCP, bob.address))
    world.restart(EDGE1)
    alice.call("bob")
    alice.take(480)
    assert [d for _, to, d in world.wire if d.startswith(b"SIP/2.0 430") and "127.0.1.1" in to]
    assert not world.refused
    bob.connect(("127.0.3.2", 40009))
    assert bob.register(cseq=2).status == 200
    talk(alice, bob)


@pytest.mark.rfc("TOK-03", "TOK-08")
def test_unknown_key_is_430_and_never_403() -> None:
    world = one_edge()
    alice, _bob = phones(world, EDGE1, (UDP, UDP))
    world.restart(EDGE1, key="b'98765432109876543210'")
    alice.call("bob")
    alice.take(480)
    assert not [d for _, _, d in world.wire if d.startswith(b"SIP/2.0 403")]
    world.restart(EDGE1, key="(b'98765432109876543210', b'01234567890123456789')")


@pytest.mark.rfc("TOK-08")
def test_key_rotation_keeps_old_tokens() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, UDP))
    world.restart(EDGE1, key="(b'98765432109876543210', b'01234567890123456789')")
    talk(alice, bob)


@pytest.mark.rfc("TOK-02", "INC-04")
def test_same_address_of_another_client_never_matches() -> None:
    """S17: Carol gets the NAT port that was Bob's."""
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, TCP))
    bob.hang_connection()
    carol = Phone(world, "carol", EDGE1, bob.address, transport=TCP)
    assert carol.register().status == 200
    alice.call("bob")
    alice.take(480)
    assert carol.silent()
    talk(alice, carol)


@pytest.mark.rfc("HPX-01", "HPX-02", "RGO-06", "RGO-07", "HPX-04")
@pytest.mark.parametrize("fault", ["edge down", "flow gone"])
def test_second_flow_rings_when_the_first_is_dead(fault: str) -> None:
    world = one_edge()
    world.edge(EDGE2)
    alice = Phone(world, "alice", EDGE2, ("127.0.3.1", 40001))
    alice.register()
    one = Phone(world, "bob", EDGE2, ("127.0.3.2", 40002), transport=TCP)
    two = Phone(
        world, "bob", EDGE1, ("127.0.3.2", 40003), transport=TCP, reg_id=2, instance=one.instance
    )
    two.register()
    listed = one.register()
    assert len(listed.values(b"contact")) == 2
    if fault == "flow gone":
        one.hang_connection()
        caller = alice
    else:
        world.down.add(EDGE2)
        caller = Phone(world, "carol", EDGE1, ("127.0.3.9", 40009))
        caller.register()
    ok, _ = talk(caller, two)
    assert one.silent()
    assert [m.status for m in caller.all if m.cseq()[1] == b"INVITE"] == [100, 180, 200]
    caller.send(caller.in_dialog("BYE", ok, uac=True))
    two.take(b"BYE")


@pytest.mark.rfc("HPX-03")
def test_busy_on_one_flow_is_busy() -> None:
    world = one_edge()
    world.edge(EDGE2)
    alice = Phone(world, "alice", EDGE1, ("127.0.3.1", 40001))
    one = Phone(world, "bob", EDGE1, ("127.0.3.2", 40002))
    two = Phone(world, "bob", EDGE2, ("127.0.3.2", 40003), reg_id=2, instance=one.instance)
    two.register()
    one.register()
    alice.call("bob")
    one.reply(one.take(b"INVITE"), 486, "Busy Here")
    alice.take(486)
    assert two.silent()


@pytest.mark.rfc("HPX-08")
def test_both_flows_dead_is_one_480() -> None:
    world = one_edge()
    alice = Phone(world, "alice", EDGE1, ("127.0.3.1", 40001))
    one = Phone(world, "bob", EDGE1, ("127.0.3.2", 40002), transport=TCP)
    two = Phone(
        world, "bob", EDGE1, ("127.0.3.2", 40003), transport=TCP, reg_id=2, instance=one.instance
    )
    one.register()
    two.register()
    one.hang_connection()
    two.hang_connection()
    alice.call("bob")
    alice.take(480)
    assert alice.silent()
    fetch = alice.request("REGISTER", "sip:example.com", headers="Contact:\r\n", call_id="fetch")
    alice.send(fetch.replace(b"Contact:\r\n", b""))
    assert not alice.take(200).has(b"contact")


@pytest.mark.rfc("RGO-05", "EPR-05", "RGO-08")
def test_flow_replaced_by_registering_again() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, TCP))
    old = bob.address
    bob.connect(("127.0.3.2", 40077))
    ok = bob.register(call_id="another")
    assert len(ok.values(b"contact")) == 1
    talk(alice, bob)
    assert world.phones[TCP, old] is bob


@pytest.mark.rfc("HPX-09")
def test_430_does_not_remove_a_binding_that_was_refreshed_meanwhile() -> None:
    """S11: the answer of the old flow arrives after the REGISTER of the new one."""
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, TCP))
    bob_edge = world.cores[EDGE1]
    world.down.add(EDGE1)  # what the home proxy sends from now on waits
    home = world.cores[HOME_IP]
    listener = home.flows.listeners[0]
    direct = home.flows.udp(listener, ("127.0.3.50", 5060))
    home.receive(alice.request("INVITE", "sip:bob@example.com", call_id="race"), direct, world.now)
    waiting = [(data, flow) for data, flow in home.sends() if data.startswith(b"INVITE")]
    assert len(waiting) == 1
    world.down.clear()
    bob.hang_connection()
    bob.connect(("127.0.3.2", 40078))
    assert bob.register(cseq=2).status == 200
    edge_listener = bob_edge.flows.listeners[0]
    bob_edge.receive(waiting[0][0], bob_edge.flows.udp(edge_listener, (HOME_IP, 5060)), world.now)
    world.run()
    assert bob.take(b"INVITE").call_id == b"race"


@pytest.mark.rfc("INC-20", "INC-02")
def test_phone_that_reconnected_in_mid_call_hangs_up() -> None:
    """S39, ruling A5."""
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, TCP))
    ok, invite = talk(alice, bob)
    bob.hang_connection()
    bob.connect(("127.0.3.2", 40079))
    bob.send(bob.in_dialog("BYE", invite, uac=False))
    alice.reply(alice.take(b"BYE"), 200)
    bob.take(200)
    # towards the flow that is gone it is 430 (the documented limit)
    alice.send(alice.in_dialog("INVITE", ok, uac=True, cseq=5))
    alice.take(430)


@pytest.mark.rfc("INC-16")
@pytest.mark.parametrize("edge", [EDGE1, HOME_IP])
def test_two_accounts_on_one_connection_call_each_other(edge: str) -> None:
    """S28: one phone, two lines, one flow; the same token twice in Route."""
    world = one_edge()
    if edge == HOME_IP:
        world.all_in_one(HOME_IP)
    line1 = Phone(world, "line1", edge, ("127.0.3.1", 40001), transport=TCP)
    line1.register()
    line2 = Phone(world, "line2", edge, ("127.0.3.1", 40001), transport=TCP)
    line2.flow = line1.flow
    line2.register()
    assert line2.heard == []
    line1.heard.clear()
    world.phones[TCP, line1.address] = line2
    line1.call("line2")
    invite = line2.take(b"INVITE")
    line2.reply(invite, 200)
    ok = line2.take(200)
    line1.send(line1.in_dialog("BYE", ok, uac=True))
    line2.take(b"BYE")


@pytest.mark.rfc("INC-10", "PXC-01")
def test_cancel_goes_the_way_of_the_invite() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, TCP))
    sent = alice.call("bob")
    invite = bob.take(b"INVITE")
    bob.reply(invite, 180, "Ringing")
    alice.take(180)
    cancel = sent.replace(b"INVITE", b"CANCEL")
    head, _, _ = cancel.partition(b"Contact:")
    alice.send(head + b"Content-Length: 0\r\n\r\n")
    alice.take(200)
    got = bob.take(b"CANCEL")
    assert got.via().branch == invite.via().branch
    bob.reply(got, 200)
    bob.reply(invite, 487, "Request Terminated")
    bob.take(b"ACK")
    alice.take(487)


@pytest.mark.rfc("INC-11", "INC-14")
def test_ack_to_a_dead_flow_is_dropped_and_lost_connection_ends_the_call() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, TCP))
    ok, _ = talk(alice, bob)
    alice.call("bob")
    bob.reply(bob.take(b"INVITE"), 180, "Ringing")
    alice.take(180)
    bob.hang_connection()
    alice.take(480)
    alice.send(alice.in_dialog("ACK", ok, uac=True, cseq=1))
    assert alice.silent()


@pytest.mark.rfc("TOK-01", "TOK-05", "INC-05", "INC-11")
def test_forged_and_truncated_tokens() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, UDP))
    ok, _ = talk(alice, bob)
    good = alice.in_dialog("BYE", ok, uac=True)
    routes = [v for v in ok.values(b"record-route") if b"@" in v]
    bobs = next(v for v in routes if b"fs=uas" in v)
    token = bobs[5 : bobs.index(b"@")]
    bad = [token[:n] for n in range(1, len(token))]
    bad += [token[:n] + (b"A" if token[n : n + 1] != b"A" else b"B") + token[n + 1 :]
            for n in range(len(token))]  # fmt: skip
    for n, wrong in enumerate(bad):
        seen = len(world.wire)
        branch = b"z9hG4bKbad%d" % n
        alice.send(
            good.replace(token, wrong).replace(good.split(b"branch=")[1].split(b";")[0], branch)
        )
        assert alice.heard[-1].status in (403, 430), wrong
        assert bob.silent(), wrong
        assert all("127.0.3.2" not in to and "10.0.0.9" not in to for _, to, _ in world.wire[seen:])
        seen = len(world.wire)
        alice.send(good.replace(b"BYE", b"ACK").replace(token, wrong))
        assert alice.heard[-1].method != b"ACK"
        assert not [d for _, to, d in world.wire[seen:] if "127.0.3.1" in to], wrong
    statuses = {m.status for m in alice.heard if m.status >= 400}
    assert 403 in statuses


@pytest.mark.rfc("TOK-04")
def test_token_of_another_edge_is_430() -> None:
    """S15 (b): the same key on both edges."""
    world = one_edge()
    world.edge(EDGE2)
    alice, bob = phones(world, EDGE1, (UDP, UDP))
    ok, _ = talk(alice, bob)
    bye = alice.in_dialog("BYE", ok, uac=True)
    value = next(v for v in ok.values(b"record-route") if b"fs=uas" in v)
    stolen = value.replace(EDGE1.encode(), EDGE2.encode())
    head, _, rest = bye.partition(b"Route:")
    rest = rest[rest.rindex(b"Route:") :].partition(b"\r\n")[2]
    carol = Phone(world, "carol", EDGE2, ("127.0.3.7", 40007))
    carol.send(head + b"Route: " + stolen + b"\r\n" + rest)
    assert carol.heard[-1].status == 430
    assert bob.silent()


@pytest.mark.rfc("INC-18", "INC-01")
def test_foreign_routes_stay() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, UDP))
    ok, _ = talk(alice, bob)
    bye = alice.in_dialog("BYE", ok, uac=True)
    value = next(v for v in ok.values(b"record-route") if b"fs=uas" in v)
    head, _, rest = bye.partition(b"Route:")
    rest = rest[rest.rindex(b"Route:") :].partition(b"\r\n")[2]
    carol = Phone(world, "carol", EDGE1, ("127.0.3.7", 40007))
    carol.send(head + b"Route: " + value + b", <sip:foreign.example.com;lr>\r\n" + rest)
    assert bob.take(b"BYE").values(b"route") == [b"<sip:foreign.example.com;lr>"]


@pytest.mark.rfc("RGO-10", "HPX-06", "HPX-07")
def test_all_in_one_forgets_every_binding_of_a_lost_connection() -> None:
    """S46: two AORs on one connection."""
    world = World()
    world.all_in_one(HOME_IP)
    alice, bob = phones(world, HOME_IP, (UDP, TCP))
    second = Phone(world, "bobby", HOME_IP, bob.address, transport=TCP)
    second.flow = bob.flow
    world.phones[TCP, bob.address] = bob
    second.send(second.request("OPTIONS", "sip:example.com"))
    bob.heard.clear()
    data = second.request(
        "REGISTER",
        "sip:example.com",
        headers=f'Contact: {second.contact};reg-id=1;+sip.instance="<{second.instance}>"\r\n'
        "Supported: path, outbound\r\n",
    ).replace(b"bob@example.com", b"bobby@example.com")
    second.send(data)
    bob.take(200)
    bob.hang_connection()
    for user in ("bob", "bobby"):
        alice.call(user)
        alice.take(480)
    assert not world.refused


@pytest.mark.rfc("RGO-02", "RGO-04")
def test_dumb_first_hop_is_439_and_nothing_is_stored() -> None:
    world = World()
    world.home()
    world.core(EDGE1, HOME.replace('ksr.registrar.save(msg, "location")',
        'ksr.setdsturi(msg, "sip:127.0.1.1:5060"); ksr.tm.t_relay(msg)'), "")  # fmt: skip
    bob = Phone(world, "bob", EDGE1, ("127.0.3.2", 40002))
    assert bob.register().status == 439
    bob.call("bob")
    bob.take(480)


@pytest.mark.rfc("EPR-07", "OUT-11", "RGO-09")
def test_contact_from_to_and_body_are_never_touched() -> None:
    world = one_edge()
    alice, bob = phones(world, EDGE1, (UDP, UDP))
    sent = alice.call("bob", body="v=0\r\n\x00binary")
    invite = bob.take(b"INVITE")
    for line in sent.split(b"\r\n"):
        if line.startswith((b"Contact:", b"From:", b"To:", b"Call-ID:", b"CSeq:")):
            assert line in invite.lines
    assert invite.body == b"v=0\r\n\x00binary"
    register = next(d for ip, _, d in world.wire if ip == EDGE1 and d.startswith(b"REGISTER"))
    assert b"Contact: " + alice.contact.encode() + b";reg-id=1" in register
