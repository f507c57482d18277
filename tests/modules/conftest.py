"""For the tests of the small modules: an edge with all of them, and messages to try them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipedge.module import REQUEST_ROUTE
from sipedge.sip.message import SipMessage, parse
from tests.sim import Sim, request

SOURCE = """
listen("udp:127.0.0.1:5060")
listen("tcp:127.0.0.1:5060")
alias("example.com")
loadmodule("tm")
loadmodule("sl")
loadmodule("pv")
loadmodule("maxfwd")
loadmodule("siputils")
loadmodule("textops")
loadmodule("sanity")
loadmodule("xlog")
loadmodule("stun")
{more}
def request_route(ksr, msg):
    pass
"""

Message = Callable[..., SipMessage]


def make(more: str = "") -> Sim:
    """An edge with all small modules; ``more``: further lines of its configuration."""
    return Sim(SOURCE.replace("{more}", more))


@pytest.fixture
def sim() -> Sim:
    return make()


@pytest.fixture
def ksr(sim: Sim) -> Any:
    return sim.edge.ksr


@pytest.fixture
def message(sim: Sim) -> Message:
    """A request as ``tests.sim.request`` writes it, as it stands at the start of a route."""

    def build(*args: Any, **kwargs: Any) -> SipMessage:
        return arrived(sim, request(*args, **kwargs))

    return build


def arrived(sim: Sim, data: bytes) -> SipMessage:
    """A message that came over UDP from 127.0.0.2:5060."""
    msg = parse(data)
    msg.flow = sim.udp().flow
    msg.now = sim.now
    msg.route_kind = REQUEST_ROUTE
    return msg
