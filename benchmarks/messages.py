"""The messages of ``udpgen.c`` again, for benchmarks that drive the core by bytes."""

from __future__ import annotations

from typing import Final

SDP: Final = (
    b"v=0\r\no=alice 2890844526 2890844526 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\n"
    b"t=0 0\r\nm=audio 49170 RTP/AVP 0 8 97 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
    b"a=rtpmap:97 iLBC/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
    b"a=ptime:20\r\na=sendrecv\r\n"
)
_COMMON: Final = (
    b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, REFER, MESSAGE, UPDATE, PRACK\r\n"
    b"User-Agent: udpgen/1.0 (loopback)\r\n"
)


def register(number: int, phone: int) -> bytes:
    """The ``number``-th REGISTER, of a phone."""
    return (
        b"REGISTER sip:example.com SIP/2.0\r\n"
        b"Via: SIP/2.0/UDP 127.0.0.1:5999;branch=z9hG4bK%(number)08x00000000;rport\r\n"
        b"Max-Forwards: 70\r\n"
        b'From: "User %(phone)06u" <sip:u%(phone)06u@example.com>;tag=%(number)08x\r\n'
        b'To: "User %(phone)06u" <sip:u%(phone)06u@example.com>\r\n'
        b"Call-ID: %(number)08x-00000000@ua%(phone)06u.example.com\r\n"
        b"CSeq: %(cseq)u REGISTER\r\n"
        b"Contact: <sip:u%(phone)06u@127.0.0.1:5999;ob>"
        b';+sip.instance="<urn:uuid:00000000-0000-1000-8000-%(phone)012x>";reg-id=1;expires=600\r\n'
        b"Supported: path, outbound, gruu\r\n%(common)bExpires: 600\r\nContent-Length: 0\r\n\r\n"
    ) % {b"number": number, b"phone": phone, b"cseq": number % 65536 + 1, b"common": _COMMON}


def invite(number: int, phone: int, route: bytes) -> bytes:
    """The ``number``-th INVITE from the core; ``route``: the phone's Path."""
    return (
        b"INVITE sip:u%(phone)06u@127.0.0.1:5999;ob SIP/2.0\r\n"
        b"Via: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bK%(number)08x00000000i\r\n"
        b"Route: %(route)b\r\n"
        b"Max-Forwards: 69\r\n"
        b'From: "Caller" <sip:caller@example.com>;tag=%(number)08x\r\n'
        b"To: <sip:u%(phone)06u@example.com>\r\n"
        b"Call-ID: %(number)08x-00000000@core.example.com\r\n"
        b"CSeq: 1 INVITE\r\n"
        b"Contact: <sip:caller@127.0.0.1:5090>\r\n"
        b"Supported: path, outbound, gruu, timer\r\n%(common)b"
        b"Content-Type: application/sdp\r\nContent-Length: %(size)d\r\n\r\n%(sdp)b"
    ) % {
        b"number": number, b"phone": phone, b"route": route, b"common": _COMMON,
        b"size": len(SDP), b"sdp": SDP,
    }  # fmt: skip


def in_dialog(method: bytes, number: int, answer: bytes) -> bytes:
    """ACK or BYE of the caller, made from the 200 to its INVITE."""
    rows = dict(row.split(b": ", 1) for row in _rows(answer))
    cseq = 1 if method == b"ACK" else 2
    return (
        b"%(method)b %(uri)b SIP/2.0\r\n"
        b"Via: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bK%(number)08x%(method)b\r\n"
        b"Route: %(Record-Route)b\r\nMax-Forwards: 69\r\nFrom: %(From)b\r\nTo: %(To)b\r\n"
        b"Call-ID: %(Call-ID)b\r\nCSeq: %(cseq)d %(method)b\r\nContent-Length: 0\r\n\r\n"
    ) % {
        **rows, b"method": method, b"number": number, b"cseq": cseq, b"uri": rows[b"Contact"][1:-1],
    }  # fmt: skip


def answer(request: bytes, status: bytes, more: bytes = b"", body: bytes = b"") -> bytes:
    """A response with the rows that it must have, and ``more`` rows (each with its CRLF)."""
    copied = (b"Via", b"Record-Route", b"From", b"To", b"Call-ID", b"CSeq", b"Path")
    out = [b"SIP/2.0 " + status]
    for row in _rows(request):
        name = row.partition(b":")[0]
        if name in copied:
            out.append(row + b";tag=x1" if name == b"To" and b";tag=" not in row else row)
    return b"%b\r\n%bContent-Length: %d\r\n\r\n%b" % (b"\r\n".join(out), more, len(body), body)


def value(message: bytes, name: bytes) -> bytes:
    """The value of the first row of that name."""
    return next(row for row in _rows(message) if row.startswith(name + b": "))[len(name) + 2 :]


def _rows(message: bytes) -> list[bytes]:
    return message.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
