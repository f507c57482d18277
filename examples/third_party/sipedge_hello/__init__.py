"""A module of somebody else's: installed with pip, loaded with ``loadmodule("hello")``.

It counts the requests that come in (a hook), and adds a header that says so (a function).
"""

from __future__ import annotations

from dataclasses import dataclass

from sipedge.hookspecs import hookimpl
from sipedge.module import FAIL, OK, REQUEST_ROUTE, Context, Function, ModuleExports, Param, Rc
from sipedge.sip.message import SipMessage


@dataclass(slots=True)
class HelloParams:
    greeting: str = "hello"


class HelloModule:
    """``loadmodule("hello")``."""

    def __init__(self) -> None:
        self.params = HelloParams()
        self.requests = 0
        self.exports = ModuleExports(
            "hello",
            functions=(Function("say_hello", self.say_hello, REQUEST_ROUTE),),
            params=(Param("greeting", str, "what X-Hello says"),),
        )

    @hookimpl
    def mod_init(self, ctx: Context) -> None:
        """Check what the operator wrote; octets are what goes out."""
        if not self.params.greeting.isascii() or not self.params.greeting.isprintable():
            raise ctx.param_error("greeting", "must be printable ASCII")
        self._greeting = self.params.greeting.encode()

    @hookimpl
    def request_in(self, msg: SipMessage, now: float) -> bool | None:
        """Every new request, before ``request_route``."""
        self.requests += 1
        return None

    def say_hello(self, msg: SipMessage) -> Rc:
        """Add ``X-Hello: <greeting> <number of requests>``; -1 if there is one."""
        if msg.has(b"x-hello"):
            return FAIL
        msg.append(b"x-hello", b"%s %d" % (self._greeting, self.requests))
        return OK
