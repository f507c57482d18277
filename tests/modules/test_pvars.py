"""Names of pseudo-variables: taken apart once, found in the tables of all modules."""

from __future__ import annotations

import pytest

from sipedge.module import PseudoVariable
from sipedge.modules.pvars import PseudoVariables, split
from sipedge.sip.message import SipMessage, parse
from tests.sim import request

TABLE = {
    "ru": PseudoVariable("ru", lambda msg, key: msg.ruri),
    "rdir": PseudoVariable("rdir", lambda msg, key: 2 if key == "id" else b"upstream"),
    "none": PseudoVariable("none", lambda msg, key: None),
}


@pytest.fixture
def variables() -> PseudoVariables:
    return PseudoVariables(TABLE)


@pytest.fixture
def msg() -> SipMessage:
    return parse(request(uri="sip:bob@b"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"$ru", ("ru", None)),
        (b"$(ru)", ("ru", None)),
        (b"$hdr(Call-ID)", ("hdr", "Call-ID")),
        (b"$(hdr(Call-ID))", ("hdr", "Call-ID")),
        (b"$rdir()", ("rdir", "")),
        (b"$T_reply_code", ("T_reply_code", None)),
    ],
)
def test_split(name: bytes, parts: tuple[str, str | None]) -> None:
    assert split(name) == parts


@pytest.mark.parametrize(
    "name", [b"ru", b"$", b"$1", b"$ru ", b"$(ru", b"$hdr(a", b"$(hdr(X)[1])", b"$(ru{s.len})"]
)
def test_what_is_no_name(name: bytes) -> None:
    with pytest.raises(ValueError, match="is no pseudo-variable"):
        split(name)


def test_get(variables: PseudoVariables, msg: SipMessage) -> None:
    assert variables.get(msg, "$ru") == b"sip:bob@b"
    assert variables.get(msg, b"$rdir(id)") == 2
    assert variables.get(msg, "$rdir(name)") == b"upstream"
    assert variables.get(msg, "$none") is None


def test_unknown_variable_names_those_that_exist(
    variables: PseudoVariables, msg: SipMessage
) -> None:
    with pytest.raises(ValueError, match=r"pseudo-variable \$rx; there are: \$none \$rdir \$ru"):
        variables.get(msg, "$rx")
    with pytest.raises(ValueError, match="loadmodule 'pv'"):
        PseudoVariables({}).get(msg, "$ru")


def test_expand(variables: PseudoVariables, msg: SipMessage) -> None:
    assert variables.expand(msg, "to $ru, $(ru)s, $rdir(id)$none 5$$ a$") == (
        b"to sip:bob@b, sip:bob@bs, 2<null> 5$ a$"
    )
    with pytest.raises(ValueError, match=r"\$nope"):
        variables.expand(msg, "$nope")
