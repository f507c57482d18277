"""Where the time goes: each stop, each module function of the measured routes, and whole exchanges.

Strategy: an edge with the configuration that ``load`` measures, driven by bytes, without sockets
(except for stops 1 and 8, which are a batch over loopback).  Every message is another one, of
another phone, as in real life: the same message again and again is half as expensive, because the
processor learns it.  Times are taken a batch at a time; the lower tenth counts, so that other
programs on the machine hardly show.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Final

from benchmarks import messages, rig

BATCH: Final = 32
ROUNDS: Final = 150
PHONES: Final = 9600
_CORE: Final = ("127.0.0.1", 5090)
Batch = list[tuple[bytes, Any]]


class Bench:
    """An edge without sockets, and what the stops need of it."""

    def __init__(self) -> None:
        from sipedge.config import load_config

        os.environ["BENCH_WT_TIMER"] = str(rig.WT_TIMER_MS)
        self.edge = load_config(str(rig.HERE / "edge.py"), local_addresses=lambda: ["127.0.0.1"])
        self.core = core = self.edge.core
        core.learn_own_addresses()
        core.now = 1.0
        self.edge.child_init(0)
        (self.listener,) = core.flows.listeners
        self.core_flow = core.flows.udp(self.listener, _CORE)
        self.number = 0
        self.paths: dict[int, bytes] = {}
        self.times: dict[str, list[float]] = {}

    def flow(self, phone: int) -> Any:
        return self.core.flows.udp(self.listener, (f"127.1.{phone >> 8}.{phone & 255}", 5070))

    def timed(self, name: str, call: Callable[..., object], arguments: Iterable[Any]) -> None:
        """Call it for each tuple of arguments."""
        prepared = list(arguments)
        begin = perf_counter()
        for each in prepared:
            call(*each)
        self.times.setdefault(name, []).append((perf_counter() - begin) / len(prepared))

    def through(self, name: str, batch: Batch, sent: int = 1) -> Batch:
        """A batch through ``Core.receive``; returns the last of ``sent`` messages of each."""
        core, now = self.core, self.core.now
        receive = core.receive
        begin = perf_counter()
        for data, flow in batch:
            receive(data, flow, now)
        out = core.sends()
        self.times.setdefault(name, []).append((perf_counter() - begin) / len(batch))
        assert len(out) == sent * len(batch), out[:2]
        return out[sent - 1 :: sent]

    def next_phones(self) -> list[tuple[int, int]]:
        """(number, phone) of one batch."""
        numbers = range(self.number, self.number + BATCH)
        self.number += BATCH
        self.core.on_timer(self.core.now + 0.002)
        return [(number, number % PHONES) for number in numbers]

    def registers(self) -> None:
        """A batch of REGISTERs, and their answers."""
        phones = self.next_phones()
        batch = [(messages.register(n, p), self.flow(p)) for n, p in phones]
        out = self.through("REGISTER through the core", batch)
        for (_, phone), (data, _) in zip(phones, out, strict=True):
            self.paths[phone] = messages.value(data, b"Path")
        batch = [
            (
                messages.answer(data, b"200 OK", b"Require: outbound\r\n"
                                b"Contact: %b\r\n" % messages.value(data, b"Contact")),
                flow,
            )
            for data, flow in out
        ]  # fmt: skip
        self.through("200 to REGISTER through the core", batch)

    def calls(self) -> None:
        """A batch of calls from the core to phones: six messages each."""
        phones = self.next_phones()
        batch = [(messages.invite(n, p, self.paths[p]), self.core_flow) for n, p in phones]
        invites = self.through("INVITE through the core (and 100)", batch, sent=2)
        contact = [b"Contact: <sip:u%06u@127.0.0.1:5999;ob>\r\n" % p for _, p in phones]
        pairs = list(zip(invites, contact, strict=True))
        batch = [(messages.answer(data, b"180 Ringing", c), flow) for (data, flow), c in pairs]
        self.through("180 through the core", batch)
        typed = b"Content-Type: application/sdp\r\n"
        batch = [
            (messages.answer(data, b"200 OK", c + typed, messages.SDP), flow)
            for (data, flow), c in pairs
        ]
        answers = self.through("200 to INVITE through the core", batch)
        for method in (b"ACK", b"BYE"):
            batch = [
                (messages.in_dialog(method, n, data), self.core_flow)
                for (n, _), (data, _) in zip(phones, answers, strict=True)
            ]
            out = self.through(f"{method.decode()} through the core", batch)
        batch = [(messages.answer(data, b"200 OK"), flow) for data, flow in out]
        self.through("200 to BYE through the core", batch)

    def fresh(self, kind: str) -> list[Any]:
        """A batch of parsed requests as the routes get them."""
        from sipedge.sip.message import parse

        requests = []
        for number, phone in self.next_phones():
            if kind == "REGISTER":
                data, flow = messages.register(number, phone), self.flow(phone)
            else:
                data = messages.invite(number, phone, self.paths[phone])
                flow = self.core_flow
            msg = parse(data)
            msg.flow, msg.now, msg.route_kind = flow, self.core.now, 1
            requests.append(msg)
        return requests

    def stops(self) -> None:
        """One round of everything that can be timed alone."""
        from sipedge.forward import Target, build_branch
        from sipedge.sip.message import parse
        from sipedge.sip.via import with_received

        core, ksr, tm = self.core, self.edge.ksr, self.core.tm
        phones = self.next_phones()
        self.timed("3 parse a REGISTER", parse, [(messages.register(*p),) for p in phones])
        invites = [(messages.invite(n, p, self.paths[p]),) for n, p in phones]
        self.timed("3 parse an INVITE with SDP", parse, invites)
        msgs = self.fresh("REGISTER")
        vias = [(m.row_value(1), m.via(), m.flow, True) for m in msgs]
        self.timed("2 with_received", with_received, vias)
        each = [(m,) for m in msgs]
        self.timed("4 tm: find the transaction", tm.find, each)
        self.timed("4 tm: loop check and hash", lambda m: tm.is_loop(m) or tm.loop_hash(m), each)
        self.timed("6 maxfwd.process_maxfwd", ksr.maxfwd.process_maxfwd, [(m, 10) for m in msgs])
        self.timed("6 path.add_path", ksr.path.add_path, each)
        self.timed("6 setdsturi", ksr.setdsturi, [(m, "sip:127.0.0.1:5090") for m in msgs])
        target = Target(b"sip:example.com")
        branch = [(m, target, self.core_flow, False, b"z9hG4bKx%x" % id(m)) for m in msgs]
        self.timed("7 build_branch of a REGISTER", build_branch, branch)
        self.timed("7 tm.t_relay of a REGISTER", ksr.tm.t_relay, each)
        msgs = self.fresh("INVITE")
        each = [(m,) for m in msgs]
        for m in msgs:
            tm.find(m)
        ksr.maxfwd.process_maxfwd(msgs[0], 10)
        self.timed("6 rr.record_route", ksr.rr.record_route, each)
        self.timed("6 rr.loose_route", ksr.rr.loose_route, each)
        self.timed("7 tm.t_relay of an INVITE", ksr.tm.t_relay, each)
        self.tokens()
        core.sends()
        core.on_timer(core.now + 40)  # forget these transactions: nobody answers
        core.on_timer(core.now + 40)
        core.sends()

    def tokens(self) -> None:
        """Making flow tokens and checking them, nothing remembered."""
        from outbound_plugin.flow_token import FlowTokens

        made = FlowTokens(self.core.flows, [b"johndoessecretphrase"])
        flows = [self.flow(phone) for _, phone in self.next_phones()]
        for flow in flows:
            flow.token = None
        self.timed("6 outbound: make a token", made.encode, [(flow,) for flow in flows])
        self.timed("6 outbound: check a token", made.decode, [(flow.token,) for flow in flows])


def sockets(times: dict[str, list[float]]) -> None:
    """Stops 1 and 8: a batch from socket to socket, the kernel's part included."""
    from sipedge.net.mmsg import batch_io

    io = batch_io(socket.AF_INET)
    data = [messages.register(n, n) for n in range(BATCH)]
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind(("127.0.0.1", 0))
        to = [io.key(b.getsockname())] * BATCH
        for _ in range(ROUNDS):
            begin = perf_counter()
            io.send(a, data, to)
            middle = perf_counter()
            got = io.receive(b)
            end = perf_counter()
            assert len(got) == BATCH
            times.setdefault("8 send a datagram", []).append((middle - begin) / BATCH)
            times.setdefault("1 receive a datagram", []).append((end - middle) / BATCH)


