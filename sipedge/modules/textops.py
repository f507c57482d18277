"""Module textops: questions about, and edits of, whole header rows (stop 6).

Strategy: ``SipMessage`` keeps a message as rows, so an edit inserts or removes rows and takes
effect at once; there is no list of changes that is applied later.  Text for a new header is
checked: one or more lines ``Name: value``, never a stray CR or LF, so that a value that came from
a message cannot become a header of its own.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sipedge.module import FAIL, OK, Function, ModuleExports, Rc
from sipedge.modules.args import Text, as_bytes, header_id
from sipedge.sip.message import SipMessage
from sipedge.sip.names import CONTENT_TYPE, END, canonical


class TextopsModule:
    """The part of Kamailio's module textops that routes need when they are written in Python."""

    def __init__(self) -> None:
        self.params = None
        self.exports = ModuleExports(
            "textops",
            functions=(
                Function("is_method", self.is_method),
                Function("is_present_hf", self.is_present_hf),
                Function("search_hf", self.search_hf),
                Function("search", self.search),
                Function("has_body", self.has_body),
                Function("has_body_type", self.has_body_type),
                Function("remove_hf", self.remove_hf),
                Function("insert_hf", self.insert_hf),
                Function("append_hf", self.append_hf),
            ),
        )

    def is_method(self, msg: SipMessage, methods: Text) -> Rc:
        """1 if the method, of a response the one in CSeq, is among ``"INVITE|ACK"``; else -1."""
        return OK if msg.cseq_method in _methods(as_bytes(methods)) else FAIL

    def is_present_hf(self, msg: SipMessage, name: Text) -> Rc:
        """1 if there is a header of that name, in any spelling; else -1."""
        return OK if header_id(name) in msg.ids else FAIL

    def search_hf(self, msg: SipMessage, name: Text, pattern: Text, flags: str = "a") -> Rc:
        """1 if a regular expression matches in the value of a header; else -1.

        ``flags``: which rows of that name: ``"a"`` all, ``"f"`` the first, ``"l"`` the last.
        """
        if flags not in ("a", "f", "l"):
            raise ValueError(f"search_hf: flags are 'a', 'f' or 'l', not {flags!r}")
        rows = msg.rows(header_id(name))
        chosen = {"a": rows, "f": rows[:1], "l": rows[-1:]}[flags]
        find = _pattern(as_bytes(pattern)).search
        return OK if any(find(row) for row in chosen) else FAIL

    def search(self, msg: SipMessage, pattern: Text) -> Rc:
        """1 if a regular expression matches anywhere in the message; else -1."""
        return OK if _pattern(as_bytes(pattern)).search(msg.to_bytes()) else FAIL

    def has_body(self, msg: SipMessage, content_type: Text | None = None) -> Rc:
        """1 if there is a body, of this type if one is given; else -1.

        A type without a subtype (``"application"``) matches all of them; parameters are left out.
        """
        if not msg.body:
            return FAIL
        if content_type is None:
            return OK
        wanted = as_bytes(content_type).lower()
        have = (msg.first(CONTENT_TYPE) or b"").partition(b";")[0].strip(b" \t").lower()
        return OK if wanted in (have, have.partition(b"/")[0]) else FAIL

    has_body_type = has_body  # its KEMI name when a type is given

    def remove_hf(self, msg: SipMessage, name: Text) -> Rc:
        """Remove all headers of that name: 1 if there were any, else -1."""
        return OK if msg.remove(header_id(name)) else FAIL

    def insert_hf(self, msg: SipMessage, text: Text, header: Text | None = None) -> Rc:
        """Add ``"Name: value\\r\\n"`` above the first header called ``header``, or on top of
        all."""
        at = msg.find(header_id(header)) if header is not None else -1
        return _add(msg, max(at, 1), text)

    def append_hf(self, msg: SipMessage, text: Text, header: Text | None = None) -> Rc:
        """Add ``"Name: value\\r\\n"`` below the first header called ``header``, or below all."""
        at = msg.find(header_id(header)) if header is not None else -1
        return _add(msg, at + 1 if at >= 0 else msg.ids.index(END), text)


def _add(msg: SipMessage, at: int, text: Text) -> Rc:
    """Insert the lines of ``text`` at row ``at``; the spelling of the route goes out as it is."""
    rows = as_bytes(text).removesuffix(b"\r\n").split(b"\r\n")
    ids = []
    for row in rows:
        name, colon, value = row.partition(b":")
        known = canonical(name)
        if not colon or known is None or b"\r" in value or b"\n" in value or b"\0" in value:
            raise ValueError(
                f"{text!r} is no header: write 'Name: value', no CR or LF in the value"
            )
        ids.append(known)
    msg.lines[at:at] = rows
    msg.ids[at:at] = ids
    msg.edited()
    return OK


@lru_cache(maxsize=256)
def _methods(text: bytes) -> frozenset[bytes]:
    return frozenset(method.strip() for method in text.split(b"|"))


@lru_cache(maxsize=256)
def _pattern(text: bytes) -> re.Pattern[bytes]:
    """Kamailio's are extended expressions, upper and lower case alike, ``^`` and ``$`` a line."""
    return re.compile(text, re.IGNORECASE | re.MULTILINE)
