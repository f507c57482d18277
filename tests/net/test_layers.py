"""What a layer is before somebody writes one."""

from __future__ import annotations

import pytest

from sipedge.net.layers import Layer


def test_a_new_layer() -> None:
    layer = Layer()
    layer.start()
    assert not layer.established
    assert not layer.over
    assert not layer.unfinished
    assert layer.facts == {}
    assert layer.outgoing() == layer.close() == b""


def test_what_a_layer_must_have() -> None:
    with pytest.raises(NotImplementedError):
        Layer().receive(b"")
    with pytest.raises(NotImplementedError):
        Layer().send(b"")


def test_facts_are_not_shared() -> None:
    Layer().facts["a"] = 1
    assert Layer().facts == {}
