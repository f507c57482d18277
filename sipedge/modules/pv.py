"""Module pv: the usual pseudo-variables, and ``ksr.pv`` to read and set them (stop 6).

Strategy: each variable is one line in a table of small readers; the few that can be set have a
writer beside it.  Text comes out as ``str`` (octets that are no UTF-8 as backslash escapes),
numbers as ``int``, nothing as ``None``, as KEMI does.  Routes in a hurry, or that need exact
octets, read ``msg`` itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sipedge.errors import ParseError
from sipedge.flow import TRANSPORT_NAME
from sipedge.hookspecs import hookimpl
from sipedge.module import FAIL, OK, Context, Function, ModuleExports, PseudoVariable, Rc
from sipedge.modules.args import Text, as_bytes, as_text, header_id
from sipedge.modules.pvars import PseudoVariables, Value, octets, split
from sipedge.sip.message import SipMessage
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.names import CONTACT, CONTENT_TYPE, FROM, TO, USER_AGENT
from sipedge.sip.uri import Uri, parse_uri

Reader = Callable[[SipMessage], Value]

_TAIL: Final = re.compile(rb"[;?]")  # where parameters or headers of a URI begin


class PvModule:
    """Kamailio's module pv and its core variables, as ``KSR.pv`` shows them."""

    _variables: PseudoVariables

    def __init__(self) -> None:
        self.params = None
        self.exports = ModuleExports(
            "pv",
            functions=(
                Function("get", self.get),
                Function("gete", self.gete),
                Function("getw", self.getw),
                Function("geti", self.geti),
                Function("getvn", self.getvn),
                Function("getvs", self.getvs),
                Function("is_null", self.is_null),
                Function("isset", self.isset),
                Function("sets", self.sets),
                Function("seti", self.seti),
                Function("unset", self.unset),
            ),
            pseudo_variables=(
                *(PseudoVariable(name, _keyless(name, read)) for name, read in READERS.items()),
                PseudoVariable("hdr", _header),
                PseudoVariable("hdrc", _header_count),
                PseudoVariable("var", _variable),
                PseudoVariable("avp", _avp),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        self._variables = PseudoVariables(ctx.config.pseudo_variables)

    def get(self, msg: SipMessage, name: Text) -> str | int | None:
        """The value: ``str``, ``int``, or ``None`` if there is none (KSR.pv.get)."""
        value = self._variables.get(msg, name)
        return as_text(value) if isinstance(value, bytes) else value

    def gete(self, msg: SipMessage, name: Text) -> str | int:
        """As ``get``, but ``""`` for nothing."""
        return self.getvs(msg, name, "")

    def getw(self, msg: SipMessage, name: Text) -> str | int:
        """As ``get``, but ``"<null>"`` for nothing."""
        return self.getvs(msg, name, "<null>")

    def geti(self, msg: SipMessage, name: Text) -> int:
        """The value as a number; 0 for nothing and for text that is no number."""
        return self.getvn(msg, name, 0)

    def getvn(self, msg: SipMessage, name: Text, default: int) -> int:
        """The value as a number; ``default`` for nothing and for text that is no number."""
        value = self._variables.get(msg, name)
        if isinstance(value, bytes):
            sign, digits = (-1, value[1:]) if value[:1] == b"-" else (1, value)
            return sign * int(digits) if digits.isdigit() and len(digits) < 20 else default
        return default if value is None else value

    def getvs(self, msg: SipMessage, name: Text, default: str) -> str | int:
        """As ``get``, but ``default`` for nothing."""
        value = self.get(msg, name)
        return default if value is None else value

    def is_null(self, msg: SipMessage, name: Text) -> Rc:
        """1 if the variable has no value, else -1."""
        return OK if self._variables.get(msg, name) is None else FAIL

    def isset(self, msg: SipMessage, name: Text) -> Rc:
        """1 if the variable has a value, else -1."""
        return FAIL if self._variables.get(msg, name) is None else OK

    def sets(self, msg: SipMessage, name: Text, value: Text) -> Rc:
        """Set a variable to a text; -1 if the message would not be one any more.

        Raises ``ValueError`` for a variable that cannot be set.
        """
        return self._set(msg, name, as_bytes(value))

    def seti(self, msg: SipMessage, name: Text, value: int) -> Rc:
        """Set a variable to a number; see ``sets``."""
        return self._set(msg, name, value)

    def unset(self, msg: SipMessage, name: Text) -> Rc:
        """Take the value away; for ``$du``, ``$rU``, ``$rp``, ``$var`` and ``$avp``."""
        return self._set(msg, name, None)

    def _set(self, msg: SipMessage, name: Text, value: Value) -> Rc:
        variable, key = split(as_bytes(name))
        if variable in ("var", "avp"):
            _store(_owner(msg) if variable == "avp" else msg)[variable, key] = value
            return OK
        write = WRITERS.get(variable)
        if write is None:
            names = " ".join(f"${name}" for name in (*WRITERS, "var(name)", "avp(name)"))
            raise ValueError(f"${variable} cannot be set; these can: {names}")
        return OK if write(msg, value) else FAIL


# reading


def _keyless(name: str, read: Reader) -> Callable[[SipMessage, str | None], Value]:
    def get(msg: SipMessage, key: str | None) -> Value:
        if key is not None:
            raise ValueError(f"${name} takes no key")
        return read(msg)

    return get


def _uri_of(raw: bytes | None) -> Uri | None:
    try:
        return None if raw is None else parse_uri(raw)
    except ParseError:
        return None


def _ruri(msg: SipMessage) -> Uri | None:
    return _uri_of(msg.ruri) if msg.is_request else None


def _address(msg: SipMessage, header: bytes) -> bytes | None:
    """The URI of From or To."""
    value = msg.first(header)
    try:
        return None if value is None else parse_nameaddr(value).uri
    except ParseError:
        return None


def _user(uri: Uri | None) -> Value:
    return None if uri is None else uri.user


def _domain(uri: Uri | None) -> Value:
    if uri is None or not uri.host:
        return None
    return b"[%b]" % uri.host if b":" in uri.host else uri.host


def _port(uri: Uri | None) -> Value:
    if uri is None:
        return None
    return uri.port or (5061 if uri.scheme == b"sips" else 5060)


def _transport(uri: Uri | None) -> Value:
    return None if uri is None else (uri.params.get(b"transport") or b"udp").lower()


def _header(msg: SipMessage, key: str | None) -> Value:
    return msg.first(header_id(key or ""))


def _header_count(msg: SipMessage, key: str | None) -> Value:
    return msg.ids.count(header_id(key or ""))


def _variable(msg: SipMessage, key: str | None) -> Value:
    return _store(msg).get(("var", key))


def _avp(msg: SipMessage, key: str | None) -> Value:
    return _store(_owner(msg)).get(("avp", key))


def _store(msg: SipMessage) -> dict[tuple[str, str | None], Value]:
    """What ``$var`` and ``$avp`` of this message hold."""
    held: dict[tuple[str, str | None], Value] | None = msg.recall(PvModule)
    if held is None:
        held = {}
        msg.remember(PvModule, held)
    return held


def _owner(msg: SipMessage) -> SipMessage:
    """The message that holds the ``$avp`` of a transaction: its request, also for a response."""
    request: SipMessage = msg if msg.tx is None else msg.tx.request
    return request


READERS: Final[dict[str, Reader]] = {
    "ru": lambda msg: msg.ruri if msg.is_request else None,
    "rU": lambda msg: _user(_ruri(msg)),
    "rd": lambda msg: _domain(_ruri(msg)),
    "rp": lambda msg: _port(_ruri(msg)),
    "rP": lambda msg: _transport(_ruri(msg)),
    "rm": lambda msg: msg.method if msg.is_request else msg.cseq()[1],
    "rs": lambda msg: None if msg.is_request else msg.status,
    "rr": lambda msg: None if msg.is_request else msg.reason,
    "rb": lambda msg: msg.body or None,
    "fu": lambda msg: _address(msg, FROM),
    "fU": lambda msg: _user(_uri_of(_address(msg, FROM))),
    "fd": lambda msg: _domain(_uri_of(_address(msg, FROM))),
    "ft": lambda msg: msg.from_tag or None,
    "tu": lambda msg: _address(msg, TO),
    "tU": lambda msg: _user(_uri_of(_address(msg, TO))),
    "td": lambda msg: _domain(_uri_of(_address(msg, TO))),
    "tt": lambda msg: msg.to_tag or None,
    "ci": lambda msg: msg.call_id,
    "cs": lambda msg: msg.cseq()[0],
    "ct": lambda msg: msg.first(CONTACT),
    "cT": lambda msg: msg.first(CONTENT_TYPE),
    "ua": lambda msg: msg.first(USER_AGENT),
    "du": lambda msg: msg.dst_uri,
    "si": lambda msg: msg.flow.remote[0].encode(),
    "sp": lambda msg: msg.flow.remote[1],
    "Ri": lambda msg: msg.flow.local[0].encode(),
    "Rp": lambda msg: msg.flow.local[1],
    "pr": lambda msg: TRANSPORT_NAME[msg.flow.transport].encode(),
    "proto": lambda msg: TRANSPORT_NAME[msg.flow.transport].encode(),
    "ml": lambda msg: len(msg.to_bytes()),
    "mb": lambda msg: msg.to_bytes(),
    "mf": lambda msg: msg.flags,
    "null": lambda msg: None,
}


# setting: each returns False if the message would not be one any more


def _set_ruri(msg: SipMessage, value: Value) -> bool:
    if value is None or not msg.is_request:
        return False
    raw = octets(value)
    # parse_uri refuses white space and control characters, so the start line stays one line
    if _uri_of(raw) is None:
        return False
    msg.ruri = raw
    msg.lines[0] = b"%b %b SIP/2.0" % (msg.method, raw)
    return True


def _ruri_parts(msg: SipMessage) -> tuple[bytes, bytes, bytes, bytes, bytes] | None:
    """Scheme with its colon, userinfo, host, port (digits) and the rest, as they are written."""
    uri = _ruri(msg)
    if uri is None or not uri.host:
        return None
    start = len(uri.scheme) + 1
    # an @ stands nowhere in a SIP URI but behind the userinfo (RFC 3261 §25.1)
    userinfo, _, rest = uri.raw[start:].rpartition(b"@")
    hostport = _TAIL.split(rest, maxsplit=1)[0]
    host = hostport if uri.port is None else hostport.rpartition(b":")[0]
    return (
        uri.raw[:start],
        userinfo,
        host,
        b"" if uri.port is None else b"%d" % uri.port,
        rest[len(hostport) :],
    )


def _write_ruri(msg: SipMessage, parts: tuple[bytes, bytes, bytes, bytes, bytes]) -> bool:
    """Put the parts together; refused if they would read back as something else."""
    scheme, userinfo, host, port, tail = parts
    raw = scheme + (userinfo + b"@" if userinfo else b"") + host + (b":" + port if port else b"")
    before = msg.ruri, msg.lines[0]
    if _set_ruri(msg, raw + tail) and _ruri_parts(msg) == parts:
        return True
    msg.ruri, msg.lines[0] = before
    return False


def _set_user(msg: SipMessage, value: Value) -> bool:
    parts = _ruri_parts(msg)
    if parts is None:
        return False
    scheme, userinfo, host, port, tail = parts
    _, colon, password = userinfo.partition(b":")
    user = b"" if value is None else octets(value)
    if b":" in user:
        return False  # it would become a password
    return _write_ruri(msg, (scheme, user and user + colon + password, host, port, tail))


def _set_domain(msg: SipMessage, value: Value) -> bool:
    parts = _ruri_parts(msg)
    if parts is None or value is None:
        return False
    scheme, userinfo, _, port, tail = parts
    return _write_ruri(msg, (scheme, userinfo, octets(value), port, tail))


def _set_port(msg: SipMessage, value: Value) -> bool:
    parts = _ruri_parts(msg)
    if parts is None:
        return False
    scheme, userinfo, host, _, tail = parts
    port = b"" if value is None else octets(value)
    return _write_ruri(msg, (scheme, userinfo, host, port, tail))


def _set_dst_uri(msg: SipMessage, value: Value) -> bool:
    """As ``ksr.setdsturi`` and ``ksr.resetdsturi``."""
    if value is not None and _uri_of(octets(value)) is None:
        return False
    msg.dst_uri = None if value is None else octets(value)
    msg.dst_flow = None
    return True


WRITERS: Final[dict[str, Callable[[SipMessage, Value], bool]]] = {
    "ru": _set_ruri,
    "rU": _set_user,
    "rd": _set_domain,
    "rp": _set_port,
    "du": _set_dst_uri,
}
