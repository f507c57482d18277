"""Stop 6, registrar: a binding that somebody has written down becomes one of ours.

Strategy: the row is judged as a REGISTER would be, for it was made by one once: the Contact has to
be one that can be called, and what a UA has registered here since is better than what is written
down.  What cannot be carried over is a connection: it ended with the process that had it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outbound_plugin.api import VALID
from registrar_plugin.bindings import Binding, flow_ref
from registrar_plugin.contact import Contact
from registrar_plugin.save import find_binding
from registrar_plugin.store import Conflict
from sipedge.errors import ParseError
from sipedge.flow import TRANSPORT_BY_NAME, UDP, Listener
from sipedge.module import CommandError
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.uri import Uri, parse_uri
from sipedge.sip.values import split_list

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef
    from registrar_plugin.location import Location
    from registrar_plugin.store import AsyncLocationStore

GONE: Final = 410
#: seconds of a binding that never ends: 68 years
FOR_EVER: Final = 2**31 - 1
MAX_CSEQ: Final = 2**31 - 1  # RFC 3261 §8.1.1.5
_SIP: Final = (b"sip", b"sips")


@dataclass(slots=True)
class Row:
    """What is written down of one binding; see ``UsrlocCommands.add``."""

    expires_at: float
    last_modified: float
    contact: bytes
    params: bytes
    instance: bytes
    reg_id: int
    q: float | None
    path: bytes
    received: str
    socket: str
    connection_id: str
    callid: bytes
    cseq: int
    methods: list[str] | None
    ruid: str
    epoch: int


async def carry_over(
    location: Location, table: AsyncLocationStore, aor: bytes, row: Row
) -> dict[str, str]:
    """Put a row into a table.

    Returns ``result``: ``added``, ``refreshed``, or ``kept`` if what is there is as new; and
    perhaps a ``note``.  Raises ``CommandError`` (400 wrong, 410 cannot be carried over),
    ``ParseError`` and ``StoreError``.
    """
    core = location.core
    key = _key(location, aor)
    contact = _contact(row)
    lifetime = FOR_EVER
    if row.expires_at > 0:
        lifetime = min(int(row.expires_at - core.wall() + 0.5), FOR_EVER)
        if lifetime <= 0:
            raise CommandError(GONE, "it has expired")
    reg_id = row.reg_id if contact.instance and location.params.outbound_mode else 0
    rows = await table.fetch(key, core.now)
    old = find_binding(list(rows), contact, reg_id)
    if old is not None and (old.ruid == row.ruid or core.wall(old.updated) >= row.last_modified):
        return {"result": "kept"}
    path, flow, note = _way(location, contact.uri, row)
    methods = None if row.methods is None else frozenset(octets(name) for name in row.methods)
    new = Binding(
        contact.kept,
        reg_id,
        contact.q,
        path,
        flow,
        row.callid,
        row.cseq,
        location.stamp(core.now),
        lifetime,
        None if methods is None else location.shared_methods(methods),
        _epoch(rows, contact, row),
    )
    gone = () if old is None else (old,)
    try:
        await table.replace(key, gone, (new,), core.now)
    except Conflict:
        return {"result": "kept"}  # the UA has registered at another node this very moment
    location.events.changed(key, gone, (new,))
    done = {"result": "added" if old is None else "refreshed"}
    return {**done, "note": note} if note else done


def octets(value: str) -> bytes:
    """The octets that ``text`` made a string of."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise CommandError(400, f"{value!r:.60} is no text") from None


def _key(location: Location, aor: bytes) -> bytes:
    """What is written down is unescaped already, as Kamailio's is: nothing is parsed."""
    user, at, host = aor.rpartition(b"@")
    if not at:
        user, host = aor, b""
    if not user or not (host or not location.params.use_domain):
        raise CommandError(400, "the address has no domain; say which one it is")
    return location.rules.join(user, host.lower())


