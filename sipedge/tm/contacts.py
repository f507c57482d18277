"""Targets that a route drives by hand (Kamailio: ``t_load_contacts`` and its kin; RFC 5626 §7).

Strategy: the groups of ``relay.group_targets`` wait here instead of in the transaction.  A route
takes one q group at a time, the first flow of each instance in it, and the next flow of an instance
when a branch has failed.  They are remembered by the request, so a request that nobody drives by
hand pays nothing.
"""

from __future__ import annotations

from typing import Final

from sipedge.forward import Target

#: ``msg.recall(CONTACTS)``: the ``Contacts`` of a request that a route drives by hand
CONTACTS: Final = "tm.contacts"
#: ``msg.recall(ON_BRANCH_FAILURE)``: runs the route of ``t_on_branch_failure``
ON_BRANCH_FAILURE: Final = "tm.on_branch_failure"
#: ``msg.recall(MORE_MAY_JOIN)``: targets may come that nobody knows yet (``relay.join``)
MORE_MAY_JOIN: Final = "tm.more_may_join"


class Contacts:
    """What was not tried yet."""

    __slots__ = ("_flows", "_groups")

    def __init__(self, groups: list[list[list[Target]]]) -> None:
        """``groups``: by falling q, then by instance."""
        self._groups = groups
        self._flows: dict[bytes, list[Target]] = {}

    def next_group(self) -> list[Target]:
        """The first flow of each instance of the next q group; empty if there is none."""
        if not self._groups:
            return []
        group = self._groups.pop(0)
        for flows in group:
            if len(flows) > 1:
                self._flows[flows[0].instance] = flows[1:]
        return [flows[0] for flows in group]

    def has_flows(self) -> bool:
        """Whether any instance of the groups that were taken has a flow that was not."""
        return any(self._flows.values())

    def next_flow(self, instance: bytes) -> Target | None:
        """Another flow of an instance whose group was taken."""
        flows = self._flows.get(instance)
        return flows.pop(0) if flows else None
