"""When outbound applies, and which way a request goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbound_plugin.api import INCOMING, NOT_USED, OUTGOING, TOP_ROUTE, OwnRoute, Use
from outbound_plugin.use_outbound import contact_has_ob, has_reg_id
from sipedge.errors import ParseError
from sipedge.sip.message import parse
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.uri import parse_uri
from tests.helpers import Modules, message

OB = "Contact: <sip:bob@10.0.0.9;ob>"
PLAIN = "Contact: <sip:bob@10.0.0.9>"


@pytest.mark.parametrize(
    ("headers", "reg_id"),
    [
        (["Contact: <sip:b@h>;reg-id=1"], True),
        (["Contact: <sip:b@h>;REG-ID=1"], True),
        (["Contact: <sip:b@h>;reg-id"], True),
        (["m: sip:b@h;reg-id=1"], True),
        (['Contact: "a, <b>" <sip:b@h>\r\n ;+sip.instance="<urn:x>"\r\n ; reg-id = 2'], True),
        (["Contact: <sip:a@h>, <sip:b@h>;reg-id=2"], True),
        (["Contact: <sip:a@h>", "Contact: <sip:b@h>;reg-id=2"], True),
        (["Contact: <sip:a@h;reg-id=1>"], False),
        (["Contact: <sip:a;reg-id=1@h>"], False),
        (['Contact: "x;reg-id=1" <sip:a@h>'], False),
        (['Contact: <sip:a@h>;x=";reg-id=1"'], False),
        (["Contact: <sip:a@h>;xreg-id=1"], False),
        ([], False),
        (["Contact: *", "Expires: 0"], True),
        (["Contact: *", "Expires: 00"], True),
        (["Contact: *", "Expires: 60"], False),
        (["Contact: *"], False),
        (["Contact: *", "Expires: never"], False),
    ],
)
def test_has_reg_id(headers: list[str], reg_id: bool) -> None:
    modules = Modules("outbound")
    assert has_reg_id(message(modules.phone(), "REGISTER", *headers)) is reg_id


@pytest.mark.parametrize(
    ("contact", "ob"),
    [
        ("<sip:b@h;ob>", True),
        ("<sip:b@h;transport=tcp;OB>", True),
        ("<sip:b@h;ob=1>", True),
        ("<sip:b@h>;ob", False),
        ("sip:b@h;ob", False),
        ("<sip:b;ob@h>", False),
        ("<sip:bob@h>", False),
        ("<sip:b@h?ob=1>", False),
        ("<sip:b@h;lob>", False),
        ('"ob" <sip:b@h>', False),
        ("<tel:+1;ob>", False),
        ("*", False),
    ],
)
def test_contact_has_ob(contact: str, ob: bool) -> None:
    modules = Modules("outbound")
    assert contact_has_ob(message(modules.phone(), "INVITE", f"Contact: {contact}")) is ob


def test_only_the_first_contact_counts() -> None:
    flow = Modules("outbound").phone()
    two = message(flow, "INVITE", PLAIN, OB)
    assert not contact_has_ob(two)


def use(modules: Modules, *headers: str, **kwargs: object) -> Use:
    msg = message(modules.phone(), "INVITE", *headers, **kwargs)  # type: ignore[arg-type]
    result: Use = modules.ob.use_outbound(msg)
    return result


def test_top_route_decides_before_contact() -> None:
    modules = Modules("outbound")
    mine, other = modules.token(modules.phone()), modules.token(modules.phone(50000))
    assert use(modules, f"Route: <sip:{other}@192.0.2.10;lr;ob>", OB) is INCOMING
    assert use(modules, f"Route: <sip:{other}@192.0.2.10;lr>", PLAIN, vias=2) is INCOMING
    assert use(modules, f"Route: <sip:{mine}@192.0.2.10;lr;ob>", PLAIN) is OUTGOING
    assert use(modules, f"Route: <sip:{mine}@192.0.2.10;lr;ob>", PLAIN, vias=2) is NOT_USED
    assert use(modules, f"Route: <sip:{mine}@192.0.2.10;lr>", PLAIN) is NOT_USED
    assert use(modules, f"Route: <sip:{mine}@192.0.2.10;lr>", PLAIN, to_tag="t") is OUTGOING
    assert use(modules, f"Route: <sip:{mine}@192.0.2.10;lr>, <sip:x@y;lr>", OB) is OUTGOING
    assert use(modules, "Route: <sip:edge.example.com;lr;ob>", PLAIN) is OUTGOING
    assert use(modules, "Route: <sip:edge.example.com;lr>", PLAIN) is NOT_USED


def test_foreign_or_broken_route_is_passed_over() -> None:
    modules = Modules("outbound")
    mine = modules.token(modules.phone())
    assert use(modules, f"Route: <sip:{mine}@192.0.2.99;lr;ob>", PLAIN) is NOT_USED
    assert use(modules, f"Route: <sip:{mine}@192.0.2.10;lr;ob;gr>", PLAIN) is NOT_USED
    assert use(modules, "Route: <sip:x@192.0.2.99;lr>", OB) is OUTGOING


def test_forged_token_earns_nothing() -> None:
    """Kamailio calls it outgoing, and mints a fresh token for the sender."""
    modules = Modules("outbound")
    assert use(modules, "Route: <sip:foo@192.0.2.10;lr;ob>", PLAIN) is NOT_USED


def test_what_loose_route_left_in_the_message() -> None:
    modules = Modules("outbound")
    for direction, ob, to_tag, expected in [
        (INCOMING, True, "", INCOMING),
        (OUTGOING, True, "", OUTGOING),
        (OUTGOING, False, "", NOT_USED),
        (OUTGOING, False, "t", OUTGOING),
        (NOT_USED, True, "", OUTGOING),
        (NOT_USED, False, "t", NOT_USED),
    ]:
        msg = message(modules.phone(), "INVITE", PLAIN, to_tag=to_tag)
        msg.remember(TOP_ROUTE, OwnRoute(ob, direction))
        assert modules.ob.use_outbound(msg) is expected


def test_flags_of_the_operator() -> None:
    modules = Modules(
        "outbound", outbound__force_outbound_flag=0, outbound__force_no_outbound_flag=31
    )
    for flags, expected, suppressed in [
        (0, NOT_USED, False),
        (1, OUTGOING, False),
        (1 << 31, NOT_USED, True),
        (1 << 31 | 1, OUTGOING, False),
    ]:
        msg = message(modules.phone(), "INVITE", PLAIN, vias=2)
        msg.flags = flags
        assert modules.ob.use_outbound(msg) is expected
        assert modules.ob.suppressed(msg) is suppressed
    msg = message(modules.phone(), "INVITE", OB)
    msg.flags = 1 << 31
    assert modules.ob.use_outbound(msg) is NOT_USED


def test_flags_are_off_by_default() -> None:
    modules = Modules("outbound")
    msg = message(modules.phone(), "INVITE", PLAIN)
    msg.flags = 0xFFFFFFFF
    assert modules.ob.use_outbound(msg) is NOT_USED
    assert not modules.ob.suppressed(msg)


def test_register_wants_the_first_hop_and_reg_id() -> None:
    modules = Modules("outbound")
    contact = "Contact: <sip:b@h>;reg-id=1"
    for vias, headers, expected in [
        (1, [contact], OUTGOING),
        (2, [contact], NOT_USED),
        (1, [OB], NOT_USED),
    ]:
        msg = message(modules.phone(), "REGISTER", *headers, vias=vias)
        assert modules.ob.use_outbound(msg) is expected


def test_a_response_has_no_outbound() -> None:
    modules = Modules("outbound")
    msg = parse(
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n"
        b"To: <sip:b@h>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:b@h;ob>\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    msg.flow = modules.phone()
    assert modules.ob.use_outbound(msg) is NOT_USED


NAMES = st.sampled_from(["reg-id", "REG-ID", "x", "xreg-id", "reg-idx", "ob", "OB", "lob", "q"])
VALUES = st.sampled_from(
    [None, "1", "", '"q"', '";reg-id=1"', '"\\";reg-id=1"', "<urn:x>", '"<;ob>"']
)
PARAMS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
URIS = st.sampled_from(
    ["sip:b@h", "sip:b;ob@h", "sip:h:5060", "sips:b@[::1]:5", "tel:+1", "sip:b@h?ob=1", "sip:ob@ob"]
)


@given(URIS, PARAMS, PARAMS, st.sampled_from(["", '"<sip:x;ob>;reg-id=1" ', "ob "]))
def test_the_quick_patterns_agree_with_the_parser(
    uri: str,
    uri_params: list[tuple[str, str | None]],
    header_params: list[tuple[str, str | None]],
    display: str,
) -> None:
    def join(params: list[tuple[str, str | None]]) -> str:
        return "".join(f";{n}" if value is None else f";{n}={value}" for n, value in params)

    contact = f"{display}<{uri}{join(uri_params)}>{join(header_params)}".encode()
    try:
        parsed = parse_nameaddr(contact)
        reg_id, ob = parsed.has(b"reg-id"), b"ob" in parse_uri(parsed.uri).params
    except ParseError:
        return  # the host refuses it before anybody asks
    msg = message(Modules("outbound").phone(), "REGISTER")
    msg.append(b"contact", contact)
    assert has_reg_id(msg) is reg_id
    assert contact_has_ob(msg) is ob
