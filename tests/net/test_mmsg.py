"""Batches of datagrams, through both implementations."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sipedge.net import mmsg
from sipedge.net.mmsg import BATCH, BatchIO, MmsgIO, NativeIO, PlainIO, batch_io

V4, V6 = socket.AF_INET, socket.AF_INET6
LOCAL = {V4: "127.0.0.1", V6: "::1"}
#: ``NativeIO`` is there in a compiled build
KINDS = [kind for kind in (NativeIO, MmsgIO) if mmsg.mmsg_works(kind)] + [PlainIO]


def bound(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((LOCAL[family], 0))
    return sock


@pytest.fixture(params=[(kind, family) for kind in KINDS for family in (V4, V6)], ids=str)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[BatchIO, socket.socket, socket.socket]]:
    kind, family = request.param
    with bound(family) as a, bound(family) as b:
        yield kind(family), a, b


Pair = tuple[BatchIO, socket.socket, socket.socket]


def test_a_batch_arrives_in_order_with_its_source(pair: Pair) -> None:
    io, a, b = pair
    data = [b"datagram %d" % i for i in range(5)]
    to = io.key(b.getsockname()[:2])
    assert io.send(a, data, [to] * 5) == 5
    source = io.key(a.getsockname()[:2])
    assert io.receive(b) == [(item, source) for item in data]
    assert io.receive(b) == []


def test_what_is_more_than_a_batch_waits_for_the_next(pair: Pair) -> None:
    io, a, b = pair
    to = io.key(b.getsockname()[:2])
    sent = [b"%d" % i for i in range(BATCH + 6)]
    assert io.send(a, sent[:BATCH], [to] * BATCH) == BATCH
    assert io.send(a, sent[BATCH:], [to] * 6) == 6
    first, second = io.receive(b), io.receive(b)
    assert len(first) == BATCH
    assert [data for data, _ in first + second] == sent


def test_the_largest_and_the_empty_datagram(pair: Pair) -> None:
    io, a, b = pair
    largest = bytes(range(256)) * 255 + bytes(227)  # 65,507: what IPv4 allows
    to = io.key(b.getsockname()[:2])
    assert io.send(a, [largest, b"", b"x"], [to] * 3) == 3
    assert [data for data, _ in io.receive(b)] == [largest, b"", b"x"]


def test_what_cannot_be_sent_stops_the_batch_there(pair: Pair) -> None:
    io, a, b = pair
    to = io.key(b.getsockname()[:2])
    batch = [b"first", bytes(70_000), b"third"]
    assert io.send(a, batch, [to] * 3) == 1
    with pytest.raises(OSError, match="too long"):
        io.send(a, batch[1:], [to] * 2)
    assert io.send(a, batch[2:], [to]) == 1
    assert [data for data, _ in io.receive(b)] == [b"first", b"third"]


def test_keys_lead_back_to_addresses(pair: Pair) -> None:
    io, a, _ = pair
    host = LOCAL[a.family]
    assert io.sockaddr(io.key((host, 5060)))[:2] == (host, 5060)
    assert io.key((host, 5060)) != io.key((host, 5061))


def test_a_pending_error_is_raised_and_hides_nothing(pair: Pair) -> None:
    """A connected socket gets ICMP errors without further ado."""
    io, a, b = pair
    b.connect(a.getsockname())
    a.close()
    b.send(b"to nobody")
    with pytest.raises(ConnectionRefusedError):
        io.receive(b)
    assert io.receive(b) == []


@pytest.mark.parametrize("kind", KINDS)
def test_slots_do_not_leak_into_each_other(kind: type[BatchIO]) -> None:
    with bound(V4) as a, bound(V4) as b, bound(V4) as c:
        io = kind(V4)  # type: ignore[call-arg]
        to = io.key(c.getsockname())
        io.send(a, [b"a" * 100, b"b" * 1], [to] * 2)
        io.receive(c)
        io.send(b, [b"c" * 3], [to])
        io.send(a, [b"d" * 2], [to])
        assert io.receive(c) == [
            (b"ccc", io.key(b.getsockname())),
            (b"dd", io.key(a.getsockname())),
        ]


def test_the_plain_way_is_chosen_where_the_calls_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mmsg.sys, "platform", "darwin")
    assert isinstance(batch_io(V4), PlainIO)


def test_the_plain_way_is_chosen_where_the_calls_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> int:
        raise OSError("refused")

    monkeypatch.setattr(NativeIO, "send", refused)
    monkeypatch.setattr(MmsgIO, "send", refused)
    assert isinstance(batch_io(V4), PlainIO)


@pytest.mark.skipif(mmsg.sys.platform != "linux", reason="Linux has them")
def test_linux_has_the_calls() -> None:
    assert isinstance(batch_io(V6), KINDS[0])
    assert KINDS[0] is not PlainIO


@pytest.mark.skipif(NativeIO not in KINDS, reason="not a compiled build")
def test_what_is_no_batch_is_refused() -> None:
    with bound(V4) as a:
        io = NativeIO(V4)
        to = io.key(a.getsockname())
        with pytest.raises(ValueError, match="one key for each"):
            io.send(a, [b"x"], [])
        with pytest.raises(ValueError, match="too many"):
            io.send(a, [b"x"] * (BATCH + 1), [to] * (BATCH + 1))
        with pytest.raises(TypeError):
            io.send(a, ["x"], [to])  # type: ignore[list-item]
        assert io.send(a, [], []) == 0
        assert io.receive(a) == []
