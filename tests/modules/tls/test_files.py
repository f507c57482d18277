"""Reading and watching files; what is wrong with them is in ``test_module.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipedge.modules.tls.files import BadParam, TlsFiles, TlsParams
from tests.certs import Authority


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(ca: Authority, **params: object) -> TlsFiles:
    found = TlsParams(certificate="edge.pem", private_key="edge.key")
    for name, value in params.items():
        setattr(found, name, value)
    return TlsFiles(found, ca.directory, ("edge.py", 1))


def test_nothing_changes_until_something_changes(ca: Authority) -> None:
    pair, other = ca.pair("edge", "edge.example.com"), ca.pair("other", "other.example.com")
    watched = files(ca, profiles=[{"certificate": "other.pem", "private_key": "other.key"}])
    assert watched.changed()  # it was never read
    watched.read()
    assert not watched.changed()
    for one in (pair, other):
        one.replace(*ca.sign(["x.example.com"]))
        assert watched.changed()
        watched.read()
        assert not watched.changed()
    other.certificate.unlink()
    assert watched.changed()


def test_lists_of_authorities_are_watched_too(ca: Authority) -> None:
    ca.pair("edge", "edge.example.com")
    watched = files(ca, ca_list="ca-ca.pem")
    watched.read()
    ca.file.write_bytes(ca.pem + Authority(ca.directory, "second").pem)
    assert watched.changed()


def test_absolute_paths(ca: Authority) -> None:
    pair = ca.pair("edge", "edge.example.com")
    settings, (loaded,) = files(
        ca, certificate=str(pair.certificate), private_key=str(pair.private_key)
    ).read()
    assert settings.default.certificate == str(pair.certificate)
    assert settings.default.not_after == loaded.certificate.not_after


def test_what_was_bad_is_looked_at_again_only_when_it_changes(ca: Authority) -> None:
    watched = files(ca)
    with pytest.raises(BadParam) as caught:
        watched.read()
    assert caught.value.name == "certificate"
    assert not watched.changed()
    ca.pair("edge", "edge.example.com")
    assert watched.changed()
    watched.read()
