"""Registrar: outbound bindings (RFC 5626 §6), requirements RGO-xx, at the level of the module."""

from __future__ import annotations

import itertools

import pytest

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

CORE_PROXY = "<sip:cp.example.com;lr>"
PATH_ONLY = "Supported: path\r\n"


@pytest.mark.rfc("RGO-01")
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ((CORE_PROXY, EDGE1), 200),  # S35: the last value is the first hop's
        ((f"{CORE_PROXY}, {EDGE1}",), 200),
        ((EDGE1, CORE_PROXY), 439),  # ob on a later hop says nothing about the first
        ((CORE_PROXY,), 439),
        (("<sip:tok1@192.0.2.1;lr>;ob",), 439),  # a header parameter is no URI parameter
    ],
)
def test_the_last_path_value_says_whether_the_first_hop_can(
    path: tuple[str, ...], status: int
) -> None:
    answer = Home().register(outbound_contact(), path=path, vias=3)
    assert answer.status == status
    assert (answer.first(b"require") == b"outbound") is (status == 200)


@pytest.mark.rfc("RGO-01")
def test_without_a_proxy_before_us_no_path_is_needed() -> None:
    home = Home()
    answer = home.register(outbound_contact(), flow=home.udp())
    assert (answer.status, answer.first(b"require")) == (200, b"outbound")


@pytest.mark.rfc("RGO-01")
def test_vias_on_one_line_count_as_hops() -> None:
    home = Home()
    joined = "192.0.2.3:5060;branch=z9hG4bKe, SIP/2.0/UDP 10.0.0.9"
    answer = home.register(outbound_contact(), path=(), vias=1, via_host=joined)
    assert answer.status == 439


@pytest.mark.rfc("RGO-02")
@pytest.mark.parametrize("path", [(), (EDGE_WITHOUT_OB,)])
@pytest.mark.parametrize("headers", [BOTH, "Require: outbound\r\nSupported: path\r\n"])
def test_first_hop_without_outbound_is_439_and_nothing_is_stored(
    path: tuple[str, ...], headers: str
) -> None:
    home = Home()
    answer = home.register(outbound_contact(), path=path, headers=headers)
    assert (answer.status, answer.reason) == (439, b"First Hop Lacks Outbound Support")
    assert answer.first(b"require") is None
    assert home.code == -1
    assert contacts(home.register()) == []


@pytest.mark.rfc("RGO-02")
def test_after_439_the_ua_may_register_without_reg_id() -> None:
    home = Home()
    assert home.register(outbound_contact(), path=()).status == 439
    answer = home.register(f'<sip:bob@10.0.0.9>;+sip.instance="<{I1}>"', path=())
    assert (answer.status, answer.first(b"require")) == (200, None)


@pytest.mark.rfc("RGO-03")
def test_reg_id_is_ignored_when_the_ua_does_not_list_outbound() -> None:
    home = Home()
    answer = home.register(outbound_contact(), path=(EDGE_WITHOUT_OB,), headers=PATH_ONLY)
    assert (answer.status, answer.first(b"require")) == (200, None)
    # a plain binding: another URI of the same instance and reg-id is another binding
    again = outbound_contact(uri="sip:bob@10.0.0.10")
    answer = home.register(again, path=(EDGE_WITHOUT_OB,), headers=PATH_ONLY)
    assert len(contacts(answer)) == 2


MATRIX = list(itertools.product((True, False), repeat=4))


@pytest.mark.rfc("RGO-04")
@pytest.mark.parametrize(("reg_id", "instance", "listed", "ob"), MATRIX)
def test_require_outbound_if_and_only_if_it_was_applied(
    reg_id: bool, instance: bool, listed: bool, ob: bool
) -> None:
    contact = "<sip:bob@10.0.0.9>"
    contact += f';+sip.instance="<{I1}>"' if instance else ""
    contact += ";reg-id=1" if reg_id else ""
    answer = Home().register(
        contact, path=(EDGE1 if ob else EDGE_WITHOUT_OB,), headers=BOTH if listed else PATH_ONLY
    )
    assert answer.status == (439 if reg_id and listed and not ob else 200)
    required = answer.rows(b"require")
    assert required == ([b"outbound"] if reg_id and instance and listed and ob else [])


@pytest.mark.rfc("RGO-04")
@pytest.mark.parametrize(("mode", "status"), [(0, None), (1, b"outbound"), (2, b"outbound")])
def test_require_outbound_by_mode(mode: int, status: bytes | None) -> None:
    answer = Home(outbound_mode=mode).register(outbound_contact())
    assert answer.status == 200
    assert answer.first(b"require") == status
    assert (b"outbound" in answer.options(b"supported")) is (mode > 0)


