"""Module tm: relaying with transactions (Kamailio ``tm``, and of ``tmx`` what belongs to it).

Stop 7 of a datagram: ``t_relay`` makes targets of what the route decided and hands them to
``sipedge.tm.relay``.  Retransmissions, CANCEL and the ACK to a final error never reach a route.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from sipedge.errors import ConfigError, SipError
from sipedge.forward import (
    Hop,
    Place,
    Target,
    build_branch,
    check_max_forwards,
    is_sips,
    next_hop_uri,
)
from sipedge.hookspecs import hookimpl
from sipedge.module import (
    ANY_ROUTE,
    BRANCH_FAILURE_ROUTE,
    FAIL,
    FAILURE_ROUTE,
    OK,
    RC,
    REPLY_ROUTE,
    REQUEST_ROUTE,
    Context,
    Function,
    ModuleExports,
    Param,
    PseudoVariable,
    Rc,
)
from sipedge.modules.args import as_bytes
from sipedge.sip.message import SipMessage
from sipedge.tm import relay
from sipedge.tm.branch import flow_to
from sipedge.tm.client import ClientTx
from sipedge.tm.contacts import CONTACTS, ON_BRANCH_FAILURE, Contacts
from sipedge.tm.host import Route

_RELAY = REQUEST_ROUTE | FAILURE_ROUTE
_BRANCH_ENDED = FAILURE_ROUTE | REPLY_ROUTE | BRANCH_FAILURE_ROUTE
DEFAULT_Q = 1.0


@dataclass(slots=True)
class TmParams:
    """Milliseconds, as in Kamailio; the defaults are RFC 3261's (table 4), not Kamailio's."""

    fr_timer: int = 32000
    fr_inv_timer: int = 190000
    fr_first_timer: int = 4000
    retr_timer1: int = 500
    retr_timer2: int = 4000
    wt_timer: int = 32000


class TmModule:
    """Transactions for routes; result codes are Kamailio's."""

    def __init__(self) -> None:
        self.params = TmParams()
        self._patterns: dict[bytes, re.Pattern[bytes]] = {}
        self.exports = ModuleExports(
            "tm",
            functions=(
                Function("t_relay", self.t_relay, _RELAY | BRANCH_FAILURE_ROUTE),
                Function("t_newtran", self.t_newtran, REQUEST_ROUTE),
                Function("t_check_trans", self.t_check_trans, REQUEST_ROUTE),
                Function("t_reply", self.t_reply, _RELAY),
                Function("t_send_reply", self.t_send_reply, _RELAY),
                Function("t_on_failure", self.t_on_failure, REQUEST_ROUTE | FAILURE_ROUTE),
                Function("t_on_branch_failure", self.t_on_branch_failure, _RELAY),
                Function("t_on_branch", self.t_on_branch, REQUEST_ROUTE | FAILURE_ROUTE),
                Function("t_on_reply", self.t_on_reply, ANY_ROUTE & ~REPLY_ROUTE),
                Function("t_branch_timeout", self.t_branch_timeout, _BRANCH_ENDED),
                Function("t_branch_replied", self.t_branch_replied, _BRANCH_ENDED),
                Function("t_check_status", self.t_check_status, _BRANCH_ENDED),
                Function("t_is_canceled", self.t_is_canceled, ANY_ROUTE),
                Function("append_branch", self.append_branch, _RELAY | BRANCH_FAILURE_ROUTE),
                Function("clear_branches", self.clear_branches, _RELAY),
                Function("t_load_contacts", self.t_load_contacts, _RELAY),
                Function("t_next_contacts", self.t_next_contacts, _RELAY),
                Function("t_next_contact_flow", self.t_next_contact_flow, BRANCH_FAILURE_ROUTE),
            ),
            params=(
                Param("fr_timer", int, "ms until a silent branch is given up (B, F, H)", 10),
                Param("fr_inv_timer", int, "ms that an INVITE may ring (timer C)", 10),
                Param("fr_first_timer", int, "ms of patience while another flow is left", 10),
                Param("retr_timer1", int, "ms until the first retransmission (T1)", 10),
                Param("retr_timer2", int, "ms between retransmissions at most (T2)", 10),
                Param("wt_timer", int, "ms that an ended transaction is kept (D, J, L, M)", 0),
            ),
            pseudo_variables=(
                PseudoVariable("T_reply_code", self._pv_reply_code),
                PseudoVariable("T_reply_ruid", self._pv_reply_ruid),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        params, timers = self.params, ctx.core.tm.timers
        if params.fr_inv_timer < params.fr_timer:
            raise ctx.param_error("fr_inv_timer", "is shorter than fr_timer; make it longer")
        timers.fr = params.fr_timer / 1000
        timers.fr_inv = params.fr_inv_timer / 1000
        timers.first_response = params.fr_first_timer / 1000
        timers.t1 = params.retr_timer1 / 1000
        timers.t2 = params.retr_timer2 / 1000
        timers.wait = params.wt_timer / 1000
        self._core = ctx.core
        self._config = ctx.config

    # -- relaying ---------------------------------------------------------------------------------

    def t_relay(self, msg: SipMessage) -> Rc:
        """Forward the request statefully, to all its targets (``t_relay``; RFC 3261 §16.6).

        1 if it is on its way; -1 if nothing could be sent.  In that case the client has its answer
        already (430 for a dead flow, RFC 5626 §5.3.1), unless it was an ACK.  In a branch-failure
        route: to what ``t_next_contact_flow`` or ``append_branch`` added; -1 if there is nothing.
        """
        core = self._core
        if msg.answered:
            return FAIL
        if msg.method == b"ACK":
            return OK if self._relay_ack(msg) else FAIL
        check_max_forwards(msg)
        tx = msg.tx
        if tx is None:
            tx = core.new_transaction(msg)
        if tx.no_more:
            return FAIL  # cancelled while the route was waiting
        if msg.route_kind == BRANCH_FAILURE_ROUTE:
            more, msg.branches = msg.branches or [], None
            relay.more_branches(tx, more)
            return OK if more else FAIL
        targets: list[Target] | None = msg.targets
        if targets is not None:
            tx.home = True
        elif msg.route_kind == FAILURE_ROUTE and msg.branches:
            targets = []
        else:
            targets = [Target(msg.ruri, msg.dst_uri, msg.dst_flow)]
        if msg.branches:
            targets = targets + msg.branches
        msg.targets = msg.branches = None
        tx.on_failure = msg.on_failure
        tx.on_reply = msg.on_reply
        tx.on_branch = msg.on_branch
        msg.on_failure = None
        return OK if relay.relay(tx, targets) else FAIL

    def _relay_ack(self, msg: SipMessage) -> bool:
        """The ACK to a 2xx: forwarded without state, dropped if its flow is dead (INC-11)."""
        core = self._core
        if msg.targets:  # the dialog's remote target is a GRUU: one flow will do
            target: Target = msg.targets[0]
        else:
            target = Target(msg.ruri, msg.dst_uri, msg.dst_flow)
        if msg.first(b"max-forwards") == b"0":
            return False
        flow = target.flow
        if flow is None:
            try:
                hop = core.hops.of_uri(next_hop_uri(msg, target), is_sips(target.uri))
            except SipError:
                return False
            if isinstance(hop, Place):
                core.locate(hop, partial(self._ack_by_name, msg, target))
                return True
            return self._ack_to(msg, target, hop)
        branch = core.tm.new_branch(msg.loop_hash)
        return flow.alive and core.send(build_branch(msg, target, flow, True, branch), flow)

    def _ack_by_name(self, msg: SipMessage, target: Target, hops: list[Hop]) -> None:
        if hops:
            self._ack_to(msg, target, hops[0])

    def _ack_to(self, msg: SipMessage, target: Target, hop: Hop) -> bool:
        core = self._core
        flow = flow_to(core.tm, msg, hop)
        if flow is None:
            return False
        branch = core.tm.new_branch(msg.loop_hash)
        return core.send(build_branch(msg, target, flow, False, branch), flow)

    def t_newtran(self, msg: SipMessage) -> Rc:
        """Make the transaction now (Kamailio ``t_newtran``); -1 for an ACK."""
        if msg.method == b"ACK" or msg.answered:
            return FAIL
        self._core.new_transaction(msg)
        return OK

    def t_check_trans(self, msg: SipMessage) -> Rc:
        """Kamailio ``t_check_trans``: does this belong to a transaction?

        The host has absorbed retransmissions, CANCEL and hop-by-hop ACK before any route runs, so
        what a route sees belongs to none: -1.
        """
        return FAIL

    def t_reply(self, msg: SipMessage, code: int, reason: str | bytes = b"") -> Rc:
        """Answer with ``code`` (100..699) and ``reason``, statefully (Kamailio ``t_reply``).

        1 if it was sent; -1 for an ACK, a second final answer, or a code out of range.
        """
        if not 100 <= code <= 699:
            return FAIL
        if msg.tx is None and not msg.answered and msg.method != b"ACK":
            self._core.new_transaction(msg)
        return OK if self._core.reply(msg, code, as_bytes(reason)) else FAIL

    t_send_reply = t_reply

    def append_branch(
        self, msg: SipMessage, uri: str | bytes | None = None, q: float | None = None
    ) -> Rc:
        """One more target (Kamailio ``append_branch``).

        ``uri``, or Request-URI and destination as they are now; ``q`` from 0 to 1 orders targets.
        """
        target = (
            Target(msg.ruri, msg.dst_uri, msg.dst_flow) if uri is None else Target(as_bytes(uri))
        )
        target.q = DEFAULT_Q if q is None else q
        if msg.branches is None:
            msg.branches = []
        msg.branches.append(target)
        return OK

    def clear_branches(self, msg: SipMessage) -> Rc:
        """Forget the targets of ``append_branch`` and ``lookup`` (Kamailio ``clear_branches``)."""
        msg.branches = msg.targets = None
        return OK

    # -- contacts by hand -------------------------------------------------------------------------

    def t_load_contacts(self, msg: SipMessage, mode: int = 0) -> Rc:
        """Take the targets of ``lookup`` and ``append_branch`` in hand (``t_load_contacts``).

        From now on ``t_next_contacts`` says which of them are tried, and no flow of an instance is
        tried by itself.  ``mode`` is Kamailio's, for one contact only: that needs no mode here.
        Always 1.
        """
        targets: list[Target] = msg.targets or [Target(msg.ruri, msg.dst_uri, msg.dst_flow)]
        groups = relay.group_targets(targets + (msg.branches or []))
        msg.remember(CONTACTS, Contacts(groups))
        msg.targets = msg.branches = None
        return OK

    def t_next_contacts(self, msg: SipMessage) -> Rc:
        """Make the next q group the targets, one flow of each instance (``t_next_contacts``).

        1; -2 if there is none, or ``t_load_contacts`` was not called.
        """
        contacts: Contacts | None = msg.recall(CONTACTS)
        group = contacts.next_group() if contacts is not None else []
        if not group:
            return RC[-2]
        msg.targets = group
        return OK

    def t_next_contact_flow(self, msg: SipMessage) -> Rc:
        """Add another flow of the instance whose branch failed (``t_next_contact_flow``).

        1: call ``t_relay``.  -1: that instance has no more flows.  -2: the branch was to no known
        instance, or no instance has more flows.
        """
        contacts: Contacts | None = msg.recall(CONTACTS)
        branch = _branch(msg)
        instance = branch.target.instance if branch is not None else b""
        if contacts is None or not instance or not contacts.has_flows():
            return RC[-2]
        target = contacts.next_flow(instance)
        if target is None:
            return FAIL
        if msg.branches is None:
            msg.branches = []
        msg.branches.append(target)
        return OK

    # -- routes of a transaction ------------------------------------------------------------------

    def t_on_failure(self, msg: SipMessage, route: str | Route) -> Rc:
        """Run ``route`` (a function or its name) when all branches have failed."""
        msg.on_failure = self._route(route)
        return OK

    def t_on_branch_failure(self, msg: SipMessage, route: str | Route) -> Rc:
        """Run ``route`` for each branch that fails, while others may still ring.

        Kamailio has an ``event_route[tm:branch-failure:NAME]`` for that.  It stays for all branches
        of the request, those that are added later too.
        """
        found = self._route(route)
        run = self._core.run_failure_route
        msg.remember(
            ON_BRANCH_FAILURE,
            None if found is None else partial(run, found, kind=BRANCH_FAILURE_ROUTE),
        )
        return OK

    def t_on_branch(self, msg: SipMessage, route: str | Route) -> Rc:
        """Run ``route`` for each branch before it is sent; edits there are that branch's only."""
        msg.on_branch = self._route(route)
        return OK

    def t_on_reply(self, msg: SipMessage, route: str | Route) -> Rc:
        """Run ``route`` for each response to this request, after ``reply_route``."""
        msg.on_reply = self._route(route)
        return OK

    def _route(self, route: str | Route) -> Route | None:
        if not isinstance(route, str):
            return route
        if not route:
            return None
        found: Route | None = self._config.routes.get(route)
        if found is None:
            raise ConfigError(f"there is no route {route!r}; write: def {route}(ksr, msg):")
        return found

    # -- what became of a branch ------------------------------------------------------------------

    def t_branch_timeout(self, msg: SipMessage) -> Rc:
        """1 if the branch ended because no final response came (tmx ``t_branch_timeout``)."""
        branch = _branch(msg)
        return OK if branch is not None and branch.timed_out else FAIL

    def t_branch_replied(self, msg: SipMessage) -> Rc:
        """1 if a final response came on the branch (tmx ``t_branch_replied``)."""
        branch = _branch(msg)
        return OK if branch is not None and branch.response is not None else FAIL

    def t_check_status(self, msg: SipMessage, pattern: str | bytes) -> Rc:
        """1 if the status of the branch, or of the response, matches (``t_check_status``)."""
        raw = as_bytes(pattern)
        compiled = self._patterns.get(raw)
        if compiled is None:
            compiled = self._patterns[raw] = re.compile(raw)
        status = self._pv_reply_code(msg, None)
        return OK if compiled.search(b"%d" % status) else FAIL

    def t_is_canceled(self, msg: SipMessage) -> Rc:
        """1 if the client has sent CANCEL for this INVITE (Kamailio ``t_is_canceled``)."""
        return OK if msg.tx is not None and msg.tx.cancelled else FAIL

    def _pv_reply_code(self, msg: Any, key: str | None) -> int:
        if not msg.is_request:
            return int(msg.status)
        branch = _branch(msg)
        return branch.status if branch is not None else 0

    def _pv_reply_ruid(self, msg: Any, key: str | None) -> bytes | None:
        branch = _branch(msg)
        return branch.target.ruid.encode() if branch is not None and branch.target.ruid else None


def _branch(msg: SipMessage) -> ClientTx | None:
    """The branch that a reply came on, or that a failure route is about."""
    branch: ClientTx | None = msg.via_branch
    return branch
