from __future__ import annotations

import pytest

from registrar_plugin.bindings import (
    AorRules,
    Binding,
    canonical_instance,
    flow_of,
    flow_ref,
    param_of,
    split_params,
)
from sipedge.errors import ParseError
from sipedge.flow import TCP, UDP, FlowTable, Listener


def binding(contact: bytes = b"<sip:bob@10.0.0.9>", path: bytes = b"", **more: int) -> Binding:
    stamp, lifetime = more.get("stamp", 1_000_000_000), more.get("lifetime", 60)
    return Binding(contact, 0, -1, path, None, b"c", 1, stamp, lifetime, None)


def test_what_a_binding_works_out() -> None:
    b = binding(b'<sip:bob@10.0.0.9;x="1">;A="+sip.instance=no;";+Sip.Instance="<urn:UUID:AB>"')
    assert b.uri == b'sip:bob@10.0.0.9;x="1"'
    assert b.instance == b"urn:uuid:ab"
    assert binding(b"<sip:instance@10.0.0.9>").instance == b""
    assert (b.updated, b.expires) == (1000.0, 1060.0)
    assert [b.remaining(now) for now in (1000.0, 1000.6, 1059.9, 1060.0)] == [60, 59, 1, 1]
    assert b.ruid == "uloc-3b9aca00"


def test_path_values() -> None:
    assert binding().paths == []
    assert binding(path=b"<sip:a,b@c;lr>").paths == [b"<sip:a,b@c;lr>"]
    joined = b'"x, y" <sip:a;lr>, <sip:b;lr>'
    assert binding(path=joined).paths == [b'"x, y" <sip:a;lr>', b"<sip:b;lr>"]


@pytest.mark.parametrize(
    ("raw", "pieces"),
    [
        (b"", []),
        (b";a;b=1", [b";a", b";b=1"]),
        (b';a="x;y\\";z";b', [b';a="x;y\\";z"', b";b"]),
        (b' ; a = "x" ; b ', [b'; a = "x" ', b"; b "]),
    ],
)
def test_split_params(raw: bytes, pieces: list[bytes]) -> None:
    assert split_params(raw) == pieces


def test_param_of() -> None:
    assert param_of(b"; Q = 0.5 ") == (b"q", b"0.5")
    assert param_of(b";Flag") == (b"flag", None)
    assert param_of(b";x=") == (b"x", b"")


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (None, b""),
        (b"", b""),
        (b'"<URN:UUID:AbC>"', b"urn:uuid:abc"),
        (b'"<URN:Other:AbC>"', b"urn:other:AbC"),
        (b'"<urn:>"', b"urn:"),
        (b'"<Not-A-Urn>"', b"Not-A-Urn"),
        (b"<urn:uuid:A>", b"urn:uuid:a"),
        (b'"', b""),
    ],
)
def test_canonical_instance(value: bytes | None, canonical: bytes) -> None:
    assert canonical_instance(value) == canonical


def test_flow_refs_are_equal_for_equal_flows() -> None:
    flows = FlowTable()
    udp = flows.add_listener(Listener(UDP, "127.0.0.1", 5060))
    tcp = flows.add_listener(Listener(TCP, "127.0.0.1", 5060))
    remote = ("192.0.2.1", 5060)
    ref = flow_ref(flows.udp(udp, remote))
    assert ref == flow_ref(FlowTable().udp(udp, ("192.0.2.1", 5060)))
    assert flow_of(ref, flows).remote == remote
    stream = flows.accept(tcp, remote)
    assert flow_of(flow_ref(stream), flows) is stream
    assert flow_ref(stream) != flow_ref(flows.accept(tcp, remote))


@pytest.mark.parametrize("uri", [b"tel:+1", b"sip:example.com", b"sip:@example.com", b"http:x"])
def test_what_is_no_aor(uri: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        AorRules(False, True, b"").key_of(uri)
    assert caught.value.status in (400, 404)


def test_aor_rules() -> None:
    assert (
        AorRules(False, True, b"").key_of(b"sips:%42ob:pw@Example.COM:99;x=y") == b"bob@example.com"
    )
    assert AorRules(True, True, b"").key_of(b"sip:Bob@Example.COM") == b"Bob@example.com"
    assert AorRules(False, False, b"").key_of(b"sip:Bob@Example.COM") == b"bob"
    assert AorRules(False, True, b"SIP.").key_of(b"sip:bob@sip.example.com") == b"bob@example.com"
    assert AorRules(False, True, b"").key_of(b"sip:b@[2001:DB8:0::1]") == b"b@2001:db8::1"