def measure() -> dict[str, float]:
    """Nanoseconds of each step."""
    bench = Bench()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    for _ in range(PHONES // BATCH):
        bench.registers()
    bench.times.clear()
    sockets(bench.times)
    for _ in range(ROUNDS):
        bench.stops()
    for _ in range(ROUNDS):
        bench.registers()
        bench.calls()
    bench.edge.destroy()
    found = {
        name: round(sorted(times)[len(times) // 10] * 1e9) for name, times in bench.times.items()
    }
    return dict(sorted(found.items()))


def table(found: dict[str, float], baseline: dict[str, float]) -> str:
    """For people; ``baseline`` is an earlier result of ``measure``."""
    rows = [f"{'stop':42}{'ns':>8}  to baseline"]
    for name, ns in found.items():
        old = baseline.get(name)
        delta = f"{100 * (ns / old - 1):+10.0f} %" if old else ""
        rows.append(f"{name:42}{ns:8.0f}{delta}")
    register = sum(ns for name, ns in found.items() if "REGISTER through" in name)
    whole = sum(ns for name, ns in found.items() if "through the core" in name)
    rows.append(f"{'a registration, without sockets':42}{register:8.0f}")
    rows.append(f"{'a call, without sockets':42}{whole - register:8.0f}")
    return "\n".join(rows)
