"""Flow tokens (RFC 5626 §5.2), driven function by function; the Route is what an attacker sends."""

from __future__ import annotations

import binascii
import hmac
import sys

import pytest

from outbound_plugin.api import BAD, GONE, VALID
from outbound_plugin.flow_token import HmacKey
from sipedge.errors import ParseError
from sipedge.flow import CLOSED, TCP, TLS, UDP, WS, WSS, Listener
from sipedge.sip.message import SipMessage
from tests.helpers import KEY, Modules, message

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
OLD = b"an older key, 20 oct"
NAMES = ("outbound", "rr")


def attempt(modules: Modules, user: str, host: str = "192.0.2.10") -> tuple[int, SipMessage]:
    route = f"Route: <sip:{user}@{host}:5060;lr;ob>"
    msg = message(modules.from_core(), "INVITE", route, uri="sip:bob@10.9.9.9", vias=2)
    return int(modules.rr.loose_route(msg)), msg


def refused(modules: Modules, user: str) -> bool:
    """-2 is what a route answers 403 to, and nothing was chosen to send to."""
    code, msg = attempt(modules, user)
    return code == -2 and msg.dst_flow is None and msg.dst_uri is None


@pytest.mark.rfc("TOK-01", "INC-05")
@pytest.mark.parametrize("stream", [True, False])
def test_each_changed_character_is_refused(stream: bool) -> None:
    modules = Modules(*NAMES)
    phone = modules.tcp_phone() if stream else modules.phone()
    token = modules.token(phone)
    assert attempt(modules, token)[0] == 2
    for at, char in enumerate(token):
        for other in {"A", "z", ALPHABET[(ALPHABET.index(char) + 1) % 64]} - {char}:
            assert refused(modules, token[:at] + other + token[at + 1 :])


@pytest.mark.rfc("TOK-02")
def test_a_reused_four_tuple_is_another_flow() -> None:
    modules = Modules(*NAMES)
    bob = modules.tcp_phone(40001)
    token = modules.token(bob)
    modules.flows.closed(bob)
    carol = modules.tcp_phone(40001)
    assert (carol.remote, carol.local) == (bob.remote, bob.local)
    code, msg = attempt(modules, token)
    assert code == 2
    assert msg.dst_flow is not carol
    assert msg.dst_flow is not None
    assert msg.dst_flow.state == CLOSED
    assert modules.token(carol) != token


@pytest.mark.rfc("TOK-02")
def test_the_token_differs_with_transport_and_both_addresses() -> None:
    modules = Modules(*NAMES)
    flows = [
        modules.phone(1),
        modules.phone(2),
        modules.phone(1, "198.51.100.8"),
        modules.flows.udp(modules.core_side, ("198.51.100.7", 1)),
        modules.tcp_phone(1),
        modules.tcp_phone(1),
    ]
    assert len({modules.token(flow) for flow in flows}) == len(flows)


@pytest.mark.rfc("TOK-03")
def test_tokens_from_before_a_restart_are_never_403() -> None:
    before = Modules(*NAMES)
    udp, tcp = before.token(before.phone()), before.token(before.tcp_phone())
    restarted = Modules(*NAMES)  # the same key, from its file
    code, msg = attempt(restarted, udp)
    assert code == 2
    assert msg.dst_flow is restarted.phone()
    for modules, token in ((restarted, tcp), (Modules(*NAMES, outbound__flow_token_key=OLD), udp)):
        code, msg = attempt(modules, token)
        assert code == 2
        assert msg.dst_flow is not None
        assert msg.dst_flow.state == CLOSED  # the host answers 430


@pytest.mark.rfc("TOK-04")
def test_a_token_of_another_edge_with_our_key_is_gone() -> None:
    other = Modules(*NAMES)
    other.flows.listeners.clear()
    listener = other.flows.add_listener(Listener(UDP, "192.0.2.77", 5060))
    token = other.token(other.flows.udp(listener, ("198.51.100.7", 49152)))
    code, msg = attempt(Modules(*NAMES), token)
    assert code == 2
    assert msg.dst_flow is not None
    assert msg.dst_flow.state == CLOSED
    assert msg.dst_flow.remote == ("198.51.100.7", 49152)


@pytest.mark.rfc("TOK-05")
def test_truncated_and_other_users_are_refused() -> None:
    modules = Modules(*NAMES)
    token = modules.token(modules.tcp_phone())
    for size in range(1, len(token)):
        assert refused(modules, token[:size])
        assert refused(modules, token[size:])
    for user in ("bob", "+15551234", "a.b", "%00", "A" * 4096, token * 2, token + "==", "(x)"):
        assert refused(modules, user)
    assert refused(modules, token + ":password")
    with pytest.raises(ParseError):  # 400: an empty user part is no URI at all
        attempt(modules, "")


@pytest.mark.rfc("TOK-06")
def test_only_safe_characters_and_escapes_are_undone() -> None:
    modules = Modules(*NAMES)
    for port in range(40000, 40040):
        phone = modules.tcp_phone(port)
        token = modules.token(phone)
        assert set(token) <= set(ALPHABET)
        escaped = "".join(
            f"%{ord(c):02x}" if c in "-_" or i % 3 == 0 else c for i, c in enumerate(token)
        )
        code, msg = attempt(modules, escaped)
        assert code == 2
        assert msg.dst_flow is phone


