"""What an edge makes of some octets, as text: for comparing the compiled build with the pure one.

Run as a program with one message a line, in hexadecimal, on standard input.  Each gives one line:
what the parser says of it as a datagram and as a message of a stream, and, byte for byte, what the
edge sends when it comes and when the answer to what was sent comes.  Nothing random is left, so
that two builds must print the same.
"""

from __future__ import annotations

import sys

from sipedge.errors import ParseError
from sipedge.flow import Flow
from sipedge.lookups import Answer
from sipedge.sip.message import SipMessage, parse
from tests.sim import Sim, answer

#: what edges do: Path and Record-Route with flow tokens, and each message goes on
EDGE = """
listen("udp:127.0.0.1:5060")
loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("rr")
loadmodule("path")
loadmodule("maxfwd")
loadmodule("textops")
modparam("outbound", "flow_token_key", b"johndoessecretphrase")
def request_route(ksr, msg):
    if not ksr.maxfwd.process_maxfwd(msg, 10):
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
        return
    if msg.method == b"REGISTER":
        ksr.path.add_path(msg)
    else:
        ksr.rr.record_route(msg)
        ksr.rr.loose_route(msg)
    if msg.cseq()[0] % 4 != 3:  # else where it says, which for most of these is nowhere
        ksr.setdsturi(msg, "sip:127.0.0.3:5090")
    ksr.tm.t_relay(msg)
"""


def outcome(data: bytes) -> str:
    return repr((_parsed(data, False), _parsed(data, True), _sent(data)))


def _parsed(data: bytes, stream: bool) -> tuple[object, ...]:
    try:
        msg = parse(data, stream)
    except ParseError as error:
        return error.status, error.reason, error.why, _fields(error.partial)
    return _fields(msg)


def _fields(msg: SipMessage | None) -> tuple[object, ...]:
    if msg is None:
        return ()
    found: tuple[object, ...] = (
        msg.is_request, msg.method, msg.ruri, msg.status, msg.reason, msg.cseq_method, msg.cseq(),
        msg.lines, msg.ids, msg.call_id, msg.from_tag, msg.to_tag, msg.branch(), msg.via_count(),
    )  # fmt: skip
    try:
        via = msg.via()
    except ParseError as error:  # of a response not all is checked before somebody asks
        return *found, error.why
    return (
        *found, via.transport, via.host, via.port, via.sent_by, via.has_rport, via.raw, via.rest,
        sorted(via.params.items()),
    )  # fmt: skip


def _sent(data: bytes) -> list[tuple[str, bytes]]:
    sim = Sim(EDGE)
    core = sim.core
    core.tm.magic = b"sEmagic"
    core.tm._head = b"z9hG4bK" + core.tm.magic
    core.receive(data, sim.udp("192.0.2.7", 40000).flow, sim.now)
    sent = _drained(sim)
    for request, flow in sent.copy():
        try:
            msg = parse(request)
        except ParseError:  # an answer, with the rows of what was refused
            continue
        if msg.is_request and msg.method != b"ACK":
            core.receive(answer(msg, 200, "OK"), flow, sim.now)
            sent += _drained(sim)
    core.on_timer(sim.now + 1)
    sent += _drained(sim)
    return [(flow.name, octets) for octets, flow in sent]


def _drained(sim: Sim) -> list[tuple[bytes, Flow]]:
    """What is to be sent; no name has an address."""
    sent = []
    while (lookups := sim.core.lookups()) or (sends := sim.core.sends()):
        for lookup in lookups:
            sim.core.resolved(lookup, Answer((), 60.0), sim.now)
        if not lookups:
            sent += sends
    return sent


if __name__ == "__main__":
    for line in sys.stdin:
        print(outcome(bytes.fromhex(line)))