def _contact(row: Row) -> Contact:
    params = row.params
    if not params:
        if row.q is not None and 0 <= row.q <= 1:
            params += b";q=%g" % row.q
        if row.instance:
            bare = row.instance.strip(b"<>")
            params += b';+sip.instance="<%s>"' % bare
        if row.reg_id:
            params += b";reg-id=%d" % row.reg_id
    for name, value in (
        ("contact", row.contact + params),
        ("path", row.path),
        ("callid", row.callid),
    ):
        if any(octet < 0x20 or octet == 0x7F for octet in value):
            raise CommandError(400, f"{name} has control characters in it")
    contact = Contact(b"<%s>%s" % (row.contact, params))
    if contact.uri.raw != row.contact or contact.uri.scheme not in _SIP:
        raise CommandError(400, "Contact is not a SIP URI")
    if not 0 <= row.cseq <= MAX_CSEQ or not 0 <= row.reg_id <= MAX_CSEQ:
        raise CommandError(400, "cseq or reg_id is out of range")
    return contact


def _epoch(rows: tuple[Binding, ...], contact: Contact, row: Row) -> int:
    """All bindings of an instance have the same (RFC 5627 §5.1)."""
    for other in rows:
        if contact.instance and other.instance == contact.instance:
            return other.epoch
    return max(0, row.epoch)


# -- how it is reached


def _way(location: Location, uri: Uri, row: Row) -> tuple[bytes, FlowRef | None, str]:
    """Path, flow, and what is to be said about it."""
    core = location.core
    if row.path and location.params.use_path:
        return row.path, _flow_of_path(location, row.path), ""
    to = parse_uri(row.received.encode("ascii", "replace")) if row.received else uri
    transport = transport_of(to)
    if row.connection_id:
        try:
            stream = core.flows.streams.get(bytes.fromhex(row.connection_id))
        except ValueError:
            stream = None
        if stream is None or not stream.alive:
            raise CommandError(GONE, "the connection that it was reached over is gone")
        return b"", flow_ref(stream), ""
    if not row.received:
        return b"", None, ""
    if transport != UDP:
        raise CommandError(GONE, "it was reached over a connection of another process")
    host = to.host_str
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise CommandError(400, f"received: {host} is no address") from None
    listener, note = _listener(location, row.socket, host)
    return b"", (listener, (host, to.port or 5060)), note


def _flow_of_path(location: Location, path: bytes) -> FlowRef | None:
    """The flow of this very edge that a Path names, None if it is another's."""
    uris = [parse_uri(parse_nameaddr(value).uri) for value in split_list(path)]
    if not uris or any(uri.scheme not in _SIP for uri in uris):
        raise ParseError("Path is no list of SIP URIs")
    top, ob = uris[0], location.ob
    if ob is None or not top.user or not location.core.is_myself(top):
        return None
    verdict, flow = ob.decode_flow_token(top.user)
    if verdict is not VALID or flow is None:
        raise CommandError(GONE, "its Path names a connection to us that is gone")
    return flow_ref(flow)


def _listener(location: Location, socket: str, host: str) -> tuple[Listener, str]:
    """The listener that the UA knows; a NAT lets nothing else through."""
    flows = location.core.flows
    for listener in flows.listeners:
        if listener.name == socket:
            return listener, ""
    other = flows.towards(UDP, host, None)
    if other is None:
        raise CommandError(GONE, f"there is no UDP listener that reaches {host}")
    if not socket:
        return other, ""
    return other, f"we do not listen on {socket}; it is called from {other.name}"


def transport_of(uri: Uri) -> int:
    """RFC 3263 §4.1 without DNS: what the URI says, else UDP."""
    name = (uri.params.get(b"transport") or b"").lower().decode("ascii", "replace")
    if not name:
        name = "tls" if uri.scheme == b"sips" else "udp"
    return TRANSPORT_BY_NAME.get(name, 0)