@pytest.mark.rfc("RGO-05")
def test_instance_and_reg_id_are_the_key_whatever_else_changed() -> None:
    home = Home()
    home.register(outbound_contact(), call_id="c1")
    second = outbound_contact(uri="sips:robert@203.0.113.5:5099;transport=tcp")
    second = second.replace("sips:", "sip:")
    answer = home.register(second, call_id="c2", path=(EDGE2,), flow=home.udp("192.0.2.2"), vias=2)
    assert contacts(answer) == [second.encode() + b";expires=3600"]
    assert home.code == 2
    (binding,) = home.bindings()
    assert binding.call_id == b"c2"
    assert binding.paths == [EDGE2.encode()]


@pytest.mark.rfc("RGO-06")
def test_same_uri_and_instance_with_another_reg_id_is_another_binding() -> None:
    home = Home()
    home.register(outbound_contact(1))
    answer = home.register(outbound_contact(2), path=(EDGE2,))
    assert len(contacts(answer)) == 2
    assert answer.rows(b"path") == [EDGE2.encode()]


@pytest.mark.rfc("RGO-07")
@pytest.mark.parametrize("call_id", ["c1", "after-reboot"])
def test_a_refresh_leaves_the_other_flow_alone(call_id: str) -> None:
    home = Home()
    home.register(outbound_contact(1), call_id="c1")
    home.register(outbound_contact(2), call_id="c2", path=(EDGE2,))
    other = home.bindings()[1]
    answer = home.register(outbound_contact(1, uri="sip:bob@10.0.0.77"), call_id=call_id)
    assert len(contacts(answer)) == 2
    assert other in home.bindings()


@pytest.mark.rfc("RGO-08")
def test_contact_parameters_are_stored_and_a_refresh_overwrites_the_path() -> None:
    home = Home()
    contact = outbound_contact(more=';audio;+foo="a;b,c";q=0.7')
    home.register(contact)
    answer = home.register(contact, path=(EDGE2,))
    assert contacts(answer) == [contact.encode() + b";expires=3600"]
    _, targets = home.lookup()
    assert [target.path for target in targets] == [[EDGE2.encode()]]


@pytest.mark.rfc("RGO-08")
def test_a_refresh_overwrites_the_flow() -> None:
    home = Home()
    first, second = home.tcp(port=40001), home.tcp(port=40002)
    home.register(outbound_contact(), flow=first)
    home.register(outbound_contact(), flow=second)
    _, targets = home.lookup()
    assert [target.flow for target in targets] == [second]


@pytest.mark.rfc("RGO-09")
@pytest.mark.parametrize(
    "contact",
    [
        outbound_contact(),
        outbound_contact(uri="sip:Bob%20B@[2001:DB8::9]:5061;transport=TCP;x-y=%41;ob?X=y"),
        f'<sip:r@x.invalid;transport=ws>;reg-id=1;+sip.instance="<{I1.upper()}>"',
        f'<sip:bob@10.0.0.9;ob>;REG-ID=1;+SIP.Instance="<{I1}>";+sip.ice;audio',
    ],
)
def test_contacts_come_back_byte_for_byte(contact: str) -> None:
    home = Home()
    expected = [contact.encode() + b";expires=300"]
    assert contacts(home.register(f"{contact};expires=300")) == expected
    assert contacts(home.register()) == expected


@pytest.mark.rfc("RGO-09")
def test_expires_is_taken_out_wherever_it_stood_and_a_display_name_is_not_kept() -> None:
    contact = f'"Bob, B." <sip:bob@10.0.0.9>;expires=300;reg-id=1;+sip.instance="<{I1}>"'
    stored = f'<sip:bob@10.0.0.9>;reg-id=1;+sip.instance="<{I1}>";expires=300'
    assert contacts(Home().register(contact)) == [stored.encode()]


@pytest.mark.rfc("RGO-09")
def test_all_bindings_are_listed_with_the_path_of_this_request_only() -> None:
    home = Home()
    home.register(outbound_contact(1), path=(EDGE1,))
    home.advance(100)
    answer = home.register(outbound_contact(2, more=";expires=600"), path=(EDGE2,))
    assert contacts(answer) == [
        outbound_contact(1).encode() + b";expires=3500",
        outbound_contact(2).encode() + b";expires=600",
    ]
    assert answer.rows(b"path") == [EDGE2.encode()]


