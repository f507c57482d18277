"""What other nodes have stored, at the moment when they do: no polling (stop 6, registrar).

Strategy: servers have a way to tell their clients (PUBLISH, NOTIFY), and it is used for one thing:
a binding that was not there before, so that its phone rings for a call that another node handles.
Refreshes are not announced, and nothing is unless the operator asked for late branches: PostgreSQL
lets transactions that NOTIFY commit one after the other.  Who listens reads the table anyway, so an
announcement is an address-of-record and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from registrar_plugin.store.link import Backend
    from registrar_plugin.store.records import Record

log = logging.getLogger("sipedge.registrar")

#: seconds of silence after which somebody looks whether the server is still there
QUIET_S: Final = 15.0
#: seconds between two attempts to listen: the first, and the most; doubled in between
BACK_OFF_S: Final = (0.1, 5.0)

#: called with domain and address-of-record; with two empty texts if any may have changed
Heard = Callable[[str, str], None]


def announcement(
    backend: Backend, domain: str, aor: str, gone: Sequence[tuple[str, str]], new: Sequence[Record]
) -> str:
    """What ``replace`` announces; empty if that is nothing."""
    if not backend.announce:
        return ""
    before = {key for key, _ in gone}
    if all(record.key in before for record in new):
        return ""
    return f"{quote(domain, safe='')} {aor}"


def read_announcement(text: str) -> tuple[str, str]:
    """Domain and address-of-record."""
    domain, _, aor = text.partition(" ")
    return unquote(domain), aor


async def listen(backend: Backend, heard: Heard) -> None:
    """Call ``heard`` for each announcement, until this is cancelled.

    While the server is away nothing is heard; when it is back, anything may have been missed.
    """
    failures: tuple[type[Exception], ...] = (*backend.lost, OSError)
    wait, most = BACK_OFF_S
    while True:
        try:
            async for domain, aor in backend.changes():
                wait = BACK_OFF_S[0]
                heard(domain, aor)
        except failures as exc:
            log.debug("%s: nothing is heard of other nodes: %s", backend.name, exc)
        # nodes that lost it together shall not come back together
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        wait = min(2 * wait, most)
