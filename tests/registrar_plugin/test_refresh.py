"""The fast path and the full one must not differ in anything."""

from __future__ import annotations

import itertools
import secrets
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

import pytest

from registrar_plugin import gruu, save
from registrar_plugin.bindings import Binding
from registrar_plugin.location import Location
from registrar_plugin.register import Register, read_register
from sipedge.sip.message import SipMessage
from tests.registrar_plugin.home import (
    BOTH,
    EDGE1,
    EDGE2,
    EDGE_WITHOUT_OB,
    I1,
    Home,
    outbound_contact,
)

GRUU = "Supported: path, outbound, gruu\r\n"
CONTACT = outbound_contact(uri="sip:bob@10.0.0.9;ob")

#: what each REGISTER may be like; the first one is stored, the second one is compared
CONTACTS = (
    f"{CONTACT};expires=600",
    CONTACT,
    f"{CONTACT};expires=0",
    f"{CONTACT};expires=7",
    f"{CONTACT};expires=x",
    f'<sip:bob@10.0.0.9;ob>;expires=600;+sip.instance="<{I1}>";reg-id=1',
    outbound_contact(2),
    outbound_contact(uri="sips:bob@10.0.0.9;ob"),
    f'<sip:bob@10.0.0.9;ob>;+sip.instance="<{I1}>"',
    "<sip:bob@10.0.0.9;ob>;expires=600",
)
PATHS = (
    (EDGE1,), (EDGE2,), (EDGE_WITHOUT_OB,), (), (EDGE1, EDGE2), (f"{EDGE1}, {EDGE2}",),
    (EDGE1, EDGE_WITHOUT_OB), ("<sip:a;ob;lr>",), ("<sip:a?b=c;ob>",),
)  # fmt: skip
HEADERS = (
    BOTH, GRUU, "", "Supported: OUTBOUND,Path\r\n", f"{BOTH}Require: outbound\r\n",
    f"{BOTH}Require: foo\r\n", f"{BOTH}Expires: 900\r\n", "Supported: outbound\r\n",
)  # fmt: skip
OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {"vias": 1},
    {"cseq": 1},
    {"cseq": 1, "call_id": "new"},
    {"to": "<sip:Bob@EXAMPLE.com>"},
    {"to": "Bob <sip:bob@example.com>"},
    {"to": '"Bob B., 2nd floor" <sip:bob@example.com>;tag=x'},
    {"to": '"<sip:carol@example.com>" <sip:bob@example.com>'},
    {"to": '"\\"" <sip:bob@example.com>'},
    {"to": "Bob, <sip:bob@example.com>"},
    {"to": "<sip:bob@example.com:5060;user=phone>;x=y"},
    {"to": "<sip:carol@example.com>"},
    {"to": "<sip:bob@elsewhere.example>"},
    {"ruri": "sip:EXAMPLE.COM:5060"},
    {"ruri": "sip:other.example"},
    {"ruri": "tel:123"},
)


class Epochs:
    """1, 2, 3, and from the start for the second way."""

    last = 0

    def __next__(self) -> int:
        self.last += 1
        return self.last


EPOCHS = Epochs()


def shape(binding: Binding) -> list[object]:
    """All that it holds; ``__slots__`` is not there in the compiled build."""
    kinds = (MemberDescriptorType, GetSetDescriptorType)
    names = [name for name in dir(Binding) if isinstance(getattr(Binding, name), kinds)]
    assert {"contact", "call_id", "epoch"} < set(names)
    return [getattr(binding, name) for name in names if name != "flow"]


def run(home: Home, variants: list[dict[str, Any]]) -> list[object]:
    seen: list[object] = []
    for variant in variants:
        values = dict(variant)
        answer = home.register(values.pop("contact"), **values)
        rows = [row for row in answer.lines if not row.startswith(b"To:")]
        seen += [rows, home.code, [shape(binding) for binding in home.bindings()]]
        home.advance(10)
    return seen


def variants() -> list[list[dict[str, Any]]]:
    first = {"contact": CONTACTS[0], "path": PATHS[0], "headers": HEADERS[0], "cseq": 1}
    pairs = []
    second = first | {"cseq": 2}
    for contact, path in itertools.product(CONTACTS, PATHS):
        pairs.append([first, second | {"contact": contact, "path": path}])
    for contact, headers in itertools.product(CONTACTS, HEADERS):
        pairs.append([first, second | {"contact": contact, "headers": headers}])
    for path, other in itertools.product(PATHS, OTHERS):
        stored = first | {"path": path}
        pairs.append([stored, stored | {"cseq": 2} | other])
        direct = stored | {"vias": 1}
        pairs.append([direct, direct | {"cseq": 2} | other])
        pairs.append([direct, direct | {"cseq": 2, "vias": 2} | other])
    stored = first | {"headers": GRUU}
    for contact, headers in itertools.product(CONTACTS, (BOTH, GRUU)):
        again = stored | {"contact": contact, "headers": headers, "cseq": 2}
        pairs.append([stored, again])
        pairs.append([stored, again | {"call_id": "new"}, again | {"cseq": 3}])
    return pairs


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"outbound_mode": 2, "path_mode": 2, "flow_timer": 20},
        {"outbound_mode": 0},
        {"use_path": 0, "regid_mode": 1},
        {"case_sensitive": 1, "use_domain": 0, "max_expires": 500, "min_expires": 0},
        {"method_filtering": 1, "path_mode": 1, "max_contacts": 1},
    ],
)
def test_both_ways_give_the_same(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = variants()
    # what is random has to be the same in both runs
    monkeypatch.setattr(secrets, "token_bytes", bytes)
    monkeypatch.setattr(gruu, "_new_epoch", EPOCHS.__next__)
    EPOCHS.last = 0
    fast = [run(Home(**params), pair) for pair in pairs]
    EPOCHS.last = 0
    monkeypatch.setattr(save, "same_again", lambda *arguments: None)
    for pair, seen in zip(pairs, fast, strict=True):
        assert run(Home(**params), pair) == seen, pair[1]


@pytest.mark.parametrize("transport", ["edge", "udp", "tcp"])
@pytest.mark.parametrize("headers", [BOTH, GRUU])
@pytest.mark.parametrize("name", ["", '"Bob B." ', "Bob B. "])
def test_the_fast_path_is_taken_for_a_plain_refresh(
    transport: str, headers: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bytes] = []

    def count(msg: SipMessage, location: Location, spread: bool) -> Register:
        calls.append(msg.call_id)
        return read_register(msg, location, spread)

    monkeypatch.setattr(save, "read_register", count)
    home = Home()
    flow = {"edge": None, "udp": home.udp(), "tcp": home.tcp()}[transport]
    for _ in range(4):
        to = f"{name}<sip:bob@example.com>"
        assert home.register(CONTACT, flow=flow, headers=headers, to=to).status == 200
    assert len(calls) == 1


def test_a_refresh_shares_what_stayed_equal() -> None:
    home = Home()
    home.register(CONTACT)
    (old,) = home.bindings()
    home.register(CONTACT)
    (new,) = home.bindings()
    assert new is not old
    assert new.ruid != old.ruid
    assert (new.contact is old.contact, new.path is old.path) == (True, True)
    assert new.call_id is old.call_id


def test_a_direct_refresh_follows_the_ua_to_its_new_connection() -> None:
    home = Home()
    home.register(CONTACT, flow=home.tcp(port=40001))
    flow = home.tcp(port=40002)
    home.register(CONTACT, flow=flow)
    assert [binding.flow for binding in home.bindings()] == [flow]