@pytest.mark.rfc("RGO-10", "RGO-20", "HPX-06")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_directly_connected_ua_is_called_over_its_flow(transport: str) -> None:
    home = Home()
    flow = home.tcp() if transport == "tcp" else home.udp()
    answer = home.register(outbound_contact(), flow=flow)
    assert answer.first(b"require") == b"outbound"
    _, targets = home.lookup()
    assert [(t.flow, t.path, t.dst_uri) for t in targets] == [(flow, [], None)]


@pytest.mark.rfc("RGO-11")
def test_expires_zero_removes_just_that_flow_whatever_the_uri() -> None:
    home = Home()
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    gone = outbound_contact(1, uri="sip:elsewhere@203.0.113.1", more=";expires=0")
    answer = home.register(gone)
    assert home.code == 3
    assert contacts(answer) == [outbound_contact(2).encode() + b";expires=3600"]
    assert answer.first(b"require") == b"outbound"
    assert [target.reg_id for target in home.lookup()[1]] == [2]


@pytest.mark.rfc("RGO-13")
@pytest.mark.parametrize("direct", [True, False])
def test_reg_id_without_instance_is_ignored(direct: bool) -> None:
    home = Home()
    answer = home.register("<sip:bob@10.0.0.9>;reg-id=1", flow=home.udp() if direct else None)
    assert (answer.status, answer.first(b"require")) == (200, None)
    assert [binding.reg_id for binding in home.bindings()] == [0]


@pytest.mark.rfc("RGO-14")
@pytest.mark.parametrize(
    "second", ["<sip:bob@10.0.0.10>", outbound_contact(2, uri="sip:bob@10.0.0.10")]
)
def test_two_live_contacts_with_a_reg_id_are_refused(second: str) -> None:
    home = Home()
    home.register(outbound_contact(1, more=";expires=1000"))
    answer = home.register(outbound_contact(1), second)
    assert answer.status == 400
    assert contacts(home.register()) == [outbound_contact(1).encode() + b";expires=1000"]


@pytest.mark.rfc("RGO-14")
def test_one_live_contact_may_remove_others() -> None:
    home = Home()
    home.register("<sip:old@10.0.0.1>")
    answer = home.register(outbound_contact(1), "<sip:old@10.0.0.1>;expires=0")
    assert contacts(answer) == [outbound_contact(1).encode() + b";expires=3600"]


@pytest.mark.rfc("RGO-15")
@pytest.mark.parametrize(
    "reg_id",
    ["0", "2147483648", "-1", "a", "", '"1"', "1;reg-id=2", "1;reg-id=1", "9" * 5000, "+1", "1.0"],
)
@pytest.mark.parametrize("direct", [True, False])
def test_what_is_no_reg_id_is_refused(reg_id: str, direct: bool) -> None:
    home = Home()
    answer = home.register(outbound_contact(reg_id), flow=home.udp() if direct else None)
    assert answer.status == 400
    assert home.bindings() == ()


@pytest.mark.rfc("RGO-15")
def test_the_greatest_reg_id_is_good() -> None:
    home = Home()
    assert home.register(outbound_contact(2**31 - 1)).status == 200
    assert home.bindings()[0].reg_id == 2**31 - 1


@pytest.mark.rfc("RGO-16")
@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        (I1, I1.upper(), 1),
        (I1, I1.replace("urn:uuid", "URN:Uuid"), 1),
        ("urn:imei:35-209900", "URN:IMEI:35-209900", 1),
        ("urn:x-phone:Serial", "urn:X-PHONE:Serial", 1),
        ("urn:x-phone:Serial", "urn:x-phone:sERIAL", 2),
        (I1, I2, 2),
    ],
)
def test_instances_are_compared_as_urns(first: str, second: str, count: int) -> None:
    home = Home()
    home.register(outbound_contact(1, first))
    home.register(outbound_contact(1, second, uri="sip:bob@10.0.0.10"))
    assert len(home.bindings()) == count


@pytest.mark.rfc("RGO-17")
def test_outbound_and_plain_bindings_coexist() -> None:
    home = Home()
    home.register(outbound_contact())
    home.register("<sip:bob@10.0.0.9>", path=(EDGE_WITHOUT_OB,))
    assert len(home.bindings()) == 2
    assert len(home.lookup()[1]) == 2


