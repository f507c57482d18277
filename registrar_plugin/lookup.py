"""Stop 6, registrar: ``lookup``: from an address-of-record to targets (RFC 5626 §7, RFC 3327 §5.4).

Strategy: coroutines over ``AsyncLocationStore``; with an embedded store they never wait.  One
``Target`` per binding, best first; ``tm`` forks over instances and tries the flows of one instance
one after the other.  A target knows how to report that it failed: then the dead
binding goes, but only if it is still reached the way that failed (the UA may have registered
anew).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from registrar_plugin.bindings import Binding, flow_of
from registrar_plugin.events import same_key
from registrar_plugin.late import Call, LateBranches
from registrar_plugin.store import AsyncLocationStore, Conflict, StoreError
from registrar_plugin.store.records import can_be_called
from registrar_plugin.store.shared import ATTEMPTS
from sipedge.errors import ParseError, SipError
from sipedge.forward import Ask, Target, is_sips
from sipedge.module import FAIL, OK, RC, Rc
from sipedge.modules.args import as_bytes
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTACT, FROM, ROUTE
from sipedge.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from registrar_plugin.gruu import Named
    from registrar_plugin.location import Location
    from sipedge.sip.message import SipMessage

log = logging.getLogger("sipedge.registrar")

NOT_FOUND: Final = FAIL
METHOD_REFUSED: Final = RC[-2]
ERROR: Final = RC[-3]
DELETE_FAILED: Final = RC[-2]
NO_SUCH_RUID: Final = RC[-3]
OF_ANOTHER: Final = RC[-2]
NOT_VALID: Final = RC[-3]
STORE_FAILED: Final = RC[-4]

_METHOD_PARAM: Final = re.compile(rb";method(?:=[^;]*)?(?=;|$)", re.IGNORECASE)


class Lookup:
    """``lookup``, ``registered`` and ``unregister`` for one registrar."""

    def __init__(self, location: Location) -> None:
        self._location = location
        #: None: who registers late does not ring
        self.late = LateBranches(location, self) if location.params.append_late_branches else None

    async def lookup(self, msg: SipMessage, domain: str, uri: bytes | str | None) -> Rc:
        """Set ``msg.targets``; the codes are those of ``RegistrarPlugin.lookup``."""
        raw = msg.ruri if uri is None else as_bytes(uri)
        table = self._location.waiting(domain)
        asked_at = self._location.core.now
        try:
            parsed = parse_uri(raw)
            named, found = await self._find(table, parsed, msg.now)
        except ParseError as exc:
            log.info("lookup of %r: %s", raw, exc)
            return ERROR
        except StoreError as exc:
            log.info("lookup of %r: %s", raw, exc)
            return STORE_FAILED
        sips = parsed.scheme == b"sips"
        able = [row for row in found if self.reaches(row, sips)]
        if not able:
            if sips and any(self.reaches(row, False) for row in found):
                raise not_by_sips(msg)
            return NOT_FOUND
        rows = tuple(row for row in able if self.takes(row, msg))
        if not rows:
            return METHOD_REFUSED
        params = self._location.params
        # RFC 5627 §6.1: of one instance the most recently refreshed one, whatever its q
        one_ua = bool(named.instance)
        routed = one_ua and bool(msg.to_tag) and ROUTE in msg.ids
        if len(rows) > 1:
            rows = tuple(sorted(rows, key=_age if one_ua else _preference))
            if routed or not params.append_branches:
                rows = rows[:1]
        targets = [self.target(table, named.aor, row, sips) for row in rows]
        for target in targets:
            if one_ua:
                target.q = 1.0
            if routed:
                # RFC 5627 §6.1: the route set leads to the UA; with Path it would spiral (A7)
                target.path, target.flow, target.on_failed = [], None, None
        msg.targets = targets
        if self.late is not None and params.append_branches:
            self.late.watch(Call(table, named, msg, sips), found, asked_at)
        return OK

    @staticmethod
    def reaches(row: Binding, sips: bool) -> bool:
        """Whether a binding leads to its UA from here; ``sips``: the request is for sips, and so
        must be the Contact (RFC 5630 §5.3)."""
        return can_be_called(row) and (not sips or row.contact[:6].lower() == b"<sips:")

    def takes(self, row: Binding, msg: SipMessage) -> bool:
        """Whether a binding takes the method of a request (``method_filtering``)."""
        if not self._location.params.method_filtering or msg.to_tag:
            return True
        return row.methods is None or msg.method in row.methods

    async def _find(
        self, table: AsyncLocationStore, uri: Uri, now: float
    ) -> tuple[Named, tuple[Binding, ...]]:
        """What a URI names, and its bindings.

        Raises ``ParseError`` (404) for no address-of-record, and for what is no valid GRUU.
        """
        named = self._location.named(uri)
        if named is None:
            raise ParseError("not a GRUU of ours", 404, b"Not Found")
        rows = named.select(await table.fetch(named.aor, now))
        if not rows and not named.lasts:
            raise ParseError("not a valid GRUU", 404, b"Not Found")  # RFC 5627 §6.1
        return named, rows

    def own_gruu(self, msg: SipMessage) -> Rc:
        """The codes are those of ``RegistrarPlugin.own_gruu``."""
        uri = self._gruu(msg.ruri)
        if uri is None:
            return FAIL
        return OK if uri.params[b"gr"] else RC[2]

    async def contact_gruu(self, msg: SipMessage, domain: str, user: bytes | str | None) -> Rc:
        """The codes are those of ``RegistrarPlugin.contact_gruu``."""
        try:
            (contact,) = msg.values(CONTACT)
            uri = self._gruu(parse_nameaddr(contact).uri)
        except (ValueError, ParseError):  # none, several, or no address
            return FAIL
        if uri is None:
            return FAIL
        try:
            named, _ = await self._find(self._location.waiting(domain), uri, msg.now)
            raw = parse_nameaddr(msg.first(FROM) or b"").uri if user is None else as_bytes(user)
            return OK if self._location.rules.key_of(raw) == named.aor else OF_ANOTHER
        except ParseError:
            return NOT_VALID
        except StoreError:
            return STORE_FAILED

    def _gruu(self, raw: bytes) -> Uri | None:
        """The URI if it is a GRUU in a domain of ours, valid or not."""
        if self._location.gruus is None or b";gr" not in raw.lower():
            return None
        uri = parse_uri(raw)
        return uri if b"gr" in uri.params and self._location.core.names.is_ours(uri) else None

    async def registered(self, msg: SipMessage, domain: str, uri: bytes | str | None) -> Rc:
        """1 if the AOR has a binding, -4 if the table failed, else -1."""
        try:
            parsed = parse_uri(msg.ruri if uri is None else as_bytes(uri))
            _, rows = await self._find(self._location.waiting(domain), parsed, msg.now)
            return OK if rows else FAIL
        except ParseError:
            return FAIL
        except StoreError:
            return STORE_FAILED

    async def unregister(
        self, msg: SipMessage, domain: str, uri: bytes | str, ruid: str | None
    ) -> Rc:
        """Remove one binding, or all; the codes are those of ``RegistrarPlugin.unregister``."""
        table = self._location.waiting(domain)
        try:
            named, rows = await self._find(table, parse_uri(as_bytes(uri)), msg.now)
            gone = [row for row in rows if ruid is None or row.ruid == ruid]
            if gone:
                await table.replace(named.aor, gone, (), msg.now)
                self._location.events.changed(named.aor, gone, ())
        except ParseError:
            return FAIL
        except StoreError as exc:
            log.error("unregister: the location table %s failed: %s", domain, exc)
            return DELETE_FAILED
        return OK if gone or ruid is None else NO_SUCH_RUID

    def target(self, table: AsyncLocationStore, aor: bytes, binding: Binding, sips: bool) -> Target:
        """Where a binding leads: over its flow, along its Path, or to its URI.

        ``sips``: the request is for sips.  One for sip stays that, but goes to a sips Contact by
        TLS all the same (RFC 5630 §5.3).
        """
        uri, by_tls = request_uri(binding.uri), None
        paths = binding.paths
        flow = None
        if binding.flow is not None:
            flow = flow_of(binding.flow, self._location.core.flows)
            paths = paths[1:]  # the topmost value of a Path that became a flow was our own
        if is_sips(uri) and not sips:
            by_tls = None if paths or flow is not None else uri
            uri = b"sip:" + uri[5:]
        return Target(
            uri,
            by_tls,
            flow,
            paths,
            1.0 if binding.q < 0 else binding.q / 1000,
            binding.instance,
            binding.reg_id,
            binding.ruid,
            partial(self._failed, table, aor, binding, sips),
        )

    def _failed(
        self,
        table: AsyncLocationStore,
        aor: bytes,
        tried: Binding,
        sips: bool,
        target: Target,
        status: int,
    ) -> list[Target] | Ask:
        """A branch ended with 430, 408 or locally: what replaces it (RFC 5626 §7 and §9.3).

        Only 430 says that the flow is dead.  Silence may be a phone that nobody picks up, and an
        edge that cannot be reached may be back in a moment.
        """
        dead = status == 430 and bool(tried.path or tried.flow is not None)
        core = self._location.core
        if table.embedded is None:
            return lambda go_on: core.spawn(self._ask(table, aor, tried, sips, dead, go_on))
        current = next(
            (row for row in table.embedded.fetch(aor, core.now) if same_key(row, tried)), None
        )
        if current is None:
            return []
        if not current.same_way(tried):
            return [self.target(table, aor, current, sips)]
        if dead:
            table.embedded.replace(aor, (current,), (), core.now)
            self._removed(aor, current)
        return []

    async def _ask(
        self,
        table: AsyncLocationStore,
        aor: bytes,
        tried: Binding,
        sips: bool,
        dead: bool,
        go_on: Callable[[list[Target]], None],
    ) -> None:
        """The same with a table that has to be waited for; ``go_on`` is called in every case."""
        more: list[Target] = []
        try:
            current = await self._current(table, aor, tried, dead)
            if current is not None and can_be_called(current):
                more = [self.target(table, aor, current, sips)]
        except StoreError as exc:
            log.warning("binding %s of %r failed and stays: %s", tried.ruid, aor, exc)
        finally:
            go_on(more)

    async def _current(
        self, table: AsyncLocationStore, aor: bytes, tried: Binding, dead: bool
    ) -> Binding | None:
        """What has replaced ``tried``; None if nothing has, then it is removed if ``dead``."""
        now = self._location.core.now
        for attempt in range(1, ATTEMPTS + 1):
            current = next(
                (row for row in await table.fetch(aor, now) if same_key(row, tried)), None
            )
            if current is None or not current.same_way(tried):
                return current
            if not dead:
                return None
            try:
                await table.replace(aor, (current,), (), now)
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
                continue  # the UA has registered anew, just now
            self._removed(aor, current)
            return None
        return None

    def _removed(self, aor: bytes, dead: Binding) -> None:
        self._location.events.flow_failed(aor, dead)
        log.info("binding %s of %r removed: its flow failed", dead.ruid, aor)


def not_by_sips(msg: SipMessage) -> SipError:
    """RFC 5630 §5.3: who registered without sips is not called by it."""
    warning = b'380 %s "SIPS Not Allowed"' % msg.flow.listener.uri_hostport
    return SipError(480, b"Temporarily Unavailable", ((b"Warning", warning),))


def request_uri(uri: bytes) -> bytes:
    """A Contact URI as Request-URI: without ``method`` and headers (RFC 3261 §19.1.5, §16.5)."""
    if b"?" not in uri and b";method" not in uri.lower():
        return uri
    at = uri.find(b"@") + 1  # a user part may hold ; and ?, too (RFC 3261 §25.1)
    rest = uri[at:].partition(b"?")[0]
    return uri[:at] + _METHOD_PARAM.sub(b"", rest)


def _preference(binding: Binding) -> tuple[int, int]:
    """By falling q, then the most recently updated first (requirement HPX-12)."""
    return (-(binding.q if binding.q >= 0 else 1000), -binding.stamp)


def _age(binding: Binding) -> int:
    return -binding.stamp
