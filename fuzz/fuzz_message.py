"""Any bytes are a message or a ``ParseError``, and all parsers say the same about them.

In a compiled build there are three: the usual shape is read in C and by expressions.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import messages
from sipedge.errors import ParseError
from sipedge.sip import strict, usual
from sipedge.sip.message import Response, SipMessage, parse
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTACT, RECORD_ROUTE, ROUTE
from sipedge.sip.reply import build_reply
from sipedge.sip.uri import parse_uri, uri_equal

_RFC = Path(__file__).parent.parent / "tests" / "rfc"
_USUAL = messages.register(1, 2)
SEEDS = [
    *(path.read_bytes() for path in sorted(_RFC.glob("torture*/*.dat"))),
    _USUAL,
    messages.answer(_USUAL, b"200 OK", b"Contact: <sip:a@h>;expires=60\r\n"),
]


def one_input(data: bytes) -> None:
    assert usual.request(data) == usual.index_request(data)
    if data.startswith(b"SIP/2.0 "):
        assert usual.response(data) == usual.index_response(data)
    fast, careful = _outcome(data, parse), _outcome(data, strict.parse)
    if isinstance(fast, Response) and isinstance(careful, ParseError):
        # of a response, only what routing relies on was checked; the rest must do no harm
        assert len(fast.lines) == len(fast.ids)
        assert data.startswith(fast.to_bytes())
        fast.cseq(), fast.call_id, fast.from_tag, fast.to_tag, fast.via_count()
        return
    assert isinstance(fast, ParseError) is isinstance(careful, ParseError)
    if isinstance(fast, ParseError):
        if fast.partial is not None:
            build_reply(fast.partial, fast.status, fast.reason, b"tag")
        return
    assert isinstance(careful, SipMessage)
    assert fast.lines == careful.lines
    assert fast.ids == careful.ids
    assert data.lstrip(b"\r\n").startswith(fast.to_bytes())
    assert (fast.call_id, fast.from_tag, fast.to_tag) == (
        careful.call_id,
        careful.from_tag,
        careful.to_tag,
    )
    _read_values(fast)


def _outcome(data: bytes, parser: object) -> SipMessage | ParseError:
    try:
        return parser(data)  # type: ignore[operator,no-any-return]
    except ParseError as error:
        return error


def _read_values(msg: SipMessage) -> None:
    """What a route would ask for; all of it may be refused, but only with ``ParseError``."""
    msg.cseq()
    msg.via_count()
    if msg.is_request:
        uri = parse_uri(msg.ruri)
        assert uri_equal(uri, uri)
        build_reply(msg, 200, b"OK", b"tag")
    for name in (CONTACT, ROUTE, RECORD_ROUTE):
        for value in msg.values(name):
            if value == b"*":
                continue
            address = parse_nameaddr(value)
            address.all()
            try:
                parse_uri(address.uri)
            except ParseError:
                pass


if __name__ == "__main__":
    from harness import run

    run(one_input, SEEDS)
