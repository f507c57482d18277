"""The pseudo-variables of module tls, with Kamailio's names (stop 6).

Strategy: one table from name to what is read from ``TlsFacts``; none has a value in a message that
did not come over TLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sipedge.certificates import Certificate
from sipedge.module import PseudoVariable
from sipedge.tls_settings import TlsFacts

if TYPE_CHECKING:
    from sipedge.sip.message import SipMessage

Value = bytes | int | None

_CONNECTION: Final[dict[str, Callable[[TlsFacts], str | int]]] = {
    "tls_version": lambda facts: facts.version,
    "tls_cipher_info": lambda facts: facts.cipher,
    "tls_cipher_bits": lambda facts: facts.bits,
    "tls_peer_server_name": lambda facts: facts.server_name,
    "tls_peer_verified": lambda facts: int(facts.verified),
}
_PEER: Final[dict[str, Callable[[Certificate], str | int]]] = {
    "tls_peer_subject": lambda peer: peer.subject,
    "tls_peer_subject_cn": lambda peer: peer.subject_cn,
    "tls_peer_issuer": lambda peer: peer.issuer,
    "tls_peer_issuer_cn": lambda peer: peer.issuer_cn,
    "tls_peer_serial": lambda peer: str(peer.serial),
    "tls_peer_san_hostname": lambda peer: _first(peer.dns),
    "tls_peer_san_uri": lambda peer: _first(peer.uris),
    "tls_peer_san_email": lambda peer: _first(peer.emails),
    "tls_peer_san_ip": lambda peer: _first(peer.addresses),
    "tls_peer_notBefore": lambda peer: peer.not_before,
    "tls_peer_notAfter": lambda peer: peer.not_after,
}


def pseudo_variables() -> tuple[PseudoVariable, ...]:
    """All of them."""
    return (
        *(PseudoVariable(name, _of_connection(name, read)) for name, read in _CONNECTION.items()),
        *(PseudoVariable(name, _of_peer(name, read)) for name, read in _PEER.items()),
    )


def facts_of(msg: SipMessage) -> TlsFacts | None:
    """How the connection is protected that a message came on; ``None`` if it is not."""
    facts = msg.flow.facts
    return None if facts is None else facts.get("tls")


def _of_connection(
    name: str, read: Callable[[TlsFacts], str | int]
) -> Callable[[SipMessage, str | None], Value]:
    def get(msg: SipMessage, key: str | None) -> Value:
        _no_key(name, key)
        facts = facts_of(msg)
        return None if facts is None else _value(read(facts))

    return get


def _of_peer(
    name: str, read: Callable[[Certificate], str | int]
) -> Callable[[SipMessage, str | None], Value]:
    def get(msg: SipMessage, key: str | None) -> Value:
        _no_key(name, key)
        facts = facts_of(msg)
        peer = None if facts is None else facts.peer
        return None if peer is None else _value(read(peer))

    return get


def _no_key(name: str, key: str | None) -> None:
    if key is not None:
        raise ValueError(f"${name} takes no key")


def _value(found: str | int) -> Value:
    if isinstance(found, int):
        return found
    return found.encode("utf-8", "backslashreplace") or None


def _first(values: tuple[str, ...]) -> str:
    return values[0] if values else ""
