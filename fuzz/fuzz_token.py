"""No token but one that we minted is ever taken for valid, and decoding raises nothing."""

from __future__ import annotations

from outbound_plugin.api import TokenVerdict
from outbound_plugin.flow_token import FlowTokens
from sipedge.flow import TCP, UDP, FlowTable, Listener
from sipedge.sip.uri import unescape

_FLOWS = FlowTable()
_UDP = _FLOWS.add_listener(Listener(UDP, "192.0.2.10", 5060))
_TCP = _FLOWS.add_listener(Listener(TCP, "2001:db8::10", 5060))
_OPEN = [
    _FLOWS.udp(_UDP, ("198.51.100.7", 49152)),
    _FLOWS.accept(_TCP, ("2001:db8::7", 49153)),
]
_GONE = _FLOWS.accept(_TCP, ("2001:db8::8", 49154))
_TOKENS = FlowTokens(_FLOWS, [b"k" * 20, b"o" * 20])
_OTHERS = FlowTokens(_FLOWS, [b"x" * 20])

MINTED = [_TOKENS.encode(flow) for flow in _OPEN]
_OLD = FlowTokens(_FLOWS, [b"o" * 20])._mint(_OPEN[0])
SEEDS = [*MINTED, _TOKENS.encode(_GONE), _OTHERS._mint(_OPEN[0]), _OLD, b"", b"alice", b"%2B" * 9]
_FLOWS.closed(_GONE)


def one_input(data: bytes) -> None:
    verdict, flow = _TOKENS.decode(data)
    if verdict is TokenVerdict.VALID:
        assert flow is not None
        assert flow.alive
        assert unescape(data) in (*MINTED, _OLD)
    elif verdict is TokenVerdict.GONE:
        assert flow is not None
        assert not flow.alive
    else:
        assert flow is None


if __name__ == "__main__":
    from harness import run

    run(one_input, SEEDS)
