"""What the module ``tls`` says and ``net`` does: settings in, facts about a connection out.

Strategy: values without behaviour, so that neither side knows the other.  ``core.tls`` holds the
settings that count now; whoever changes them asks ``net`` first whether they can be used.  Facts
are one small object a connection, and the peer's certificate is taken apart when somebody asks.
Part of stop 1 for streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from sipedge.certificates import Certificate, parse_der

TLS_1_2: Final = "TLSv1.2"
TLS_1_3: Final = "TLSv1.3"
#: Kamailio's names -> lowest and highest version, "" for the newest that there is
METHODS: Final = {
    "TLSv1.2": (TLS_1_2, TLS_1_2),
    "TLSv1.2+": (TLS_1_2, ""),
    "TLSv1.3": (TLS_1_3, TLS_1_3),
    "TLSv1.3+": (TLS_1_3, ""),
}


@dataclass(slots=True, frozen=True)
class KeyPair:
    """A certificate with its chain, and its key: absolute paths of PEM files.

    ``names``: what a client asks for by SNI to get it, in lower case; ``*.example.com`` stands for
    one more label.
    """

    certificate: str
    private_key: str
    names: tuple[str, ...] = ()
    #: when the certificate expires, seconds since 1970
    not_after: float = inf


@dataclass(slots=True, frozen=True)
class TlsSettings:
    """Everything that TLS is spoken with; never changed, only replaced."""

    #: for whoever asks for no name, or for none that we have
    default: KeyPair
    profiles: tuple[KeyPair, ...] = ()
    #: what we show to servers that ask for a certificate
    client: KeyPair | None = None
    #: who signs certificates of clients and of servers; "" for those that the system trusts
    ca_list: str = ""
    client_ca_list: str = ""
    #: ask clients for a certificate; refuse those that have none
    verify_certificate: bool = False
    require_certificate: bool = False
    #: a key of ``METHODS``
    method: str = "TLSv1.2+"
    #: of TLS 1.2, as OpenSSL takes it; "" for its default
    cipher_list: str = ""
    #: a server's certificate may name ``*.example.com`` (RFC 5922 §7.2 forbids it)
    wildcards: bool = False
    #: file and line of the operator's that these come from
    source: tuple[str, int] | None = None

    @property
    def pairs(self) -> tuple[KeyPair, ...]:
        """All of them."""
        return (self.default, *self.profiles, *((self.client,) if self.client else ()))

    def pair_for(self, host: str) -> KeyPair:
        """What a client gets that asks for ``host``, in lower case."""
        for pair in self.profiles:
            if host in pair.names:
                return pair
        suffix = "*." + host.partition(".")[2]
        for pair in self.profiles:
            if suffix in pair.names:
                return pair
        return self.default


class Tls:
    """``core.tls``: the settings that count."""

    __slots__ = ("load", "settings")

    def __init__(self, settings: TlsSettings) -> None:
        self.settings = settings
        #: net sets it: make new connections use these; raises ``ValueError``, and changes nothing,
        #: if they cannot be used
        self.load: Callable[[TlsSettings], None] | None = None

    def replace(self, settings: TlsSettings) -> None:
        """From now on these count; live connections keep theirs.  Raises as ``load`` does."""
        if self.load is not None:
            self.load(settings)
        self.settings = settings


class TlsFacts:
    """``flow.facts["tls"]``: how a connection is protected, and who the peer proved to be."""

    __slots__ = ("_der", "_peer", "bits", "cipher", "server_name", "version")

    def __init__(
        self, version: str, cipher: str, bits: int, server_name: str, der: bytes | None
    ) -> None:
        """``server_name``: what the client asked for by SNI; ``der``: the peer's certificate, whose
        chain was verified; ``None`` if it showed none."""
        self.version = version
        self.cipher = cipher
        self.bits = bits
        self.server_name = server_name
        self._der = der
        self._peer: Certificate | None = None

    @property
    def verified(self) -> bool:
        """It showed a certificate; one that cannot be verified never gets this far."""
        return self._der is not None

    @property
    def peer(self) -> Certificate | None:
        """The peer's certificate; ``None`` if there is none, or nobody could read it."""
        if self._peer is None and self._der is not None:
            try:
                self._peer = parse_der(self._der)
            except ValueError:
                return None
        return self._peer
