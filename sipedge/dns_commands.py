"""Commands about servers that were found by DNS, and about those that failed.

Strategy: as ``commands``: plain functions, which the control socket calls.  No stop of a datagram.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sipedge.flow import TRANSPORT_NAME
from sipedge.module import Command

if TYPE_CHECKING:
    from sipedge.core import Core


class DnsCommands:
    """``table`` is what ``commands.Commands`` takes in."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.table = (
            Command("dns.delete_all", self.delete_all, "forget all answers of DNS"),
            Command("dst_blocklist.view", self.view, "servers that failed and are tried last"),
            Command("dst_blocklist.delete_all", self.unblock, "forget which servers failed"),
        )

    def delete_all(self) -> dict[str, int]:
        """The next requests ask again (Kamailio: ``dns.delete_all``)."""
        self._core.locator.flush()
        return {"deleted": self._core.dns.flush()}

    def view(self) -> Iterator[dict[str, Any]]:
        """A row a server; ``retry_after``: it asked for that itself, by 503."""
        now = self._core.now
        for (transport, host, port), until, asked in self._core.blocklist.rows(now):
            yield {
                "transport": TRANSPORT_NAME[transport],
                "host": host,
                "port": port,
                "expires": round(until - now, 1),
                "retry_after": asked,
            }

    def unblock(self) -> dict[str, int]:
        """All servers have their usual turn again."""
        return {"deleted": self._core.blocklist.flush()}
