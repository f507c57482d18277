"""Module siputils: one question a function."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.sip.message import parse
from tests.modules.conftest import Message, arrived, make
from tests.sim import Sim, answer, request


def test_has_totag(ksr: Any, message: Message) -> None:
    assert ksr.siputils.has_totag(message(to_tag="x")) == 1
    assert ksr.siputils.has_totag(message()) == -1


def test_requests_and_replies(sim: Sim, ksr: Any, message: Message) -> None:
    reply = arrived(sim, answer(parse(request()), 200))
    assert ksr.siputils.is_request(message()) == 1
    assert ksr.siputils.is_request(reply) == -1
    assert ksr.siputils.is_reply(message()) == -1
    assert ksr.siputils.is_reply(reply) == 1


def test_is_first_hop_of_a_request_counts_vias(ksr: Any, message: Message) -> None:
    assert ksr.siputils.is_first_hop(message()) == 1
    second = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n"
    assert ksr.siputils.is_first_hop(message(headers=second)) == -1
    joined = message(via="SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx, SIP/2.0/UDP 127.0.0.2")
    assert ksr.siputils.is_first_hop(joined) == -1


@pytest.mark.parametrize(
    ("route", "source", "rc"),
    [
        ("<sip:127.0.0.1:5060;lr>", ("127.0.0.2", 5060), 1),
        ("<sip:127.0.0.1:5060;lr>, <sip:192.0.2.9;lr>", ("127.0.0.2", 5060), 1),
        ("<sip:192.0.2.9;lr>", ("127.0.0.2", 5060), -1),
        ("<sip:127.0.0.1:5060;lr>", ("127.0.0.1", 5060), -1),
        (None, ("127.0.0.2", 5060), -1),
    ],
)
def test_is_first_hop_of_a_response(
    sim: Sim, ksr: Any, route: str | None, source: tuple[str, int], rc: int
) -> None:
    headers = "" if route is None else f"Record-Route: {route}\r\n"
    reply = arrived(sim, answer(parse(request(headers=headers)), 200))
    reply.flow = sim.udp(*source).flow
    assert ksr.siputils.is_first_hop(reply) == rc


def test_is_supported(ksr: Any, message: Message) -> None:
    msg = message(headers="k: path, OUTBOUND\r\n")
    assert ksr.siputils.is_supported(msg, "outbound") == 1
    assert ksr.siputils.is_supported(msg, "gruu") == -1
    assert ksr.siputils.is_supported(message(), "outbound") == -1


def test_is_uri_and_cmp_uri(ksr: Any, message: Message) -> None:
    msg = message()
    assert ksr.siputils.is_uri(msg, "sip:a@b") == 1
    assert ksr.siputils.is_uri(msg, "not a uri") == -1
    assert ksr.siputils.cmp_uri(msg, "sip:a@B.example", b"SIP:a@b.example") == 1
    assert ksr.siputils.cmp_uri(msg, "sip:a@b", "sip:A@b") == -1
    assert ksr.siputils.cmp_uri(msg, "sip:a@b", "nothing") == -1


@pytest.mark.parametrize(
    ("uri", "rc"),
    [("sip:a@b;gr=urn:uuid:1", 1), ("sip:x@b;gr", 2), ("sip:a@b", -1), ("tel:+1", -1)],
)
def test_is_gruu(ksr: Any, message: Message, uri: str, rc: int) -> None:
    assert ksr.siputils.is_gruu(message(uri=uri)) == rc


def test_uri_params(ksr: Any, message: Message) -> None:
    msg = message(uri="sip:a@b;OB;transport=TCP")
    siputils = ksr.siputils
    assert siputils.uri_param(msg, "ob") == 1
    assert siputils.uri_param(msg, "transport") == -1, "it has a value"
    assert siputils.uri_param_value(msg, "Transport", "tcp") == 1
    assert siputils.uri_param_value(msg, "transport", "udp") == -1
    assert siputils.uri_param_value(msg, "ob", "") == -1
    assert siputils.uri_param(msg, "lr") == -1
    assert siputils.uri_param_any(msg, "transport") == siputils.uri_param_any(msg, "ob") == 1
    assert siputils.uri_param_any(msg, "lr") == -1


@pytest.mark.rfc("UAS-04")
def test_options_reply_answers_for_the_element_itself() -> None:
    sim = make(
        """modparam("siputils", "options_support", "path, outbound")
modparam("siputils", "options_allow", "OPTIONS, REGISTER")"""
    )
    msg = arrived(sim, request("OPTIONS", "sip:example.com"))
    assert sim.edge.ksr.siputils.options_reply(msg) == 1
    sim.drain()
    reply = sim.udp().take()
    assert reply.status == 200
    assert reply.first(b"accept") == b"*/*"
    assert reply.first(b"accept-language") == b"en"
    assert reply.first(b"supported") == b"path, outbound"
    assert reply.first(b"allow") == b"OPTIONS, REGISTER"
    assert not reply.has(b"accept-encoding"), "an empty parameter is no header"


@pytest.mark.parametrize(
    ("method", "uri"), [("OPTIONS", "sip:bob@example.com"), ("MESSAGE", "sip:example.com")]
)
def test_options_reply_leaves_the_rest_alone(
    sim: Sim, ksr: Any, message: Message, method: str, uri: str
) -> None:
    assert ksr.siputils.options_reply(message(method, uri)) == -1
    sim.drain()
    assert sim.udp().silent()
