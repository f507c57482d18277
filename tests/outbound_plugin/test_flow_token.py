"""Flow tokens: layout, round trip, and what is refused."""

from __future__ import annotations

import binascii
import hmac
import ipaddress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbound_plugin.api import BAD, GONE, VALID
from outbound_plugin.flow_token import TOKEN_LENGTHS, FlowTokens, HmacKey
from sipedge.errors import SipError
from sipedge.flow import (
    CLOSED,
    SCTP,
    TCP,
    TLS,
    UDP,
    WS,
    WSS,
    Flow,
    FlowTable,
    Listener,
)

KEY = b"!!!Kamailio rocks!!!"
OTHER = b"twenty other octets!"
URL_SAFE = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def edge(*listeners: tuple[int, str, int]) -> FlowTable:
    table = FlowTable()
    for transport, host, port in listeners or ((UDP, "192.0.2.10", 5060),):
        table.add_listener(Listener(transport, host, port))
    return table


def flow_of(table: FlowTable, remote: tuple[str, int], index: int = 0) -> Flow:
    listener = table.listeners[index]
    if listener.transport == UDP:
        return table.udp(listener, remote)
    return table.accept(listener, remote)


def forge(signed: bytes, key: bytes = KEY) -> bytes:
    """A token with this S (without its CRC) that is signed as we sign."""
    signed += binascii.crc_hqx(signed, 0xFFFF).to_bytes(2, "big")
    mac = hmac.digest(key, signed, "sha1")[:10]
    return (
        binascii.b2a_base64(mac + signed, newline=False)
        .translate(bytes.maketrans(b"+/", b"-_"))
        .rstrip(b"=")
    )


def test_layout_as_written_down() -> None:
    table = edge()
    token = FlowTokens(table, [KEY]).encode(flow_of(table, ("198.51.100.7", 49152)))
    signed = bytes.fromhex("11") + HmacKey(KEY).id + bytes.fromhex("c000020a13c4c6336407c000")
    assert token == forge(signed)


def test_prepared_hmac_is_hmac_sha1() -> None:
    for data in (b"", b"x", b"S" * 200):
        assert HmacKey(KEY).mac(data) == hmac.digest(KEY, data, "sha1")


@pytest.mark.parametrize("transport", [UDP, TCP, TLS, WS, WSS])
@pytest.mark.parametrize(
    ("local", "remote"), [("192.0.2.10", "198.51.100.7"), ("2001:db8::10", "2001:db8::7")]
)
@pytest.mark.parametrize("port", [1, 255, 256, 65535])
def test_round_trip(transport: int, local: str, remote: str, port: int) -> None:
    table = edge((transport, local, port))
    flow = flow_of(table, (remote, port))
    token = FlowTokens(table, [KEY]).encode(flow)
    assert len(token) in TOKEN_LENGTHS
    assert URL_SAFE.issuperset(token)
    assert FlowTokens(table, [KEY]).decode(token) == (VALID, flow)


