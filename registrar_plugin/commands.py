"""Stop 6, registrar: the commands of the control socket, with the names of Kamailio's RPCs.

Strategy: a row of the table becomes a flat object of JSON with the names of Kamailio's ``location``
table, times since 1970.  The same object, given to ``ul.add``, makes the binding again: that is all
that export and import are.  Octets that are no UTF-8 survive the way there and back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from registrar_plugin.bindings import Binding, flow_of
from registrar_plugin.carry_over import Row, carry_over, octets
from registrar_plugin.save import take_back
from registrar_plugin.store import AsyncLocationStore, StoreAway, StoreError
from sipedge.errors import ParseError
from sipedge.flow import UDP, URI_TRANSPORT, host_bytes
from sipedge.module import Command, CommandError, Later

if TYPE_CHECKING:
    from registrar_plugin.location import Location

TABLE: Final = "location"


class UsrlocCommands:
    """``ul.*`` for one registrar."""

    #: set by ``mod_init``
    location: Location

    def table(self) -> tuple[Command, ...]:
        """For the export table."""
        return (
            Command("ul.add", self.add, "put in a row of ul.dump"),
            Command("ul.dump", self.dump, "all bindings: (table='location')"),
            Command("ul.flush", self.flush, "wait until all changes are stored"),
            Command("ul.lookup", self.lookup, "the bindings of one address: (table, aor)"),
            Command("ul.rm", self.rm, "remove the bindings of one address: (table, aor, ruid='')"),
            Command("ul.rm_contact", self.rm_contact, "remove one binding: (table, aor, contact)"),
        )

    async def dump(self, table: str = TABLE) -> AsyncIterator[dict[str, Any]]:
        """A row for each live binding; those of one address one after the other, oldest first."""
        core = self.location.core
        store = self._table(table)
        aor: bytes | None = None
        rows: list[Binding] = []
        try:
            async for of, binding in store.entries():
                if of != aor:
                    for row in self._rows(aor or b"", rows):
                        yield row
                    aor, rows = of, []
                if binding.expires > core.now:
                    rows.append(binding)
        except StoreError as exc:
            raise _failed(exc) from None
        for row in self._rows(aor or b"", rows):
            yield row

    async def lookup(self, table: str, aor: str) -> dict[str, Any]:
        """The bindings of one address-of-record (Kamailio: ``ul.lookup``)."""
        key, rows = await self._fetch(self._table(table), aor)
        return {"aor": text(key), "contacts": self._rows(key, rows)}

    async def rm(self, table: str, aor: str, ruid: str = "") -> Later:
        """Remove one binding, or all (Kamailio: ``ul.rm``)."""
        store = self._table(table)
        key, rows = await self._fetch(store, aor)
        gone = [row for row in rows if not ruid or row.ruid == ruid]
        if not gone:
            raise CommandError(404, f"{text(key)} has no binding {ruid}")
        return await self._remove(store, key, gone)

    async def rm_contact(self, table: str, aor: str, contact: str) -> Later:
        """Remove the bindings with that Contact URI (Kamailio: ``ul.rm_contact``)."""
        store = self._table(table)
        key, rows = await self._fetch(store, aor)
        uri = octets(contact)
        gone = [row for row in rows if row.uri == uri]
        if not gone:
            raise CommandError(404, f"{text(key)} has no Contact {contact}")
        return await self._remove(store, key, gone)

    async def add(
        self,
        table: str,
        aor: str,
        contact: str,
        expires: int = 0,
        q: float | None = None,
        path: str = "",
        *,
        expires_at: float = 0,
        last_modified: float = 0,
        params: str = "",
        instance: str = "",
        reg_id: int = 0,
        received: str = "",
        socket: str = "",
        connection_id: str = "",
        callid: str = "",
        cseq: int = 1,
        methods: list[str] | None = None,
        ruid: str = "",
        epoch: int = 0,
    ) -> dict[str, str]:
        """Put in one row as ``ul.dump`` shows it (Kamailio: ``ul.add``).

        ``expires``: seconds from now, if there is no ``expires_at``; neither: it never ends.
        ``params``: the Contact parameters as the UA sent them; else they are made from ``q``,
        ``instance`` and ``reg_id``.  What the UA has registered since ``last_modified`` stays.
        The result is ``added``, ``refreshed`` or ``kept``; 410: that way to the UA is gone.
        """
        if not table:
            raise CommandError(400, "a table has a name")
        core = self.location.core
        row = Row(
            expires_at=expires_at or (core.wall() + expires if expires else 0),
            last_modified=last_modified, contact=octets(contact), params=octets(params),
            instance=octets(instance), reg_id=reg_id, q=q, path=octets(path), received=received,
            socket=socket, connection_id=connection_id, callid=octets(callid), cseq=cseq,
            methods=methods, ruid=ruid, epoch=epoch,
        )  # fmt: skip
        try:
            return await carry_over(self.location, self.location.waiting(table), octets(aor), row)
        except ParseError as exc:
            raise CommandError(400, exc.why) from None
        except StoreError as exc:
            raise _failed(exc) from None

    def flush(self) -> Later:
        """Done when everything that was changed so far outlives the process."""
        done = Later()
        waiting = [1]

        def settled(stored: bool) -> None:
            waiting[0] -= 1
            if not stored:
                waiting[0] = 0
                done.set(CommandError(500, "it could not be stored; see the log"))
            elif not waiting[0]:
                done.set({"stored": True})

        for store in list(self.location.tables.values()):
            waiting[0] += store.when_stored(settled)
        settled(True)
        return done

    # -- helpers

    def _table(self, name: str) -> AsyncLocationStore:
        """A table that is there; the one that everybody uses counts as there."""
        tables = self.location.tables
        if self.location.shared is None and name not in tables and name != TABLE:
            raise CommandError(404, f"no table {name!r}; there are: {', '.join(tables) or 'none'}")
        return self.location.waiting(name)

    async def _fetch(
        self, store: AsyncLocationStore, aor: str
    ) -> tuple[bytes, tuple[Binding, ...]]:
        """The key in the table, and what it has; ``aor`` may be a SIP URI."""
        raw = octets(aor)
        rules = self.location.rules
        try:
            if raw[:5].lower().startswith((b"sip:", b"sips:")):
                key = rules.key_of(raw)
            else:
                user, _, host = raw.rpartition(b"@")
                key = rules.join(user, host.lower()) if user else rules.join(host, b"")
            rows = await store.fetch(key, self.location.core.now)
        except ParseError as exc:
            raise CommandError(400, f"{aor}: {exc.why}") from None
        except StoreError as exc:
            raise _failed(exc) from None
        if not rows:
            raise CommandError(404, f"{aor} is not registered")
        return key, rows

    async def _remove(self, store: AsyncLocationStore, key: bytes, gone: list[Binding]) -> Later:
        done = Later()
        core = self.location.core
        try:
            await store.replace(key, gone, (), core.now)
        except StoreError as exc:
            raise _failed(exc) from None
        table = store.embedded

        def settled(stored: bool) -> None:
            if stored:
                self.location.events.changed(key, gone, ())
                done.set({"removed": len(gone)})
            elif table is not None:
                take_back(table, (key, gone, ()), core.now)
                done.set(CommandError(500, "it could not be stored; see the log"))

        if table is None or not (table.write_through and table.when_stored(settled)):
            settled(True)
        return done

    def _rows(self, aor: bytes, rows: list[Binding] | tuple[Binding, ...]) -> list[dict[str, Any]]:
        return [self._row(aor, row) for row in sorted(rows, key=lambda row: row.stamp)]

    def _row(self, aor: bytes, binding: Binding) -> dict[str, Any]:
        core = self.location.core
        end = binding.contact.index(b">") + 1
        received = socket = connection_id = ""
        if binding.flow is not None:
            flow = flow_of(binding.flow, core.flows)
            host, port = flow.remote
            transport = (
                b"" if flow.transport == UDP else b";transport=" + URI_TRANSPORT[flow.transport]
            )
            received = text(b"sip:%s:%d%s" % (host_bytes(host), port, transport))
            socket = flow.listener.name
            connection_id = flow.conn_id.hex()
        return {
            "aor": text(aor),
            "contact": text(binding.uri),
            "params": text(binding.contact[end:]),
            "expires": binding.remaining(core.now),
            "expires_at": round(core.wall(binding.expires), 3),
            "last_modified": round(core.wall(binding.updated), 3),
            "q": None if binding.q < 0 else binding.q / 1000,
            "path": text(binding.path),
            "received": received,
            "socket": socket,
            "connection_id": connection_id,
            "callid": text(binding.call_id),
            "cseq": binding.cseq,
            "methods": None if binding.methods is None else sorted(map(text, binding.methods)),
            "instance": text(binding.instance),
            "reg_id": binding.reg_id,
            "ruid": binding.ruid,
            "epoch": binding.epoch,
        }


def _failed(exc: StoreError) -> CommandError:
    return CommandError(503 if isinstance(exc, StoreAway) else 500, f"the table failed: {exc}")


def text(raw: bytes) -> str:
    """For JSON; octets that are no UTF-8 become lone surrogates, which ``octets`` takes back."""
    return raw.decode("utf-8", "surrogateescape")
