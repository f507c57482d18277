from __future__ import annotations

from typing import Any

import pytest

from registrar_plugin.params import PARAMS, RegistrarParams
from registrar_plugin.plugin import RegistrarPlugin
from sipedge.errors import ConfigError
from sipedge.loader import value_problem
from tests.registrar_plugin.home import Home


def test_every_parameter_is_in_the_table_and_its_default_is_legal() -> None:
    defaults = RegistrarParams()
    assert {param.name for param in PARAMS} == set(RegistrarParams.__slots__)
    assert [p.name for p in PARAMS if value_problem(p, getattr(defaults, p.name))] == []
    assert all(param.doc for param in PARAMS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("outbound_mode", 3),
        ("outbound_mode", -1),
        ("regid_mode", 2),
        ("path_mode", 4),
        ("flow_timer", 1000),
        ("flow_timer", -1),
        ("expires_range", 101),
        ("default_expires_range", -1),
        ("default_expires", 0),
        ("min_expires", -1),
        ("default_q", 1001),
        ("default_q", -2),
        ("use_path", "1"),
        ("received_param", 1),
        ("db_mode", 3),
        ("db_batch_ms", 99),
        ("db_batch_ms", 60_001),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: object) -> None:
    (param,) = (param for param in PARAMS if param.name == name)
    assert value_problem(param, value)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"flow_timer": 20, "outbound_mode": 0}, "flow_timer"),
        ({"max_expires": 30, "min_expires": 60}, "max_expires"),
        ({"received_param": "a b"}, "received_param"),
        ({"gruu_key": b"k" * 19}, "gruu_key"),
        ({"gruu_key": b"k" * 33}, "gruu_key"),
        ({"gruu_key": [b"k" * 20, "short"]}, "gruu_key"),
        ({"gruu_key": [b"k" * 20, 5]}, "gruu_key"),
        ({"gruu_key": []}, "gruu_key"),
        ({"service_route": "<sip:a.example.com>"}, "service_route"),
        ({"service_route": "<sip:a.example.com;lr>, nonsense <"}, "service_route"),
        ({"received_param": "ä"}, "received_param"),
        ({"db_mode": 1}, "db_mode"),
        ({"db_url": "mysql://x"}, "db_url"),
    ],
)
def test_what_does_not_fit_together_refuses_to_start(params: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: "):
        Home(**params)


def test_flow_timer_with_both_outbound_modes() -> None:
    for mode in (1, 2):
        Home(flow_timer=999, outbound_mode=mode)


def test_functions_are_those_that_are_documented() -> None:
    exports = RegistrarPlugin().exports
    assert exports.name == "registrar"
    assert {function.name for function in exports.functions} == {
        "save", "lookup", "registered", "unregister", "reg_send_reply", "own_gruu",
        "contact_gruu", "save_async", "lookup_async", "registered_async", "unregister_async",
        "contact_gruu_async",
    }  # fmt: skip
