"""The files of module tls: what the parameters name, read, checked and watched.

Strategy: whatever TLS would choke on is found by reading the files ourselves, with the parameter
that is to blame.  ``read`` makes settings of what the files hold now; whether they have changed is
seen by their inodes, sizes and times, so that looking costs a few system calls.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sipedge.certificates import BadCertificate, Certificate, load_chain, load_pair, plain
from sipedge.tls_settings import KeyPair, TlsSettings

_PROFILE: Final = ("server_name", "certificate", "private_key")
_AS: Final = (
    'write [{"server_name": "sip.example.com", "certificate": "...", "private_key": "..."}]'
)


@dataclass(slots=True)
class TlsParams:
    certificate: str = ""
    private_key: str = ""
    profiles: list[dict[str, str]] | None = None
    ca_list: str = ""
    verify_certificate: int = 0
    require_certificate: int = 0
    tls_method: str = "TLSv1.2+"  # Kamailio: TLSv1
    cipher_list: str = ""
    client_certificate: str = ""
    client_private_key: str = ""
    client_ca_list: str = ""
    wildcard_names: int = 0
    strict_uris: int = 0
    reload_interval: int = 10  # Kamailio: only on command


class BadParam(ValueError):
    """A parameter that cannot be used."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


@dataclass(slots=True, frozen=True)
class Loaded:
    """A key pair with what its certificate says; ``param`` is the parameter that names it."""

    param: str
    pair: KeyPair
    certificate: Certificate


class TlsFiles:
    """All files that the parameters name; relative paths begin at ``base``."""

    def __init__(self, params: TlsParams, base: Path, source: tuple[str, int] | None) -> None:
        """``source``: the line to blame for what only OpenSSL can find."""
        self._params = params
        self._base = base
        self.source = source
        self.pairs: tuple[Loaded, ...] = ()
        self._seen: tuple[Any, ...] = ()

    def changed(self) -> bool:
        """Is any file another than at the last ``read``?"""
        return self._state() != self._seen

    def read(self) -> tuple[TlsSettings, tuple[Loaded, ...]]:
        """Settings and certificates of what is in the files now.  Raises ``BadParam``."""
        self._seen = self._state()
        params = self._params
        if not params.certificate:
            raise BadParam(
                "certificate",
                "TLS takes a certificate and its key; write "
                'modparam("tls", "certificate", "fullchain.pem") and '
                'modparam("tls", "private_key", "privkey.pem"); for a first try, '
                "`sipedge init --tls DIR` makes them",
            )
        default = self._pair("certificate", params.certificate, params.private_key)
        profiles = [self._profile(at) for at in range(len(params.profiles or ()))]
        client = default
        if params.client_certificate:
            client = self._pair(
                "client_certificate", params.client_certificate, params.client_private_key
            )
        ca_list = self._authorities("ca_list")
        client_ca_list = self._authorities("client_ca_list") or ca_list
        verify = bool(params.verify_certificate or params.require_certificate)
        if verify and not ca_list:
            raise BadParam(
                "ca_list",
                "clients are asked for certificates, but nobody says who may have signed "
                'them; write modparam("tls", "ca_list", "phones-ca.pem")',
            )
        settings = TlsSettings(
            default=default.pair,
            profiles=tuple(one.pair for one in profiles),
            client=client.pair,
            ca_list=ca_list,
            client_ca_list=client_ca_list,
            verify_certificate=verify,
            require_certificate=bool(params.require_certificate),
            method=params.tls_method,
            cipher_list=params.cipher_list,
            wildcards=bool(params.wildcard_names),
            source=self.source,
        )
        return settings, (default, *profiles, *([client] if client is not default else ()))

    def _profile(self, at: int) -> Loaded:
        profile = (self._params.profiles or [])[at]
        named = f"profiles, number {at + 1}"
        if not isinstance(profile, dict) or not all(
            key in _PROFILE and isinstance(value, str) and value for key, value in profile.items()
        ):
            raise BadParam("profiles", f"{named} is no dict of {', '.join(_PROFILE)}; {_AS}")
        if "certificate" not in profile:
            raise BadParam("profiles", f"{named} has no certificate; {_AS}")
        key = profile.get("private_key", "")
        try:
            loaded = self._pair("profiles", profile["certificate"], key)
        except BadParam as exc:
            raise BadParam("profiles", f"number {at + 1}: {exc}") from None
        name = profile.get("server_name")
        names = (plain(name),) if name else loaded.certificate.names
        return Loaded("profiles", replace(loaded.pair, names=names), loaded.certificate)

    def _pair(self, param: str, certificate: str, private_key: str) -> Loaded:
        """A certificate and its key, which may be in the same file."""
        paths = self._base / certificate, self._base / (private_key or certificate)
        try:
            found = load_pair(*paths)
        except BadCertificate as exc:
            raise BadParam(param, str(exc)) from None
        pair = KeyPair(str(paths[0]), str(paths[1]), (), found.not_after)
        return Loaded(param, pair, found)

    def _authorities(self, param: str) -> str:
        value: str = getattr(self._params, param)
        if not value:
            return ""
        path = self._base / value
        try:
            load_chain(path)
        except BadCertificate as exc:
            raise BadParam(param, str(exc)) from None
        return str(path)

    def _state(self) -> tuple[Any, ...]:
        params = self._params
        names = [
            params.certificate, params.private_key, params.ca_list,
            params.client_certificate, params.client_private_key, params.client_ca_list,
        ]  # fmt: skip
        for profile in params.profiles or ():
            if isinstance(profile, dict):
                names += [profile.get("certificate", ""), profile.get("private_key", "")]
        return tuple(_state_of(self._base / name) for name in names if name)


def _state_of(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