@pytest.mark.rfc("TOK-07")
def test_one_spelling_only() -> None:
    modules = Modules(*NAMES)
    token = modules.token(modules.tcp_phone())  # 47 characters: two spare bits at the end
    last = ALPHABET.index(token[-1])
    for other in range(64):
        if other != last:
            assert refused(modules, token[:-1] + ALPHABET[other])
    for at in range(len(token)):
        assert refused(modules, token[:at] + "*" + token[at:])
        assert refused(modules, token[:at] + "*" + token[at + 1 :])
    assert refused(modules, token + "=")


@pytest.mark.rfc("TOK-08")
def test_older_keys_are_accepted_for_as_long_as_they_are_listed() -> None:
    old_edge = Modules(*NAMES, outbound__flow_token_key=OLD)
    token = old_edge.token(old_edge.phone())
    rotated = Modules(*NAMES, outbound__flow_token_key=(KEY, OLD))
    code, msg = attempt(rotated, token)
    assert code == 2
    assert msg.dst_flow is rotated.phone()
    assert rotated.token(rotated.phone()) != token  # new tokens have the new key
    dropped = Modules(*NAMES, outbound__flow_token_key=KEY)
    assert dropped.ob.decode_flow_token(token.encode())[0] is GONE


@pytest.mark.rfc("TOK-09")
def test_ipv4_ipv6_and_mapped_addresses() -> None:
    modules = Modules(*NAMES)
    v6 = modules.flows.add_listener(Listener(UDP, "2001:db8::10", 5060))
    phone = modules.flows.udp(v6, ("2001:db8::7", 49152))
    assert modules.ob.decode_flow_token(modules.token(phone).encode()) == (VALID, phone)

    mapped = Modules(*NAMES)
    mapped.flows.listeners.clear()
    listener = mapped.flows.add_listener(Listener(UDP, "::ffff:192.0.2.10", 5060))
    same = mapped.flows.udp(listener, ("::ffff:198.51.100.7", 49152))
    assert mapped.token(same) == modules.token(modules.phone())
    assert mapped.ob.decode_flow_token(mapped.token(same).encode()) == (VALID, same)


@pytest.mark.rfc("TOK-09")
def test_a_mapped_stream() -> None:
    modules = Modules(*NAMES)
    modules.flows.listeners.clear()
    listener = modules.flows.add_listener(Listener(TCP, "::ffff:192.0.2.10", 5060))
    for host in ("::ffff:198.51.100.7", "::ffff:c633:6407"):
        flow = modules.flows.accept(listener, (host, 49152))
        assert modules.ob.decode_flow_token(modules.token(flow).encode()) == (VALID, flow)


@pytest.mark.rfc("TOK-10")
def test_a_token_does_not_pass_for_another_transport() -> None:
    """Forged with the key itself: the fields are signed, but they name no flow of ours."""
    modules = Modules(*NAMES)
    for transport, port in ((TLS, 5060), (WS, 5060), (WSS, 5060)):
        modules.flows.add_listener(Listener(transport, "192.0.2.10", port))
    tcp = modules.tcp_phone()
    addresses = bytes.fromhex("c000020a13c4c6336407c000")

    def forged(transport: int) -> bytes:
        signed = bytes((0x10 | transport,)) + HmacKey(KEY).id + addresses + tcp.conn_id
        signed += binascii.crc_hqx(signed, 0xFFFF).to_bytes(2, "big")
        data = hmac.digest(KEY, signed, "sha1")[:10] + signed
        return (
            binascii.b2a_base64(data, newline=False)
            .rstrip(b"=")
            .translate(bytes.maketrans(b"+/", b"-_"))
        )

    assert modules.ob.decode_flow_token(forged(TCP)) == (VALID, tcp)
    for transport in (TLS, WS, WSS):
        assert modules.ob.decode_flow_token(forged(transport))[0] is GONE
    assert modules.ob.decode_flow_token(forged(UDP))[0] is BAD  # UDP has no connection id


@pytest.mark.rfc("TOK-11")
def test_nothing_grows_with_the_number_of_registers() -> None:
    modules = Modules("outbound", "rr", "path")
    phone = modules.tcp_phone()

    def register() -> None:
        contact = "Contact: <sip:bob@10.0.0.9>;reg-id=1"
        msg = message(phone, "REGISTER", contact)
        modules.path.add_path(msg)
        modules.sent(msg, modules.from_core())

    register()
    before = sys.getallocatedblocks()
    for _ in range(2000):
        register()
    assert sys.getallocatedblocks() - before < 1000
    assert phone.cache is not None
    assert len(phone.cache) == 1


@pytest.mark.rfc("TOK-12")
def test_sizes() -> None:
    modules = Modules(*NAMES)
    v6 = modules.flows.add_listener(Listener(TCP, "2001:db8::10", 5060))
    sizes = [
        len(modules.token(flow))
        for flow in (
            modules.phone(),
            modules.tcp_phone(),
            modules.flows.accept(v6, ("2001:db8::7", 49152)),
        )
    ]
    assert sizes == [36, 47, 79]
