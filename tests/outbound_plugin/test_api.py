"""Binding to outbound: only what outbound itself exported counts."""

from __future__ import annotations

from outbound_plugin.api import ObBinds, ob_load_api
from sipedge.flow import FlowTable
from tests.helpers import FakeContext, Modules


def test_absent_outbound() -> None:
    assert ob_load_api(FakeContext(FlowTable(), {})) is None


def test_something_else_under_that_name() -> None:
    assert ob_load_api(FakeContext(FlowTable(), {"bind_ob": object()})) is None


def test_present_outbound() -> None:
    modules = Modules("outbound")
    api = ob_load_api(FakeContext(modules.flows, modules.exports))
    assert isinstance(api, ObBinds)
    flow = modules.phone()
    assert api.decode_flow_token(api.encode_flow_token(flow))[1] is flow