@given(
    st.sampled_from([UDP, TCP, WSS]),
    st.ip_addresses(v=4) | st.ip_addresses(v=6),
    st.integers(1, 65535),
)
def test_round_trip_of_any_address(
    transport: int, remote: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    mapped = remote.version == 6 and remote.ipv4_mapped is not None
    local = "192.0.2.10" if remote.version == 4 else "2001:db8::10"
    table = edge((transport, local, 5060))
    flow = flow_of(table, (str(remote), port))
    tokens = FlowTokens(table, [KEY])
    if mapped:  # cannot happen on a socket that is bound to an IPv6 address
        with pytest.raises(SipError):
            tokens.encode(flow)
    else:
        assert tokens.decode(tokens.encode(flow)) == (VALID, flow)


@given(st.binary(max_size=100))
def test_random_octets_are_no_token(user: bytes) -> None:
    assert FlowTokens(edge(), [KEY]).decode(user) == (BAD, None)


def test_token_is_kept_with_the_flow() -> None:
    table = edge()
    flow = flow_of(table, ("198.51.100.7", 49152))
    tokens = FlowTokens(table, [KEY])
    assert tokens.encode(flow) is tokens.encode(flow) is flow.token


def test_every_flipped_bit_is_bad() -> None:
    table = edge((TCP, "192.0.2.10", 5060))
    flow = flow_of(table, ("198.51.100.7", 49152))
    tokens = FlowTokens(table, [KEY])
    token = tokens.encode(flow)
    data = binascii.a2b_base64(token.translate(bytes.maketrans(b"-_", b"+/")) + b"=")
    for bit in range(len(data) * 8):
        garbled = bytearray(data)
        garbled[bit // 8] ^= 1 << bit % 8
        spelled = binascii.b2a_base64(garbled, newline=False).rstrip(b"=")
        assert tokens.decode(spelled.translate(bytes.maketrans(b"+/", b"-_"))) == (BAD, None)
    assert tokens.decode(token) == (VALID, flow)


def test_standard_alphabet_padding_and_spare_bits_are_bad() -> None:
    table = edge((TCP, "192.0.2.10", 5060))
    tokens = FlowTokens(table, [KEY])
    seen = set()
    for port in range(40000, 40064):
        token = tokens.encode(flow_of(table, ("198.51.100.7", port)))
        seen.update(b"-_" if {45, 95} & set(token) else b"")
        if b"-" in token or b"_" in token:
            assert tokens.decode(token.replace(b"-", b"+").replace(b"_", b"/"))[0] is BAD
        assert tokens.decode(token + b"=")[0] is BAD
        last = token[-1:]
        alphabet = bytes(sorted(URL_SAFE))
        spellings = [token[:-1] + bytes((c,)) for c in alphabet if bytes((c,)) != last]
        assert all(tokens.decode(other)[0] is BAD for other in spellings)
    assert seen  # both alphabets were told apart at least once


def test_unknown_key_is_gone_and_names_the_flow() -> None:
    table = edge((TCP, "192.0.2.10", 5060))
    flow = flow_of(table, ("198.51.100.7", 49152))
    token = FlowTokens(table, [OTHER]).encode(flow)
    verdict, dead = FlowTokens(table, [KEY]).decode(token)
    assert verdict is GONE
    assert dead is not None
    assert dead is not flow
    assert dead.state == CLOSED
    assert (dead.transport, dead.remote, dead.conn_id) == (TCP, flow.remote, flow.conn_id)


def test_unknown_key_and_garbled_is_bad() -> None:
    table = edge()
    token = FlowTokens(table, [OTHER]).encode(flow_of(table, ("198.51.100.7", 49152)))
    garbled = token[:20] + (b"A" if token[20:21] != b"A" else b"B") + token[21:]
    assert FlowTokens(table, [KEY]).decode(garbled) == (BAD, None)


def test_two_keys_of_the_ring_with_one_id() -> None:
    """Which of them signed is found out by the MAC."""
    table = edge()
    flow = flow_of(table, ("198.51.100.7", 49152))
    old = FlowTokens(table, [OTHER])
    both = FlowTokens(table, [KEY, OTHER])
    for key in both._keys:
        key.id = b"\0\0"
    for key in old._keys:
        key.id = b"\0\0"
    assert both.decode(old.encode(flow)) == (VALID, flow)


def test_cache_of_verified_tokens_is_bounded_and_notices_a_close() -> None:
    table = edge((UDP, "192.0.2.10", 5060), (TCP, "192.0.2.10", 5060))
    tokens = FlowTokens(table, [KEY])
    for n in range(tokens.SEEN + 10):
        flow = Flow(table.listeners[0], (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 5060))
        assert tokens.decode(tokens.encode(flow))[0] is VALID
    assert len(tokens._seen) <= tokens.SEEN
    stream = flow_of(table, ("198.51.100.7", 49152), 1)
    token = tokens.encode(stream)
    assert tokens.decode(token) == (VALID, stream)
    table.closed(stream)
    assert tokens.decode(token)[0] is GONE


def test_udp_flow_that_the_table_forgot_is_made_again() -> None:
    table = edge()
    tokens = FlowTokens(table, [KEY])
    token = tokens.encode(flow_of(table, ("198.51.100.7", 49152)))
    assert tokens.decode(token)[0] is VALID
    table._udp_new.clear()
    verdict, flow = tokens.decode(token)
    assert verdict is VALID
    assert flow is flow_of(table, ("198.51.100.7", 49152))


@pytest.mark.parametrize(
    ("listener", "remote"),
    [
        (Listener(SCTP, "192.0.2.10", 5060), ("198.51.100.7", 49152)),
        (Listener(UDP, "192.0.2.10", 0), ("198.51.100.7", 49152)),
        (Listener(UDP, "192.0.2.10", 5060), ("2001:db8::7", 49152)),
        (Listener(UDP, "fe80::1", 5060), ("fe80::2%eth0", 49152)),
        (Listener(UDP, "192.0.2.10", 5060), ("198.51.100", 49152)),
        (Listener(UDP, "192.0.2.10", 5060), ("no.host", 49152)),
        (Listener(UDP, "192.0.2.10", 5060), ("198.51.100.7", 65536)),
        (Listener(TCP, "192.0.2.10", 5060), ("198.51.100.7", 49152)),
    ],
    ids=["sctp", "not-bound", "two-families", "zone", "short", "name", "port", "no-conn-id"],
)
def test_cannot_mint(listener: Listener, remote: tuple[str, int]) -> None:
    table = FlowTable()
    table.add_listener(listener)
    with pytest.raises(SipError) as caught:
        FlowTokens(table, [KEY]).encode(Flow(listener, remote))
    assert caught.value.status == 500


def test_malformed_but_signed_by_us() -> None:
    """A future format, a length that does not fit the head: no token of this version."""
    table = edge((UDP, "192.0.2.10", 5060), (TCP, "192.0.2.10", 5060))
    kid = HmacKey(KEY).id
    udp4 = bytes.fromhex("c000020a13c4c6336407c000")
    tokens = FlowTokens(table, [KEY])
    assert tokens.decode(forge(b"\x11" + kid + udp4))[0] is VALID
    for head in (0x31, 0x91, 0x12, 0x10, 0x14, 0x17):  # format, family, no id, none, SCTP, unknown
        assert tokens.decode(forge(bytes((head,)) + kid + udp4)) == (BAD, None)
    assert tokens.decode(forge(b"\x11" + kid + udp4 + bytes(8))) == (BAD, None)


def test_dialed_connection_is_named_by_its_listener() -> None:
    table = edge((TCP, "192.0.2.10", 5060))
    flow = table.dial(table.listeners[0], ("192.0.2.30", 5060))
    flow.local = ("192.0.2.10", 39999)
    tokens = FlowTokens(table, [KEY])
    assert tokens.decode(tokens.encode(flow)) == (VALID, flow)


@pytest.mark.rfc("OPS-07")
@pytest.mark.parametrize("here", ["192.0.2.10", "2001:db8::10"])
@pytest.mark.parametrize("client", ["198.51.100.7", "2001:db8::7"])
@pytest.mark.parametrize("transport", [UDP, TCP])
def test_behind_a_load_balancer_of_any_family(here: str, client: str, transport: int) -> None:
    table = FlowTable()
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
    listener = table.add_listener(Listener(transport, here, 5060, proxies=networks))
    remote = (client, 40001)
    if transport == UDP:
        flow, _ = table.behind.seen(listener, (here[:-2] + "99", 7001), remote)
    else:
        flow = table.accept(listener, remote)
    token = FlowTokens(table, [KEY]).encode(flow)
    assert len(token) in TOKEN_LENGTHS
    assert FlowTokens(table, [KEY]).decode(token) == (VALID, flow)
    table.closed(flow)
    assert FlowTokens(table, [KEY]).decode(token)[0] is GONE


@pytest.mark.rfc("OPS-07")
def test_a_flow_behind_a_load_balancer_is_never_made_from_its_token() -> None:
    def fresh() -> tuple[FlowTable, Listener]:
        table = FlowTable()
        networks = (ip_network("192.0.2.0/24"),)
        return table, table.add_listener(Listener(UDP, "192.0.2.10", 5060, proxies=networks))

    table, listener = fresh()
    remote = ("198.51.100.7", 40001)
    tokens = FlowTokens(table, [KEY])
    through, _ = table.behind.seen(listener, ("192.0.2.99", 7001), remote)
    token = tokens.encode(through)
    direct = Flow(listener, remote)
    assert tokens.encode(direct) != token
    table, listener = fresh()  # a restart
    tokens = FlowTokens(table, [KEY])
    verdict, flow = tokens.decode(token)
    assert verdict is GONE
    assert flow is not None
    assert flow.remote == remote
    again, _ = table.behind.seen(listener, ("192.0.2.99", 7002), remote)
    assert tokens.decode(token) == (VALID, again)
    other, over = table.behind.seen(listener, ("192.0.2.99", 7002), ("198.51.100.8", 1))
    for one in over:
        table.closed(one)
    assert tokens.decode(token)[0] is GONE
    assert other.alive
