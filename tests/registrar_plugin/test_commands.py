"""The commands ul.*, called as the control socket calls them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from registrar_plugin.commands import UsrlocCommands
from registrar_plugin.store.embedded import at_once
from sipedge.commands import Commands
from sipedge.module import CommandError, Later
from tests.registrar_plugin.home import EDGE1, EDGE2, I1, I2, Home, outbound_contact

WALL = 1_700_000_000.0  # what the clock on the wall says when that of the core says 1000


class Operated(Home):
    """A registrar with commands."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.core.wall_offset = WALL - self.now
        table = {command.name: command for command in self.registrar.exports.commands}
        self.commands = Commands(self.core, table)

    def ask(self, name: str, *params: object) -> Any:
        return done(self.commands.call(name, list(params)))

    def dump(self) -> list[dict[str, Any]]:
        return list(rows_of(self.commands.call("ul.dump", [])))


def done(result: Any) -> Any:
    """The result of a command; with an embedded store nothing has to be waited for."""
    if inspect.iscoroutine(result):
        result = at_once(result)
    return settled(result) if isinstance(result, Later) else result


def rows_of(result: Any) -> Iterator[dict[str, Any]]:
    """The rows of a command, made as they are asked for."""
    while True:
        try:
            yield at_once(anext(result))
        except StopAsyncIteration:
            return


def settled(later: Later) -> Any:
    found: list[Any] = []
    later.then(found.append)
    assert found, "it has no result yet"
    if isinstance(found[0], CommandError):
        raise found[0]
    return found[0]


@pytest.fixture
def home() -> Operated:
    return Operated()


def refused(code: int) -> Any:
    return pytest.raises(CommandError, check=lambda exc: exc.code == code)


def test_a_row_says_all_there_is(home: Operated) -> None:
    home.register(outbound_contact(more=";q=0.25;x=y;expires=600"), call_id="c9", cseq=4)
    home.advance(100)
    assert home.dump() == [
        {
            "aor": "bob@example.com",
            "contact": "sip:bob@10.0.0.9",
            "params": f';+sip.instance="<{I1}>";reg-id=1;q=0.25;x=y',
            "expires": 500,
            "expires_at": WALL + 600,
            "last_modified": WALL,
            "q": 0.25,
            "path": EDGE1,
            "received": "",
            "socket": "",
            "connection_id": "",
            "callid": "c9",
            "cseq": 4,
            "methods": None,
            "instance": I1,
            "reg_id": 1,
            "ruid": home.bindings()[0].ruid,
            "epoch": 0,
        }
    ]


def test_flows_are_shown(home: Operated) -> None:
    phone = home.tcp("2001:db8::7", 40001)
    home.register(outbound_contact(), flow=home.udp("198.51.100.7", 40001))
    home.register(outbound_contact(2), flow=phone)
    udp, tcp = home.dump()
    assert (udp["received"], udp["socket"], udp["connection_id"]) == (
        "sip:198.51.100.7:40001", "udp:127.0.0.1:5060", "",
    )  # fmt: skip
    assert (tcp["received"], tcp["socket"], tcp["connection_id"]) == (
        "sip:[2001:db8::7]:40001;transport=tcp", "tcp:127.0.0.1:5060", phone.conn_id.hex(),
    )  # fmt: skip


def test_dump_has_what_is_live_the_oldest_of_an_aor_first(home: Operated) -> None:
    home.register(outbound_contact(1, more=";expires=60"))
    home.register(outbound_contact(2, more=";expires=600"), path=(EDGE2,))
    home.register(outbound_contact(3, more=";expires=600"))
    home.register(outbound_contact(2, more=";expires=600"), path=(EDGE2,))
    home.register("<sip:a@192.0.2.1>", to="<sip:alice@example.com>")
    assert [row["reg_id"] for row in home.dump()] == [1, 3, 2, 0]
    home.now = home.core.now = home.now + 60.5  # and nothing has swept
    assert [(row["aor"][0], row["reg_id"]) for row in home.dump()] == [("b", 3), ("b", 2), ("a", 0)]


def test_dump_is_made_as_it_is_read(home: Operated) -> None:
    for number in range(50):
        home.register("<sip:a@192.0.2.1>", to=f"<sip:u{number}@example.com>")
    rows = rows_of(home.commands.call("ul.dump", []))
    assert next(rows)["aor"] == "u0@example.com"
    for number in range(50):
        home.ask("ul.rm", "location", f"u{number}@example.com")
    assert len(list(rows)) <= 1, "what went meanwhile is not there"


