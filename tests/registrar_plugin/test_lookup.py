from __future__ import annotations

import pytest

from registrar_plugin.api import RegistrarBinds, registrar_load_api
from registrar_plugin.lookup import request_uri
from registrar_plugin.store import StoreError
from registrar_plugin.store.memory import MemoryStore
from sipedge.sip.message import SipMessage, parse
from tests.registrar_plugin.home import EDGE1, EDGE2, Context, Home, outbound_contact, register_text

BOB = "<sip:bob@10.0.0.9>"
AOR = "sip:bob@example.com"


def any_message(home: Home) -> SipMessage:
    msg = parse(register_text(cseq=1))
    msg.flow, msg.now = home.edge, home.now
    return msg


def test_a_uri_may_be_given_as_text_or_bytes() -> None:
    home = Home()
    home.register(BOB)
    for uri in (AOR, AOR.encode()):
        msg = any_message(home)
        assert home.registrar.lookup(msg, "location", uri) == 1
        assert len(msg.targets) == 1
        assert home.registrar.registered(msg, "location", uri) == 1


def test_append_branches_0_yields_the_best_one() -> None:
    home = Home(append_branches=0)
    home.register(f"{BOB};q=0.5", "<sip:b@10.0.0.2>;q=0.6", "<sip:c@10.0.0.3>;q=0.1")
    assert [target.uri for target in home.lookup()[1]] == [b"sip:b@10.0.0.2"]


@pytest.mark.parametrize(
    ("contact", "headers", "method", "to_tag", "rc"),
    [
        (BOB, "", "INVITE", "", 1),
        (BOB, "Allow: INVITE, BYE\r\n", "INVITE", "", 1),
        (BOB, "Allow: INVITE, BYE\r\n", "MESSAGE", "", -2),
        (BOB, "Allow: INVITE, BYE\r\n", "MESSAGE", ";tag=x", 1),  # only initial requests
        (f'{BOB};methods="MESSAGE, INFO"', "Allow: INVITE\r\n", "MESSAGE", "", 1),
        (f'{BOB};methods="MESSAGE, INFO"', "Allow: INVITE\r\n", "INVITE", "", -2),
    ],
)
def test_method_filtering(contact: str, headers: str, method: str, to_tag: str, rc: int) -> None:
    home = Home(method_filtering=1)
    home.register(contact, headers=headers)
    got, targets = home.lookup(AOR, method, to_tag)
    assert (got, len(targets)) == (rc, 1 if rc == 1 else 0)
    home = Home()
    home.register(contact, headers=headers)
    assert home.lookup(AOR, method, to_tag)[0] == 1


def test_methods_are_kept_as_one_object() -> None:
    home = Home(method_filtering=1)
    home.register(BOB, headers="Allow: INVITE, BYE\r\n")
    home.register("<sip:b@10.0.0.2>", headers="Allow: BYE\r\nAllow: INVITE\r\n")
    first, second = home.bindings()
    assert first.methods is second.methods


def test_registered() -> None:
    home = Home()
    home.register(f"{BOB};expires=60")
    msg = any_message(home)
    assert home.registrar.registered(msg, uri=AOR) == 1
    assert home.registrar.registered(msg, uri="sip:carol@example.com") == -1
    assert home.registrar.registered(msg) == -1, "the Request-URI has no user"
    msg.now += 60
    assert home.registrar.registered(msg, uri=AOR) == -1


def test_unregister() -> None:
    home = Home()
    home.register(outbound_contact(1))
    home.register(outbound_contact(2), path=(EDGE2,))
    msg = any_message(home)
    _, targets = home.lookup()
    unregister = home.registrar.unregister
    assert unregister(msg, "location", AOR, "uloc-0") == -3
    assert unregister(msg, "location", "tel:1") == -1
    assert unregister(msg, "location", AOR, targets[0].ruid) == 1
    assert [binding.ruid for binding in home.bindings()] == [targets[1].ruid]
    assert unregister(msg, "location", AOR, targets[0].ruid) == -3
    assert unregister(msg, "location", AOR) == 1
    assert home.bindings() == ()


def test_an_old_ruid_does_not_remove_a_refreshed_binding() -> None:
    home = Home()
    home.register(outbound_contact())
    ruid = home.bindings()[0].ruid
    home.register(outbound_contact(), path=(EDGE2,))
    assert home.registrar.unregister(any_message(home), "location", AOR, ruid) == -3
    assert len(home.bindings()) == 1


class Broken(MemoryStore):
    def fetch(self, aor: bytes, now: float) -> tuple[()]:
        raise StoreError("away")


def test_a_table_that_fails() -> None:
    home = Home()
    home.registrar._location.tables["location"] = Broken()
    assert home.lookup()[0] == -4
    msg = any_message(home)
    assert home.registrar.registered(msg, uri=AOR) == -4
    assert home.registrar.unregister(msg, "location", AOR) == -2
    assert home.register(BOB).status == 500


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (b"sip:b@h", b"sip:b@h"),
        (b"sip:h;METHOD=INVITE", b"sip:h"),
        (b"sip:b@h;method;lr?x=y", b"sip:b@h;lr"),
        (b"sip:b@h;methodx=1;xmethod=2", b"sip:b@h;methodx=1;xmethod=2"),
        (b"sip:b?c@h", b"sip:b?c@h"),
    ],
)
def test_request_uri(uri: bytes, expected: bytes) -> None:
    assert request_uri(uri) == expected


def test_a_plain_binding_that_answers_430_by_itself_stays() -> None:
    home = Home()
    home.register(BOB, path=())
    home.register("<sip:b@10.0.0.2>")  # along a Path
    by_uri, by_path = home.lookup()[1][::-1]
    for target in (by_uri, by_path):
        assert target.on_failed is not None
        assert target.on_failed(target, 430) == []
    assert [binding.uri for binding in home.bindings()] == [b"sip:bob@10.0.0.9"]


def test_a_plain_binding_that_moved_is_tried_where_it_is_now() -> None:
    home = Home()
    home.register("<sip:bob@10.0.0.9;x=1>")
    _, (target,) = home.lookup()
    home.register("<sip:bob@10.0.0.9>", path=(EDGE2,))
    assert target.on_failed is not None
    assert [fresh.path for fresh in target.on_failed(target, 430)] == [[EDGE2.encode()]]


def test_a_binding_that_is_gone_is_not_replaced() -> None:
    home = Home()
    home.register(outbound_contact(), path=(EDGE1,))
    _, (target,) = home.lookup()
    home.register("*", headers="Expires: 0\r\n")
    assert target.on_failed is not None
    assert target.on_failed(target, 430) == []


def test_other_modules_find_it_by_its_api() -> None:
    home = Home()
    api = registrar_load_api(Context(home.core, home.exports))
    assert isinstance(api, RegistrarBinds)
    home.register(BOB)
    assert len(api.table("location").fetch(b"bob@example.com", home.now)) == 1
    assert registrar_load_api(Context(home.core, {})) is None
