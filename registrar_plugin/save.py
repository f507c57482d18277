"""Stop 6, registrar: ``save``: carry out a REGISTER and answer it (RFC 3261 §10.3, RFC 5626 §6).

Strategy: ``read_register`` has judged the request; here each Contact finds the binding that it
refreshes or removes, the whole change is worked out, and one ``replace`` makes it visible, or
nothing does.  Whatever happens, the request gets exactly one answer.  It is a coroutine, which
waits for a shared table only; if another node was quicker there, the change is worked out anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from registrar_plugin.answer import ok_headers
from registrar_plugin.bindings import Binding, flow_ref
from registrar_plugin.events import same_key
from registrar_plugin.gruu import next_epoch
from registrar_plugin.refresh import same_again
from registrar_plugin.register import (
    Refused,
    Register,
    check_order,
    read_register,
    sits_on_flow,
)
from registrar_plugin.store import Conflict, StoreAway, StoreError
from registrar_plugin.store.shared import ATTEMPTS
from sipedge.errors import ParseError
from sipedge.module import FAIL, OK, RC, Rc
from sipedge.sip.names import ALLOW, RETRY_AFTER
from sipedge.sip.uri import parse_uri, uri_equal
from sipedge.sip.values import split_list, unquote

if TYPE_CHECKING:
    from registrar_plugin.bindings import FlowRef
    from registrar_plugin.contact import Contact
    from registrar_plugin.location import Location
    from registrar_plugin.store import AsyncLocationStore, LocationStore
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

#: ``msg.recall(PREPARED)``: the answer that ``reg_send_reply`` shall send, and the table if that
#: must be stored before
PREPARED: Final = "registrar.reply"
NOT_STORED: Final = Refused(500, b"Server Internal Error", b"Location")
AWAY: Final = Refused(503, b"Service Unavailable", b"Location")

Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]
#: a change: AOR, what went, what came
Swap = tuple[bytes, Sequence[Binding], Sequence[Binding]]
#: the code of ``save``, the header rows of the 200, and the change if there was one
Done = tuple[Rc, list[tuple[bytes, bytes]], Swap | None]


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

    async def save(self, msg: SipMessage, domain: str, flags: int) -> Rc:
        """Carry out and answer a REGISTER; the codes are those of ``RegistrarPlugin.save``."""
        if not 0 <= flags <= ALL_FLAGS:
            raise ValueError(f"save: flags {flags} is not within 0..{ALL_FLAGS}")
        if msg.method != b"REGISTER":
            log.warning("save: %s is no REGISTER", msg)
            return FAIL
        waiting = self._location.waiting(domain)
        table = waiting.embedded
        try:
            done = None if flags or table is None else self._refresh(msg, table)
            if done is None:
                register = read_register(msg, self._location, not flags & NO_RANGE)
                done = await self._carry_out(msg, register, waiting, flags)
        except ParseError as exc:
            refused = Refused(exc.status, exc.reason, exc.why.encode("ascii", "replace"))
            return self._refuse(msg, refused, flags)
        except Refused as exc:
            return self._refuse(msg, exc, flags)
        except StoreAway:
            return self._refuse(msg, AWAY, flags)  # the outage is logged, once
        except StoreError as exc:
            log.error("save: the location table %s failed: %s", domain, exc)
            return self._refuse(msg, NOT_STORED, flags)
        code, headers, swap = done
        answer = (200, b"OK", headers)
        if swap is not None and table is not None and (flags or table.write_through):
            if flags & MEMORY_ONLY:
                table.keep_in_memory(swap[2])
            if table.write_through and self._waits(msg, table, swap, answer, flags):
                return code
        self._accept(msg, swap, answer, flags)
        return code

    def send_prepared(self, msg: SipMessage) -> Rc:
        """Send the answer that ``save`` was told to keep back; -1 if there is none."""
        prepared: tuple[Answer, LocationStore | None] | None = msg.recall(PREPARED)
        if prepared is None:
            return FAIL
        core = self._location.core
        answer, table = prepared

        def settled(stored: bool) -> None:
            core.reply(msg, *(answer if stored else self._refusal(NOT_STORED)))

        if table is not None and not msg.answered and table.when_stored(settled):
            core.reply_later(msg)
            return OK
        return OK if core.reply(msg, *answer) else FAIL

    def _waits(
        self, msg: SipMessage, table: LocationStore, swap: Swap, answer: Answer, flags: int
    ) -> bool:
        """Have the answer sent when the change is stored; False if it is as safe as it gets."""
        core = self._location.core

        def settled(stored: bool) -> None:
            if stored:
                self._accept(msg, swap, answer, flags)
            else:
                take_back(table, swap, core.now)
                self._refuse(msg, NOT_STORED, flags)

        if not table.when_stored(settled):
            return False
        if not flags & NO_REPLY:
            core.reply_later(msg)
        elif flags & PREPARE_REPLY:
            msg.remember(PREPARED, (answer, table))
        return True

    def _accept(self, msg: SipMessage, swap: Swap | None, answer: Answer, flags: int) -> None:
        self._stats["accepted_regs"] += 1
        if swap is not None:
            self._location.events.changed(*swap)
        self._answer(msg, answer, flags)

    def _refuse(self, msg: SipMessage, refused: Refused, flags: int) -> Rc:
        self._stats["rejected_regs"] += 1
        if refused.status == 439:
            self._stats["regs_without_outbound_edge"] += 1
        log.info("REGISTER refused: %s %s from %s", refused, refused.why.decode(), msg.flow.name)
        self._answer(msg, self._refusal(refused), flags)
        return RC[refused.code]

    def _refusal(self, refused: Refused) -> Answer:
        headers = list(refused.headers)
        if refused.status >= 500 and self._location.retry_after:
            headers.append((RETRY_AFTER, b"%d" % self._location.retry_after))
        headers.append((b"P-Registrar-Error", refused.why))
        return refused.status, refused.reason, headers

    def _answer(self, msg: SipMessage, answer: Answer, flags: int) -> None:
        if not flags & NO_REPLY:
            self._location.core.reply(msg, *answer)
        elif flags & PREPARE_REPLY:
            msg.remember(PREPARED, (answer, None))

    # -- the change

    def _refresh(self, msg: SipMessage, table: LocationStore) -> Done | None:
        """The fast path; None if it is not the usual refresh."""
        params = self._location.params
        if not params.use_path or params.method_filtering:
            return None
        found = same_again(msg, self._location, table)
        if found is None:
            return None
        aor, old, new, offer = found
        swap = (aor, (old,), (new,))
        rows = table.replace(*swap, msg.now)
        headers = ok_headers(self._location, rows, msg.now, new.paths, True, True, offer)
        return UPDATED, headers, swap

    async def _carry_out(
        self, msg: SipMessage, register: Register, table: AsyncLocationStore, flags: int
    ) -> Done:
        attempt = 1
        while True:
            try:
                return await self._attempt(msg, register, table, flags)
            except Conflict:
                self._stats["db_conflicts"] += 1
                if attempt == ATTEMPTS:
                    raise
                attempt += 1

    async def _attempt(
        self, msg: SipMessage, register: Register, table: AsyncLocationStore, flags: int
    ) -> Done:
        rows = await table.fetch(register.aor, msg.now)
        if table.embedded is None:
            msg.now = self._location.core.now  # it took its time
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
        swap: Swap | None = None
        if change.gone or change.new:
            swap = (register.aor, change.gone, change.new)
            rows = await table.replace(*swap, msg.now)
            if table.embedded is None:
                swap = await self._shared(msg, swap, rows)
        headers = ok_headers(
            self._location, rows, msg.now, register.path.values, register.lists_path,
            register.requires_outbound, register.offer,
        )  # fmt: skip
        return change.code, headers, swap

    async def _shared(self, msg: SipMessage, swap: Swap, rows: tuple[Binding, ...]) -> Swap:
        """A change that was made on a server, with the new bindings as they are there."""
        aor, gone, new = swap
        location = self._location
        msg.now = location.core.now
        for binding in new:
            flow = binding.flow
            if flow is not None and not isinstance(flow, tuple) and not flow.alive:
                # it closed while the server wrote: nobody else would remove what is there now
                await location.lost(flow)
                raise Refused(430, b"Flow Failed", b"The connection is gone")
        return aor, gone, [row for row in rows if any(same_key(row, b) for b in new)]

    def _plan(self, msg: SipMessage, register: Register, change: Change, flags: int) -> None:
        epochs: dict[bytes, int] = {}
        for contact, lifetime in zip(register.contacts, register.lifetimes, strict=True):
            reg_id = register.reg_id(contact)
            old = find_binding(change.rows, contact, reg_id)
            if lifetime and contact.instance not in epochs:
                epochs[contact.instance] = next_epoch(
                    change.rows, contact, reg_id, register.call_id, register.offer is not None
                )
            if old is not None:
                if old not in change.new:
                    check_order(old, register.call_id, register.cseq)
                change.take(old)
            if not lifetime:
                change.code = DELETED if old is not None else OK
                continue
            epoch = epochs[contact.instance]
            change.add(self._binding(msg, register, contact, lifetime, old, epoch))
            change.inserted += old is None
            change.code = INSERTED if old is None else UPDATED
        if flags & ONLY_THIS:
            for other in [binding for binding in change.rows if binding not in change.new]:
                change.take(other)
        if any(epochs.values()):
            for other in list(change.rows):
                epoch = epochs.get(other.instance, other.epoch)
                if epoch != other.epoch:
                    change.take(other)
                    change.add(other.with_epoch(epoch))
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
        epoch: int,
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
            epoch,
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


def take_back(table: LocationStore, swap: Swap, now: float) -> None:
    """Undo a change that could not be stored, as far as time and connections allow."""
    aor, gone, new = swap
    there = table.fetch(aor, now)
    back = [
        binding
        for binding in gone
        if binding.flow is None or isinstance(binding.flow, tuple) or binding.flow.alive
    ]
    table.replace(aor, [binding for binding in new if binding in there], back, now)
