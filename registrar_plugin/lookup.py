"""Stop 6, registrar: ``lookup``: from an address-of-record to targets (RFC 5626 §7, RFC 3327 §5.4).

Strategy: one ``Target`` per binding, best first; ``tm`` forks over instances and tries the flows
of one instance one after the other.  A target knows how to report that it failed: then the dead
binding goes, but only if it is still reached the way that failed (the UA may have registered
anew).
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Final

from registrar_plugin.bindings import Binding, flow_of
from registrar_plugin.store import LocationStore, StoreError
from sipedge.errors import ParseError
from sipedge.forward import Target
from sipedge.module import FAIL, OK, RC, Rc
from sipedge.sip.uri import parse_uri, uri_equal

if TYPE_CHECKING:
    from registrar_plugin.location import Location
    from sipedge.sip.message import SipMessage

log = logging.getLogger("sipedge.registrar")

NOT_FOUND: Final = FAIL
METHOD_REFUSED: Final = RC[-2]
ERROR: Final = RC[-3]
DELETE_FAILED: Final = RC[-2]
NO_SUCH_RUID: Final = RC[-3]

_METHOD_PARAM: Final = re.compile(rb";method(?:=[^;]*)?(?=;|$)", re.IGNORECASE)


class Lookup:
    """``lookup``, ``registered`` and ``unregister`` for one registrar."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def lookup(self, msg: SipMessage, domain: str, uri: bytes | str | None) -> Rc:
        """Set ``msg.targets``; the codes are those of ``RegistrarPlugin.lookup``."""
        raw = msg.ruri if uri is None else _octets(uri)
        try:
            parsed = parse_uri(raw)
            aor = self._location.rules.key(parsed)
            table = self._location.table(domain)
            rows = table.fetch(aor, msg.now)
        except (ParseError, StoreError) as exc:
            log.info("lookup of %r: %s", raw, exc)
            return ERROR
        if parsed.scheme == b"sips":
            # RFC 5630 §5.3: a sips request goes to sips Contacts only
            rows = tuple(row for row in rows if row.contact[:6].lower() == b"<sips:")
        if not rows:
            return NOT_FOUND
        params = self._location.params
        if params.method_filtering and not msg.to_tag:
            rows = tuple(row for row in rows if row.methods is None or msg.method in row.methods)
            if not rows:
                return METHOD_REFUSED
        if len(rows) > 1:
            rows = tuple(sorted(rows, key=_preference))
            if not params.append_branches:
                rows = rows[:1]
        msg.targets = [self.target(table, aor, row) for row in rows]
        return OK

    def registered(self, msg: SipMessage, domain: str, uri: bytes | str | None) -> Rc:
        """1 if the AOR has a binding, else -1."""
        try:
            aor = self._location.rules.key_of(msg.ruri if uri is None else _octets(uri))
            return OK if self._location.table(domain).fetch(aor, msg.now) else FAIL
        except (ParseError, StoreError):
            return FAIL

    def unregister(self, msg: SipMessage, domain: str, uri: bytes | str, ruid: str | None) -> Rc:
        """Remove one binding, or all; the codes are those of ``RegistrarPlugin.unregister``."""
        try:
            aor = self._location.rules.key_of(_octets(uri))
        except ParseError:
            return FAIL
        table = self._location.table(domain)
        try:
            rows = table.fetch(aor, msg.now)
            gone = [row for row in rows if ruid is None or row.ruid == ruid]
            if gone:
                table.replace(aor, gone, (), msg.now)
        except StoreError as exc:
            log.error("unregister: the location table %s failed: %s", domain, exc)
            return DELETE_FAILED
        return OK if gone or ruid is None else NO_SUCH_RUID

    def target(self, table: LocationStore, aor: bytes, binding: Binding) -> Target:
        """Where a binding leads: over its flow, along its Path, or to its URI."""
        paths = binding.paths
        flow = None
        if binding.flow is not None:
            flow = flow_of(binding.flow, self._location.core.flows)
            paths = paths[1:]  # the topmost value of a Path that became a flow was our own
        return Target(
            request_uri(binding.uri),
            None,
            flow,
            paths,
            1.0 if binding.q < 0 else binding.q / 1000,
            binding.instance,
            binding.reg_id,
            binding.ruid,
            partial(self._failed, table, aor, binding),
        )

    def _failed(
        self, table: LocationStore, aor: bytes, tried: Binding, target: Target, status: int
    ) -> list[Target]:
        """A branch ended with 430, 408 or locally: what replaces it (RFC 5626 §7 and §9.3).

        Only 430 says that the flow is dead.  Silence may be a phone that nobody picks up, and an
        edge that cannot be reached may be back in a moment.
        """
        now = self._location.core.now
        current = next((row for row in table.fetch(aor, now) if _same_key(row, tried)), None)
        if current is None:
            return []
        if not current.same_way(tried):
            return [self.target(table, aor, current)]
        if status == 430 and (tried.path or tried.flow is not None):
            table.replace(aor, (current,), (), now)
            self._location.core.stats["contacts_failed"] += 1
            log.info("binding %s of %r removed: its flow failed", tried.ruid, aor)
        return []


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


def _same_key(a: Binding, b: Binding) -> bool:
    """Whether ``a`` is what became of ``b``."""
    if a.reg_id != b.reg_id:
        return False
    if a.reg_id:
        return a.instance == b.instance
    return a.uri == b.uri or uri_equal(parse_uri(a.uri), parse_uri(b.uri))


def _octets(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
