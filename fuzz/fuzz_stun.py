"""Any datagram gets a well-formed, small STUN answer or none; nothing that is SIP goes to STUN."""

from __future__ import annotations

import struct

from sipedge.sip.stun import answer, is_stun

_HEADER = struct.pack("!HHI", 1, 0, 0x2112A442) + bytes(12)
SEEDS = [
    _HEADER,
    struct.pack("!HHI", 1, 8, 0x2112A442) + bytes(12) + b"\0\2\0\4abcd",
    struct.pack("!HHI", 1, 8, 0x2112A442) + bytes(12) + b"\x80\x22\0\1a\0\0\0",
    struct.pack("!HHI", 1, 8, 0x2112A442) + bytes(12) + b"\x80\x28\0\4\xaa\xaa\xaa\xaa",
    struct.pack("!HHI", 0x0111, 0, 0x2112A442) + bytes(12),
    b"\r\n\r\n",
    b"OPTIONS sip:h SIP/2.0\r\n\r\n",
]


def one_input(data: bytes) -> None:
    for remote in (("192.0.2.1", 5060), ("2001:db8::1", 65535)):
        reply = answer(data, remote)
        if reply is None:
            continue
        assert is_stun(data)
        kind, length, cookie = struct.unpack_from("!HHI", reply)
        assert kind in (0x0101, 0x0111)
        assert length == len(reply) - 20
        assert cookie == 0x2112A442
        assert reply[8:20] == data[8:20]
        assert len(reply) <= 96
    if data[:1].isalpha():
        # a method of letters can only look like STUN by the cookie
        assert not is_stun(data) or data[4:8] == b"\x21\x12\xa4\x42"


if __name__ == "__main__":
    from harness import run

    run(one_input, SEEDS)
