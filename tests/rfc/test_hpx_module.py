"""Home proxy: what ``lookup`` hands to the forking (RFC 5626 §7, RFC 3327 §5.4), HPX-xx."""

from __future__ import annotations

import pytest

from outbound_plugin.api import NOT_USED, ObBinds, TokenVerdict
from sipedge.flow import CLOSED, Flow
from sipedge.forward import Target
from sipedge.tm.relay import group_targets
from tests.registrar_plugin.home import (
    EDGE1,
    EDGE2,
    EDGE_WITHOUT_OB,
    I1,
    I2,
    Home,
    contacts,
    outbound_contact,
)


def fail(target: Target, status: int = 430) -> list[Target]:
    assert target.on_failed is not None
    return target.on_failed(target, status)


@pytest.mark.rfc("HPX-01", "HPX-11")
def test_flows_of_an_instance_are_one_group_and_instances_ring_together() -> None:
    home = Home()
    for instance, host in ((I1, 9), (I2, 10)):
        for reg_id, edge in ((1, EDGE1), (2, EDGE2)):
            contact = outbound_contact(reg_id, instance, f"sip:bob@10.0.0.{host}")
            home.register(contact, path=(edge,), call_id=f"{host}-{reg_id}")
    _, targets = home.lookup()
    (group,) = group_targets(targets)
    assert sorted({target.instance for target in flows} == {flows[0].instance} for flows in group)
    assert [len(flows) for flows in group] == [2, 2]
    assert {flows[0].instance for flows in group} == {I1.encode(), I2.encode()}


@pytest.mark.rfc("HPX-11")
def test_targets_come_by_falling_q() -> None:
    home = Home(default_q=700)
    for uri, q in (("a", ";q=0.1"), ("b", ";q=1.0"), ("c", ""), ("d", ";q=0.75"), ("e", ";q=0")):
        home.register(f"<sip:{uri}@10.0.0.9>{q}")
    _, targets = home.lookup()
    assert [(t.uri[4:5], t.q) for t in targets] == [
        (b"b", 1.0), (b"d", 0.75), (b"c", 0.7), (b"a", 0.1), (b"e", 0.0),
    ]  # fmt: skip


@pytest.mark.rfc("HPX-02", "HPX-08")
def test_430_leaves_the_other_flows_to_be_tried() -> None:
    home = Home()
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    _, targets = home.lookup()
    assert fail(targets[0]) == []
    assert [binding.reg_id for binding in home.bindings()] == [targets[1].reg_id]
    assert fail(targets[1]) == []
    assert home.lookup()[0] == -1, "S09: both are gone"
    assert contacts(home.register()) == []


@pytest.mark.rfc("HPX-04")
@pytest.mark.parametrize("status", [408, 503, 500])
def test_silence_and_refusal_leave_the_binding(status: int) -> None:
    home = Home()
    home.register(outbound_contact())
    _, (target,) = home.lookup()
    assert fail(target, status) == []
    assert len(home.bindings()) == 1


@pytest.mark.rfc("HPX-05")
@pytest.mark.parametrize(
    ("contact", "request_uri"),
    [
        ("sip:bob@10.0.0.9;transport=tcp;ob;x=%41", b"sip:bob@10.0.0.9;transport=tcp;ob;x=%41"),
        ("sip:bob@10.0.0.9;method=INVITE;ob", b"sip:bob@10.0.0.9;ob"),
        ("sip:bob@10.0.0.9;ob;Method=INVITE?Subject=x", b"sip:bob@10.0.0.9;ob"),
        ("sip:bob@10.0.0.9?Route=%3Csip:evil%3E", b"sip:bob@10.0.0.9"),
        ("sip:bob;method=x@10.0.0.9;methods=y", b"sip:bob;method=x@10.0.0.9;methods=y"),
        ("sip:bo?b;method=x@10.0.0.9;method=y", b"sip:bo?b;method=x@10.0.0.9"),
    ],
)
def test_request_uri_is_the_contact_and_route_the_path(contact: str, request_uri: bytes) -> None:
    home = Home()
    home.register(outbound_contact(uri=contact), path=("<sip:cp.example.com;lr>", EDGE1), vias=3)
    _, (target,) = home.lookup()
    assert target.uri == request_uri
    assert target.path == [b"<sip:cp.example.com;lr>", EDGE1.encode()]
    assert (target.flow, target.dst_uri) == (None, None)


@pytest.mark.rfc("HPX-07")
def test_a_closed_connection_ends_all_bindings_on_it_for_every_aor() -> None:
    home = Home()
    flow, other = home.tcp(port=40001), home.tcp(port=40002)
    carol = {"to": "<sip:carol@example.com>", "call_id": "c2"}
    home.register(outbound_contact(1), flow=flow)
    home.register(outbound_contact(1, uri="sip:carol@10.0.0.9"), flow=flow, **carol)
    home.register(outbound_contact(2), flow=other)
    home.register(outbound_contact(3))
    home.core.flow_closed(flow, "reset", home.now)
    assert home.lookup("sip:carol@example.com")[0] == -1
    assert [binding.reg_id for binding in home.bindings()] == [2, 3]
    assert home.core.stats["contacts_lost_with_flow"] == 2


@pytest.mark.rfc("HPX-07")
def test_icmp_ends_all_bindings_on_a_udp_flow() -> None:
    home = Home()
    home.register(outbound_contact(1), flow=home.udp(port=40001))
    home.register(outbound_contact(2), flow=home.udp(port=40002))
    lost = home.udp(port=40001)
    home.core.flow_unreachable(lost, home.now)  # nothing waits on it: not believed
    assert len(home.bindings()) == 2
    for hook in home.core.hooks_flow_closed:
        hook(lost, "unreachable")
    assert [binding.reg_id for binding in home.bindings()] == [2]


