"""Stop 6, registrar: what a binding is (RFC 3261 §10.3, RFC 3327 §5.3, RFC 5626 §6).

Strategy: a binding never changes once it is made; a refresh makes a new one that shares what stayed
equal.  It keeps the Contact as the UA wrote it and works out URI and instance when asked, so that a
million of them fit into memory.  Times are monotonic.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sipedge.errors import ParseError
from sipedge.sip.uri import Uri, parse_uri, unescape
from sipedge.sip.values import split_list

if TYPE_CHECKING:
    from sipedge.flow import Address, Flow, FlowTable, Listener

    #: how a binding keeps a flow: a stream is its ``Flow``; a UDP flow is a value, it needs no
    #: object
    FlowRef = Flow | tuple[Listener, Address]

#: one header parameter with its semicolon; semicolons in quotes do not count (RFC 3261 §25.1)
_PARAM: Final = re.compile(rb';(?:[^";]++|"(?:[^"\\]++|\\.)*+"?)*+', re.DOTALL)

MICRO: Final = 1_000_000


class Binding:
    """One way to reach a UA.

    ``contact``: ``<URI>`` and its parameters as they were sent, without ``expires``.  ``path``: the
    Path values joined with ``, ``.  ``reg_id``: 0 when outbound was not applied.  ``q``:
    thousandths, -1 when none was given.  ``stamp``: when it was last updated, in microseconds; no
    two bindings of a registrar have the same.  ``lifetime``: seconds granted.  ``methods``: None
    means any.  ``epoch``: what the temporary GRUUs that are valid for this instance have in them, 0
    if none was given out; all bindings of an instance have the same.
    """

    __slots__ = (
        "call_id", "contact", "cseq", "epoch", "flow", "lifetime", "methods", "path", "q",
        "reg_id", "stamp",
    )  # fmt: skip

    def __init__(
        self,
        contact: bytes,
        reg_id: int,
        q: int,
        path: bytes,
        flow: FlowRef | None,
        call_id: bytes,
        cseq: int,
        stamp: int,
        lifetime: int,
        methods: frozenset[bytes] | None,
        epoch: int = 0,
    ) -> None:
        self.contact = contact
        self.reg_id = reg_id
        self.q = q
        self.path = path
        self.flow = flow
        self.call_id = call_id
        self.cseq = cseq
        self.stamp = stamp
        self.lifetime = lifetime
        self.methods = methods
        self.epoch = epoch

    @property
    def uri(self) -> bytes:
        """The Contact URI, byte for byte."""
        return self.contact[1 : self.contact.index(b">")]

    @property
    def instance(self) -> bytes:
        """The instance-id in canonical form, b"" if there is none."""
        if b"nstance" not in self.contact and b"NSTANCE" not in self.contact:
            return b""
        for piece in split_params(self.contact[self.contact.index(b">") + 1 :]):
            name, value = param_of(piece)
            if name == b"+sip.instance":
                return canonical_instance(value)
        return b""

    @property
    def paths(self) -> list[bytes]:
        """The Path values in order."""
        if b"," not in self.path:
            return [self.path] if self.path else []
        return split_list(self.path)

    @property
    def expires(self) -> float:
        """The moment it ends, in monotonic seconds."""
        return self.stamp / MICRO + self.lifetime

    @property
    def updated(self) -> float:
        """When it was registered or refreshed last, in monotonic seconds (RFC 5626 §6)."""
        return self.stamp / MICRO

    @property
    def ruid(self) -> str:
        """Its id; a refresh makes a new one, so that an old id never removes a fresh binding."""
        return f"uloc-{self.stamp:x}"

    def remaining(self, now: float) -> int:
        """Seconds left, at least 1."""
        return int(self.expires - now + 0.5) or 1

    def without_flow(self) -> Binding:
        """The same, called by its URI from now on."""
        return Binding(
            self.contact, self.reg_id, self.q, self.path, None, self.call_id, self.cseq,
            self.stamp, self.lifetime, self.methods, self.epoch,
        )  # fmt: skip

    def with_epoch(self, epoch: int) -> Binding:
        """The same, with other temporary GRUUs."""
        return Binding(
            self.contact, self.reg_id, self.q, self.path, self.flow, self.call_id, self.cseq,
            self.stamp, self.lifetime, self.methods, epoch,
        )  # fmt: skip

    def same_way(self, other: Binding) -> bool:
        """Whether both are reached over the same Path and the same flow."""
        return self.path == other.path and self.flow == other.flow

    def __repr__(self) -> str:
        return f"<Binding {self.ruid} {self.contact!r}>"


def flow_ref(flow: Flow) -> FlowRef:
    """A flow as a binding keeps it; equal for equal flows, and hashable."""
    return flow if flow.reliable or flow.via is not None else (flow.listener, flow.remote)


def flow_of(ref: FlowRef, flows: FlowTable) -> Flow:
    """The flow that a binding kept."""
    return flows.udp(*ref) if isinstance(ref, tuple) else ref


def split_params(raw: bytes) -> list[bytes]:
    """Header parameters ``;a=1;b="x;y"`` as pieces, each with its semicolon."""
    if b'"' not in raw:
        return [b";" + piece for piece in raw.split(b";")[1:]]
    return _PARAM.findall(raw)


def param_of(piece: bytes) -> tuple[bytes, bytes | None]:
    """Name (lower case) and value of ``;name=value``; the value is None without ``=``."""
    name, equals, value = piece[1:].partition(b"=")
    return name.strip(b" \t").lower(), value.strip(b" \t") if equals else None


def canonical_instance(value: bytes | None) -> bytes:
    """An instance-id for comparison as a URN (RFC 5626 §4.1, RFC 8141 §3.1).

    ``urn`` and the namespace are case-insensitive, and so are UUIDs; nothing else is.
    """
    if not value:
        return b""
    if value[:1] == b'"':
        value = value[1:][:-1]  # of a lone quote nothing is left
    if value[:1] == b"<" and value[-1:] == b">":
        value = value[1:-1]
    lower = value.lower()
    if lower.startswith(b"urn:uuid:"):
        return lower
    if lower.startswith(b"urn:"):
        cut = value.find(b":", 4)
        return lower[:cut] + value[cut:] if cut > 0 else lower
    return value


class AorRules:
    """How an address-of-record becomes the key of the location table (RFC 3261 §10.3 item 5)."""

    __slots__ = ("_case_sensitive", "_realm_prefix", "_use_domain")

    def __init__(self, case_sensitive: bool, use_domain: bool, realm_prefix: bytes) -> None:
        self._case_sensitive = case_sensitive
        self._use_domain = use_domain
        self._realm_prefix = realm_prefix.lower()

    def key(self, uri: Uri) -> bytes:
        """``user@host``: no parameters, port or password, unescaped; ``sip`` and ``sips`` are one.

        Raises ``ParseError`` (404, RFC 3261 §10.3 item 5) for what cannot be an address-of-record.
        """
        if uri.scheme not in (b"sip", b"sips") or not uri.user or not uri.host:
            raise ParseError("not an address-of-record", 404, b"Not Found")
        return self.join(unescape(uri.user), uri.host)

    def join(self, user: bytes, host: bytes) -> bytes:
        """The key of an unescaped user and a host in lower case."""
        user = self.user(user)
        if not self._use_domain:
            return user
        if self._realm_prefix and host.startswith(self._realm_prefix):
            host = host[len(self._realm_prefix) :]
        return user + b"@" + host

    def user(self, user: bytes) -> bytes:
        """An unescaped user as it stands in keys."""
        return user if self._case_sensitive else user.lower()

    def key_of(self, raw: bytes) -> bytes:
        """The same for a URI in bytes; raises ``ParseError``."""
        return self.key(parse_uri(raw))
