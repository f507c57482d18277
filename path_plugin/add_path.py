"""Making Path (RFC 3327 §5.2, RFC 5626 §5.1): a late edit, because the address in it is the one
that the registrar's side reaches us by, which is known only when the request leaves.

The edit is kept with the flow that the REGISTER came on, and remembers its header row: a phone that
refreshes costs two look-ups.  Part of stops 6 (the decision) and 7 (the edit) of a datagram.
"""

from __future__ import annotations

from typing import Final

from sipedge.flow import TCP, TLS, UDP, URI_TRANSPORT, Flow, FlowTable, Listener, host_bytes
from sipedge.sip.message import HeaderList, SipMessage
from sipedge.sip.names import END, PATH

#: what a proxy can connect to; nobody can dial a browser's way in
_DIALABLE: Final = (UDP, TCP, TLS)


class PathEdit:
    """Writes one Path value, or a pair of them, into each branch as it is sent."""

    __slots__ = ("_flows", "_lines", "_receiving", "_sending", "_sips", "_tail", "_user")

    def __init__(
        self, flows: FlowTable, user: bytes, tail: bytes, receiving: Listener | None, sips: bool
    ) -> None:
        """``user``: token or name, b"" for none; ``tail``: URI parameters behind ``lr``;
        ``receiving``: the listener for a second value (``enable_r2``), ``None`` for one value."""
        self._flows = flows
        self._user = user + b"@" if user else b""
        self._tail = tail
        self._receiving = receiving
        self._sips = sips
        self._sending: Listener | None = None
        self._lines: list[bytes] = []

    def __call__(self, branch: HeaderList, msg: SipMessage, send_flow: Flow, on_flow: bool) -> None:
        """The late edit (``sipedge.sip.message.LateEdit``)."""
        if send_flow.listener is not self._sending:
            self._sending = send_flow.listener
            self._lines = self._make(send_flow.listener)
        lines = self._lines
        at = branch.find(PATH)
        if at < 0:
            at = branch.ids.index(END)
        # RFC 3327 §5.2: ours is the topmost value; what a UA claims for itself stays below it
        branch.lines[at:at] = lines
        branch.ids[at:at] = [PATH] * len(lines)
        branch.edited()

    def _make(self, sending: Listener) -> list[bytes]:
        core_side = self._core_side(sending)
        if self._receiving is None:
            return [self._line(core_side, b"")]
        return [self._line(core_side, b";r2=on"), self._line(self._receiving, b";r2=on")]

    def _core_side(self, sending: Listener) -> Listener:
        """The listener to name: the sending one, or one that can be dialed, or that has TLS."""
        wanted = (TLS,) if self._sips else _DIALABLE
        if sending.transport in wanted:
            return sending
        for transport in wanted:
            other = self._flows.towards(transport, sending.host, None)
            if other is not None:
                return other
        return sending

    def _line(self, listener: Listener, r2: bytes) -> bytes:
        scheme, transport = b"sip", listener.uri_transport
        if self._sips:
            # RFC 5630 §5.2: a registrar refuses a SIPS contact behind another kind of Path
            scheme = b"sips"
            transport = b"" if listener.transport == TLS else transport
        return b"Path: <%b:%b%b%b;lr%b%b>" % (
            scheme, self._user, listener.uri_hostport, transport, self._tail, r2
        )  # fmt: skip


def received_param(name: bytes, flow: Flow, numbers: bool) -> bytes:
    """``;received=`` with the peer's address: an escaped SIP URI, or ``ip~port~transport`` with
    Kamailio's number of the transport."""
    host, port = host_bytes(flow.remote[0]), flow.remote[1]
    if numbers:
        return b";%b=%b~%d~%d" % (name, host, port, flow.transport)
    transport = b"" if flow.transport == UDP else b"%3Btransport%3D" + URI_TRANSPORT[flow.transport]
    return b";%b=sip:%b:%d%b" % (name, host, port, transport)
