"""Kamailio's flow tokens: vectors of known keys and addresses."""

from __future__ import annotations

import binascii

import pytest

from outbound_plugin.api import BAD, GONE, VALID
from outbound_plugin.flow_token import FlowTokens, HmacKey, Named
from outbound_plugin.kamailio_token import KAMAILIO_LENGTHS, KamailioTokens, secret_key
from sipedge.flow import TCP, TLS, UDP, WS, FlowTable, Listener

RAW = b"!!!Kamailio rocks!!!"
LOCAL, REMOTE = "192.0.2.10", ("198.51.100.7", 49152)
SECRET = "johndoessecretphrase"
VECTORS = [
    (RAW, b"VzUIUR8dzuOrVQHAAAIKE8TGM2QHwAA=", UDP, (LOCAL, 5060), REMOTE),
    (RAW, b"68O67ShYIohcrgLAAAIKE8TGM2QHwAA=", TCP, (LOCAL, 5060), REMOTE),
    (RAW, b"MYYUgKnxvHda5QPAAAIKE8XGM2QHwAA=", TLS, (LOCAL, 5061), REMOTE),
    (RAW, b"Pk/bPRruYeZDhQXAAAIKAFDGM2QHwAA=", WS, (LOCAL, 80), REMOTE),
    (
        RAW,
        b"ycB7c9hgcjIjLoEgAQ24AAAAAAAAAAAAAAAQE8QgAQ24AAAAAAAAAAAAAAAHwAA=",
        UDP,
        ("2001:db8::10", 5060),
        ("2001:db8::7", 49152),
    ),
    (RAW, b"8FoE+hIOmKbZOQHAAAIKE8TLAHEJE8Y=", UDP, (LOCAL, 5060), ("203.0.113.9", 5062)),
    (secret_key(SECRET), b"YbF7/cGcN5pRMAHAAAIKE8TGM2QHwAA=", UDP, (LOCAL, 5060), REMOTE),
    (secret_key(""), b"iDkjr1jtcbd1mQHAAAIKE8TGM2QHwAA=", UDP, (LOCAL, 5060), REMOTE),
]


def test_keys_of_secrets() -> None:
    assert secret_key(SECRET).hex() == "85b9a1f6ddf46d8cf5b955ce38264ed468e55094"
    assert secret_key("").hex() == "da39a3ee5e6b4b0d3255bfef95601890afd80709"


def test_full_mac_of_the_first_vector() -> None:
    signed = bytes.fromhex("01c000020a13c4c6336407c000")
    assert HmacKey(RAW).mac(signed).hex() == "9e11ca4c275bfffabd7a573508511f1dcee3ab55"


@pytest.mark.parametrize(("key", "token", "transport", "local", "remote"), VECTORS)
def test_vectors(
    key: bytes, token: bytes, transport: int, local: tuple[str, int], remote: tuple[str, int]
) -> None:
    assert len(token) in KAMAILIO_LENGTHS
    assert KamailioTokens([key])(token) == Named(transport, local, remote)
    assert KamailioTokens([b"0" * 20, key])(token) is not None
    assert KamailioTokens([b"0" * 20])(token) is None


@pytest.mark.parametrize(
    "token",
    [
        b"nhHKTCdb//q9egHAAAIKE8TGM2QHwAA=",  # the first ten octets of the MAC
        b"VzUIUR8dzuOrVQHAAAIKE8TGM2QHwAB=",  # spare bits
        b"VzUIUR8dzuOrVQHAAAIKE8TGM2QHwAA",
        b"VzUIUR8dzuOrVQHAAAIKE8TGM2QHwA*A=",
        b"VzUIUR8dzuOrVQHAAAIKE8TGM2QHwAA=AAAA",
        b"VzUIUR8dzuOrVQLAAAIKE8TGM2QHwAA=",
        b"",
        b"=",
    ],
)
def test_refused(token: bytes) -> None:
    assert KamailioTokens([RAW])(token) is None


def test_families_that_do_not_fit_and_unknown_transports() -> None:
    def signed(data: bytes) -> bytes:
        mac = HmacKey(RAW).mac(data)[-10:]
        return binascii.b2a_base64(mac + data, newline=False)

    addresses = bytes.fromhex("c000020a13c4c6336407c000")
    tokens = KamailioTokens([RAW])
    assert tokens(signed(b"\x01" + addresses)) is not None
    for head in (0x81, 0x00, 0x04, 0x07):
        assert tokens(signed(bytes((head,)) + addresses)) is None
    assert tokens(signed(b"\x81" + bytes(16) + addresses)) is None  # one address of each family


def edge() -> tuple[FlowTable, FlowTokens]:
    table = FlowTable()
    table.add_listener(Listener(UDP, LOCAL, 5060))
    table.add_listener(Listener(TCP, LOCAL, 5060))
    return table, FlowTokens(table, [RAW], KamailioTokens([RAW]))


def test_udp_flow_of_a_kamailio_token() -> None:
    table, tokens = edge()
    assert tokens.decode(VECTORS[0][1]) == (VALID, table.udp(table.listeners[0], REMOTE))
    assert tokens.decode(b"VzUIUR8dzuOrVQHAAAIKE8TGM2QHwAA%3D")[0] is VALID


def test_stream_of_a_kamailio_token_is_found_by_its_addresses() -> None:
    table, tokens = edge()
    token = VECTORS[1][1]
    assert tokens.decode(token)[0] is GONE
    table.accept(table.listeners[1], ("198.51.100.7", 49153))
    table.dial(table.listeners[1], REMOTE)
    assert tokens.decode(token)[0] is GONE  # another port, and a connection that we opened
    flow = table.accept(table.listeners[1], REMOTE)
    assert tokens.decode(token) == (VALID, flow)
    table.closed(flow)
    assert tokens.decode(token)[0] is GONE


def test_kamailio_token_of_another_edge() -> None:
    _, tokens = edge()
    assert tokens.decode(VECTORS[4][1])[0] is GONE


def test_not_accepted_unless_asked_for() -> None:
    table, _ = edge()
    assert FlowTokens(table, [RAW]).decode(VECTORS[0][1]) == (BAD, None)
