"""Linphone as the phone: it accepts the registrar's answers with outbound, and calls baresip.

Debian 12's Linphone says ``Supported: outbound, gruu`` and sends its instance; a reg-id it sends
when its settings say so.  From the answer it takes its GRUU and calls itself by that from then on.
"""

from __future__ import annotations

import pytest

from tests.interop.test_baresip import SITES
from tests.peerlib.baresip import Baresip
from tests.peerlib.linphone import Linphone
from tests.peerlib.process import Crew, wait_for
from tests.peerlib.sipedge import all_in_one


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("reg_id", [0, 1])
@pytest.mark.rfc("RGO-02", "RGO-04", "RGO-09")
def test_accepts_the_answer_to_register(reg_id: int, transport: str, crew: Crew) -> None:
    phone = Linphone(crew, "carol", all_in_one(crew).at, transport, reg_id)
    phone.registered()
    accepted = "moving from state [LinphoneRegistrationProgress] to [LinphoneRegistrationOk]"
    wait_for("the log is written", lambda: accepted in phone.log())
    answer = phone.log().partition("SIP/2.0 200 OK")[2].partition("\n\n")[0]
    assert ("Require: outbound" in answer) == bool(reg_id)
    assert ";pub-gruu=" in answer


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("transports", ["udp tcp", "tcp udp"])
@pytest.mark.parametrize("linphone", ["calls", "is called"])
@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.rfc("INC-03", "INC-08", "OUT-03", "OUT-06")
def test_call(site: str, transports: str, linphone: str, first: str, crew: Crew) -> None:
    at = SITES[site](crew)
    its, other = transports.split()
    carol = Linphone(crew, "carol", at, its, reg_id=1)
    bob = Baresip(crew, "bob", at, transport=other)
    carol.registered()
    bob.registered()
    caller, callee = (carol, bob) if linphone == "calls" else (bob, carol)
    caller.call(callee)
    callee.answer()
    caller.in_call()
    callee.in_call()
    ends, sees = (caller, callee) if first == "caller" else (callee, caller)
    ends.hang_up()
    sees.call_ended()
    ends.call_ended()
