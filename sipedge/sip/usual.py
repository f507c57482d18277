"""Stop 3: the checks of ``strict.check_values`` for rows in the shape that nearly all stacks send.

Strategy: one regular expression a row, without white space where hardly anybody puts it.  A row
that matches is in order; any other row is read by the grammar in ``strict``, and the message goes
on here.  What passes here passes there too: differential tests and a fuzz harness hold the two
together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sipedge.errors import ParseError
from sipedge.sip import strict
from sipedge.sip.names import (
    CALL_ID,
    CONTACT,
    CSEQ,
    FROM,
    MAX_FORWARDS,
    PATH,
    RECORD_ROUTE,
    ROUTE,
    TO,
    VIA,
)
from sipedge.sip.values import TOKEN
from sipedge.sip.via import parse_via

if TYPE_CHECKING:
    from sipedge.sip.message import SipMessage

_ADDRESS_LISTS: Final = (CONTACT, ROUTE, RECORD_ROUTE, PATH)

_NAME = rb"[^:]*+: ?"
_NAME_ADDR = (
    rb"(?:\"[^\"\\]*+\" ?|[" + TOKEN + rb" ]*+)"  # display name: a plain quoted one, or tokens
    rb"<sips?:[^\x00-\x20\x7f\"<>]++>"
)
_PARAM = rb";[" + TOKEN + rb"]++(?:=(?:\"[^\"\\]*+\"|[" + TOKEN + rb"]*+))?"
#: From and To: an address and a tag, no other parameter
_tagged = re.compile(
    _NAME
    + rb"(?:" + _NAME_ADDR + rb"|sips?:[^\x00-\x20\x7f\"<>,;?]++)"
    + rb"(?:;tag=([" + TOKEN + rb"]++))?"
).fullmatch  # fmt: skip
#: Contact, Route, ...: one address with parameters
_listed = re.compile(_NAME + _NAME_ADDR + rb"(?:" + _PARAM + rb")*").fullmatch
_cseq = re.compile(_NAME + rb"[0-9]{1,9} ([" + TOKEN + rb"]++)").fullmatch
_call_id = re.compile(_NAME + rb"([^\x00-\x20\x7f]++)").fullmatch
_max_forwards = re.compile(_NAME + rb"[0-9]{1,2}").fullmatch


def sound(msg: SipMessage, where: dict[bytes, bytes]) -> bool:
    """Does the message pass ``strict.check_values``?  The same arguments and the same effect, but
    ``False`` instead of an exception."""
    try:
        row = where[FROM]
        found = _tagged(row)
        msg._from_tag = (found[1] or b"") if found else strict.check_address(row)
        row = where[TO]
        found = _tagged(row)
        msg._to_tag = (found[1] or b"") if found else strict.check_address(row)
        row = where[CALL_ID]
        found = _call_id(row)
        msg._call_id = found[1] if found else strict.check_call_id(row)
        row = msg.lines[msg.ids.index(VIA)]
        via = msg._via = parse_via(row.partition(b":")[2].strip(b" \t"))
        if len(via.branch) <= 7:
            strict.check_branch(msg)
        row = where[CSEQ]
        found = _cseq(row)
        if found is None or (found[1] != msg.method and msg.is_request):
            strict.check_cseq(msg, row)
        if MAX_FORWARDS in where and not _max_forwards(where[MAX_FORWARDS]):
            strict.check_max_forwards(where[MAX_FORWARDS])
        if CONTACT in where or ROUTE in where or RECORD_ROUTE in where or PATH in where:
            _check_lists(msg, where)
    except (ParseError, KeyError, ValueError):  # the latter two: a header that must be there is not
        return False
    return True


def _check_lists(msg: SipMessage, where: dict[bytes, bytes]) -> None:
    if len(where) == len(msg.ids):  # no header stands twice
        rows = [where[name] for name in _ADDRESS_LISTS if name in where]
    else:
        named = zip(msg.ids, msg.lines, strict=True)
        rows = [row for name, row in named if name in _ADDRESS_LISTS]
    for row in rows:
        if not _listed(row):
            strict.check_addresses(row)
