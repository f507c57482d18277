"""Module xlog: log lines with pseudo-variables, from a route (stop 6).

Strategy: nothing is expanded unless the level is on.  Lines go to the logger ``sipedge.route``,
where ``ksr.info`` and its sisters write, too; octets that are no UTF-8 and control characters
become escapes, so that no message writes log lines of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from sipedge.hookspecs import hookimpl
from sipedge.module import FAIL, OK, Context, Function, ModuleExports, Param, Rc
from sipedge.modules.args import Text, as_text
from sipedge.modules.pvars import PseudoVariables
from sipedge.sip.message import SipMessage

log = logging.getLogger("sipedge.route")

NOTICE: Final = 25  # between INFO and WARNING, as syslog has it

#: Kamailio's levels and what they are here
LEVELS: Final = {
    "L_ALERT": logging.CRITICAL,
    "L_BUG": logging.CRITICAL,
    "L_CRIT": logging.CRITICAL,
    "L_ERR": logging.ERROR,
    "L_WARN": logging.WARNING,
    "L_NOTICE": NOTICE,
    "L_INFO": logging.INFO,
    "L_DBG": logging.DEBUG,
}
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


@dataclass(slots=True)
class XlogParams:
    prefix: str = "<script>: "
    buf_size: int = 4096


class XlogModule:
    """Kamailio's module xlog."""

    _variables: PseudoVariables

    def __init__(self) -> None:
        self.params = XlogParams()
        self.exports = ModuleExports(
            "xlog",
            functions=(
                Function("xlog", self.xlog),
                Function("xdbg", self.xdbg),
                Function("xinfo", self.xinfo),
                Function("xnotice", self.xnotice),
                Function("xwarn", self.xwarn),
                Function("xerr", self.xerr),
                Function("xcrit", self.xcrit),
            ),
            params=(
                Param("prefix", str, "what each line begins with"),
                Param("buf_size", int, "most characters of a line", 64, 65536),
            ),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        logging.addLevelName(NOTICE, "NOTICE")
        self._variables = PseudoVariables(ctx.config.pseudo_variables)

    def xlog(self, msg: SipMessage, level: str, text: Text) -> Rc:
        """Log ``text`` with its pseudo-variables filled in.

        ``level``: ``"L_ERR"``, ``"L_WARN"``, ``"L_NOTICE"``, ``"L_INFO"``, ``"L_DBG"`` and so on,
        with or without ``L_``, upper or lower case.  Returns 1; -1 if the level is off.
        """
        name = level.upper()
        number = LEVELS.get(name) or LEVELS.get(f"L_{name}")
        if number is None:
            raise ValueError(f"xlog: no level {level!r}; there are: {' '.join(LEVELS)}")
        return self._log(msg, number, text)

    def xdbg(self, msg: SipMessage, text: Text) -> Rc:
        """``xlog`` at L_DBG."""
        return self._log(msg, logging.DEBUG, text)

    def xinfo(self, msg: SipMessage, text: Text) -> Rc:
        """``xlog`` at L_INFO."""
        return self._log(msg, logging.INFO, text)

    def xnotice(self, msg: SipMessage, text: Text) -> Rc:
        """``xlog`` at L_NOTICE."""
        return self._log(msg, NOTICE, text)

    def xwarn(self, msg: SipMessage, text: Text) -> Rc:
        """``xlog`` at L_WARN."""
        return self._log(msg, logging.WARNING, text)

    def xerr(self, msg: SipMessage, text: Text) -> Rc:
        """``xlog`` at L_ERR."""
        return self._log(msg, logging.ERROR, text)

    def xcrit(self, msg: SipMessage, text: Text) -> Rc:
        """``xlog`` at L_CRIT."""
        return self._log(msg, logging.CRITICAL, text)

    def _log(self, msg: SipMessage, level: int, text: Text) -> Rc:
        if not log.isEnabledFor(level):
            return FAIL
        line = as_text(self._variables.expand(msg, text)).removesuffix("\n")
        log.log(
            level, "%s", (self.params.prefix + line.translate(_CONTROL))[: self.params.buf_size]
        )
        return OK
