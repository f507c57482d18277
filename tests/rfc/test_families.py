"""IPv4 and IPv6 on the two sides of an edge (RFC 5118, RFC 5658; scenarios S31 and S25)."""

from __future__ import annotations

import pytest

from sipedge.flow import TCP, UDP
from tests.world import EDGE, KEY, OUTBOUND, Phone, World

V4, V6, HOME_IP = "127.0.2.1", "2001:db8::2", "127.0.1.1"


def dual_stack() -> World:
    world = World()
    world.home()
    more = f'listen("udp:[{V6}]:5060")\nlisten("tcp:[{V6}]:5060")\n'
    core = world.core(V4, EDGE + more, OUTBOUND % KEY)
    world.cores[V6] = core
    return world


@pytest.mark.rfc("OPS-01", "OUT-04", "EPR-06", "PAR-09", "PAR-11", "INC-17")
@pytest.mark.parametrize("transport", [UDP, TCP])
def test_v6_phone_and_v4_core(transport: int) -> None:
    world = dual_stack()
    bob = Phone(world, "bob", V6, ("2001:db8::9", 40002), transport=transport)
    alice = Phone(world, "alice", V4, ("127.0.3.1", 40001))
    assert bob.register().status == 200
    assert alice.register().status == 200
    forwarded = next(d for _, to, d in world.wire if HOME_IP in to and d.startswith(b"REGISTER"))
    path = next(line for line in forwarded.split(b"\r\n") if line.startswith(b"Path:"))
    assert b"@127.0.2.1:5060;lr;ob>" in path
    assert b";received=2001:db8::9" in forwarded  # RFC 5118 §4.5: without brackets
    alice.call("bob")
    invite = bob.take(b"INVITE")
    assert invite.values(b"via")[0].startswith(
        b"SIP/2.0/%s [2001:db8::2]:5060;" % (b"TCP" if transport == TCP else b"UDP")
    )
    top, second = invite.values(b"record-route")[:2]
    assert b"[2001:db8::2]:5060" in top
    assert b"@" in top
    assert b"127.0.2.1:5060" in second
    assert b"@" not in second
    bob.reply(invite, 200)
    ok = alice.take(200)
    alice.send(alice.in_dialog("ACK", ok, uac=True, cseq=1))
    bob.take(b"ACK")
    bye = bob.in_dialog("BYE", invite, uac=False)
    # the own Route in another spelling of the same address (RFC 5954 §4)
    bob.send(bye.replace(b"[2001:db8::2]", b"[2001:DB8:0:0::2]"))
    alice.reply(alice.take(b"BYE"), 200)
    bob.take(200)
    assert not world.refused
