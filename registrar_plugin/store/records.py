"""How a binding stands in a shared store, and how it comes back.

Strategy: ``Record`` is what every server keeps, texts and numbers only.  Octets become ASCII that
people can read and that any server takes.  Times are ages by the server's clock: it says how old a
binding is, and the clocks of the nodes need not agree.

A flow belongs to one process.  With the binding stands whose it is (``Home``); for another node
such a binding is there, is listed and may be refreshed, but it cannot be called, unless a Path or
its own URI leads to it, too.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from registrar_plugin.bindings import MICRO, Binding
from sipedge.flow import UDP
from sipedge.sip.uri import parse_uri

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef
    from sipedge.core import Core
    from sipedge.flow import FlowTable

_ESCAPED: Final = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")
#: characters of a key that is kept as it is; longer ones are hashed, indexes have limits
_LONGEST_KEY: Final = 200


class Record(NamedTuple):
    """A row.  ``key``: no two bindings of an address-of-record have the same.  ``version``: another
    one each time it is written.  ``age_us``: microseconds since it was updated, by the server's
    clock.  ``flow``: a ``Home`` as text.  The rest is as in ``Binding``."""

    key: str
    version: str
    age_us: int
    lifetime: int
    contact: str
    path: str
    flow: str
    call_id: str
    cseq: int
    reg_id: int
    q: int
    methods: str | None
    epoch: int


class Home(NamedTuple):
    """The flow of a binding: ``node`` and name of the listener, the other end, the id of the
    connection.  ``by_uri``: without the flow it may be called by its URI."""

    node: str
    listener: str
    host: str
    port: int
    conn_id: str
    by_uri: bool

    @property
    def text(self) -> str:
        conn_id, by_uri = self.conn_id or "-", "uri" if self.by_uri else "flow"
        return f"{self.node} {self.listener} {self.host} {self.port} {conn_id} {by_uri}"


class SharedBinding(Binding):
    """A binding that ``fetch`` found in a shared store.

    ``flow`` is None if this process has it not; ``home`` then says who has.
    """

    __slots__ = ("home", "key", "reachable", "version")

    home: Home | None
    key: str
    #: whether this node can call it
    reachable: bool
    version: str

    @property
    def ruid(self) -> str:
        return self.version

    def with_epoch(self, epoch: int) -> Binding:
        other = SharedBinding(
            self.contact, self.reg_id, self.q, self.path, self.flow, self.call_id, self.cseq,
            self.stamp, self.lifetime, self.methods, epoch,
        )  # fmt: skip
        other.home, other.key, other.version = self.home, self.key, self.version
        other.reachable = self.reachable
        return other

    def same_way(self, other: Binding) -> bool:
        """Whether both are reached over the same Path and the same flow."""
        home = other.home if isinstance(other, SharedBinding) else None
        return super().same_way(other) and self.home == home


class Codec:
    """Translates for one process, whose name among the others is ``node``."""

    __slots__ = ("_core", "_known", "node")

    def __init__(self, core: Core, node: str) -> None:
        self._core = core
        self.node = node
        #: method sets that were made before; phones of a kind allow the same methods
        self._known: dict[str, frozenset[bytes]] = {}

    def record(self, binding: Binding) -> Record:
        """A binding as it shall be written, with a version of its own."""
        methods = binding.methods
        home = self._home(binding)
        return Record(
            key_of(binding),
            secrets.token_hex(8),
            max(0, int(self._core.now * MICRO) - binding.stamp),
            binding.lifetime,
            text(binding.contact),
            text(binding.path),
            home.text if home is not None else "",
            text(binding.call_id),
            binding.cseq,
            binding.reg_id,
            binding.q,
            None if methods is None else text(b",".join(sorted(methods))),
            binding.epoch,
        )

    def binding(self, record: Record) -> SharedBinding:
        """The binding of a row; raises ``ValueError`` if somebody wrote it by hand."""
        contact = octets(record.contact)
        if contact[:1] != b"<" or b">" not in contact:
            raise ValueError("no Contact")
        home = read_home(record.flow)
        flow = None if home is None else self._flow(home)
        binding = SharedBinding(
            contact, record.reg_id, record.q, octets(record.path), flow, octets(record.call_id),
            record.cseq, int(self._core.now * MICRO) - record.age_us, record.lifetime,
            self._methods(record.methods), record.epoch,
        )  # fmt: skip
        binding.home, binding.key, binding.version = home, record.key, record.version
        binding.reachable = home is None or flow is not None or bool(record.path) or home.by_uri
        return binding

    def _home(self, binding: Binding) -> Home | None:
        flow = binding.flow
        if flow is None:  # of nobody, or of another node: then it stays as it was
            return binding.home if isinstance(binding, SharedBinding) else None
        if isinstance(flow, tuple):
            listener, remote = flow
            conn_id = ""
        else:
            listener, remote, conn_id = flow.listener, flow.remote, flow.conn_id.hex()
        uri = parse_uri(binding.uri)
        # RFC 3261 §18: a phone without outbound that says where it listens is called there
        listens = listener.transport == UDP or (uri.port or 5060) != remote[1]
        by_uri = not binding.reg_id and uri.host_str == remote[0] and listens
        return Home(self.node, listener.name, *remote, conn_id, by_uri)

    def _flow(self, home: Home) -> FlowRef | None:
        """None if it is of another node, or if it is gone."""
        flows: FlowTable = self._core.flows
        if home.node != self.node:
            return None
        if home.conn_id:
            return flows.streams.get(bytes.fromhex(home.conn_id))
        for listener in flows.listeners:
            if listener.name == home.listener:
                return listener, (home.host, home.port)
        return None

    def _methods(self, names: str | None) -> frozenset[bytes] | None:
        if names is None:
            return None
        methods = self._known.get(names)
        if methods is None:
            if len(self._known) >= 1024:
                self._known.clear()
            methods = frozenset(octets(names).split(b",")) if names else frozenset()
            self._known[names] = methods
        return methods


def can_be_called(binding: Binding) -> bool:
    """Whether this node can: False if the binding is on a flow of another one, and nothing else
    leads there."""
    return not isinstance(binding, SharedBinding) or binding.reachable


def key_of(binding: Binding) -> str:
    """Instance and reg-id with outbound (RFC 5626 §6), else the URI (RFC 3261 §10.3)."""
    name = text(binding.instance if binding.reg_id else binding.uri)
    if len(name) > _LONGEST_KEY:
        name = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{binding.reg_id} {name}"


def read_home(flow: str) -> Home | None:
    """What ``Home.text`` wrote; raises ``ValueError``."""
    if not flow:
        return None
    node, listener, host, port, conn_id, by_uri = flow.split(" ")
    return Home(node, listener, host, int(port), conn_id.strip("-"), by_uri == "uri")


def text(raw: bytes) -> str:
    """ASCII for octets: others than ASCII, NUL and backslashes are escaped."""
    plain = raw.replace(b"\\", rb"\\").decode("ascii", "backslashreplace")
    return plain.replace("\0", r"\x00")


def octets(value: str) -> bytes:
    """The octets that ``text`` made a string of."""
    raw = value.encode()
    return _ESCAPED.sub(_unescaped, raw) if b"\\" in raw else raw


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode()) if found[1] else b"\\"
