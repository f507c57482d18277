"""X.509 certificates as SIP sees them: whose they are (RFC 5922 §7.1, §7.2) and how long they last.

Strategy: the library ``cryptography`` takes certificates apart, the rules are here.  TLS itself
checks signatures and chains (``net.tls``); this says what a verified certificate is good for, and
tells an operator what is wrong with a file before anybody connects.  No stop of a datagram: it runs
at start, when a file changed, and once a connection.
"""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

#: what ``cryptography`` raises for certificates that are none
_MALFORMED: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class BadCertificate(ValueError):
    """What is wrong with a file, and what to do about it."""


@dataclass(slots=True, frozen=True)
class Certificate:
    """What is asked about a certificate.  Names are in lower case, times seconds since 1970."""

    subject: str  # as OpenSSL writes it on one line: /O=Example/CN=edge.example.com
    issuer: str
    subject_cn: str
    issuer_cn: str
    serial: int
    not_before: int
    not_after: int
    #: of the subjectAltName, which may be missing
    has_san: bool
    dns: tuple[str, ...]
    uris: tuple[str, ...]
    emails: tuple[str, ...]
    addresses: tuple[str, ...]
    #: the SIP domains that it stands for (RFC 5922 §7.1)
    identities: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a client may have connected to: identities, DNS names, addresses."""
        return tuple(dict.fromkeys((*self.identities, *self.dns, *self.addresses)))

    def covers(self, host: str, wildcards: bool = False) -> bool:
        """Is it a certificate of ``host``, a domain or a numeric address?

        Whole names, upper and lower case the same, no wildcards (RFC 5922 §7.2) unless
        ``wildcards`` says so: then ``*`` stands for one label.
        """
        name = plain(host)
        if name in self.identities or name in self.addresses:
            return True
        parent = name.partition(".")[2]
        return wildcards and bool(parent) and f"*.{parent}" in self.identities


def plain(host: str) -> str:
    """A host as it is compared: lower case, without brackets and trailing dot."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def parse_der(der: bytes) -> Certificate:
    """A certificate from the wire.  Raises ``ValueError`` if it is none."""
    try:
        return _read(x509.load_der_x509_certificate(der))
    except _MALFORMED as exc:
        raise ValueError(f"malformed certificate: {exc}") from exc


def load_pair(certificate: Path, private_key: Path) -> Certificate:
    """The certificate (the first in its file) that a private key belongs to.

    Raises ``BadCertificate`` if TLS could not be spoken with these files.
    """
    chain = load_chain(certificate)
    data = _contents(private_key)
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise BadCertificate(
            f"{private_key}: the key is encrypted and nobody is there to ask; write it without a "
            f"password: openssl pkey -in {private_key} -out KEY, and chmod 600 KEY"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise BadCertificate(f"{private_key}: no private key in PEM in it ({exc})") from None
    own = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    matching = [_public(one) == own for one in chain]
    if matching[0]:
        return _read(chain[0])
    if any(matching):
        raise BadCertificate(
            f"{certificate}: the certificate of {private_key} stands in place "
            f"{matching.index(True) + 1}; it must be the first, those that signed it after it"
        )
    raise BadCertificate(f"{private_key} is not the key of {certificate}; give those two that are")


def load_chain(path: Path) -> list[x509.Certificate]:
    """All certificates of a file in PEM, one at least.  Raises ``BadCertificate``."""
    data = _contents(path)
    try:
        chain = x509.load_pem_x509_certificates(data)
        for one in chain:
            _read(one), _public(one)
    except _MALFORMED as exc:
        raise BadCertificate(f"{path}: no certificates in PEM in it ({exc})") from None
    return chain


def is_open_to_all(path: Path) -> bool:
    """Can everybody on this machine read (or change) the file?"""
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise BadCertificate(f"{path}: {exc.strerror}") from exc


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read(certificate: x509.Certificate) -> Certificate:
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        san = None
    cn = _common_name(certificate.subject)
    names = san if san is not None else x509.GeneralNames([])
    uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    dns = tuple(name.rstrip(".").lower() for name in names.get_values_for_type(x509.DNSName))
    return Certificate(
        subject=_one_line(certificate.subject),
        issuer=_one_line(certificate.issuer),
        subject_cn=cn,
        issuer_cn=_common_name(certificate.issuer),
        serial=certificate.serial_number,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        has_san=san is not None,
        dns=dns,
        uris=uris,
        emails=tuple(names.get_values_for_type(x509.RFC822Name)),
        addresses=tuple(str(one) for one in names.get_values_for_type(x509.IPAddress)),
        identities=_identities(uris, dns, cn, san is not None),
    )


def _identities(
    uris: tuple[str, ...], dns: tuple[str, ...], cn: str, has_san: bool
) -> tuple[str, ...]:
    """RFC 5922 §7.1: SIP URIs without a user; DNS names if there are none; the CN without a SAN."""
    if not has_san:
        return (plain(cn),) if cn else ()
    found = [domain for domain in map(_sip_domain, uris) if domain]
    return tuple(dict.fromkeys(found or dns))


def _sip_domain(uri: str) -> str:
    """The host of a ``sip`` URI, "" if it is no domain's (RFC 5922 §7.1: sips is not sip)."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "sip" or "@" in rest:
        return ""
    host = rest.partition(";")[0].partition("?")[0]
    if host.startswith("["):
        return plain(host.partition("]")[0])
    return plain(host.partition(":")[0])


def _common_name(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[-1].value) if values else ""


def _one_line(name: x509.Name) -> str:
    return "".join(f"/{part.rfc4514_attribute_name}={_text(part.value)}" for part in name)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()
