"""Rows that somebody has written down: ul.add, and export and import between two registrars."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from outbound_plugin.api import BAD, GONE, VALID
from registrar_plugin.carry_over import FOR_EVER
from sipedge.flow import Flow
from tests.registrar_plugin.home import EDGE1, EDGE2, I1, outbound_contact
from tests.registrar_plugin.test_commands import WALL, Operated, done, refused

#: what a row of an export has that ul.add does not take: it is worked out again
SHOWN_ONLY = ("expires", "q", "instance")


def add(home: Operated, **row: Any) -> Any:
    row = {"table": "location", "aor": "bob@example.com", "contact": "sip:bob@192.0.2.7", **row}
    return done(home.commands.call("ul.add", {"expires": 600, **row}))


def put(home: Operated, row: dict[str, Any]) -> Any:
    return done(home.commands.call("ul.add", row))


def carry(old: Operated, new: Operated) -> list[str]:
    """Export and import; what became of each row."""
    results = []
    for row in old.dump():
        row = {name: value for name, value in row.items() if name not in SHOWN_ONLY}
        results.append(put(new, {"table": "location", **row})["result"])
    return results


def same(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what cannot be the same in another process, or a moment later."""
    return {name: row[name] for name in row if name not in ("ruid", "last_modified")}


@pytest.fixture
def home() -> Operated:
    return Operated()


def test_a_row_makes_the_same_binding_in_another_process(home: Operated) -> None:
    home.register(outbound_contact(1, more=';q=0.3;x="a;b"'), call_id="one")
    home.register(outbound_contact(2), path=(EDGE2, EDGE1), call_id="one")
    home.register("<sip:alice@192.0.2.1:5070>", to="<sip:alice@example.com>", path=())
    home.register("<sip:n@10.0.0.9>", to="<sip:n%20@example.com>", flow=home.udp())
    other = Operated()
    other.core.wall_offset += 5  # that one was started five seconds later
    other.now = other.core.now = home.now - 5
    assert carry(home, other) == ["added"] * 4
    assert [same(row) for row in other.dump()] == [same(row) for row in home.dump()]
    _, targets = other.lookup()
    assert [(t.reg_id, t.path) for t in targets] == [
        (t.reg_id, t.path) for t in home.lookup()[1]
    ], "and in the same order"
    assert other.core.stats["contacts_registered"] == 4


def test_the_next_register_of_the_phone_refreshes_it(home: Operated) -> None:
    home.register(outbound_contact(), call_id="one", cseq=7)
    other = Operated()
    carry(home, other)
    assert other.register(outbound_contact(), call_id="one", cseq=6).status == 400, "CSeq counts"
    assert other.register(outbound_contact(), call_id="one", cseq=8).status == 200
    assert len(other.bindings()) == 1
    assert other.core.stats["contacts_refreshed"] == 1


def test_what_is_here_is_kept_if_it_is_as_new(home: Operated) -> None:
    home.register(outbound_contact())
    assert carry(home, home) == ["kept"], "the very same"
    (row,) = home.dump()
    other = Operated()
    other.advance(1)
    other.core.wall_offset -= 1
    other.register(outbound_contact(uri="sip:bob@192.0.2.99"))
    assert carry(home, other) == ["kept"], "the phone has registered there since"
    newer = {"last_modified": row["last_modified"] + 10, "params": row["params"], "reg_id": 1}
    assert add(other, path=EDGE1, **newer) == {"result": "refreshed"}
    assert [binding.uri for binding in other.bindings()] == [b"sip:bob@192.0.2.7"]


def test_without_params_they_are_made(home: Operated) -> None:
    add(home, q=0.5, instance=f"<{I1}>", reg_id=2, path=EDGE1, methods=["INVITE"])
    (binding,) = home.bindings()
    assert (
        binding.contact == b'<sip:bob@192.0.2.7>;q=0.5;+sip.instance="<%s>";reg-id=2' % I1.encode()
    )
    assert (binding.instance, binding.reg_id, binding.q) == (I1.encode(), 2, 500)
    assert binding.methods == {b"INVITE"}


def test_times(home: Operated) -> None:
    add(home, contact="sip:1@192.0.2.7", expires=60)
    add(home, contact="sip:2@192.0.2.7", expires=0, expires_at=WALL + 90.4)
    add(home, contact="sip:3@192.0.2.7", expires=0)
    assert [binding.lifetime for binding in home.bindings()] == [60, 90, FOR_EVER]
    with refused(410):
        add(home, contact="sip:4@192.0.2.7", expires_at=WALL - 1)
    home.advance(61)
    assert len(home.bindings()) == 2


