"""The three families of errors, never mixed.

* ``SipError`` and ``ParseError``: the peer's.  Answered in one place (``Core._failed``), logged at
  INFO.
* ``ConfigError``: the operator's.  Refuse to start; says file, line, what is wrong, what to write
  instead.
* anything else: ours.  Rises to the same place in ``Core``: traceback, 500, counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.sip.message import SipMessage


class SipError(Exception):
    """The peer asked for something that is answered with a SIP error.

    Arguments: ``status`` (300..699) and ``reason`` of the response, ``headers``: more header lines
    for it (``(name, value)`` pairs).
    """

    def __init__(
        self, status: int, reason: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(f"{status} {reason.decode('ascii', 'backslashreplace')}")
        self.status = status
        self.reason = reason
        self.headers = headers


class ParseError(SipError):
    """Bytes that are no acceptable SIP message.

    ``partial`` holds what could be read (Via, From, To, Call-ID, CSeq), so that a request can still
    be answered; ``None`` when nothing can be answered.
    """

    def __init__(
        self,
        why: str,
        status: int = 400,
        reason: bytes = b"Bad Request",
        partial: SipMessage | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(status, reason, headers)
        self.why = why
        self.partial = partial

    def __str__(self) -> str:
        return f"{self.status} {self.reason.decode('ascii', 'backslashreplace')}: {self.why}"


class Forbidden(SipError):
    """RFC 5626 §5.3.1: a flow token that was tampered with: 403."""

    def __init__(self, reason: bytes = b"Forbidden") -> None:
        super().__init__(403, reason)


class ConfigError(Exception):
    """The operator's configuration cannot be run.

    Arguments: ``message`` says what is wrong and what to write instead; ``file`` and ``line``
    (1-based) say where, as far as it is known.  The command line prints it and exits with status 2.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file and self.line else ""
        if self.file and not self.line:
            where = f"{self.file}: "
        return where + self.message
