"""RFC 5118, every message: IPv6 in SIP."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.message import SipMessage, parse
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTACT
from sipedge.sip.uri import parse_uri
from sipedge.sip.via import parse_via

FILES = Path(__file__).parent / "torture5118"

#: file -> host and port of the Request-URI, ``None`` for a message that is answered with 400
VERDICTS: dict[str, tuple[bytes, int | None] | None] = {
    "ipv6-good": (b"2001:db8::10", None),  # §4.1
    "ipv6-bad": None,  # §4.2: no brackets
    "port-ambiguous": (b"2001:db8::10:5070", None),  # §4.3: well formed, not what was meant
    "port-unambiguous": (b"2001:db8::10", 5070),  # §4.4
    "via-received-param-with-delim": (b"2001:db8::10", None),  # §4.5: not valid, accepted
    "via-received-param-no-delim": (b"2001:db8::10", None),  # §4.5
    "ipv6-in-sdp": (b"2001:db8::10", None),  # §4.6
    "mult-ip-in-header": (b"host.example.net", None),  # §4.7
    "mult-ip-in-sdp": (b"2001:db8::10", None),  # §4.8
    "ipv4-mapped-ipv6": (b"example.com", None),  # §4.9
    "ipv6-bug-abnf-3-colons": (b"2001:db8::c000:201", None),  # §4.10: tolerated
    "ipv6-correct-abnf-2-colons": (b"2001:db8::c000:201", None),  # §4.10
}


def data_of(name: str) -> bytes:
    return (FILES / f"{name}.dat").read_bytes()


def message(name: str) -> SipMessage:
    return parse(data_of(name))


def test_no_message_is_left_out() -> None:
    assert {path.stem for path in FILES.glob("*.dat")} == set(VERDICTS)


@pytest.mark.rfc("PAR-09", "PAR-10")
@pytest.mark.parametrize(("name", "expected"), VERDICTS.items())
def test_verdict(name: str, expected: tuple[bytes, int | None] | None) -> None:
    data = data_of(name)
    if expected is None:
        with pytest.raises(ParseError) as caught:
            parse(data)
        assert caught.value.status == 400
        assert caught.value.partial is not None
        return
    msg = parse(data)
    assert msg.to_bytes() == strict.parse(data).to_bytes() == data
    uri = parse_uri(msg.ruri)
    assert (uri.host, uri.port) == expected


@pytest.mark.rfc("PAR-09")
def test_addresses_in_headers() -> None:
    msg = message("ipv6-good")
    assert msg.via().host == b"2001:db8::9:1"
    contact = parse_nameaddr(msg.first(CONTACT) or b"")
    assert parse_uri(contact.uri).host == b"2001:db8::1"


@pytest.mark.rfc("PAR-09")
def test_received_with_and_without_brackets() -> None:
    assert message("via-received-param-with-delim").via().get(b"received") == b"[2001:db8::9:255]"
    assert message("via-received-param-no-delim").via().get(b"received") == b"2001:db8::9:255"


@pytest.mark.rfc("PAR-09")
def test_a_mix_of_addresses_in_the_vias() -> None:
    vias = [parse_via(value) for value in message("mult-ip-in-header").values(b"via")]
    assert [(via.host, via.port) for via in vias] == [
        (b"2001:db8::9:1", 6050),
        (b"192.0.2.1", None),
        (b"2001:db8::9:255", None),
    ]


@pytest.mark.rfc("PAR-10")
def test_ipv4_mapped() -> None:
    msg = message("ipv4-mapped-ipv6")
    assert [parse_via(value).host for value in msg.values(b"via")] == [
        b"::ffff:192.0.2.10",
        b"::ffff:192.0.2.2",
    ]
    assert msg.via().port == 19823
