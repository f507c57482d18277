"""The table in memory, against a simple model, and its two indexes."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from registrar_plugin.bindings import Binding, flow_ref
from registrar_plugin.store.memory import MemoryStore
from sipedge.flow import TCP, Flow, Listener

LISTENER = Listener(TCP, "127.0.0.1", 5060)


def binding(expires: float, flow: Flow | None = None, uri: bytes = b"<sip:a@b>") -> Binding:
    stamp = int(expires * 1_000_000)
    ref = None if flow is None else flow_ref(flow)
    return Binding(uri, 0, -1, b"", ref, b"c", 1, stamp, 0, None)


def test_replace_is_one_step() -> None:
    store = MemoryStore()
    a, b, c = binding(100), binding(200), binding(300)
    assert store.replace(b"x", (), (a, b), 1.0) == (a, b)
    assert store.fetch(b"x", 1.0) == (a, b)
    assert store.replace(b"x", (a,), (c,), 1.0) == (b, c)
    assert store.replace(b"x", (b, c), (), 1.0) == ()
    assert store.fetch(b"x", 1.0) == ()
    assert (len(store), list(store.entries())) == (0, [])


def test_expired_ones_are_never_seen_and_go_with_the_sweep() -> None:
    store = MemoryStore()
    a, b = binding(10.5), binding(20.25)
    store.replace(b"x", (), (a, b), 1.0)
    assert store.sweep(10.4) == []
    assert store.fetch(b"x", 10.5) == (b,)
    assert store.replace(b"x", (), (), 10.5) == (b,)
    assert list(store.entries()) == [(b"x", a), (b"x", b)]
    assert store.sweep(11.0) == [(b"x", a)]
    assert store.sweep(20.0) == []
    assert store.sweep(5000.0) == [(b"x", b)]
    assert len(store) == 0


def test_a_refresh_leaves_the_index_until_its_second_comes() -> None:
    store = MemoryStore()
    first, second = binding(10), binding(30)
    store.replace(b"x", (), (first,), 1.0)
    store.replace(b"x", (first,), (second,), 5.0)
    assert store._due_size == 1
    assert store.sweep(15.0) == []
    assert store._due_size == 1
    assert store.sweep(31.0) == [(b"x", second)]
    assert store._due_size == 0
    assert store._due == {}


def test_a_shorter_lifetime_is_noticed() -> None:
    store = MemoryStore()
    first, second = binding(100), binding(20)
    store.replace(b"x", (), (first,), 1.0)
    store.replace(b"x", (first,), (second,), 5.0)
    assert store.sweep(21.0) == [(b"x", second)]


def test_coming_and_going_does_not_fill_the_index() -> None:
    store = MemoryStore()
    store.replace(b"stays", (), (stays := binding(90_000),), 0.0)
    for n in range(20_000):
        one = binding(50_000 + n)
        store.replace(b"x", (), (one,), 0.0)
        store.replace(b"x", (one,), (), 0.0)
    assert store._due_size < 5_000
    assert sum(map(len, store._due.values())) == store._due_size
    assert store.sweep(90_001.0) == [(b"stays", stays)]


def test_a_closed_flow_takes_its_bindings_of_every_aor() -> None:
    store = MemoryStore()
    one = Flow(LISTENER, ("192.0.2.1", 1), conn_id=b"1")
    two = Flow(LISTENER, ("192.0.2.1", 2), conn_id=b"2")
    a, b, c = binding(100, one), binding(100, two), binding(100, one)
    plain = binding(100)
    store.replace(b"x", (), (a, b, plain), 1.0)
    store.replace(b"y", (), (c,), 1.0)
    assert sorted(store.flow_closed(one), key=lambda e: e[0]) == [(b"x", a), (b"y", c)]
    assert store.fetch(b"x", 1.0) == (b, plain)
    assert store.fetch(b"y", 1.0) == ()
    assert store.flow_closed(one) == []
    assert store.flow_closed(two) == [(b"x", b)]
    assert store._flows == {}


def test_the_index_of_flows_forgets_what_was_removed_or_expired_or_moved() -> None:
    store = MemoryStore()
    flows = [Flow(LISTENER, ("192.0.2.1", n), conn_id=b"%d" % n) for n in range(3)]
    a, b, c = (binding(100 + n, flow) for n, flow in enumerate(flows))
    store.replace(b"x", (), (a,), 1.0)
    store.replace(b"x", (a,), (b,), 1.0)
    assert store.flow_closed(flows[0]) == []
    assert list(store._flows) == [flows[1]]
    store.replace(b"x", (b,), (), 1.0)
    assert store._flows == {}
    store.replace(b"x", (), (c,), 1.0)
    store.sweep(200.0)
    assert store._flows == {}


@pytest.mark.parametrize("seed", range(5))
def test_against_a_model(seed: int) -> None:
    rng = random.Random(seed)
    store, model = MemoryStore(), dict[bytes, list[Binding]]()
    flows: list[Flow] = [Flow(LISTENER, ("192.0.2.1", n), conn_id=b"%d" % n) for n in range(6)]
    now = 1000.0
    for step in range(2000):
        now += rng.random()
        aor = b"%d" % rng.randrange(12)
        live = [b for b in model.get(aor, []) if b.expires > now]
        action = rng.random()
        if action < 0.7:
            gone = rng.sample(live, rng.randint(0, len(live)))
            flow = rng.choice([None, *flows])
            new = [binding(now + rng.randint(1, 60), flow) for _ in range(rng.randint(0, 2))]
            model[aor] = [b for b in live if b not in gone] + new
            assert store.replace(aor, gone, new, now) == tuple(model[aor])
        elif action < 0.8:
            at = rng.randrange(len(flows))
            flow, flows[at] = flows[at], Flow(LISTENER, ("192.0.2.1", 1), conn_id=b"s%d" % step)
            lost = {b for _, b in store.flow_closed(flow) if b.expires > now}
            held = {b for row in model.values() for b in row if b.flow is flow}
            assert lost == {b for b in held if b.expires > now}
            model = {a: [b for b in row if b.flow is not flow] for a, row in model.items()}
        else:
            store.sweep(now)
            assert all(b.expires > now - 1 for _, b in store.entries())
        live = [b for b in model.get(aor, []) if b.expires > now]
        assert store.fetch(aor, now) == tuple(live)
    left = list(store.entries())
    assert len(left) >= sum(1 for row in model.values() for b in row if b.expires > now)
    assert set(store.sweep(now + 100)) == set(left)
    assert (len(store), store._flows, store._due_size, store._due) == (0, {}, 0, {})


def test_memory_of_a_binding_stays_small() -> None:
    """Contact URI, instance, Call-ID, AOR and a Path of 100 octets; stated in the manual."""
    store = MemoryStore()
    count = 3000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(count):
            contact = (
                b"<sip:user%07d@10.1.2.3:5060;transport=tcp;ob>;reg-id=1;"
                b'+sip.instance="<urn:uuid:00000000-0000-1000-8000-%012d>"' % (n, n)
            )
            path = b"<sip:" + b"T%029d" % n + b"@edge-01.example.com:5060;transport=tcp;lr;ob>"
            call_id = b"%08d-2f4e-4bd1-9cde-1234567890ab" % n
            stamp = 10**12 + n * 10**5
            row = Binding(contact, 1, -1, path, None, call_id, 40000 + n, stamp, 3600, None)
            store.replace(b"user%07d@example.com" % n, (), (row,), stamp / 1e6)
        used = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert used < 800, f"{used:.0f} octets per binding"
