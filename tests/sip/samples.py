"""Messages and pieces of messages that several tests here take apart."""

from __future__ import annotations

from hypothesis import strategies as st

REGISTER = (
    b"REGISTER sip:example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.168.1.20:5060;rport;branch=z9hG4bKPj4f2b8f1e\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice" <sip:alice@example.com>;tag=a73kszlfl\r\n'
    b"To: <sip:alice@example.com>\r\n"
    b"Call-ID: 1j9FpLxk3uxtm8tn@192.168.1.20\r\n"
    b"CSeq: 1 REGISTER\r\n"
    b"Supported: path, outbound\r\n"
    b'Contact: <sip:alice@192.168.1.20:5060;ob>;reg-id=1;+sip.instance="<urn:uuid:0-1>"\r\n'
    b"Content-Length: 0\r\n\r\n"
)
INVITE = (
    b"INVITE sip:bob@example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/TCP 192.168.1.20:5060;branch=z9hG4bKxyz\r\n"
    b"From: <sip:alice@example.com>;tag=1\r\n"
    b"To: sip:bob@example.com\r\n"
    b"Call-ID: call\r\n"
    b"CSeq: 17 INVITE\r\n"
    b"Content-Length: 9\r\n\r\n"
    b"v=0\r\n\r\nxx"
)
RESPONSE = (
    b"SIP/2.0 200 OK\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1.1\r\n"
    b"Via: SIP/2.0/UDP 192.168.1.20:5060;branch=z9hG4bK1;rport=5060;received=198.51.100.7\r\n"
    b"From: <sip:alice@example.com>;tag=1\r\n"
    b"To: <sip:alice@example.com>;tag=2\r\n"
    b"Call-ID: call\r\n"
    b"CSeq: 1 REGISTER\r\n"
    b"Content-Length: 0\r\n\r\n"
)

#: start lines and rows, sound and broken, from which hypothesis puts messages together
START_LINES = [
    b"REGISTER sip:example.com SIP/2.0",
    b"REGISTER sip:[2001:db8::1]:5060;lr SIP/2.0",
    b"REGISTER tel:+1 SIP/2.0",
    b"REGISTER sip:example.com?a=b SIP/2.0",
    b"REGISTER  sip:example.com SIP/2.0",
    b"REGISTER sip:example.com sip/2.0",
    b"REGISTER sip:example.com SIP/3.0",
    b"INVITE sip:a%41@example.com:70000 SIP/2.0",
    b"SIP/2.0 200 OK",
    b"SIP/2.0 100 ",
    b"SIP/2.0 100",
    b"SIP/2.0 099 X",
    b"SIP/2.0 700 X",
    b"SIP/2.0  200 OK",
    b"SIP/2.0 2x0 OK",
]
ROWS = [
    b"Via: SIP/2.0/UDP h:5060;branch=z9hG4bK1;rport",
    b"v: SIP/2.0/UDP [::1];branch=z9hG4bK1, SIP/2.0/UDP b",
    b"Via: SIP/2.0/UDP h;branch=z9hG4bK",
    b"Via: SIP/2.0/UDP h;;",
    b"Via : SIP / 2.0 / UDP h",
    b"From: <sip:a@h>;tag=1",
    b"f: sip:a@h;tag=1;x",
    b'From: "A, B" <sip:a@h>;tag=1',
    b'From: "A <sip:a@h>;tag=1',
    b"From: <sip:a@h>;=1",
    b"From: <sip:a@h>;tag=",
    b"From: <sip:a@h>;epid=1;tag=2",
    b"From: <sip:a@h>;epid=1",
    b"From: <:a@h>;tag=1",
    b"From: <sip:a\x00@h>;tag=1",
    b"From: <sip:\xe9@h>;tag=\x7f",
    b"From: <sip:>;tag=1",
    b"From: x<sip:a@h>",
    b"From: Bell, A <sip:a@h>;tag=1",
    b"To: <sip:b@h>",
    b"To: <sip:b@h>;tag=2",
    b"t:\r\n <sip:b@h>\r\n ;tag=2",
    b"To: < sip:b@h >",
    b"To: <sip:b@h>;",
    b"Call-ID: abc@h",
    b"i: a b",
    b"Call-ID:",
    b"Call-ID: \xc3\xa9",
    b"CSeq: 1 REGISTER",
    b"CSeq: 0001\t REGISTER",
    b"cseq: 1 INVITE",
    b"CSeq: 1_0 REGISTER",
    b"CSeq: 4294967296 REGISTER",
    b"CSeq:x: 1 REGISTER",
    b"CSeq: 4294967295  REGISTER",
    b"Max-Forwards: 70",
    b"Max-Forwards: 256",
    b"Max-Forwards: 0068",
    b"Max-Forwards: +7",
    b"Contact: <sip:a@h:5060;ob>;reg-id=1",
    b"Contact: *",
    b"m: <sip:a@h>, sip:b@h;q=0.1",
    b"Contact: sip:a@h?x=y",
    b"Contact: <sip:a@h>;;x",
    b"Contact: <sip:a@h>;=x",
    b"Contact: <sip:a@h;;x>;x",
    b"Route: <sip:edge;lr>,<sip:other;lr>",
    b"Route: <sip:edge;lr",
    b"Record-Route: <sip:token@edge:5060;transport=tcp;lr>",
    b"Path: <sip:edge;lr;ob>",
    b"Content-Length: 0",
    b"l:3",
    b"Content-Length: 99",
    b"Content-Length: -1",
    b"Content-Length: 00",
    b'X-Any: \x0b\xc2\x85\xff ;;,"',
    b"X-Fold: a\r\n\tb",
    b"Supported",
    b"Supported : path",
    b"Via",
    b"Subject: a\rb",
    b"Subject: a\nb",
    b"b@d name: 1",
    b" : 1",
    b": 1",
]

#: of which addresses are made
PIECES = [
    b'"A, B"', b'"', b"\\", b"Al", b" ", b"<sip:a@h>", b"<", b">", b"sip:a@h", b";tag=1", b";x",
    b";", b"=", b'="<;>"', b",", b"o", b"\x00", b"\xff", b"?", b"<tel:1>", b";tag=", b";TAG=2",
]  # fmt: skip

#: the headers that must be there; each in its sound form, to be replaced by another one at times
_SOUND = [ROWS[0], ROWS[5], ROWS[17], ROWS[22], ROWS[26]]


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Bytes that are nearly a message; about one in six is one."""
    start = START_LINES[0] if draw(st.booleans()) else draw(st.sampled_from(START_LINES))
    rows = list(_SOUND)
    for row in draw(st.lists(st.sampled_from(ROWS), max_size=3)):
        same = [i for i, have in enumerate(rows) if have[:2].lower() == row[:2].lower()]
        if same and draw(st.integers(0, 4)):
            rows[same[0]] = row
        else:
            rows.insert(draw(st.integers(0, len(rows))), row)
    usual = draw(st.integers(0, 3))
    end = b"\r\n\r\n" if usual else draw(st.sampled_from([b"\r\n", b"\n\n", b"", b"\r\n\r\nabc"]))
    front = b"" if usual else draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b" "]))
    return front + b"\r\n".join([start, *rows]) + end