@pytest.mark.rfc("HPX-07")
def test_a_flow_that_was_left_ends_nothing() -> None:
    home = Home()
    old, new = home.tcp(port=40001), home.tcp(port=40002)
    home.register(outbound_contact(), flow=old)
    home.register(outbound_contact(), flow=new)
    home.core.flow_closed(old, "reset", home.now)
    assert [target.flow for target in home.lookup()[1]] == [new]


@pytest.mark.rfc("HPX-09")
def test_430_does_not_remove_a_binding_that_was_refreshed_meanwhile() -> None:
    home = Home()
    home.register(outbound_contact())
    _, (target,) = home.lookup()
    home.register(outbound_contact(), path=(EDGE2,))
    (fresh,) = fail(target)
    assert fresh.path == [EDGE2.encode()]
    assert len(home.bindings()) == 1
    assert fail(fresh) == []
    assert home.bindings() == ()


@pytest.mark.rfc("HPX-09")
def test_a_refresh_over_the_same_dead_flow_does_not_save_the_binding() -> None:
    home = Home()
    home.register(outbound_contact())
    _, (target,) = home.lookup()
    home.register(outbound_contact())
    assert fail(target) == []
    assert home.bindings() == ()


@pytest.mark.rfc("HPX-09")
def test_a_binding_that_moved_to_another_connection_is_tried_there() -> None:
    home = Home()
    home.register(outbound_contact(), flow=home.tcp(port=40001))
    _, (target,) = home.lookup()
    flow = home.tcp(port=40002)
    home.register(outbound_contact(), flow=flow)
    assert [fresh.flow for fresh in fail(target)] == [flow]
    assert len(home.bindings()) == 1


@pytest.mark.rfc("HPX-10")
def test_no_binding_an_expired_one_and_no_aor() -> None:
    home = Home()
    assert home.lookup() == (-1, [])
    home.register(outbound_contact(more=";expires=60"))
    home.advance(60)
    assert home.lookup() == (-1, [])
    assert home.lookup("sip:10.0.0.1")[0] == -3
    assert home.lookup("tel:+4930")[0] == -3


@pytest.mark.rfc("HPX-12")
def test_the_most_recently_updated_flow_is_tried_first() -> None:
    home = Home()
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    assert [target.reg_id for target in home.lookup()[1]] == [2, 1]
    home.register(outbound_contact(1))
    assert [target.reg_id for target in home.lookup()[1]] == [1, 2]


@pytest.mark.rfc("HPX-21")
def test_a_plain_and_an_outbound_binding_of_one_instance_are_one_after_the_other() -> None:
    home = Home()
    home.register(f'<sip:bob@10.0.0.9>;+sip.instance="<{I1.upper()}>"', path=(EDGE_WITHOUT_OB,))
    home.register(outbound_contact(uri="sip:bob@10.0.0.9;ob"))
    assert len(home.bindings()) == 2
    (group,) = group_targets(home.lookup()[1])
    assert [[target.reg_id for target in flows] for flows in group] == [[1, 0]]


# edge and registrar in one process


class FakeOutbound:
    """Tokens by name."""

    def __init__(self) -> None:
        self.flows: dict[bytes, Flow] = {}

    def decode(self, token: bytes) -> tuple[TokenVerdict, Flow | None]:
        flow = self.flows.get(token)
        if flow is None:
            return TokenVerdict.BAD, None
        return (TokenVerdict.GONE if flow.state == CLOSED else TokenVerdict.VALID), flow

    def binds(self) -> dict[str, object]:
        return {
            "bind_ob": ObBinds(
                encode_flow_token=lambda flow: b"",
                decode_flow_token=self.decode,
                use_outbound=lambda msg: NOT_USED,
                suppressed=lambda msg: False,
            )
        }


OWN = "<sip:tok@example.com;lr;ob>"


@pytest.mark.rfc("HPX-06", "HPX-07")
@pytest.mark.parametrize("below", [(), ("<sip:next.example.net;lr;ob>",)])
def test_our_own_token_on_top_of_path_is_the_flow_itself(below: tuple[str, ...]) -> None:
    outbound = FakeOutbound()
    home = Home(outbound.binds())
    flow = outbound.flows[b"tok"] = home.tcp()
    answer = home.register(outbound_contact(), path=(OWN, *below))
    assert answer.rows(b"path") == [value.encode() for value in (OWN, *below)]
    _, (target,) = home.lookup()
    assert target.flow is flow
    assert target.path == [value.encode() for value in below]
    home.core.flow_closed(flow, "reset", home.now)
    assert home.lookup()[0] == -1


@pytest.mark.rfc("HPX-06")
def test_own_path_values_that_are_no_live_token() -> None:
    outbound = FakeOutbound()
    home = Home(outbound.binds())
    flow = outbound.flows[b"tok"] = home.tcp()
    home.core.flow_closed(flow, "reset", home.now)
    assert home.register(outbound_contact(), path=(OWN,)).status == 430
    forged = "<sip:forged@127.0.0.1:5060;lr;ob>"
    assert home.register(outbound_contact(), path=(forged,)).status == 403
    assert home.bindings() == ()
    # another edge's token is that edge's business, and so is ours without a user part
    assert home.register(outbound_contact(), path=(EDGE1,)).status == 200
    assert home.register(outbound_contact(2), path=("<sip:example.com;lr>", EDGE1)).status == 200


def test_without_outbound_an_own_path_is_a_path_like_any_other() -> None:
    home = Home()
    home.register(outbound_contact(), path=(OWN,))
    _, (target,) = home.lookup()
    assert (target.flow, target.path) == (None, [OWN.encode()])
