"""dns.* and dst_blocklist.*, called as the control socket does."""

from __future__ import annotations

from typing import Any

from sipedge.commands import Commands
from sipedge.flow import UDP
from tests.sim import Sim, request


def rows(commands: Commands, name: str) -> Any:
    found: Any = commands.call(name, [])
    return found if isinstance(found, dict) else list(found)


def test_what_is_remembered_of_dns_can_be_forgotten() -> None:
    sim = Sim()
    sim.zone = {("A", "core.example"): ("127.0.0.11",)}
    commands = Commands(sim.core, {})
    for at, questions in ((1, 4), (2, 4), (3, 8)):
        data = request("OPTIONS", "sip:core.example", branch=f"z9hG4bK{at}", call_id=str(at))
        sim.udp().send(data)
        assert len(sim.asked) == questions
        if at == 2:
            assert rows(commands, "dns.delete_all") == {"deleted": 4}


def test_servers_that_failed() -> None:
    sim = Sim()
    commands = Commands(sim.core, {})
    sim.core.blocklist.failed((UDP, "127.0.0.11", 5060, "core.example"), sim.now + 60)
    sim.core.blocklist.asked_to_wait((UDP, "127.0.0.12", 5060, "core.example"), sim.now, 9.0)
    sim.core.blocklist.failed((UDP, "127.0.0.13", 5060, "core.example"), sim.now - 1)
    assert rows(commands, "dst_blocklist.view") == [
        {"transport": "udp", "host": host, "port": 5060, "expires": left, "retry_after": asked}
        for host, left, asked in (("127.0.0.11", 60.0, False), ("127.0.0.12", 9.0, True))
    ]
    assert rows(commands, "dst_blocklist.delete_all")["deleted"] >= 2
    assert rows(commands, "dst_blocklist.view") == []
