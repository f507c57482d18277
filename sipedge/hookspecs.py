"""The contract between the host and its modules: eight hooks (pluggy project ``sipedge``).

A hook tells every module; a question to one module is a bind (``Context.find_export``); something
for the operator's route is an exported function.  Hooks are called in the order of the
``loadmodule`` lines, ``mod_destroy`` in reverse.  ``tryfirst``, ``trylast`` and wrappers stay
unused: the configuration file decides about order.

``request_in``, ``reply_in`` and ``branch_failed`` are hot: when the configuration is frozen they
become tuples of bound methods, so an implementation takes exactly the arguments written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from sipedge.flow import Flow
    from sipedge.module import Context
    from sipedge.sip.message import SipMessage

PROJECT = "sipedge"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ModuleSpecs:
    """Implement what you need with ``@hookimpl``; leave out the rest."""

    @hookspec
    def mod_init(self, ctx: Context) -> None:
        """Once, after the whole configuration file ran, in load order.

        Check parameters, export and bind APIs.  Raise ``ConfigError`` to refuse to start.  An
        export exists only once its owner's ``mod_init`` has run.
        """

    @hookspec
    def child_init(self, rank: int) -> None:
        """Once in each worker before it serves, in load order; ``rank``: its number, from 0."""

    @hookspec
    def mod_destroy(self) -> None:
        """At stop, in reverse load order; all run, whatever one of them raises."""

    @hookspec
    def request_in(self, msg: SipMessage, now: float) -> bool | None:
        """HOT.  A sane, new request, before ``request_route``.  ``True``: consumed, stop here."""

    @hookspec
    def reply_in(self, msg: SipMessage, now: float) -> bool | None:
        """HOT.  A response that matched a branch, before ``reply_route``.  ``True``: drop it."""

    @hookspec
    def branch_failed(self, msg: SipMessage, status: int) -> int | None:
        """HOT.  A branch ended by timeout, transport error or dead flow, before ``failure_route``.

        ``msg`` is the request, ``msg.via_branch`` the branch.  The first int replaces the status
        (408 becomes 430, say).
        """

    @hookspec
    def flow_opened(self, flow: Flow) -> None:
        """A stream connection was accepted or established."""

    @hookspec
    def flow_closed(self, flow: Flow, reason: str) -> None:
        """A stream is gone, or ICMP said that a UDP flow is; ``reason`` is for logs."""
