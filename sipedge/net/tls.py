"""Stops 1 and 8 for streams: TLS, as a layer between TCP and what is above.

Strategy: ``ssl.SSLObject`` over two memory buffers does the protocol, so this file reads no socket.
``TlsContexts`` makes the contexts of ``core.tls.settings`` at start and whenever those change; a
connection keeps the context that it began with, and the last one of an old context frees it.  Whose
certificate a server shows is checked here, by the rules for SIP (RFC 5922 §7), before a single SIP
octet is sent.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any, Final

from sipedge.certificates import plain
from sipedge.errors import ConfigError
from sipedge.flow import TLS, WSS, Flow
from sipedge.net.layers import Layer
from sipedge.tls_settings import METHODS, TLS_1_2, TLS_1_3, KeyPair, Tls, TlsFacts, TlsSettings

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

log = logging.getLogger(__name__)

#: octets of a record at most; memory buffers never shrink, so they are never given more at a time
RECORD: Final = 16384
#: RFC 7301; who asks for something else gets no answer to that and is served all the same
ALPN: Final = {TLS: ["sip/2"], WSS: ["http/1.1"]}
_VERSIONS: Final = {
    TLS_1_2: ssl.TLSVersion.TLSv1_2,
    TLS_1_3: ssl.TLSVersion.TLSv1_3,
    "": ssl.TLSVersion.MAXIMUM_SUPPORTED,
}


class _Session(ssl.SSLObject):
    """Remembers which name the client asked for (RFC 6066 §3)."""

    sni = ""


class TlsLayer(Layer):
    """TLS of one connection.  Never raises for what a peer sends; ``over`` says what it was."""

    __slots__ = ("_expected", "_incoming", "_outgoing", "_tls", "_wildcards")

    def __init__(
        self, context: ssl.SSLContext, server_name: str | None = None, wildcards: bool = False
    ) -> None:
        """A server's side; with ``server_name``, the domain or address that we want to reach, a
        client's, which goes no further with somebody else (RFC 5922 §7.3)."""
        super().__init__()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._expected = server_name
        self._wildcards = wildcards
        self._tls = self._session(context, server_name)

    def _session(self, context: ssl.SSLContext, server_name: str | None) -> ssl.SSLObject:
        if server_name is None:
            return context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            name = plain(server_name) or None
            return context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        except ValueError:  # no name that can be asked for: then no certificate will be good
            return context.wrap_bio(self._incoming, self._outgoing)

    def start(self) -> None:
        if self._expected is not None:
            self._advance([])

    def receive(self, data: bytes) -> list[bytes]:
        above: list[bytes] = []
        for at in range(0, len(data), RECORD):
            if self.over:
                break
            self._incoming.write(data[at : at + RECORD])
            self._advance(above)
        return above

    def send(self, data: bytes) -> bytes:
        below = []
        try:
            for at in range(0, len(data), RECORD):
                self._tls.write(data[at : at + RECORD])
                below.append(self._outgoing.read())
        except ssl.SSLError as exc:  # we have said goodbye before
            self.over = self.over or _reason(exc)
        return b"".join(below)

    def outgoing(self) -> bytes:
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> bytes:
        """The close_notify, unless the handshake never came to an end (RFC 8446 §6.1)."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # nearly always: the peer's own close_notify is not there yet
            pass
        return self.outgoing()

    def _advance(self, above: list[bytes]) -> None:
        """Handshake, then whatever can be read."""
        try:
            if not self.established:
                self._tls.do_handshake()
                self._shaken()
                if self.over:
                    return
            while chunk := self._tls.read(RECORD):
                above.append(chunk)
                if not self._incoming.pending:  # that was a whole record: no need to hear
                    return  # from an exception that there is no other
            self.over = "closed by the peer (TLS close_notify)"
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as exc:
            self.over = _reason(exc)

    def _shaken(self) -> None:
        """The handshake is done: who is it?"""
        cipher, version, bits = self._tls.cipher() or ("", "", 0)
        facts = TlsFacts(
            self._tls.version() or version,
            cipher,
            bits,
            getattr(self._tls, "sni", ""),
            self._tls.getpeercert(binary_form=True),
        )
        if self._expected is not None:
            peer = facts.peer
            if peer is None or not peer.covers(self._expected, self._wildcards):
                names = ", ".join(peer.names[:5]) if peer is not None else "nobody"
                self.over = f"TLS: the certificate is of {names}, not of {self._expected}"
                return
        self.facts = {"tls": facts}
        self.established = True


class TlsContexts:
    """The contexts that new connections begin with."""

    _accepting: dict[int, ssl.SSLContext]
    _dialing: ssl.SSLContext
    _settings: TlsSettings

    def __init__(self, tls: Tls) -> None:
        """Raises ``ConfigError`` for settings that cannot be used, and for expired certificates.

        One that is renewed too late, while we serve, is used all the same: some peers do not look.
        """
        try:
            now = time()
            for pair in tls.settings.pairs:
                if pair.not_after <= now:
                    raise ValueError(f"{pair.certificate} has expired; renew it, and start again")
            self._load(tls.settings)
        except ValueError as exc:
            file, line = tls.settings.source or (None, None)
            raise ConfigError(f"tls: {exc}", file, line) from exc
        tls.load = self._load

    def accepted(self, transport: int) -> TlsLayer:
        """For a connection that came in over TLS or WSS."""
        return TlsLayer(self._accepting[transport])

    def dialed(self, flow: Flow) -> TlsLayer:
        """For a connection that we open."""
        wanted = flow.server_name or flow.remote[0]
        return TlsLayer(self._dialing, wanted, self._settings.wildcards)

    def _load(self, settings: TlsSettings) -> None:
        """``Tls.load``."""
        accepting = {transport: _accepting(settings, transport) for transport in ALPN}
        self._dialing = _dialing(settings)
        self._accepting = accepting
        self._settings = settings


def _accepting(settings: TlsSettings, transport: int) -> ssl.SSLContext:
    """The context of a listener: the default certificate, and the others by name (RFC 6066 §3)."""
    named: dict[str, ssl.SSLContext] = {}
    for pair in settings.profiles:
        context = _server_context(settings, pair, transport)
        for name in pair.names:
            named.setdefault(name, context)
    default = _server_context(settings, settings.default, transport)

    # a function and no method: a context in a cycle would stay when it is replaced (gc.freeze)
    def choose(session: _Session, name: str | None, _: ssl.SSLContext) -> None:
        if name is not None:
            session.sni = name
            host = plain(name)
            context = named.get(host) or named.get("*." + host.partition(".")[2])
            if context is not None:
                session.context = context

    default.sslobject_class = _Session
    default.sni_callback = choose  # type: ignore[assignment]  # typeshed knows SSLObject only
    return default


def _server_context(settings: TlsSettings, pair: KeyPair, transport: int) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_up(context, settings, pair)
    context.set_alpn_protocols(ALPN[transport])
    if settings.verify_certificate or settings.require_certificate:
        _trust(context, settings.ca_list)
        required = settings.require_certificate
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _dialing(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # chains are verified
    context.check_hostname = False  # whose certificate it is: ``TlsLayer``, by the rules for SIP
    _set_up(context, settings, settings.client or settings.default)
    _trust(context, settings.client_ca_list)
    return context


def _set_up(context: ssl.SSLContext, settings: TlsSettings, pair: KeyPair) -> None:
    lowest, highest = METHODS[settings.method]
    context.minimum_version = _VERSIONS[lowest]
    context.maximum_version = _VERSIONS[highest]
    context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.cipher_list:
        try:
            context.set_ciphers(settings.cipher_list)
        except ssl.SSLError:
            raise ValueError(
                f"cipher_list: OpenSSL knows none of {settings.cipher_list!r}; "
                "`openssl ciphers -v` lists what it knows"
            ) from None
    try:
        context.load_cert_chain(pair.certificate, pair.private_key)
    except OSError as exc:  # ssl.SSLError is one
        raise ValueError(f"{pair.certificate}, {pair.private_key}: {_why(exc)}") from exc


def _trust(context: ssl.SSLContext, ca_list: str) -> None:
    if not ca_list:
        context.set_default_verify_paths()
        return
    try:
        context.load_verify_locations(ca_list)
    except OSError as exc:
        raise ValueError(f"{ca_list}: {_why(exc)}") from exc


def without_noise(hook: Callable[[UnraisableHookArgs], Any]) -> Callable[[UnraisableHookArgs], Any]:
    """A ``sys.unraisablehook`` for a name in a ClientHello that is no text.

    ``ssl`` answers that with an alert, but also writes a traceback to stderr, and a peer must not
    be able to fill a log with tracebacks.
    """

    def hushed(unraisable: UnraisableHookArgs) -> None:
        decoding = isinstance(unraisable.exc_value, UnicodeDecodeError)
        if decoding and isinstance(unraisable.object, bytes):
            log.info("TLS: a client asked for a name that is none: %r", unraisable.object)
        else:
            hook(unraisable)

    return hushed


def _why(exc: OSError) -> str:
    return _words(exc) if isinstance(exc, ssl.SSLError) else str(exc.strerror)


def _reason(exc: ssl.SSLError) -> str:
    return f"TLS: {_words(exc)}"


def _words(exc: Any) -> str:
    """OpenSSL's reason as words: ``no shared cipher``, ``certificate verify failed: ...``."""
    words = str(exc.reason or exc.strerror or "protocol error").replace("_", " ").lower()
    detail = getattr(exc, "verify_message", "")
    return f"{words}: {detail}" if detail else words
