"""B1, B11: what a proxy leaves as it found it, and what it must add (RFC 3261 §16)."""

from __future__ import annotations

import pytest

from sipedge.flow import TCP
from sipedge.sip.names import CONTENT_LENGTH
from tests.sim import RELAY_ALL, Sim, answer, request

RELAY_ELSEWHERE = RELAY_ALL.replace(
    "    ksr.tm.t_relay(msg)",
    '    ksr.setdsturi(msg, "sip:127.0.0.9:5060")\n    ksr.tm.t_relay(msg)',
)


TCP_VIA = "SIP/2.0/TCP 127.0.0.2:5060"


def head_and_body(data: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


@pytest.mark.rfc("EPR-08")
def test_the_answer_to_a_register_passes_back_untouched() -> None:
    sim = Sim(RELAY_ELSEWHERE)
    phone, registrar = sim.tcp(), sim.udp("127.0.0.9")
    phone.send(request("REGISTER", "sip:example.com", via=TCP_VIA))
    asked = registrar.take()
    for status, rows in (
        (401, [b'WWW-Authenticate: Digest realm="b", nonce="2"', b"WWW-Authenticate: Basic"]),
        (
            200,
            [
                b"Path: <sip:one.example.com;lr;ob>,\t<sip:two.example.com;lr>",
                b"require:   outbound",
                b"Path: <sip:three.example.com;lr>",
                b"Service-Route: <sip:home.example.com;lr>",
                b"X-Unknown: as  it \xc3\xa9s",
            ],
        ),
    ):
        if status == 200:
            phone.send(
                request("REGISTER", "sip:example.com", via=TCP_VIA, branch="z9hG4bKa2", cseq=2)
            )
            asked = registrar.take()
        data = answer(asked, status).replace(
            b"Content-Length", b"\r\n".join(rows) + b"\r\nContent-Length"
        )
        registrar.send(data)
        sent, got = head_and_body(data)[0], head_and_body(phone.raw[-1])[0]
        assert got == [row for row in sent if row != sent[1]]  # all but our Via
        assert sent[1].startswith(b"Via: SIP/2.0/UDP 127.0.0.1:5060")


@pytest.mark.rfc("PXV-05")
def test_merged_requests_are_both_forwarded() -> None:
    sim = Sim()
    server = sim.udp("127.0.0.9")
    merged = [
        request("OPTIONS", "sip:x@127.0.0.9:5060", branch=branch, call_id="same", from_tag="a")
        for branch in ("z9hG4bK1", "z9hG4bK2")
    ]
    for data in merged:
        sim.udp().send(data)
    assert [server.take().method for _ in merged] == [b"OPTIONS", b"OPTIONS"]


@pytest.mark.rfc("PXF-01")
@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_rows_and_body_are_copied_octet_by_octet(transport: str) -> None:
    sim = Sim()
    server = sim.udp("127.0.0.9")
    body = bytes(range(256)) + b"\r\n\r\n" + "é".encode()
    rows = [
        b"X-One:  a ,b",
        b"x-oNe: c",
        b'Contact: <sip:a@h>;x="y;z"',
        b"X-Two: \xc3\xa9\t",
        b"X-One: d",
    ]
    via = f"SIP/2.0/{transport} 127.0.0.2:5060"
    data = request("MESSAGE", "sip:x@127.0.0.9:5060", via=via, body="x" * len(body))
    data = data[: -len(body)] + body
    data = data.replace(b"Content-Length", b"\r\n".join(rows) + b"\r\nContent-Length")
    peer = sim.tcp() if transport == "TCP" else sim.udp()
    peer.send(data)
    sent, got = head_and_body(data), head_and_body(server.raw[-1])
    assert got[1] == sent[1] == body
    changed = (b"Via:", b"Max-Forwards:", b"Max-Breadth:")
    assert [row for row in got[0] if not row.startswith(changed)] == [
        row for row in sent[0] if not row.startswith(changed)
    ]


@pytest.mark.rfc("PXF-09")
def test_content_length_is_added_on_the_way_to_a_stream() -> None:
    sim = Sim()
    data = request("MESSAGE", "sip:x@127.0.0.9:5060;transport=tcp", body="hello")
    head, body = head_and_body(data)
    without = [row for row in head if not row.lower().startswith(b"content-length")]
    assert without != head
    sim.udp().send(b"\r\n".join(without) + b"\r\n\r\n" + body)
    [flow] = sim.dialed
    sim.core.flow_opened(flow, sim.now)
    sim.drain()
    peer = sim.peers[TCP, ("127.0.0.9", 5060)]
    got = peer.take()
    assert got.values(CONTENT_LENGTH) == [b"5"]
    assert got.body == b"hello"


@pytest.mark.rfc("PXF-09")
@pytest.mark.parametrize("status", [180, 200, 486])
def test_content_length_is_added_to_a_response_on_the_way_to_a_stream(status: int) -> None:
    """Linphone says it over UDP only where there is a body; baresip on TCP closes without it."""
    sim = Sim()
    caller, server = sim.tcp(), sim.udp("127.0.0.9")
    caller.send(request("INVITE", "sip:x@127.0.0.9:5060", via="SIP/2.0/TCP 127.0.0.2:5060"))
    assert caller.take().status == 100
    server.send(answer(server.take(), status).replace(b"Content-Length: 0\r\n", b""))
    got = caller.take()
    assert (got.status, got.values(CONTENT_LENGTH)) == (status, [b"0"])


@pytest.mark.rfc("PXT-02")
def test_a_redirection_by_others_is_passed_on() -> None:
    sim = Sim()
    caller, server = sim.udp(), sim.udp("127.0.0.9")
    caller.send(request("INVITE", "sip:x@127.0.0.9:5060"))
    asked = server.take()
    assert caller.take().status == 100
    moved = answer(asked, 302).replace(
        b"Content-Length", b"Contact: <sip:x@127.0.0.8>\r\nContent-Length"
    )
    server.send(moved)
    got = caller.take()
    assert got.status == 302
    assert b"Contact: <sip:x@127.0.0.8>" in caller.raw[-1].split(b"\r\n")
    assert set(sim.peers) == {(peer.flow.transport, peer.flow.remote) for peer in (caller, server)}
