"""Module tls: certificates and keys for ``tls:`` and ``wss:`` listeners; who the peers are.

Strategy: the module reads files and decides, ``sipedge.net.tls`` speaks TLS with the settings that
it leaves in ``core.tls``.  Files are looked at every few seconds; when they have changed, and are
good, new connections use them; live ones go on with what they began with.  Bad ones change nothing
and are an error in the log.

Part of stop 1 for streams, and of stop 6: pseudo-variables, ``is_peer_verified``, and the ``alias``
of RFC 5923.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sipedge.certificates import is_open_to_all, plain
from sipedge.errors import ConfigError
from sipedge.flow import TLS, WSS, Listener
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    FAIL,
    OK,
    Command,
    CommandError,
    Context,
    Function,
    ModuleExports,
    Param,
    Rc,
)
from sipedge.modules.tls.files import BadParam, Loaded, TlsFiles, TlsParams
from sipedge.modules.tls.pv import facts_of, pseudo_variables
from sipedge.sip.message import SipMessage
from sipedge.tls_settings import METHODS, Tls, TlsSettings

log = logging.getLogger("sipedge.tls")

DAY: Final = 86400.0  # seconds
WARN_DAYS: Final = 30  # before a certificate expires
#: RFC 5923 §8.2: the port of an alias whose Via names none
_ALIAS_PORT: Final = 5061


class TlsModule:
    """Kamailio's module tls, as far as an edge needs it."""

    def __init__(self) -> None:
        self.params = TlsParams()
        self._files: TlsFiles | None = None
        self._loaded: tuple[Loaded, ...] = ()
        self._said = ""  # why the files that are there now are not used
        self.exports = ModuleExports(
            "tls",
            functions=(Function("is_peer_verified", self.is_peer_verified),),
            params=(
                Param("certificate", str, "path of the certificate and its chain, PEM"),
                Param("private_key", str, "path of its key; '': in the same file"),
                Param("profiles", list, "certificates by name: server_name, certificate, ..."),
                Param("ca_list", str, "path of the certificates that sign those of peers"),
                Param("verify_certificate", int, "1: ask clients for a certificate", 0, 1),
                Param("require_certificate", int, "1: refuse clients that have none", 0, 1),
                Param("tls_method", str, "TLSv1.2, TLSv1.2+, TLSv1.3 or TLSv1.3+"),
                Param("cipher_list", str, "of TLS 1.2, as OpenSSL takes it; '': its default"),
                Param("client_certificate", str, "shown to servers; '': certificate"),
                Param("client_private_key", str, "its key; '': in the same file"),
                Param("client_ca_list", str, "who signs servers; '': ca_list, or the system's"),
                Param("wildcard_names", int, "1: *.example.com may name a server", 0, 1),
                Param("strict_uris", int, "1: no transport=tls and no port in our URIs", 0, 1),
                Param("reload_interval", int, "seconds between looks; 0: never", 0, 86400),
            ),
            pseudo_variables=pseudo_variables(),
            commands=(
                Command("tls.certificates", self.certificates, "certificates in use"),
                Command("tls.reload", self.reload, "read certificates and keys again"),
            ),
        )

    # -- the start --------------------------------------------------------------------------------

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self._core = ctx.core
        listeners = [x for x in ctx.config.listeners if x.transport in (TLS, WSS)]
        if not listeners:
            log.warning("module tls has nothing to do: there is no listen('tls:...')")
            return
        params = self.params
        if params.tls_method not in METHODS:
            raise ctx.param_error(
                "tls_method", f"{params.tls_method!r} is not one of {', '.join(METHODS)}"
            )
        try:
            problem = ctx.param_error("certificate", "")
            assert isinstance(problem, ConfigError)  # only for its place
            source = (problem.file, problem.line) if problem.file and problem.line else None
            base = Path(ctx.config.file).absolute().parent
            files = TlsFiles(params, base, source)
            settings, self._loaded = files.read()
        except BadParam as exc:
            raise ctx.param_error(exc.name, str(exc)) from None
        self._files = files
        ctx.core.tls = Tls(settings)
        for one in {loaded.pair.private_key for loaded in self._loaded}:
            if is_open_to_all(Path(one)):
                log.warning("%s: everybody can read this key; run: chmod 600 %s", one, one)
        for listener in listeners:
            self._check_name(settings, listener)
            if params.strict_uris and listener.transport == TLS:
                self._strict(ctx, listener)

    def _check_name(self, settings: TlsSettings, listener: Listener) -> None:
        """What Record-Route and Path say must be in the certificate (RFC 5922 §7.5)."""
        host = plain(listener.advertise_host or listener.host)
        pair = settings.pair_for(host)
        found = next(one for one in self._loaded if one.pair == pair)
        names = found.certificate.names
        if found.certificate.covers(host):
            return
        file, line = listener.source or ("?", 0)
        name = next((name for name in names if not name.startswith("*")), "edge.example.com")
        log.warning(
            "%s:%d: Record-Route and Path will name %s, but the certificate is of %s, so phones "
            "that check it will not come back to us; write listen(%r, advertise=%r), or "
            "get a certificate of %s",
            file, line, host, ", ".join(names) or "nobody", listener.name, name, host,
        )  # fmt: skip

    def _strict(self, ctx: Context, listener: Listener) -> None:
        """RFC 5630 §5.3, ruling A13: our domain alone; NAPTR and SRV lead to this listener."""
        host = listener.advertise_host
        if host is None or plain(host)[-1:].isdigit() or ":" in host:
            raise ctx.param_error(
                "strict_uris",
                f"{listener.name} has no name that DNS could lead to it by; "
                f'write listen("{listener.name}", advertise="edge.example.com")',
            )
        listener.by_name = True
        listener.bound(listener.port)
        ctx.core.add_alias(host)

    @hookimpl
    def child_init(self, rank: int) -> None:
        if self._files is None:
            return
        self._look_at_dates(self._core.now)
        self._core.every(DAY, self._look_at_dates)
        if self.params.reload_interval:
            self._core.every(self.params.reload_interval, self._look)

    # -- files that change ------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Periodically: use what has changed."""
        assert self._files is not None  # or nobody would look
        if self._said or self._files.changed():
            self._read()

    def _read(self) -> str:
        """Use what is in the files; what is wrong with them, "" if nothing is."""
        assert self._files is not None
        assert self._core.tls is not None
        try:
            settings, loaded = self._files.read()
            self._core.tls.replace(settings)
        except ValueError as exc:
            why = str(exc)
            if why != self._said:
                self._core.stats["tls_reload_failures"] += 1
                log.error("certificates changed and cannot be used, the old ones stay: %s", why)
            self._said = why
            return why
        self._said = ""
        self._loaded = loaded
        self._core.stats["tls_reloads"] += 1
        log.info("certificates were read again")
        self._look_at_dates(self._core.now)
        return ""

    def _look_at_dates(self, now: float) -> None:
        """Daily, and for new certificates: export when the first expires, and warn in time."""
        wall = int(self._core.wall())
        soonest = min(one.certificate.not_after for one in self._loaded)
        self._core.stats["tls_certificate_expires"] = soonest
        for one in self._loaded:
            left = one.certificate.not_after - wall
            if left <= 0:
                log.error("%s expired %s ago", one.pair.certificate, _days(-left))
            elif left < WARN_DAYS * DAY:
                log.warning("%s expires in %s; renew it", one.pair.certificate, _days(left))
            elif one.certificate.not_before > wall:
                log.warning("%s is not valid yet; is the clock right?", one.pair.certificate)

    # -- commands ---------------------------------------------------------------------------------

    def certificates(self) -> Iterator[dict[str, Any]]:
        """A row for each certificate in use; times since 1970."""
        wall = int(self._core.wall())
        for one in self._loaded:
            found = one.certificate
            yield {
                "param": one.param,
                "certificate": one.pair.certificate,
                "names": list(one.pair.names or found.names),
                "subject": found.subject,
                "issuer": found.issuer,
                "serial": f"{found.serial:x}",
                "expires": found.not_after,
                "days_left": (found.not_after - wall) // int(DAY),
            }

    def reload(self) -> dict[str, int]:
        """Read all files again, changed or not (Kamailio: ``tls.reload``)."""
        if self._files is None:
            raise CommandError(404, "there is no listener that speaks TLS")
        why = self._read()
        if why:
            raise CommandError(500, f"the old certificates stay: {why}")
        return {"certificates": len(self._loaded)}

    # -- messages ---------------------------------------------------------------------------------

    @hookimpl
    def request_in(self, msg: SipMessage, now: float) -> bool | None:
        """RFC 5923 §8.2: requests to the client may go back on a connection with ``alias``.

        Only over TLS and only if the client proved who it is; otherwise as if it said nothing.
        """
        flow = msg.flow
        if flow.transport != TLS or flow.dialed:
            return None
        via = msg.via()
        if b"alias" not in via.raw.lower() or not via.has(b"alias"):
            return None
        facts = facts_of(msg)
        peer = facts.peer if facts is not None else None
        if peer is not None and peer.has_san:
            at = flow.remote[0], via.port or _ALIAS_PORT
            self._core.flows.alias(flow, at, (*peer.identities, *peer.addresses))
        return None

    def is_peer_verified(self, msg: SipMessage) -> Rc:
        """1 if the message came over TLS from a peer with a good certificate, else -1."""
        facts = facts_of(msg)
        return OK if facts is not None and facts.verified else FAIL


def _days(seconds: float) -> str:
    days = int(seconds // DAY)
    return f"{days} day{'' if days == 1 else 's'}" if days else f"{int(seconds // 3600)} hours"
