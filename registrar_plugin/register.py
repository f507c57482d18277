"""Stop 6, registrar: what a REGISTER asks for, and whether it may (RFC 3261 §10.3, RFC 5626 §6).

Strategy: everything that can be refused is refused here, before the location table is looked at: a
request that is not answered with 200 changes nothing.  What is left is a ``Register``.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from outbound_plugin.api import GONE, VALID
from registrar_plugin.bindings import flow_ref
from registrar_plugin.contact import Contact, expires_of
from sipedge.errors import ParseError, SipError
from sipedge.flow import TRANSPORT_NAME, UDP, WSS
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import (
    CONTACT,
    EXPIRES,
    MIN_EXPIRES,
    PATH,
    REQUIRE,
    SUPPORTED,
    TO,
    UNSUPPORTED,
)
from sipedge.sip.uri import Uri, parse_uri, unescape
from sipedge.sip.values import parse_params

if TYPE_CHECKING:
    from registrar_plugin.bindings import Binding, FlowRef
    from registrar_plugin.gruu import Offer
    from registrar_plugin.location import Location
    from registrar_plugin.params import RegistrarParams
    from sipedge.flow import Flow
    from sipedge.sip.message import SipMessage

_HOUR: Final = 3600
_MAX_VALUES: Final = 100  # Contacts in one request; each is compared with each
_SIP: Final = (b"sip", b"sips")
_NOTHING: Final[frozenset[bytes]] = frozenset()


class Refused(SipError):
    """This REGISTER gets an error; ``why`` goes out as P-Registrar-Error, as Kamailio does it.

    ``code`` is what ``save`` returns.
    """

    def __init__(
        self,
        status: int,
        reason: bytes,
        why: bytes,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        code: int = -1,
    ) -> None:
        super().__init__(status, reason, headers)
        self.why = why
        self.code = code


class PathVector:
    """The Path of a request (RFC 3327 §5.3).

    ``ob``: the first hop can do outbound; it wrote the *last* value (ruling A2).  ``sips``: all
    values are sips.  ``flow``: the topmost value is a flow token of this very edge, and this is
    its flow.
    """

    __slots__ = ("flow", "ob", "sips", "values")

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.ob = False
        self.sips = True
        self.flow: FlowRef | None = None


class Register:
    """A REGISTER that may be carried out.

    ``lifetimes`` stands beside ``contacts``: seconds granted, 0 to remove.  ``outbound``: RFC
    5626 §6 applies to it.  ``first_hop``: the UA sent it to us itself.  ``offer``: the GRUUs for
    the answer, None if the UA does not support them.
    """

    __slots__ = (
        "aor", "call_id", "contacts", "cseq", "first_hop", "lifetimes", "lists_outbound",
        "lists_path", "offer", "outbound", "path", "star",
    )  # fmt: skip

    def __init__(self, aor: bytes, call_id: bytes, cseq: int) -> None:
        self.aor = aor
        self.call_id = call_id
        self.cseq = cseq
        self.contacts: list[Contact] = []
        self.lifetimes: list[int] = []
        self.star = False
        self.first_hop = False
        self.outbound = False
        self.lists_outbound = False
        self.lists_path = False
        self.path = PathVector()
        self.offer: Offer | None = None

    def reg_id(self, contact: Contact) -> int:
        """The reg-id that counts: 0 unless outbound applies and there is an instance-id, too."""
        return contact.reg_id or 0 if self.outbound and contact.instance else 0

    @property
    def requires_outbound(self) -> bool:
        """RFC 5626 §6: ``Require: outbound`` in the answer, if and only if it was used."""
        return self.lists_outbound and any(self.reg_id(contact) for contact in self.contacts)


def read_register(msg: SipMessage, location: Location, spread: bool = True) -> Register:
    """Judge a REGISTER; raises ``Refused`` or ``ParseError`` (400, 404).

    ``spread``: lower what is granted at random, as ``expires_range`` says.
    """
    params = location.params
    supported = msg.options(SUPPORTED) if SUPPORTED in msg.ids else _NOTHING
    required = msg.options(REQUIRE) if REQUIRE in msg.ids else _NOTHING
    if required:
        _check_required(required, params)
    _check_body(msg)
    to_uri = parse_uri(parse_nameaddr(msg.first(TO) or b"").uri)
    if to_uri.scheme not in _SIP:
        raise Refused(400, b"Bad Request", b"To is not a SIP URI")  # RFC 4475 §3.3.4
    ruri = parse_uri(msg.ruri)
    aor = location.rules.key(to_uri)
    if to_uri.host != ruri.host and not location.core.is_myself(to_uri):
        # RFC 3261 §10.3 item 5: not an AOR of the domain that was asked
        raise Refused(404, b"Not Found", b"To is not in the domain of the Request-URI")
    register = Register(aor, msg.call_id, msg.cseq()[0])
    # ruling A12: requiring an extension is supporting it
    register.lists_outbound = b"outbound" in supported or b"outbound" in required
    register.lists_path = b"path" in supported or b"path" in required
    if location.gruus is not None and b"gruu" in supported:
        register.offer = location.gruus.offer(
            unescape(to_uri.user or b""), to_uri.host, to_uri.port
        )
    register.first_hop = msg.via_count() == 1
    register.path = _read_path(msg, location)
    if params.use_path and params.path_mode == 2 and register.path.values:
        if not register.lists_path:
            raise _bad_extension(b"path", b"No support for found Path indicated")
    _read_contacts(msg, register, params, spread)
    if register.contacts:
        _check_outbound(register, params)
        for contact, lifetime in zip(register.contacts, register.lifetimes, strict=True):
            if lifetime:
                _check_live(contact, register, (to_uri, ruri), location)
    return register


def _bad_extension(names: bytes, why: bytes) -> Refused:
    return Refused(420, b"Bad Extension", why, ((UNSUPPORTED, names),))


def _check_required(required: AbstractSet[bytes], params: RegistrarParams) -> None:
    """RFC 3261 §8.2.2.3."""
    known = {b"path"}
    if params.outbound_mode:
        known.add(b"outbound")
    if params.gruu_enabled:
        known.add(b"gruu")
    unknown = set(required) - known
    if unknown == {b"outbound"}:
        raise _bad_extension(b"outbound", b"No support for Outbound on server")
    if unknown:
        raise _bad_extension(b", ".join(sorted(unknown)), b"Extension not supported")


def _check_body(msg: SipMessage) -> None:
    """RFC 3261 §8.2.3: a body that we had to understand; we understand none."""
    if not msg.body:
        return
    disposition = msg.first(b"content-disposition") or b""
    handling = parse_params(disposition.partition(b";")[2]).get(b"handling") or b"required"
    if handling.lower() != b"optional":
        raise Refused(
            415, b"Unsupported Media Type", b"A REGISTER with a body", ((b"accept", b""),)
        )


def _read_path(msg: SipMessage, location: Location) -> PathVector:
    path = PathVector()
    if PATH not in msg.ids:
        return path
    path.values = msg.values(PATH)
    try:
        uris = [parse_uri(parse_nameaddr(value).uri) for value in path.values]
    except ParseError:
        raise Refused(400, b"Bad Request", b"Path parse error") from None
    if not uris:
        return path
    if any(uri.scheme not in _SIP for uri in uris):
        raise Refused(400, b"Bad Request", b"Path parse error")
    path.ob = b"ob" in uris[-1].params
    path.sips = all(uri.scheme == b"sips" for uri in uris)
    top, ob = uris[0], location.ob
    if ob is not None and top.user and location.core.is_myself(top):
        # edge and registrar in one process: no detour over our own address
        verdict, flow = ob.decode_flow_token(top.user)
        if verdict is GONE:
            raise Refused(430, b"Flow Failed", b"Path names a flow that is gone")
        if verdict is not VALID or flow is None:
            raise Refused(403, b"Forbidden", b"Path with a flow token that is not valid")
        path.flow = flow_ref(flow)
    return path


def _read_contacts(
    msg: SipMessage, register: Register, params: RegistrarParams, spread: bool
) -> None:
    """RFC 3261 §10.3 items 6 and 7: the Contacts, and for how long each may stay."""
    values = msg.values(CONTACT) if CONTACT in msg.ids else []
    expires = msg.first(EXPIRES)
    if b"*" in values:
        if len(values) > 1:
            raise Refused(400, b"Bad Request", b"* used in contact and more than 1 contact")
        if expires is None or not expires.isdigit() or int(expires[:20]) != 0:
            raise Refused(400, b"Bad Request", b"* used in contact and expires is not zero")
        register.star = True
        return
    if len(values) > _MAX_VALUES:
        raise Refused(400, b"Bad Request", b"Too many contacts in one request")
    header = None if expires is None else expires_of(expires)
    for value in values:
        contact = Contact(value)
        asked = contact.expires if contact.expires is not None else header
        register.contacts.append(contact)
        register.lifetimes.append(granted(asked, params, spread))


def granted(asked: int | None, params: RegistrarParams, spread: bool) -> int:
    """Seconds for one Contact, 0 to remove it; raises ``Refused`` (423).

    ``asked``: None if the UA did not say.  ``spread``: lower it at random, see ``expires_range``.
    """
    if asked == 0:
        return 0
    seconds = params.default_expires if asked is None else asked
    least = params.min_expires
    if seconds < least and asked is not None and params.min_expires_mode and seconds < _HOUR:
        raise Refused(
            423, b"Interval Too Brief", b"Expires is too short", ((MIN_EXPIRES, b"%d" % least),)
        )
    percent = params.default_expires_range if asked is None else params.expires_range
    if percent and spread:
        # phones that registered together shall not refresh together
        seconds -= seconds * random.randint(0, percent) // 100
        seconds = max(seconds, least, 1)
    if seconds < least and not params.min_expires_mode:
        seconds = least
    return min(seconds, params.max_expires) if params.max_expires else seconds


def _check_outbound(register: Register, params: RegistrarParams) -> None:
    """RFC 5626 §6: does outbound apply, and may the request go on?"""
    if not params.outbound_mode:
        return
    contacts = register.contacts
    with_reg_id = any(contact.reg_id is not None for contact in contacts)
    capable = register.first_hop or register.path.ob or params.regid_mode == 1
    if not capable and with_reg_id and register.lists_outbound:
        raise Refused(
            439, b"First Hop Lacks Outbound Support", b"No support for Outbound on edge proxy"
        )
    register.outbound = capable
    live = [c for c, lifetime in zip(contacts, register.lifetimes, strict=True) if lifetime]
    if params.outbound_mode == 2 and live and not register.lists_outbound:
        raise Refused(
            421, b"Extension Required", b"No support for Outbound indicated",
            ((REQUIRE, b"outbound"), (SUPPORTED, b"outbound")),
        )  # fmt: skip
    if not with_reg_id:
        return
    if any(contact.reg_id == 0 for contact in contacts):
        raise Refused(400, b"Bad Request", b"Invalid Reg-Id number")
    if len(live) > 1 and any(contact.reg_id for contact in live):
        raise Refused(400, b"Bad Request", b"reg-id and more than 1 contact")


def _check_live(
    contact: Contact, register: Register, uris: tuple[Uri, Uri], location: Location
) -> None:
    """A Contact that shall be stored must be one that can be called.  ``uris``: To, Request-URI."""
    to_uri, ruri = uris
    uri = contact.uri
    if len(uri.raw) > location.params.contact_max_size:
        raise Refused(400, b"Bad Request", b"Contact is too long")
    if uri.scheme not in _SIP:
        raise Refused(403, b"Forbidden", b"Contact is not a SIP URI")
    if uri.scheme == b"sips" and not (ruri.scheme == b"sips" and register.path.sips):
        # RFC 5630 §5.2: security of the last hop is worth nothing without that of the others
        raise Refused(400, b"Bad Request", b"sips Contact, but Request-URI or Path is not sips")
    at_home = (uri.port is None and uri.host == to_uri.host) or location.core.is_myself(uri)
    if at_home and uri.user and location.rules.key(uri) == register.aor:
        # RFC 5627 §5.1; it would loop, whatever its parameters
        raise Refused(403, b"Forbidden", b"Contact is the address-of-record itself")
    if location.gruus is not None and b"gr" in uri.params and uri.host == to_uri.host:
        named = location.named(uri)
        if named is not None and named.aor == register.aor:
            raise Refused(403, b"Forbidden", b"Contact is a GRUU of the address-of-record")


def check_order(binding: Binding, call_id: bytes, cseq: int) -> None:
    """RFC 3261 §10.3 item 7: an older request of the same UA changes nothing (ruling A9).

    Raises ``Refused`` (400, 482).  A retransmission never comes here: the core has kept the answer.
    """
    if binding.call_id != call_id or cseq > binding.cseq:
        return
    if cseq == binding.cseq:
        # RFC 3261 §8.2.2.2: the same request once more, on another way through the network
        raise Refused(482, b"Loop Detected", b"Merged request")
    raise Refused(400, b"Bad Request", b"Invalid CSeq number")


def sits_on_flow(uri: Uri, msg: SipMessage) -> bool:
    """Whether a plain Contact of a directly connected UA is to be called over that connection.

    Outbound says so by reg-id.  Without it the Contact may name somebody else (a third party
    registers it), or be a port that the UA listens on.  So: what names the source address is called
    where it says, but over the open connection if the transport is that one; what names another
    address is behind a NAT, and on the flow, if the UA calls itself so in Via, too, or if that
    address cannot be reached from anywhere.
    """
    flow = msg.flow
    transport = (uri.params.get(b"transport") or b"udp").lower()
    if uri.host_str == flow.remote[0]:
        if flow.transport == UDP:
            return transport == b"udp" and (uri.port or 5060) == flow.remote[1]
        name = "ws" if flow.transport == WSS else TRANSPORT_NAME[flow.transport]
        return transport == name.encode() or uri.scheme == b"sips"
    return uri.host == msg.via().host or _unreachable(uri.host_str)


def listens_elsewhere(uri: Uri, flow: Flow) -> bool:
    """Whether a Contact names another port of the address that its connection came from."""
    return uri.host_str == flow.remote[0] and (uri.port or 5060) != flow.remote[1]


def _unreachable(host: str) -> bool:
    if host.endswith(".invalid"):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