@pytest.mark.rfc("RGO-18")
@pytest.mark.parametrize("headers", [PATH_ONLY, ""])
def test_mode_2_refuses_those_who_do_not_list_outbound(headers: str) -> None:
    home = Home(outbound_mode=2)
    answer = home.register("<sip:bob@10.0.0.9>", headers=headers)
    assert answer.status == 421
    assert answer.first(b"require") == b"outbound"
    assert home.bindings() == ()
    assert home.register(headers=headers).status == 200  # asking is allowed


@pytest.mark.rfc("RGO-19")
def test_an_instance_belongs_to_its_aor() -> None:
    home = Home()
    home.register(outbound_contact())
    home.register(outbound_contact(uri="sip:carol@10.0.0.8"), to="<sip:carol@example.com>")
    assert len(home.bindings()) == 1
    assert len(home.bindings(b"carol@example.com")) == 1


@pytest.mark.rfc("RGO-21")
def test_a_refresh_is_never_one_more() -> None:
    home = Home(max_contacts=1, retry_after=30)
    for n in range(3):
        answer = home.register(outbound_contact(uri=f"sip:bob@10.0.0.{n}"), call_id=f"c{n}")
        assert answer.status == 200
    answer = home.register(outbound_contact(2))
    assert (answer.status, answer.first(b"retry-after"), home.code) == (503, b"30", -2)
    assert why(answer) == b"Too many registered contacts"
    assert [binding.reg_id for binding in home.bindings()] == [1]


@pytest.mark.rfc("RGO-22")
def test_the_time_of_the_last_update_is_kept() -> None:
    home = Home()
    home.register(outbound_contact())
    home.advance(50)
    home.register(outbound_contact())
    assert home.bindings()[0].updated == pytest.approx(home.now)


@pytest.mark.rfc("RGO-23")
@pytest.mark.parametrize(
    ("path_mode", "headers", "echoed"),
    [(3, "", True), (3, BOTH, True), (1, "", False), (1, BOTH, True), (0, BOTH, False)],
)
def test_supported_and_path_in_the_answer(path_mode: int, headers: str, echoed: bool) -> None:
    answer = Home(path_mode=path_mode).register("<sip:bob@10.0.0.9>", headers=headers)
    assert answer.options(b"supported") == {b"path", b"outbound"}
    assert answer.rows(b"path") == ([EDGE1.encode()] if echoed else [])


@pytest.mark.rfc("RGO-24")
@pytest.mark.parametrize("path", [(EDGE1,), (EDGE_WITHOUT_OB,), ()])
def test_a_star_removes_all_flows(path: tuple[str, ...]) -> None:
    home = Home()
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    answer = home.register("*", headers=f"{BOTH}Expires: 0\r\n", path=path)
    assert (answer.status, answer.first(b"require"), contacts(answer)) == (200, None, [])
    assert home.code == 3
    assert contacts(home.register()) == []
    assert home.lookup()[0] == -1


@pytest.mark.rfc("RGO-04", "RGO-11", "RGO-14", "RGO-24")
def test_scenario_s47() -> None:
    home = Home()
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    answer = home.register(outbound_contact(1, more=";expires=0"))
    assert (len(contacts(answer)), answer.first(b"require")) == (1, b"outbound")
    assert home.register("*", headers="Expires: 0\r\n").first(b"require") is None
    assert home.lookup()[0] == -1


@pytest.mark.rfc("RGO-02")
@pytest.mark.parametrize(("mode", "regid_mode", "status"), [(1, 1, 200), (2, 1, 200), (1, 0, 439)])
def test_regid_mode_1_trusts_every_first_hop(mode: int, regid_mode: int, status: int) -> None:
    home = Home(outbound_mode=mode, regid_mode=regid_mode)
    assert home.register(outbound_contact(), path=()).status == status


def test_flow_timer_comes_with_require_outbound_only() -> None:
    home = Home(flow_timer=120)
    assert home.register(outbound_contact()).first(b"flow-timer") == b"120"
    assert home.register("<sip:bob@10.0.0.9>").first(b"flow-timer") is None
    assert home.register().first(b"flow-timer") is None


def test_mode_0_knows_no_outbound() -> None:
    home = Home(outbound_mode=0)
    answer = home.register(outbound_contact(), headers="Require: outbound\r\n")
    assert (answer.status, answer.first(b"unsupported")) == (420, b"outbound")
    home.register(outbound_contact(1))
    home.register(outbound_contact(2))
    assert len(home.bindings()) == 1, "the URI is the key"
