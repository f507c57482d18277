"""Two SIPp phones and our edge and registrar: register, call, hang up, cancel.

Every test runs against one process that is both, and against two processes.
"""

from __future__ import annotations

import re

import pytest

from tests.peerlib.process import Crew
from tests.scenarios.play import SITES, TCP, UDP, Cast, open_site, token_route, top_branch

pytestmark = pytest.mark.parametrize("site", SITES)
both_transports = pytest.mark.parametrize("transport", [UDP, TCP], ids=["udp", "tcp"])


@both_transports
@pytest.mark.rfc("RGO-04", "RGO-09")
def test_register_refresh_and_fetch(site: str, transport: str, crew: Crew) -> None:
    cast = Cast(crew, open_site(site, crew).at)
    phone = cast.phone("register", transport=transport)
    phone.finish()
    # three answers, and the refresh did not make a second binding
    assert phone.messages.count("SIP/2.0 200 OK") == 3
    contact = re.search(r"^Contact: (<.*>;\+sip\.instance=.*;reg-id=1)$", phone.messages, re.M)
    assert contact
    fetched = phone.messages.rpartition("SIP/2.0 200 OK")[2]
    assert fetched.count("+sip.instance") == 1
    assert contact[1] in fetched


@pytest.mark.parametrize("caller", [UDP, TCP], ids=["from_udp", "from_tcp"])
@pytest.mark.parametrize("callee", [UDP, TCP], ids=["to_udp", "to_tcp"])
@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.rfc("INC-03", "INC-06", "INC-08", "INC-09", "OUT-01", "OUT-03", "OUT-04", "LOP-02")
def test_call_ends_from_either_side(
    site: str, caller: str, callee: str, first: str, crew: Crew
) -> None:
    cast = Cast(crew, open_site(site, crew).at)
    called = "callee_waits" if first == "caller" else "callee_hangs_up"
    calling = "caller_hangs_up" if first == "caller" else "caller_waits"
    bob = cast.phone(called, "bob", transport=callee)
    bob.wait_log("registered")
    cast.phone(calling, "alice", "bob", transport=caller).finish()
    bob.finish()
    contact = re.search(r"^Contact: <(.*)>;\+sip", bob.messages, re.M)
    assert contact
    assert f"INVITE {contact[1]} SIP/2.0" in bob.messages
    assert ";ob" not in token_route(bob.messages)[1]


@both_transports
@pytest.mark.rfc("INC-10")
def test_cancel_while_it_rings(site: str, transport: str, crew: Crew) -> None:
    cast = Cast(crew, open_site(site, crew).at)
    bob = cast.phone("callee_cancelled", "bob", transport=transport)
    bob.wait_log("registered")
    cast.phone("caller_cancels", "alice", "bob", transport=transport).finish()
    bob.finish()
    assert top_branch(bob.messages, "CANCEL") == top_branch(bob.messages, "INVITE")


def test_nobody_there(site: str, crew: Crew) -> None:
    cast = Cast(crew, open_site(site, crew).at)
    cast.phone("caller_refused", "alice", "nobody", status="480").finish()
