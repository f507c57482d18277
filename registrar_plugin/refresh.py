"""Stop 6, registrar, the fast path: a REGISTER that says the same as the last one.

Strategy: nearly every REGISTER is a refresh of one outbound binding in which only Call-ID, CSeq
and Via are new.  If the texts that decide are the stored ones, they were judged when they were
stored, and nothing is taken apart again.  Whatever is different, or not of the usual shape, is
``None`` here and goes through ``read_register``; a test holds the two ways against each other.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from registrar_plugin.bindings import Binding, flow_ref
from registrar_plugin.contact import expires_of
from registrar_plugin.register import check_order, granted
from sipedge.errors import ParseError
from sipedge.sip.names import CONTACT, EXPIRES, PATH, REQUIRE, SUPPORTED, TO
from sipedge.sip.uri import parse_uri
from sipedge.sip.values import split_list

if TYPE_CHECKING:
    from registrar_plugin.gruu import Offer
    from registrar_plugin.location import Location
    from registrar_plugin.store import LocationStore
    from sipedge.sip.message import SipMessage

#: a To without escapes, port or anything else that must be looked at; its display name need not be
_USUAL_TO: Final = re.compile(
    rb"""(?:"[^"\\<]*"[ \t]*|[A-Za-z0-9\-_.!%*+`'~ \t]*)"""
    rb"<sips?:([A-Za-z0-9\-_.!~*'()+]+)@([A-Za-z0-9.\-]+)>(?:;.*)?"
)
_NEEDED: Final = frozenset((b"path", b"outbound"))


def same_again(
    msg: SipMessage, location: Location, table: LocationStore
) -> tuple[bytes, Binding, Binding, Offer | None] | None:
    """AOR, the binding that is refreshed, what replaces it, and the GRUUs for the answer.

    Raises ``Refused`` (400, 423, 482).
    """
    ids = msg.ids
    if msg.body or ids.count(CONTACT) != 1 or ids.count(PATH) > 1:
        return None
    if REQUIRE in ids or SUPPORTED not in ids:
        return None
    to = _USUAL_TO.fullmatch(msg.row_value(ids.index(TO)))
    if to is None or _host(msg.ruri) != to[2].lower():
        return None
    aor = location.rules.join(to[1], to[2].lower())
    row = msg.row_value(ids.index(CONTACT))
    contact, _, expires = row.rpartition(b";expires=")
    if not expires.isdigit():
        contact, expires = row, b""
    for old in table.fetch(aor, msg.now):
        if old.contact == contact:
            break
    else:
        return None
    path = msg.row_value(ids.index(PATH)) if PATH in ids else b""
    if not old.reg_id or path != old.path or contact[:6].lower() == b"<sips:":
        return None
    options = _options(msg.row_value(ids.index(SUPPORTED)))
    if not _NEEDED <= options:
        return None
    offer = None
    if b"gruu" in options and location.gruus is not None:
        if not old.epoch:
            return None
        offer = location.gruus.offer(to[1], to[2].lower())
    if old.epoch and old.call_id != msg.call_id:
        return None  # it revokes temporary GRUUs, and other bindings change, too
    first_hop = msg.via_count() == 1
    if not first_hop and not (path.endswith(b";ob>") and b"?" not in path):
        return None
    flow = old.flow
    if first_hop and not path:
        if not msg.flow.alive:
            return None
        flow = flow_ref(msg.flow)
    header = msg.first(EXPIRES) if not expires and EXPIRES in ids else expires
    lifetime = granted(expires_of(header) if header else None, location.params, True)
    if not lifetime:
        return None
    call_id, cseq = msg.call_id, msg.cseq()[0]
    check_order(old, call_id, cseq)
    new = Binding(
        old.contact, old.reg_id, old.q, old.path, flow,
        old.call_id if old.call_id == call_id else call_id,
        cseq, location.stamp(msg.now), lifetime, None, old.epoch,
    )  # fmt: skip
    return aor, old, new, offer


@lru_cache(maxsize=256)
def _host(ruri: bytes) -> bytes:
    """The host of a Request-URI; b"" if it has none.  There are few of them."""
    try:
        return parse_uri(ruri).host
    except ParseError:
        return b""


@lru_cache(maxsize=256)
def _options(row: bytes) -> frozenset[bytes]:
    return frozenset(option.lower() for option in split_list(row))