@pytest.mark.parametrize(
    "aor",
    ["bob@example.com", "sip:bob@example.com", "SIPS:%62ob@Example.com;x=y", "BOB@EXAMPLE.COM"],
)
def test_lookup(home: Operated, aor: str) -> None:
    home.register(outbound_contact())
    found = home.ask("ul.lookup", "location", aor)
    assert found == {"aor": "bob@example.com", "contacts": home.dump()}


def test_octets_that_are_no_text_go_there_and_back(home: Operated) -> None:
    home.register("<sip:a@192.0.2.1>", to="<sip:%ff%C3%A4@example.com>")
    (row,) = home.dump()
    assert row["aor"] == "\udcff\u00e4@example.com"
    assert home.ask("ul.rm", "location", row["aor"]) == {"removed": 1}


def test_nobody_of_that_name(home: Operated) -> None:
    with refused(404):
        home.ask("ul.lookup", "location", "bob@example.com")
    with refused(404):
        home.ask("ul.lookup", "elsewhere", "bob@example.com")
    with refused(400):
        home.ask("ul.lookup", "location", "sip:@@")
    with refused(400):
        home.ask("ul.lookup", "location", "\ud800@example.com")
    assert list(home.registrar._location.tables) == ["location"], "asking makes no table"


def test_rm(home: Operated) -> None:
    for reg_id in (1, 2, 3):
        home.register(outbound_contact(reg_id))
    home.register(outbound_contact(1, I2, "sip:bob@192.0.2.4"))
    ruid = home.bindings()[1].ruid
    assert home.ask("ul.rm", "location", "bob@example.com", ruid) == {"removed": 1}
    assert [binding.reg_id for binding in home.bindings()] == [1, 3, 1]
    with refused(404):
        home.ask("ul.rm", "location", "bob@example.com", ruid)
    found = home.ask("ul.rm_contact", "location", "bob@example.com", "sip:bob@192.0.2.4")
    assert found == {"removed": 1}
    with refused(404):
        home.ask("ul.rm_contact", "location", "bob@example.com", "sip:bob@192.0.2.4")
    assert home.ask("ul.rm", "location", "bob@example.com") == {"removed": 2}
    assert home.bindings() == ()
    assert home.core.stats["contacts_unregistered"] == 4


class SlowStore:
    """What a table of ``db_mode`` 1 does: it waits to be told."""

    def __init__(self, home: Operated) -> None:
        self.real = home.registrar._location.table("location")
        self.write_through = True
        self.waiting: list[Any] = []
        home.registrar._location.tables["location"] = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def when_stored(self, done: Any) -> bool:
        self.waiting.append(done)
        return True


@pytest.mark.parametrize("stored", [True, False])
def test_rm_is_done_when_it_is_stored(home: Operated, stored: bool) -> None:
    home.register(outbound_contact())
    store = SlowStore(home)
    rm: Any = home.commands.call("ul.rm", ["location", "bob@example.com"])
    later = at_once(rm)
    assert isinstance(later, Later)
    found: list[Any] = []
    later.then(found.append)
    assert (found, home.bindings()) == ([], ())
    store.waiting[0](stored)
    if stored:
        assert (found, home.bindings()) == ([{"removed": 1}], ())
    else:
        assert isinstance(found[0], CommandError)
        assert len(home.bindings()) == 1, "taken back"
        assert "contacts_unregistered" not in home.core.stats


def test_flush(home: Operated) -> None:
    assert home.ask("ul.flush") == {"stored": True}
    home.register(outbound_contact())
    assert home.ask("ul.flush") == {"stored": True}
    store = SlowStore(home)
    home.registrar._location.table("other")
    for outcome in (True, False):
        later = home.commands.call("ul.flush", [])
        assert isinstance(later, Later)
        with pytest.raises(AssertionError, match="no result yet"):
            settled(later)
        store.waiting.pop()(outcome)
        if outcome:
            assert settled(later) == {"stored": True}
        else:
            with refused(500):
                settled(later)


def test_the_face_of_the_module_lists_them_all() -> None:
    assert [command.name for command in UsrlocCommands().table()] == [
        "ul.add", "ul.dump", "ul.flush", "ul.lookup", "ul.rm", "ul.rm_contact",
    ]  # fmt: skip
