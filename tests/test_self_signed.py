"""A certificate for the first five minutes; ``tests/test_cli_tls.py`` runs what comes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from sipedge.certificates import parse_der
from sipedge.errors import ConfigError
from sipedge.self_signed import DAYS, self_signed, with_tls
from tests.test_tls_settings import der

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
ROOT = Path(__file__).resolve().parent.parent


def test_names_and_dates() -> None:
    found = parse_der(der(self_signed(["Edge.example.com", "192.0.2.7"], NOW)[0]))
    assert found.dns == ("edge.example.com", "localhost")
    assert found.addresses == ("192.0.2.7", "127.0.0.1", "::1")
    assert found.not_before == NOW - 3600
    assert found.not_after - found.not_before == DAYS * 86400
    assert found.subject == found.issuer


def test_what_strict_verifiers_want() -> None:
    """RFC 5280: Python's ``VERIFY_X509_STRICT`` and browsers look at these."""
    certificate = x509.load_pem_x509_certificate(self_signed([], NOW)[0])
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("name", ["", "a b", "edge.example.com:5061", "ä.example.com"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError):
        self_signed([name], NOW)


def test_only_templates_get_tls() -> None:
    text = (ROOT / "examples/edge.py").read_text()
    changed, address = with_tls(text, [])
    assert address == "127.0.0.1"
    assert 'listen("tls:127.0.0.1:5061")\n' in changed
    assert changed.count("loadmodule(") == text.count("loadmodule(") + 1
    with pytest.raises(ValueError, match="no template"):
        with_tls("listen('udp:127.0.0.1:5060')", [])
