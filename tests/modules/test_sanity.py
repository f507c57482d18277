"""Module sanity: each check alone, and who answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipedge.errors import ConfigError
from sipedge.sip.message import SipMessage
from sipedge.sip.names import CALL_ID, CONTACT, CSEQ, FROM
from tests.modules.conftest import Message, arrived, make
from tests.sim import Sim, request

Break = Callable[[SipMessage], object]


def broken_start(msg: SipMessage, line: bytes) -> None:
    msg.lines[0] = line
    msg.ruri = line.split(b" ")[1]


BROKEN: list[tuple[int, int, Break]] = [
    (1, 505, lambda msg: broken_start(msg, b"INVITE sip:a@b SIP/3.0")),
    (2, 416, lambda msg: broken_start(msg, b"INVITE http://a/b SIP/2.0")),
    (4, 400, lambda msg: msg.remove(CALL_ID)),
    (32, 400, lambda msg: msg.set(CSEQ, b"1 BYE")),
    (64, 400, lambda msg: msg.set(CSEQ, b"2147483648 INVITE")),
    (64, 400, lambda msg: msg.set(CSEQ, b"one INVITE")),
    (128, 400, lambda msg: msg.set(b"content-length", b"7")),
    (256, 400, lambda msg: msg.set(b"expires", b"soon")),
    (1024, 400, lambda msg: broken_start(msg, b"INVITE sip:@ SIP/2.0")),
    (1024, 400, lambda msg: msg.set(FROM, b"alice")),
]


@pytest.mark.parametrize(("bit", "status", "spoil"), BROKEN)
def test_each_check_alone(
    sim: Sim, ksr: Any, message: Message, bit: int, status: int, spoil: Break
) -> None:
    assert ksr.sanity.sanity_check(message(), bit, 7) == 1
    msg = message()
    spoil(msg)
    assert ksr.sanity.sanity_check(msg, 0) == 1, "no check, no complaint"
    rc = ksr.sanity.sanity_check(msg, bit, 7)
    assert rc == 0
    assert not rc
    (data, flow) = sim.core.sends()[-1]
    assert flow is msg.flow
    assert data.startswith(b"SIP/2.0 %d " % status)


def test_a_good_request_passes_everything(sim: Sim, ksr: Any, message: Message) -> None:
    msg = message(headers="Expires: 60\r\nContact: *\r\n")
    every = 1 | 2 | 4 | 8 | 16 | 32 | 64 | 128 | 256 | 512 | 1024 | 16384
    assert ksr.sanity.sanity_check(msg, every, 15) == 1
    assert ksr.sanity.sanity_check(msg) == ksr.sanity.sanity_check_defaults(msg) == 1
    assert ksr.sanity.sanity_check(msg, 17895, 7) == 1, "what Kamailio's sample asks for"
    assert sim.core.sends() == []


def test_which_uris_are_checked(ksr: Any, message: Message) -> None:
    msg = message()
    msg.append(CONTACT, b"<sip:a@b>, nonsense")
    assert ksr.sanity.sanity_check(msg, 1024, 7) == 1
    assert ksr.sanity.sanity_check(msg, 1024, 8) == 0


def test_there_is_one_answer(sim: Sim, ksr: Any, message: Message) -> None:
    msg = message()
    msg.set(CSEQ, b"1 BYE")
    assert ksr.sanity.sanity_check(msg) == 0
    assert ksr.sl.send_reply(msg, 500) == -1
    assert len(sim.core.sends()) == 1


def test_noreply_leaves_the_answer_to_the_route() -> None:
    sim = make('modparam("sanity", "noreply", 1)')
    sanity = sim.edge.ksr.sanity
    msg = arrived(sim, request(uri="sip:a@b"))
    assert sanity.sanity_reply(msg) == -1
    msg.set(CSEQ, b"1 BYE")
    assert sanity.sanity_check(msg) == -1
    assert sim.core.sends() == []
    assert sanity.sanity_reply(msg) == 1
    assert sim.core.sends()[0][0].startswith(b"SIP/2.0 400 Wrong Method in CSeq\r\n")


def test_checks_that_do_not_exist(ksr: Any, message: Message) -> None:
    with pytest.raises(ValueError, match="there is no check 2048"):
        ksr.sanity.sanity_check(message(), 2048)
    with pytest.raises(ConfigError, match="default_checks: there is no check 2048"):
        make('modparam("sanity", "default_checks", 3047)')


def test_parameters_are_the_defaults_of_the_arguments() -> None:
    sim = make('modparam("sanity", "default_checks", 1024)\nmodparam("sanity", "uri_checks", 8)')
    msg = arrived(sim, request())
    msg.append(CONTACT, b"nonsense")
    assert sim.edge.ksr.sanity.sanity_check(msg) == 0
