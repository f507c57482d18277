"""Who we are: listeners, advertised names, aliases."""

from __future__ import annotations

import pytest

from sipedge.flow import TCP, UDP, Listener
from sipedge.identity import OwnNames
from sipedge.sip.uri import parse_uri


@pytest.fixture
def names() -> OwnNames:
    names = OwnNames()
    names.learn(
        [
            Listener(UDP, "192.0.2.1", 5060),
            Listener(TCP, "192.0.2.1", 5080),
            Listener(UDP, "2001:db8::1", 5060, ("edge.example.net", None)),
            Listener(UDP, "10.0.0.1", 5060, ("nat.example.net", 6060)),
        ]
    )
    names.add_alias("Example.COM")
    names.add_alias("other.example", 5070)
    names.add_alias("secure.example", 5061)
    return names


@pytest.mark.rfc("PXR-02", "PAR-11")
@pytest.mark.parametrize(
    ("uri", "ours"),
    [
        ("sip:192.0.2.1", True),
        ("sip:192.0.2.1:5060;lr", True),
        ("sip:192.0.2.1:5080", True),
        ("sip:192.0.2.1:5081", False),
        ("sip:192.0.2.2", False),
        ("sip:[2001:DB8:0::1]:5060", True),
        ("sip:EDGE.example.net", True),
        ("sip:nat.example.net:6060", True),
        ("sip:nat.example.net", False),
        ("sip:EXAMPLE.com", True),
        ("sip:example.com:7777", True),
        ("sip:alice@example.com", True),
        ("sip:sub.example.com", False),
        ("sip:other.example:5070", True),
        ("sip:other.example", False),
        ("sips:secure.example", True),
        ("sip:secure.example;transport=tls", True),
        ("sip:secure.example", False),
        ("sip:alice@example.com;gr=urn:uuid:1", False),
        ("tel:+4930123", False),
    ],
)
def test_is_myself(names: OwnNames, uri: str, ours: bool) -> None:
    assert names.is_myself(parse_uri(uri.encode())) is ours