@pytest.mark.parametrize(
    ("use_domain", "aor", "key"),
    [
        (1, "Bob@Example.COM", b"bob@example.com"),
        (1, "b ob@example.com", b"b ob@example.com"),
        (1, "sip:bob@example.com", b"sip:bob@example.com"),  # a user called sip:bob
        (0, "bob", b"bob"),
        (0, "bob@example.com", b"bob"),
        (1, "bob", None),
        (1, "@example.com", None),
        (1, "bob@", None),
    ],
)
def test_addresses_are_taken_as_they_are(use_domain: int, aor: str, key: bytes | None) -> None:
    home = Operated(use_domain=use_domain)
    if key is None:
        with refused(400):
            add(home, aor=aor)
    else:
        add(home, aor=aor)
        assert [aor for aor, _ in home.registrar._location.table("location").entries()] == [key]


@pytest.mark.parametrize(
    "row",
    [
        {"contact": "mailto:bob@example.com"},
        {"contact": "sip:bob@192.0.2.7>;evil=<sip:x@y"},
        {"contact": "sip:bob@192.0.2.7\r\nX: y"},
        {"contact": "nonsense"},
        {"params": ";x=1\r\nEvil: 1"},
        {"callid": "a\nb"},
        {"cseq": 2**31},
        {"reg_id": -1},
        {"path": "<mailto:a@b>"},
        {"path": "<sip:"},
        {"path": ","},
        {"received": "sip:not-numeric.example.com"},
        {"received": "nonsense"},
        {"table": ""},
        {"instance": '"><sip:x@y>'},
    ],
)
def test_what_makes_no_sense_is_not_stored(home: Operated, row: dict[str, Any]) -> None:
    with refused(400):
        add(home, **row)
    assert home.bindings() == ()


# how it is reached


def test_a_udp_flow_of_a_listener_of_ours(home: Operated) -> None:
    done = add(home, received="sip:198.51.100.7:40001", socket="udp:127.0.0.1:5060")
    assert done == {"result": "added"}
    assert home.lookup()[1][0].flow is home.udp("198.51.100.7", 40001)


def test_a_udp_flow_of_another_listener_is_said(home: Operated) -> None:
    done = add(home, received="sip:198.51.100.7", socket="udp:192.0.2.99:5060")
    assert "we do not listen on udp:192.0.2.99:5060" in done["note"]
    assert home.lookup()[1][0].flow is home.udp("198.51.100.7", 5060)
    with refused(410):
        add(home, contact="sip:six@192.0.2.7", received="sip:[2001:db8::7]:5060")


def test_a_connection_lives_on_only_in_its_process(home: Operated) -> None:
    phone = home.tcp()
    home.register(outbound_contact(), flow=phone)
    (row,) = home.dump()
    home.ask("ul.rm", "location", "bob@example.com")
    row = {name: value for name, value in row.items() if name not in SHOWN_ONLY}
    again = {"table": "location", **row}
    assert put(home, again) == {"result": "added"}
    assert home.lookup()[1][0].flow is phone
    with refused(410):
        put(Operated(), again)
    home.ask("ul.rm", "location", "bob@example.com")
    home.core.flow_closed(phone, "closed", home.now)
    with refused(410):
        put(home, again)
    with refused(410):
        put(home, {**again, "connection_id": "no hex"})
    with refused(410):
        add(home, received="sip:198.51.100.7:40001;transport=tcp")


def test_a_contact_that_can_be_called_needs_no_connection(home: Operated) -> None:
    add(home, contact="sip:bob@192.0.2.7;transport=tcp")
    assert home.lookup()[1][0].flow is None


def test_a_path_of_this_edge_is_its_flow(home: Operated) -> None:
    there = home.udp("198.51.100.7", 40001)
    verdicts = {b"good": (VALID, there), b"gone": (GONE, there), b"bad": (BAD, None)}

    def decode(token: bytes) -> tuple[Any, Flow | None]:
        return verdicts[token]

    ob: Any = SimpleNamespace(decode_flow_token=decode)
    home.registrar._location.ob = ob
    add(home, path="<sip:good@127.0.0.1:5060;lr;ob>")
    (target,) = home.lookup()[1]
    assert (target.flow, target.path) == (there, [])
    for token in ("gone", "bad"):
        with refused(410):
            add(home, contact="sip:2@192.0.2.7", path=f"<sip:{token}@127.0.0.1:5060;lr;ob>")


def test_parameters_of_the_registrar_apply() -> None:
    home = Operated(use_path=0, outbound_mode=0)
    add(home, path=EDGE1, instance=I1, reg_id=1)
    (binding,) = home.bindings()
    assert (binding.path, binding.reg_id) == (b"", 0)


def test_all_bindings_of_an_instance_have_one_epoch(home: Operated) -> None:
    for reg_id, epoch in ((1, 77), (2, 99)):
        add(home, instance=I1, reg_id=reg_id, path=EDGE1, epoch=epoch)
    assert [binding.epoch for binding in home.bindings()] == [77, 77]
