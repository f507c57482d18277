"""Registrar: RFC 3261 §10.3, Path and sips, requirements REG-xx, PTH-xx, SPS-01, on one module."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from registrar_plugin.bindings import Binding
from registrar_plugin.store import StoreError
from registrar_plugin.store.memory import MemoryStore
from tests.registrar_plugin.home import (
    BOTH,
    EDGE1,
    EDGE2,
    Home,
    contacts,
    outbound_contact,
    register_text,
    why,
)

BOB = "<sip:bob@10.0.0.9>"


@pytest.mark.rfc("REG-02")
@pytest.mark.parametrize(
    ("required", "unsupported"),
    [
        ("foo, path", b"foo"),
        ("outbound, Foo, bar", b"bar, foo"),
        ("path, outbound", None),
        ("gruu, path, outbound", None),
    ],
)
def test_unknown_extensions_are_420(required: str, unsupported: bytes | None) -> None:
    home = Home()
    answer = home.register(outbound_contact(), headers=f"Require: {required}\r\n")
    assert (answer.status == 420) is (unsupported is not None)
    assert answer.first(b"unsupported") == unsupported
    assert len(home.bindings()) == (unsupported is None)


@pytest.mark.rfc("REG-04")
@pytest.mark.parametrize(
    "to",
    [
        "<sip:%61lice@EXAMPLE.com;user=phone>",
        "<sip:alice@example.com:5060>",
        "<sips:alice:secret@example.com>",
        '"A" <sip:ALICE@example.com>;x=y',
        "sip:alice@example.com",
    ],
)
def test_the_aor_is_the_to_in_canonical_form(to: str) -> None:
    home = Home()
    assert home.register(BOB, to=to).status == 200
    assert len(home.bindings(b"alice@example.com")) == 1
    assert home.lookup("sip:alice@example.com")[0] == 1


@pytest.mark.rfc("REG-04")
@pytest.mark.parametrize("to", ["<sip:example.com>", "<sip:bob@other.example>"])
def test_an_invalid_aor_is_404(to: str) -> None:
    home = Home()
    assert home.register(BOB, to=to).status == 404
    assert home.registrar._location.table("location").fetch(b"bob@other.example", home.now) == ()


def test_case_and_domain_of_an_aor_by_parameter() -> None:
    home = Home(case_sensitive=1)
    home.register(BOB, to="<sip:Bob@EXAMPLE.com>")
    assert home.lookup("sip:bob@example.com")[0] == -1
    assert home.lookup("sip:Bob@example.com")[0] == 1
    home = Home(use_domain=0)
    assert home.register(BOB).status == 200
    assert home.lookup("sip:bob@192.0.2.77")[0] == 1
    home = Home(realm_prefix="sip.")
    home.register(BOB, to="<sip:bob@sip.example.com>", ruri="sip:sip.example.com")
    assert home.lookup("sip:bob@example.com")[0] == 1


@pytest.mark.rfc("REG-05")
@pytest.mark.parametrize(
    ("values", "headers"),
    [
        (("*",), ""),
        (("*",), "Expires: 5\r\n"),
        (("*",), "Expires: zero\r\n"),
        (("*", BOB), "Expires: 0\r\n"),
        ((f"{BOB}, *",), "Expires: 0\r\n"),
        (("*;expires=0",), ""),
    ],
)
def test_a_star_that_does_not_stand_alone_or_has_no_expires_0_is_400(
    values: tuple[str, ...], headers: str
) -> None:
    home = Home()
    home.register(BOB)
    # a star with a parameter does not even get through the parser
    assert home.register(*values, headers=headers).status == 400
    assert len(home.bindings()) == 1


@pytest.mark.rfc("REG-06")
@pytest.mark.parametrize(
    ("contact", "headers", "granted"),
    [
        (f"{BOB};expires=300", "Expires: 600\r\n", 300),
        (BOB, "Expires: 600\r\n", 600),
        (BOB, "", 3600),
        (f"{BOB};expires=never", "Expires: 600\r\n", 3600),  # RFC 3261 §20.10
        (f"{BOB};expires=00000000000000000000300", "", 300),
        (f"{BOB};expires=99999999999999999999", "", 2**32 - 1),
    ],
)
def test_order_of_expiry(contact: str, headers: str, granted: int) -> None:
    home = Home(default_expires=3600)
    answer = home.register(contact, headers=headers)
    assert contacts(answer) == [f"{BOB};expires={granted}".encode()]


@pytest.mark.rfc("REG-06")
def test_each_contact_has_its_own_expiry() -> None:
    answer = Home(max_expires=900).register(
        f"{BOB};expires=300, <sip:b@10.0.0.2>", "<sip:c@10.0.0.3>;expires=70", headers=""
    )
    assert [row.rpartition(b"=")[2] for row in contacts(answer)] == [b"300", b"900", b"70"]


@pytest.mark.rfc("REG-07")
@pytest.mark.parametrize(
    ("asked", "min_expires", "status", "granted"),
    [
        (5, 60, 423, None),
        (59, 60, 423, None),
        (60, 60, 200, 60),
        (3599, 7200, 423, None),
        (3600, 7200, 200, 3600),  # an hour may not be refused
        (5, 0, 200, 5),
    ],
)
def test_423(asked: int, min_expires: int, status: int, granted: int | None) -> None:
    home = Home(min_expires=min_expires)
    answer = home.register(f"{BOB};expires={asked}")
    assert answer.status == status
    if status == 423:
        assert answer.first(b"min-expires") == b"%d" % min_expires
        assert home.bindings() == ()
    else:
        assert contacts(answer)[0].endswith(b";expires=%d" % (granted or 0))


@pytest.mark.rfc("REG-07")
def test_expires_0_is_never_too_brief() -> None:
    home = Home()
    home.register(BOB)
    assert home.register(f"{BOB};expires=0").status == 200
    assert home.bindings() == ()


def test_min_expires_mode_0_raises_instead() -> None:
    answer = Home(min_expires_mode=0).register(f"{BOB};expires=5")
    assert contacts(answer) == [f"{BOB};expires=60".encode()]


def test_expires_range_lowers_at_random_but_not_below_the_minimum() -> None:
    home = Home(expires_range=100, min_expires=100)
    granted = set()
    for _ in range(40):
        answer = home.register(f"{BOB};expires=1000")
        granted.add(int(contacts(answer)[0].rpartition(b"=")[2]))
    assert len(granted) > 5
    assert min(granted) >= 100
    assert max(granted) <= 1000
    home.flags = 0x08
    assert contacts(home.register(f"{BOB};expires=1000"))[0].endswith(b"=1000")


@pytest.mark.rfc("REG-08")
@pytest.mark.parametrize("contact", [BOB, outbound_contact()])
@pytest.mark.parametrize("late", [4, 5])
@pytest.mark.parametrize("expires", ["", ";expires=0"])
def test_an_older_request_of_the_same_ua_fails(contact: str, late: int, expires: str) -> None:
    home = Home()
    home.register(f"{contact};expires=1000", cseq=5)
    answer = home.register(f"{contact}{expires}", cseq=late, path=(EDGE2,))
    assert (answer.status, why(answer)) == (
        (482, b"Merged request") if late == 5 else (400, b"Invalid CSeq number")
    )
    assert [(b.cseq, b.lifetime, b.path) for b in home.bindings()] == [(5, 1000, EDGE1.encode())]


@pytest.mark.rfc("REG-08")
def test_order_is_kept_per_binding_and_per_call_id() -> None:
    home = Home()
    home.register(outbound_contact(1), cseq=9)
    assert home.register(outbound_contact(2), cseq=3).status == 200  # another key
    assert home.register(outbound_contact(1), cseq=2, call_id="reboot").status == 200
    assert home.register("*", headers="Expires: 0\r\n", cseq=2).status == 400, "reg-id 2 has 3"
    assert len(home.bindings()) == 2


class Broken(MemoryStore):
    """A table that fails on the second binding of a change, before anything is visible."""

    def replace(
        self, aor: bytes, gone: Sequence[Binding], new: Sequence[Binding], now: float
    ) -> tuple[Binding, ...]:
        if len(new) > 1:
            raise StoreError("disk full")
        return super().replace(aor, gone, new, now)


@pytest.mark.rfc("REG-09")
def test_a_failing_table_is_500_and_changes_nothing() -> None:
    home = Home(retry_after=7)
    home.registrar._location.tables["location"] = Broken()
    home.register(f"{BOB};expires=1000")
    answer = home.register(BOB, "<sip:b@10.0.0.2>")
    assert (answer.status, answer.first(b"retry-after"), home.code) == (500, b"7", -1)
    assert contacts(home.register()) == [f"{BOB};expires=1000".encode()]


@pytest.mark.rfc("REG-09")
@pytest.mark.parametrize(
    "second",
    [
        "<sip:b@10.0.0.2>;expires=5",
        "<sip:b@10.0.0.2>;q=1.1",
        "<mailto:b@example.com>",
        "<sip:b@10.0.0.2:99999>",
        "<sip:old@10.0.0.3>",  # has a higher CSeq
    ],
)
def test_one_bad_contact_and_nothing_is_changed(second: str) -> None:
    home = Home()
    home.register("<sip:old@10.0.0.3>", cseq=50)
    assert home.register(BOB, second, cseq=20).status in (400, 403, 423)
    assert [binding.uri for binding in home.bindings()] == [b"sip:old@10.0.0.3"]


@pytest.mark.rfc("REG-10")
def test_no_contact_asks_for_all_bindings_and_what_is_left() -> None:
    home = Home()
    home.register(BOB, "<sip:b@10.0.0.2>;expires=500;q=0.5")
    home.advance(100.25)
    answer = home.register()
    assert home.code == 4
    assert contacts(answer) == [
        f"{BOB};expires=3500".encode(),
        b"<sip:b@10.0.0.2>;q=0.5;expires=400",
    ]


@pytest.mark.rfc("REG-11")
def test_record_route_is_ignored_and_never_sent() -> None:
    headers = f"{BOTH}Record-Route: <sip:x@192.0.2.9;lr>\r\n"
    answer = Home().register(BOB, headers=headers)
    assert answer.status == 200
    assert not answer.has(b"record-route")


@pytest.mark.rfc("REG-13")
@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("sip:%62ob@HOST.example;Transport=TCP", "sip:bob@host.EXAMPLE;transport=tcp", True),
        ("sip:bob@10.0.0.9;newparam=5", "sip:bob@10.0.0.9", True),
        ("sip:bob@10.0.0.9?a=b&c=d", "sip:bob@10.0.0.9?c=d&a=b", True),
        ("sip:bob@[2001:db8::9]", "sip:bob@[2001:DB8:0::9]", True),
        ("sip:BOB@10.0.0.9", "sip:bob@10.0.0.9", False),
        ("sip:bob@10.0.0.9", "sip:bob@10.0.0.9:5060", False),
        ("sip:bob@10.0.0.9", "sip:bob@10.0.0.9;transport=udp", False),
        ("sip:bob@10.0.0.9?a=b", "sip:bob@10.0.0.9", False),
    ],
)
def test_plain_contacts_are_compared_as_uris(first: str, second: str, same: bool) -> None:
    home = Home()
    home.register(f"<{first}>")
    answer = home.register(f"<{second}>")
    assert len(contacts(answer)) == (1 if same else 2)
    assert contacts(answer)[-1] == f"<{second}>;expires=3600".encode()
    home.register(f"<{first}>;expires=0")
    assert len(home.bindings()) == (0 if same else 1)


@pytest.mark.rfc("REG-14")
def test_an_expired_binding_is_neither_listed_nor_called() -> None:
    home = Home(min_expires=0)
    home.register(f"{BOB};expires=2")
    home.now += 2.0  # before any timer has run
    assert home.bindings() == ()
    assert home.lookup()[0] == -1
    assert contacts(home.register()) == []


@pytest.mark.rfc("REG-14")
def test_a_retransmission_gets_the_same_answer_and_changes_nothing() -> None:
    home = Home()
    data = register_text(BOB, cseq=1)
    first = home.send(data, home.edge)
    stamp = home.bindings()[0].stamp
    home.advance(3)
    assert home.send(data, home.edge).to_bytes() == first.to_bytes()
    assert home.bindings()[0].stamp == stamp
    assert home.core.stats["accepted_regs"] == 1


@pytest.mark.rfc("REG-15")
def test_parameters_after_a_bare_uri_belong_to_the_header() -> None:
    home = Home()
    answer = home.register("sip:bob@10.0.0.9;q=0.5;expires=100")
    assert contacts(answer) == [b"<sip:bob@10.0.0.9>;q=0.5;expires=100"]
    assert [target.q for target in home.lookup()[1]] == [0.5]


@pytest.mark.rfc("REG-15")
@pytest.mark.parametrize("q", ["2", "1.001", "0.1234", "-0.5", "", "x", ".5"])
def test_a_q_that_is_none_is_400(q: str) -> None:
    home = Home()
    assert home.register(f"{BOB};q={q}").status == 400
    assert home.bindings() == ()


@pytest.mark.rfc("REG-16")
@pytest.mark.parametrize(
    "uri",
    [
        "sip:bob@example.com",
        "sip:bob@EXAMPLE.COM;x=1",
        "sip:%62ob@example.com;transport=tcp",
        "sip:bob@example.com:5060",
        "sip:bob@example.com;gr=urn:uuid:1",
        "mailto:bob@10.0.0.9",
        "tel:+4930123",
    ],
)
def test_a_contact_that_is_the_aor_or_no_sip_uri_is_403(uri: str) -> None:
    home = Home()
    assert home.register(f"<{uri}>").status == 403
    assert home.bindings() == ()


@pytest.mark.rfc("REG-16")
def test_a_user_of_the_same_name_at_another_host_is_fine() -> None:
    assert Home().register("<sip:bob@10.0.0.9>").status == 200
    assert Home(use_domain=0).register("<sip:bob@10.0.0.9>").status == 200


@pytest.mark.rfc("PTH-01")
@pytest.mark.parametrize(
    "path",
    [
        ("<sip:a;lr>", "<sip:b;lr>", "<sip:c;lr>"),
        ("<sip:a;lr>, <sip:b;lr>,<sip:c;lr>",),
        ("<sip:a;lr>", "<sip:b;lr>  ,\t<sip:c;lr>"),
    ],
)
def test_path_values_keep_their_order(path: tuple[str, ...]) -> None:
    home = Home()
    answer = home.register(BOB, path=path)
    expected = [b"<sip:a;lr>", b"<sip:b;lr>", b"<sip:c;lr>"]
    assert answer.values(b"path") == expected
    assert [target.path for target in home.lookup()[1]] == [expected]


@pytest.mark.rfc("PTH-02")
@pytest.mark.parametrize(("path_mode", "status"), [(2, 420), (3, 200), (1, 200), (0, 200)])
def test_path_that_the_ua_does_not_list(path_mode: int, status: int) -> None:
    home = Home(path_mode=path_mode)
    answer = home.register(BOB, headers="")
    assert answer.status == status
    assert len(home.bindings()) == (status == 200), "420 comes before anything is stored"
    if status == 420:
        assert answer.first(b"unsupported") == b"path"
    assert home.register(BOB, headers=BOTH).status == 200


@pytest.mark.rfc("PTH-03")
@pytest.mark.parametrize(
    "value",
    [
        "<sip:t@e.example.com:5070;transport=tcp;lr;ob>",
        '"Edge, one" <sip:t%40x@[2001:db8::1]:5070;Transport=TCP;lr;X=%41>;p="a,b;c"',
        "<sip:t@e.example.com;lr=on;ob>;received=1.2.3.4",
    ],
)
def test_path_values_stay_as_they_are(value: str) -> None:
    home = Home()
    answer = home.register(BOB, path=("<sip:top;lr>", value))
    assert answer.rows(b"path")[1] == value.encode()
    assert home.lookup()[1][0].path[1] == value.encode()


@pytest.mark.rfc("PTH-03")
@pytest.mark.parametrize(
    "value",
    ["<sip:a", "sip:", "<>", "<sip:a b;lr>", "<tel:+123>", "<sip:a;lr>, <sip:%zz@b>", "x y"],
)
def test_a_path_that_cannot_be_read_is_400(value: str) -> None:
    home = Home()
    assert home.register(outbound_contact(), path=(value,)).status == 400
    assert home.bindings() == ()


@pytest.mark.rfc("SPS-01")
@pytest.mark.parametrize(
    ("ruri", "path", "status"),
    [
        ("sips:example.com", ("<sips:a;lr>", "<sips:b;lr;ob>"), 200),
        ("sips:example.com", (), 200),
        ("sips:example.com", ("<sips:a;lr>", "<sip:b;lr;ob>"), 400),
        ("sip:example.com", ("<sips:a;lr>",), 400),
    ],
)
def test_a_sips_contact_needs_sips_all_the_way(
    ruri: str, path: tuple[str, ...], status: int
) -> None:
    home = Home()
    assert home.register("<sips:bob@10.0.0.9>", ruri=ruri, path=path).status == status
    assert len(home.bindings()) == (status == 200)


@pytest.mark.rfc("SPS-01")
def test_sip_and_sips_name_the_same_record() -> None:
    home = Home()
    sips = "sips:example.com"
    home.register("<sips:bob@10.0.0.9>", path=(), to="<sips:bob@example.com>", ruri=sips)
    assert home.lookup("sip:bob@example.com")[0] == 1
    home.register("<sip:bob@10.0.0.10>")
    assert [t.uri for t in home.lookup("sips:bob@example.com")[1]] == [b"sips:bob@10.0.0.9"]
