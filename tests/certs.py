"""Certificates for tests: an authority, and whatever it signs, as files."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Pair:
    """A certificate and its key, in two files."""

    def __init__(self, directory: Path, stem: str, certificate: bytes, key: bytes) -> None:
        self.certificate = directory / f"{stem}.pem"
        self.private_key = directory / f"{stem}.key"
        self.replace(certificate, key)

    def replace(self, certificate: bytes, key: bytes) -> None:
        """Other contents, as a tool that renews certificates writes them: by renaming."""
        for path, data in ((self.certificate, certificate), (self.private_key, key)):
            new = path.with_suffix(path.suffix + ".new")
            new.touch(0o600)
            new.write_bytes(data)
            os.replace(new, path)


class Authority:
    """Signs certificates; ``file`` is what others have to trust."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self._key = new_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}-ca.pem"
        now = datetime.now(UTC)
        own = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = own.public_bytes(Encoding.PEM)
        self.file.write_bytes(self.pem)

    def sign(
        self,
        dns: Sequence[str] = (),
        *,
        uris: Sequence[str] = (),
        addresses: Sequence[str] = (),
        cn: str = "",
        days: float = 90,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> tuple[bytes, bytes]:
        """A certificate for these names, and its key; without any name it has no SAN."""
        key = key or new_key()
        now = datetime.now(UTC)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else []
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=400))
            .not_valid_after(now + timedelta(days=days))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(Encoding.PEM), key_pem(key)

    def pair(self, stem: str, *dns: str, **how: object) -> Pair:
        """``sign``, written to ``stem.pem`` and ``stem.key``."""
        return Pair(self.directory, stem, *self.sign(dns, **how))  # type: ignore[arg-type]
