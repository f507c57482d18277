"""Whose certificate it is (RFC 5922 §7.1, §7.2), and what is wrong with files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from sipedge.certificates import (
    BadCertificate,
    Certificate,
    is_open_to_all,
    load_chain,
    load_pair,
    parse_der,
    plain,
)
from tests.certs import Authority, Pair, key_pem, new_key


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def read(pem: bytes) -> Certificate:
    return parse_der(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))


@pytest.mark.rfc("TLS-02")
@pytest.mark.parametrize(
    ("names", "identities"),
    [
        ({"uris": ["sip:example.com"], "dns": ["other.example.com"]}, ("example.com",)),
        ({"uris": ["SIP:Example.COM"]}, ("example.com",)),
        ({"uris": ["sip:example.com:5061;transport=tls"]}, ("example.com",)),
        ({"uris": ["sip:[2001:DB8::1]:5061"]}, ("2001:db8::1",)),
        ({"uris": ["sip:bob@example.com"], "dns": ["edge.example.com"]}, ("edge.example.com",)),
        ({"uris": ["sips:example.com"], "dns": ["edge.example.com"]}, ("edge.example.com",)),
        ({"uris": ["https://example.com"]}, ()),
        ({"dns": ["a.example.com", "B.example.com"]}, ("a.example.com", "b.example.com")),
        ({"cn": "example.com"}, ("example.com",)),
        ({"cn": "example.com", "dns": ["a.example.com"]}, ("a.example.com",)),
        ({"cn": "example.com", "addresses": ["192.0.2.1"]}, ()),
        ({}, ()),
    ],
)
def test_identities(ca: Authority, names: dict[str, object], identities: tuple[str, ...]) -> None:
    pem, _ = ca.sign(**names)  # type: ignore[arg-type]
    assert read(pem).identities == identities


@pytest.mark.rfc("TLS-03")
@pytest.mark.parametrize(
    ("san", "host", "covered"),
    [
        ("example.com", "EXAMPLE.com.", True),
        ("example.com", "sub.example.com", False),
        ("sub.example.com", "example.com", False),
        ("*.example.com", "edge.example.com", False),
        ("*.example.com", "*.example.com", True),
        (".example.com", "edge.example.com", False),
    ],
)
def test_names_match_as_a_whole(ca: Authority, san: str, host: str, covered: bool) -> None:
    assert read(ca.sign([san])[0]).covers(host) is covered


@pytest.mark.rfc("TLS-03")
def test_wildcards_are_for_one_label_and_only_if_wanted(ca: Authority) -> None:
    found = read(ca.sign(["*.example.com"])[0])
    assert found.covers("edge.example.com", wildcards=True)
    assert not found.covers("a.edge.example.com", wildcards=True)
    assert not found.covers("example.com", wildcards=True)


def test_addresses_are_compared_as_addresses(ca: Authority) -> None:
    found = read(ca.sign(["example.com"], addresses=["192.0.2.1", "2001:db8::1"])[0])
    assert found.covers("192.0.2.1")
    assert found.covers("[2001:DB8:0::1]")
    assert not found.covers("192.0.2.2")
    assert found.names == ("example.com", "192.0.2.1", "2001:db8::1")
    assert not read(ca.sign(["192.0.2.7x"])[0]).covers("192.0.2.7")


def test_what_is_shown_to_people(ca: Authority) -> None:
    found = read(ca.sign(["a"], cn="edge", days=10)[0])
    assert (found.subject, found.issuer) == ("/CN=edge", "/CN=ca")
    assert (found.subject_cn, found.issuer_cn) == ("edge", "ca")
    assert found.not_after - found.not_before == 410 * 86400


def test_plain() -> None:
    assert plain("Example.COM.") == "example.com"
    assert plain("[2001:DB8::0:1]") == "2001:db8::1"


def test_octets_that_are_no_certificate() -> None:
    for octets in (b"", b"\x30\x03\x02\x01\x01", bytes(100)):
        with pytest.raises(ValueError, match="malformed certificate"):
            parse_der(octets)


# files


@pytest.fixture
def pair(ca: Authority, tmp_path: Path) -> Pair:
    return Pair(tmp_path, "edge", *ca.sign(["edge.example.com"]))


def problem(pair: Pair) -> str:
    with pytest.raises(BadCertificate) as caught:
        load_pair(pair.certificate, pair.private_key)
    return str(caught.value)


def test_a_good_pair(pair: Pair) -> None:
    found = load_pair(pair.certificate, pair.private_key)
    assert found.identities == ("edge.example.com",)
    pair.certificate.write_bytes(pair.certificate.read_bytes() + pair.private_key.read_bytes())
    assert load_pair(pair.certificate, pair.certificate) == found


def test_missing_files(pair: Pair) -> None:
    pair.private_key.unlink()
    assert problem(pair) == f"{pair.private_key}: No such file or directory"
    pair.certificate.unlink()
    assert problem(pair) == f"{pair.certificate}: No such file or directory"


def test_files_with_something_else(pair: Pair) -> None:
    pair.private_key.write_text("nothing")
    assert "no private key in PEM" in problem(pair)
    pair.certificate.write_text("nothing")
    assert "no certificates in PEM" in problem(pair)
    with pytest.raises(BadCertificate):
        load_chain(pair.private_key)


def test_the_key_of_another_certificate(pair: Pair) -> None:
    pair.private_key.write_bytes(key_pem(new_key()))
    assert "is not the key of" in problem(pair)


def test_a_chain_in_the_wrong_order(ca: Authority, pair: Pair) -> None:
    own = pair.certificate.read_bytes()
    pair.certificate.write_bytes(own + ca.pem)
    assert load_pair(pair.certificate, pair.private_key).identities == ("edge.example.com",)
    pair.certificate.write_bytes(ca.pem + own)
    assert "stands in place 2" in problem(pair)


def test_an_encrypted_key(pair: Pair) -> None:
    pair.private_key.write_bytes(
        new_key().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    assert "openssl pkey -in" in problem(pair)


def test_keys_that_everybody_can_read(pair: Pair) -> None:
    assert not is_open_to_all(pair.private_key)
    pair.private_key.chmod(0o640)
    assert not is_open_to_all(pair.private_key)
    pair.private_key.chmod(0o644)
    assert is_open_to_all(pair.private_key)
