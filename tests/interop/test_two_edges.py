"""baresip keeps a flow to each of two edges, and one of these is killed in mid-life (RFC 5626 §9).

Three processes of ours: two edges and the registrar behind both.  The edge that dies is the one
that the registrar would ask first, so the call has to be tried again; the caller must not notice.
Then it comes back on its ports, baresip registers again when it sees fit, and both flows are there
as before.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.peerlib.baresip import Baresip
from tests.peerlib.process import Crew, wait_for
from tests.peerlib.sipedge import CORE, PROGRAM, Sipedge, edge

#: baresip waits 30 to 60 s when a flow has failed, and that cannot be set
UNTIL_IT_RETRIES = 100.0
#: seconds that it asks for; over UDP nothing tells it that the edge was away
INTERVAL = 20
#: the answers that a phone got, in what baresip writes of its messages
_ANSWER = re.compile(r"^SIP/2\.0 (\d+) .*\n(?:.+\n)*?CSeq: \d+ INVITE\r?$", re.MULTILINE)


def short_lived_registrar(crew: Crew) -> Sipedge:
    """``examples/registrar.py``, but it takes registrations as short as ``INTERVAL``."""
    outbound = 'modparam("registrar", "outbound_mode", 1)'
    shorter = f'{outbound}\nmodparam("registrar", "min_expires", {INTERVAL})'
    return Sipedge(crew, "registrar", CORE, 0, {"127.0.0.2:5060": "@here@", outbound: shorter})


def listed(home: Sipedge, aor: str) -> dict[int, dict[str, Any]]:
    """``sipedge ul show AOR --json`` of the running registrar, by reg-id."""
    command = [PROGRAM, "ul", "show", aor, "--json", "--config", home.config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({row["reg_id"] for row in rows}) == len(rows)
    return {row["reg_id"]: row for row in rows}


def answers(caller: Baresip) -> list[str]:
    """The answers that the caller got to its INVITEs, without 100."""
    text = caller.program.output.replace("\r\n", "\n")
    return [status for status in _ANSWER.findall(text) if status != "100"]


def call(alice: Baresip, bob: Baresip) -> None:
    """A call that bob takes and ends."""
    before = answers(alice)
    alice.call(bob)
    bob.answer()
    alice.in_call()
    bob.in_call()
    bob.hang_up()
    alice.call_ended()
    bob.call_ended()
    assert answers(alice)[len(before) :] == ["180", "200"], "one of each, whatever was tried"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.rfc("RGO-05", "RGO-06", "RGO-07", "HPX-02", "HPX-04", "TOK-03", "INC-03", "INC-10")
def test_an_edge_is_killed_and_comes_back(transport: str, crew: Crew) -> None:
    home = short_lived_registrar(crew)
    edges = {1: edge(crew, home.address), 2: edge(crew, home.address)}
    bob = Baresip(
        crew, "bob", edges[1].at, edges[2].at, transport=transport, interval=INTERVAL
    )  # fmt: skip
    bob.registered(flows=2)
    before = listed(home, "bob@example.com")
    assert sorted(before) == [1, 2]
    dead = max(before, key=lambda reg_id: before[reg_id]["last_modified"])
    alive = 3 - dead
    for reg_id, row in before.items():
        assert f"@{edges[reg_id].address};lr;ob>" in row["path"]
    assert before[1]["contact"] == before[2]["contact"]
    assert before[1]["callid"] != before[2]["callid"]
    alice = Baresip(crew, "alice", edges[alive].at)
    alice.registered()

    edges[dead].kill()
    call(alice, bob)
    assert alive in listed(home, "bob@example.com")

    edges[dead].start()

    def again() -> bool:
        row = listed(home, "bob@example.com").get(dead)
        return row is not None and row["cseq"] > before[dead]["cseq"]

    wait_for("it registers again through the edge that was killed", again, UNTIL_IT_RETRIES, 0.5)
    after = listed(home, "bob@example.com")
    assert sorted(after) == [1, 2]
    for reg_id, row in after.items():
        assert f"@{edges[reg_id].address};lr;ob>" in row["path"]
    # a connection is another flow now; over UDP the phone is where it was, and so is its token
    assert (after[dead]["path"] == before[dead]["path"]) == (transport == "udp")
    call(alice, bob)
    # and now the other way round: the flow that came back carries a call, too
    edges[alive].kill()
    carol = Baresip(crew, "carol", edges[dead].at)
    carol.registered()
    call(carol, bob)
