"""What is said between the module tls and net: settings, and facts about a peer."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sipedge.tls_settings import KeyPair, Tls, TlsFacts, TlsSettings
from tests.certs import Authority


def der(pem: bytes) -> bytes:
    """The first certificate of a PEM text, as it stands on the wire."""
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def pair(*names: str) -> KeyPair:
    return KeyPair(f"{names}.pem", f"{names}.key", names)


def test_profiles_are_found_by_name() -> None:
    default, one, wild = pair(), pair("one.example.com"), pair("*.example.com", "example.net")
    settings = TlsSettings(default, (wild, one))
    assert settings.pair_for("one.example.com") is one
    assert settings.pair_for("two.example.com") is wild
    assert settings.pair_for("example.net") is wild
    assert settings.pair_for("a.two.example.com") is default
    assert settings.pair_for("example.com") is default
    assert settings.pair_for("192.0.2.1") is default


def test_replacing_settings_asks_net_first() -> None:
    old, new = TlsSettings(pair("old")), TlsSettings(pair("new"))
    tls = Tls(old)
    asked: list[TlsSettings] = []
    tls.load = asked.append
    tls.replace(new)
    assert asked == [new]
    assert tls.settings is new

    def refuse(settings: TlsSettings) -> None:
        raise ValueError("no")

    tls.load = refuse
    with pytest.raises(ValueError, match="no"):
        tls.replace(old)
    assert tls.settings is new


def test_facts(tmp_path: Path) -> None:
    nobody = TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, "", None)
    assert not nobody.verified
    assert nobody.peer is None
    pem, _ = Authority(tmp_path).sign(["phone.example.com"])
    phone = TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, "", der(pem))
    assert phone.verified
    assert phone.peer is not None
    assert phone.peer.dns == ("phone.example.com",)
    assert phone.peer is phone.peer


def test_a_certificate_that_openssl_takes_and_nobody_can_read() -> None:
    strange = TlsFacts("TLSv1.2", "", 128, "", b"\x30\x00")
    assert strange.verified
    assert strange.peer is None
