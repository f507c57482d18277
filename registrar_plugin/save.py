"""Stop 6, registrar: ``save``: carry out a REGISTER and answer it (RFC 3261 §10.3, RFC 5626 §6).

Strategy: ``read_register`` has judged the request; here each Contact finds the binding that it
refreshes or removes, the whole change is worked out, and one ``replace`` makes it visible, or
nothing does. Whatever happens, the request gets exactly one answer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from registrar_plugin.bindings import Binding, flow_of, flow_ref
from registrar_plugin.refresh import same_again
from registrar_plugin.register import (
    Refused,
    Register,
    check_order,
    read_register,
    sits_on_flow,
)
from registrar_plugin.store import StoreError
from sipedge.errors import ParseError
from sipedge.flow import UDP, URI_TRANSPORT, host_bytes
from sipedge.module import FAIL, OK, RC, Rc
from sipedge.sip.names import (
    ALLOW,
    CONTACT,
    FLOW_TIMER,
    PATH,
    REQUIRE,
    RETRY_AFTER,
    SUPPORTED,
)
from sipedge.sip.uri import parse_uri, uri_equal
from sipedge.sip.values import split_list, unquote

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef
    from registrar_plugin.contact import Contact
    from registrar_plugin.location import Location
    from registrar_plugin.store import LocationStore
    from sipedge.sip.message import SipMessage

log = logging.getLogger("sipedge.registrar")

INSERTED: Final = OK
UPDATED: Final = RC[2]
DELETED: Final = RC[3]
LISTED: Final = RC[4]

# flags of save, as in Kamailio
MEMORY_ONLY: Final = 0x01
NO_REPLY: Final = 0x02
ONLY_THIS: Final = 0x04
NO_RANGE: Final = 0x08
PREPARE_REPLY: Final = 0x10
ALL_FLAGS: Final = 0x1F

#: ``msg.recall(PREPARED)``: the answer that ``reg_send_reply`` shall send
PREPARED: Final = "registrar.reply"

Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]
#: the code of ``save`` and the header rows of the 200
Done = tuple[Rc, list[tuple[bytes, bytes]]]


class Change:
    """What a REGISTER does to the bindings of its AOR."""

    __slots__ = ("code", "gone", "inserted", "new", "rows")

    def __init__(self, rows: tuple[Binding, ...]) -> None:
        #: what will be there afterwards
        self.rows = list(rows)
        self.gone: list[Binding] = []
        self.new: list[Binding] = []
        #: how many of ``new`` refresh nothing
        self.inserted = 0
        self.code: Rc = OK

    def take(self, binding: Binding) -> None:
        """Remove one that is there now, or that this request itself has just added."""
        self.rows.remove(binding)
        if binding in self.new:
            self.new.remove(binding)
        else:
            self.gone.append(binding)

    def add(self, binding: Binding) -> None:
        self.rows.append(binding)
        self.new.append(binding)


class Save:
    """``save`` and ``reg_send_reply`` for one registrar."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._stats = location.core.stats

    def save(self, msg: SipMessage, domain: str, flags: int) -> Rc:
        """Carry out and answer a REGISTER; the codes are those of ``RegistrarPlugin.save``."""
        if not 0 <= flags <= ALL_FLAGS:
            raise ValueError(f"save: flags {flags} is not within 0..{ALL_FLAGS}")
        if msg.method != b"REGISTER":
            log.warning("save: %s is no REGISTER", msg)
            return FAIL
        table = self._location.table(domain)
        try:
            done = None if flags else self._refresh(msg, table)
            if done is None:
                register = read_register(msg, self._location, not flags & NO_RANGE)
                done = self._carry_out(msg, register, table, flags)
        except ParseError as exc:
            refused = Refused(exc.status, exc.reason, exc.why.encode("ascii", "replace"))
            return self._refuse(msg, refused, flags)
        except Refused as exc:
            return self._refuse(msg, exc, flags)
        except StoreError as exc:
            log.error("save: the location table %s failed: %s", domain, exc)
            return self._refuse(msg, Refused(500, b"Server Internal Error", b"Location"), flags)
        self._stats["accepted_regs"] += 1
        self._answer(msg, (200, b"OK", done[1]), flags)
        return done[0]

    def send_prepared(self, msg: SipMessage) -> Rc:
        """Send the answer that ``save`` was told to keep back; -1 if there is none."""
        prepared: Answer | None = msg.recall(PREPARED)
        if prepared is None:
            return FAIL
        return OK if self._location.core.reply(msg, *prepared) else FAIL

    def _refuse(self, msg: SipMessage, refused: Refused, flags: int) -> Rc:
        self._stats["rejected_regs"] += 1
        log.info("REGISTER refused: %s %s from %s", refused, refused.why.decode(), msg.flow.name)
        headers = list(refused.headers)
        if refused.status >= 500 and self._location.params.retry_after:
            headers.append((RETRY_AFTER, b"%d" % self._location.params.retry_after))
        headers.append((b"P-Registrar-Error", refused.why))
        self._answer(msg, (refused.status, refused.reason, headers), flags)
        return RC[refused.code]

    def _answer(self, msg: SipMessage, answer: Answer, flags: int) -> None:
        if not flags & NO_REPLY:
            self._location.core.reply(msg, *answer)
        elif flags & PREPARE_REPLY:
            msg.remember(PREPARED, answer)

    # -- the change

    def _refresh(self, msg: SipMessage, table: LocationStore) -> Done | None:
        """The fast path; None if it is not the usual refresh."""
        params = self._location.params
        if not params.use_path or params.method_filtering:
            return None
        found = same_again(msg, self._location, table)
        if found is None:
            return None
        aor, old, new = found
        rows = table.replace(aor, (old,), (new,), msg.now)
        return UPDATED, self._headers(rows, msg.now, new.paths, True, True)

    def _carry_out(
        self, msg: SipMessage, register: Register, table: LocationStore, flags: int
    ) -> Done:
        now = msg.now
        rows = table.fetch(register.aor, now)
        change = Change(rows)
        if register.star:
            change.code = DELETED
            for binding in rows:
                check_order(binding, register.call_id, register.cseq)
                change.take(binding)
        elif register.contacts:
            self._plan(msg, register, change, flags)
        else:
            change.code = LISTED
        if change.gone or change.new:
            rows = table.replace(register.aor, change.gone, change.new, now)
        return change.code, self._headers(
            rows, now, register.path.values, register.lists_path, register.requires_outbound
        )

    def _plan(self, msg: SipMessage, register: Register, change: Change, flags: int) -> None:
        for contact, lifetime in zip(register.contacts, register.lifetimes, strict=True):
            reg_id = register.reg_id(contact)
            old = find_binding(change.rows, contact, reg_id)
            if old is not None:
                if old not in change.new:
                    check_order(old, register.call_id, register.cseq)
                change.take(old)
            if not lifetime:
                change.code = DELETED if old is not None else OK
                continue
            change.add(self._binding(msg, register, contact, lifetime, old))
            change.inserted += old is None
            change.code = INSERTED if old is None else UPDATED
        if flags & ONLY_THIS:
            for other in [binding for binding in change.rows if binding not in change.new]:
                change.take(other)
        most = self._location.params.max_contacts
        # a refresh is never one more, even if the limit was lowered meanwhile
        if most and change.inserted and len(change.rows) > most:
            raise Refused(503, b"Service Unavailable", b"Too many registered contacts", code=-2)

    def _binding(
        self,
        msg: SipMessage,
        register: Register,
        contact: Contact,
        lifetime: int,
        old: Binding | None,
    ) -> Binding:
        location = self._location
        kept, call_id = contact.kept, register.call_id
        path = b", ".join(register.path.values) if location.params.use_path else b""
        if old is not None:
            # what stayed equal is shared: the new copies are let go with the message
            kept = old.contact if old.contact == kept else kept
            path = old.path if old.path == path else path
            call_id = old.call_id if old.call_id == call_id else call_id
        return Binding(
            kept,
            register.reg_id(contact),
            contact.q if contact.q >= 0 else location.params.default_q,
            path,
            _flow(msg, register, contact),
            call_id,
            register.cseq,
            location.stamp(msg.now),
            lifetime,
            self._methods(msg, contact) if location.params.method_filtering else None,
        )

    def _methods(self, msg: SipMessage, contact: Contact) -> frozenset[bytes] | None:
        """RFC 3840 ``methods`` of the Contact, else Allow, else any."""
        if contact.methods is not None:
            methods = frozenset(split_list(unquote(contact.methods)))
        elif ALLOW in msg.ids:
            methods = frozenset(msg.values(ALLOW))
        else:
            return None
        return self._location.shared_methods(methods)

    # -- the answer

    def _headers(
        self,
        rows: tuple[Binding, ...],
        now: float,
        path: list[bytes],
        lists_path: bool,
        requires_outbound: bool,
    ) -> list[tuple[bytes, bytes]]:
        """The header rows of a 200 (RFC 3261 §10.3 item 8, RFC 3327 §5.3, RFC 5626 §6)."""
        params = self._location.params
        headers = [(CONTACT, self._contact_row(binding, now)) for binding in rows]
        mode = params.path_mode
        if params.use_path and (mode == 3 or (mode and lists_path)):
            headers += [(PATH, value) for value in path]
        if not params.outbound_mode:
            headers.append((SUPPORTED, b"path"))
            return headers
        headers.append((SUPPORTED, b"path, outbound"))
        if requires_outbound:
            headers.append((REQUIRE, b"outbound"))
            if params.flow_timer:
                headers.append((FLOW_TIMER, b"%d" % params.flow_timer))
        return headers

    def _contact_row(self, binding: Binding, now: float) -> bytes:
        row = b"%s;expires=%d" % (binding.contact, binding.remaining(now))
        name = self._location.params.received_param
        if not name or binding.flow is None:
            return row
        flow = flow_of(binding.flow, self._location.core.flows)
        host, port = flow.remote
        transport = b";transport=" + URI_TRANSPORT[flow.transport] if flow.transport != UDP else b""
        return b'%s;%s="sip:%s:%d%s"' % (row, name.encode(), host_bytes(host), port, transport)


def find_binding(rows: list[Binding], contact: Contact, reg_id: int) -> Binding | None:
    """The binding that a Contact refreshes or removes.

    With outbound the key is instance and reg-id (RFC 5626 §6), and the URI does not count;
    without it the URIs are compared (RFC 3261 §10.3), among the bindings without outbound.
    """
    for binding in rows:
        if binding.reg_id != reg_id:
            continue
        if binding.contact == contact.kept:
            return binding
        if reg_id:
            if binding.instance == contact.instance:
                return binding
        elif uri_equal(parse_uri(binding.uri), contact.uri):
            return binding
    return None


def _flow(msg: SipMessage, register: Register, contact: Contact) -> FlowRef | None:
    """The flow that a binding is called over, None if its Path or its URI says where."""
    path = register.path
    if path.values:
        return path.flow
    if not register.first_hop:
        return None
    if not register.reg_id(contact) and not sits_on_flow(contact.uri, msg):
        return None
    if not msg.flow.alive:
        # an async route took its time: a binding on a dead flow would never be removed
        raise Refused(430, b"Flow Failed", b"The connection is gone")
    return flow_ref(msg.flow)
