"""Reading Route values: heads that are remembered give what a full parse gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rr_plugin.route import RouteReader, tag_param, top_route
from sipedge.errors import ParseError
from sipedge.sip.uri import parse_uri, unescape
from tests.helpers import FakeCore, Modules, message


def reader() -> tuple[RouteReader, Modules]:
    modules = Modules("rr")
    return RouteReader(FakeCore(modules.flows).is_myself, modules.flows), modules


@pytest.mark.parametrize(
    ("value", "own", "ftag", "fs"),
    [
        (b"<sip:192.0.2.10;lr>", True, b"", b""),
        (b"<sip:t@192.0.2.10:5060;lr;ftag=a-1>", True, b"a-1", b""),
        (b"<sip:t@192.0.2.10:5060;lr;ftag=a;fs=uas>", True, b"a", b"uas"),
        (b"<sip:t@192.0.2.10:5060;lr;ftag=a;fs=uas;did=1>", True, b"a", b"uas"),
        (b"<sip:t@192.0.2.10:5060;ftag=a;lr;fs=uac>", True, b"a", b"uac"),
        (b"<sip:t@192.0.2.10:5060;FTAG=a;FS=uac;lr>", True, b"a", b"uac"),
        (b"<sip:192.0.2.10;lr;ftag=a;gr>", False, b"a", b""),
        (b"<sip:192.0.2.10;lr;ftag=>", True, b"", b""),
        (b"<sip:192.0.2.10;lr;ftag>", True, b"", b""),
        (b"<sip:;ftag=x@192.0.2.99;lr>", False, b"", b""),
        (b'"x" <sip:192.0.2.10;lr;ftag=b>;ftag=c', True, b"b", b""),
        (b"sip:192.0.2.10;ftag=c", True, b"", b""),
        (b"<sip:192.0.2.10;lr?x=y;ftag=a>", True, b"", b""),
        (b"<tel:+1>", False, b"", b""),
    ],
)
def test_read(value: bytes, own: bool, ftag: bytes, fs: bytes) -> None:
    routes, _ = reader()
    for _ in range(2):  # parsed, and remembered
        head, _, got_ftag, got_fs = routes.read(value)
        assert (head.own, got_ftag, got_fs) == (own, ftag, fs)


@pytest.mark.parametrize("value", [b"", b"<>", b"<sip:>", b"<sip:h;lr;ftag=a", b"<sip:h;ftag=a b>"])
def test_malformed(value: bytes) -> None:
    with pytest.raises(ParseError):
        reader()[0].read(value)


def test_a_head_is_parsed_once_and_the_memory_is_bounded() -> None:
    routes, _ = reader()
    first = routes.read(b"<sip:t@192.0.2.10;lr;ftag=a;fs=uac>")[0]
    assert routes.read(b"<sip:t@192.0.2.10;lr;ftag=b>")[0] is first
    # tokens are as many as phones: what stands behind them is what is remembered
    head, user, _, _ = routes.read(b"<sip:t2@192.0.2.10;lr;ftag=b>")
    assert (head, user) == (first, b"t2")
    for n in range(routes.MAX + 10):
        routes.read(b"<sip:192.0.2.10;lr;x=%d>" % n)
    assert len(routes._heads) <= routes.MAX
    assert routes.read(b"<sip:a:secret@192.0.2.10;lr>")[0].uri.password == b"secret"


def test_the_listener_that_a_route_names() -> None:
    routes, modules = reader()
    for value, listener in [
        (b"<sip:192.0.2.20;lr>", modules.core_side),
        (b"<sip:t@192.0.2.10:5060;transport=tcp;lr>", modules.tcp),
        (b"<sip:192.0.2.10:5060;lr>", modules.udp),
        (b"<sip:edge.example.com;lr>", None),
        (b"<sip:edge.example.com;transport=nonsense;lr>", None),
        (b"<sip:192.0.2.99;lr>", None),
    ]:
        assert routes.read(value)[0].listener is listener


def test_top_route_takes_empty_rows_away() -> None:
    modules = Modules("rr")
    headers = ["Route:", "Route: ,", "Route: ,<sip:a>, <sip:b>"]
    msg = message(modules.phone(), "INVITE", *headers)
    assert top_route(msg) == b"<sip:a>"
    assert len(msg.rows(b"route")) == 1
    msg.remove(b"route")
    assert top_route(msg) is None


@given(st.binary(min_size=1, max_size=40))
def test_any_tag_fits_into_a_uri_and_comes_back(tag: bytes) -> None:
    escaped = tag_param(tag)
    uri = parse_uri(b"sip:h;lr;ftag=" + escaped)
    assert unescape(uri.params[b"ftag"] or b"") == tag
