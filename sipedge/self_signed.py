"""A certificate for the first five minutes, and a configuration that uses it: ``init --tls``.

Strategy: the certificate is signed by its own key, so a phone believes it only if it is told to
(as its CA file, say); names and addresses are those that a phone on this machine or its network can
connect to.  Time is an argument.  No stop of a datagram.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sipedge.errors import ConfigError
from sipedge.listen import parse_advertise

CERTIFICATE: Final = "tls.pem"
PRIVATE_KEY: Final = "tls.key"
DAYS: Final = 365
_ALWAYS: Final = ("localhost", "127.0.0.1", "::1")
_LISTEN: Final = re.compile(r'^listen\("tcp:([^:"]+):5060"\).*\n', re.MULTILINE)
_MODULE: Final = 'loadmodule("siputils")\n'


def self_signed(names: Sequence[str], now: float) -> tuple[bytes, bytes]:
    """A certificate for ``names`` (domains and numeric addresses) and this machine, and its key.

    Both in PEM; ``now``: seconds since 1970.  Raises ``ConfigError`` for what is no name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sipedge, self-signed")])
    since = datetime.fromtimestamp(now, UTC) - timedelta(hours=1)  # clocks differ
    usage = {
        "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    }  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + timedelta(days=DAYS))
        .add_extension(
            x509.SubjectAlternativeName([_general(n) for n in dict.fromkeys((*names, *_ALWAYS))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, **dict.fromkeys(usage, False)), critical=True
        )
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        host, port = parse_advertise(name)
        if port is not None:
            raise ConfigError(f"{name!r}: a certificate is for a name, without port") from None
        return x509.DNSName(host.lower())


def with_tls(template: str, names: Sequence[str]) -> tuple[str, str]:
    """A configuration of ``examples/`` with TLS on port 5061, and the address that it listens on.

    The first of ``names`` is what phones are told to come back to.
    """
    found = _LISTEN.search(template)
    if found is None or template.count(_MODULE) != 1:
        raise ValueError("this is no template")
    address = found[1]
    named = f', advertise="{names[0]}"' if names else ""
    listen = (
        f"# Phones come back to the name in advertise=, or to the address: {CERTIFICATE} must "
        f'have it.\nlisten("tls:{address}:5061"{named})\n'
    )
    module = (
        f'loadmodule("tls")\nmodparam("tls", "certificate", "{CERTIFICATE}")  # EDIT: '
        f'self-signed\nmodparam("tls", "private_key", "{PRIVATE_KEY}")\n'
    )
    text = template[: found.end()] + listen + template[found.end() :]
    return text.replace(_MODULE, _MODULE + module), address
