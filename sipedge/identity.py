"""Who we are: the myself test (RFC 3261 §16.4; Kamailio's ``alias`` and self test)."""

from __future__ import annotations

from collections.abc import Iterable

from sipedge.flow import Listener
from sipedge.sip.uri import Uri


class OwnNames:
    """The addresses of our listeners, what they advertise, and the operator's aliases."""

    def __init__(self) -> None:
        self._any_port: set[bytes] = set()
        self._with_port: set[tuple[bytes, int]] = set()

    def add_alias(self, host: str, port: int | None = None) -> None:
        """A name of ours (Kamailio ``alias``); without a port it holds for any port."""
        name = host.strip("[]").lower().encode()
        if port is None:
            self._any_port.add(name)
        else:
            self._with_port.add((name, port))

    def learn(self, listeners: Iterable[Listener]) -> None:
        """Take the listeners' addresses; once more when port 0 has become a real one."""
        for listener in listeners:
            self.add_alias(listener.address, listener.port)
            if listener.advertise_host is not None:
                self.add_alias(listener.advertise_host, listener.advertise_port or listener.port)

    def is_myself(self, uri: Uri) -> bool:
        """Does this URI name us?  Without a port it means 5060 (5061 for sips and TLS).

        A GRUU is never us: it names a user agent (RFC 5627).
        """
        return b"gr" not in uri.params and self.is_ours(uri)

    def is_ours(self, uri: Uri) -> bool:
        """``is_myself``, or a GRUU in a domain of ours."""
        if uri.host in self._any_port:
            return True
        port = uri.port
        if port is None:
            secure = uri.scheme == b"sips" or uri.params.get(b"transport") == b"tls"
            port = 5061 if secure else 5060
        return (uri.host, port) in self._with_port
