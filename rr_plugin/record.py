"""Making Record-Route: late edits, as the address of the sending side is known only when it sends.

Rules (RFC 3261 §16.6 item 4, RFC 5626 §5.3, RFC 5658 §5):

* a flow token stands only in the value that faces the UA.  Receiving side: the token of the flow
  that the request came on, if ``outbound`` says that it is from a UA.  Sending side: the token of
  the flow that it leaves on, if that is a UA's flow and no mere next hop;
* two values, the sending side on top, when the sides differ, or when both have a token: each UA
  then finds its own.  One value else, with whatever token there is;
* always an explicit port, ``transport`` unless it is UDP, ``lr``, never ``ob``;
* a value with a token also says to which end of the dialog its flow belongs (``fs``; ``uac`` is who
  sent the first request) and, to tell this end by, the caller's tag (``ftag``).

Part of stops 6 (the decision) and 7 (the edit) of a datagram.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sipedge.flow import TLS, Flow, Listener
from sipedge.sip.message import HeaderList, SipMessage
from sipedge.sip.names import RECORD_ROUTE

#: ``msg.recall(RR_PARAMS)``: what ``add_rr_param`` collected
RR_PARAMS: Final = "rr.params"


#: (sending listener, receiving listener, both sides have a token, sips) -> what stands behind
#: ``user@`` in the topmost value, and in the second one: ``None`` for one value only
Places = Callable[[Listener, Listener, bool, bool], tuple[bytes, bytes | None]]


class RecordStyle:
    """What the parameters of the module say about Record-Route values; one for all messages."""

    __slots__ = ("double", "encode", "ignore_sips", "lr", "tag_all")

    def __init__(
        self,
        encode: Callable[[Flow], bytes] | None,
        double: int,
        full_lr: bool,
        ignore_sips: bool,
        tag_all: bool,
    ) -> None:
        """``encode`` makes flow tokens, ``None`` without outbound; ``double``: 0 never two values,
        1 when needed, 2 always; ``tag_all``: ``ftag`` in values without a token too."""
        self.encode = encode
        self.double = double
        self.lr = b";lr=on" if full_lr else b";lr"
        self.ignore_sips = ignore_sips
        self.tag_all = tag_all

    def places(
        self, sending: Listener, receiving: Listener, tokens: bool, sips: bool
    ) -> tuple[bytes, bytes | None]:
        """The addresses of the listeners (``Places``)."""
        inner = receiving.uri_hostport + transport_param(receiving, sips)
        if self.double == 2 or (self.double and (tokens or sending is not receiving)):
            return sending.uri_hostport + transport_param(sending, sips), inner
        return inner, None


class PresetPlaces:
    """The addresses that the operator wrote (``Places``)."""

    __slots__ = ("_receiving", "_sending")

    def __init__(self, sending: bytes, receiving: bytes | None) -> None:
        self._sending = sending
        self._receiving = receiving

    def __call__(
        self, sending: Listener, receiving: Listener, tokens: bool, sips: bool
    ) -> tuple[bytes, bytes | None]:
        return self._sending, self._receiving


class AdvertisedPlaces:
    """One address for all listeners (``Places``)."""

    __slots__ = ("_address", "_double")

    def __init__(self, address: bytes, double: int) -> None:
        self._address = address
        self._double = double

    def __call__(
        self, sending: Listener, receiving: Listener, tokens: bool, sips: bool
    ) -> tuple[bytes, bytes | None]:
        inner = self._address + transport_param(receiving, sips)
        differ = tokens or sending.transport != receiving.transport
        if self._double == 2 or (self._double and differ):
            return self._address + transport_param(sending, sips), inner
        return inner, None


class RecordEdit:
    """One call of ``record_route``: writes the values into each branch as it is sent."""

    __slots__ = ("_ftag", "_params", "_places", "_style", "_token", "_upstream", "_user")

    def __init__(
        self,
        style: RecordStyle,
        places: Places,
        token: bytes,
        user: bytes,
        caller_tag: bytes,
        upstream: bool,
        params: bytes,
    ) -> None:
        """``token``: of the receiving side, b"" for none; ``user``: for values without a token;
        ``caller_tag``: of whoever sent the first request of the dialog, as ``ftag`` has it;
        ``upstream``: the request goes towards the caller; ``params``: more URI parameters."""
        self._style = style
        self._places = places
        self._token = token
        self._user = user
        self._ftag = b";ftag=" + caller_tag if caller_tag else b""
        self._upstream = upstream
        self._params = params

    def __call__(self, branch: HeaderList, msg: SipMessage, send_flow: Flow, on_flow: bool) -> None:
        """The late edit (``sipedge.sip.message.LateEdit``)."""
        encode, mine = self._style.encode, self._token
        theirs = encode(send_flow) if on_flow and encode is not None else b""
        sips = not self._style.ignore_sips and _is_sips(branch)
        first, second = self._places(
            send_flow.listener, msg.flow.listener, bool(mine and theirs), sips
        )
        params = self._params
        if msg.memo is not None:
            params += msg.memo.get(RR_PARAMS, b"")
        scheme = b"sips" if sips else b"sip"
        # the UA on the sending side is the callee, unless the request goes towards the caller
        sender, receiver = (b"uac", b"uas") if self._upstream else (b"uas", b"uac")
        if second is not None:
            line = self._line(scheme, mine, second + b";r2=on", receiver, params)
            branch.lines.insert(1, line)
            branch.ids.insert(1, RECORD_ROUTE)
            line = self._line(scheme, theirs, first + b";r2=on", sender, params)
        elif mine:
            line = self._line(scheme, mine, first, receiver, params)
        else:
            line = self._line(scheme, theirs, first, sender, params)
        branch.lines.insert(1, line)  # above all others (RFC 3261 §16.6 item 4)
        branch.ids.insert(1, RECORD_ROUTE)
        branch.edited()

    def _line(self, scheme: bytes, token: bytes, place: bytes, end: bytes, params: bytes) -> bytes:
        """One header row; ``end``: of the dialog, that the flow of ``token`` belongs to."""
        style, ftag = self._style, self._ftag
        if token:
            # without the caller's tag nobody could tell later which end a request is from
            tail = ftag + b";fs=" + end if ftag else b""
            return b"Record-Route: <%b:%b@%b%b%b%b>" % (
                scheme, token, place, style.lr, tail, params
            )  # fmt: skip
        user = self._user + b"@" if self._user else b""
        tail = ftag if style.tag_all else b""
        return b"Record-Route: <%b:%b%b%b%b%b>" % (scheme, user, place, style.lr, tail, params)


def transport_param(listener: Listener, sips: bool) -> bytes:
    """``;transport=`` of a URI that names a listener; b"" for the default of the scheme."""
    if sips and listener.transport == TLS:
        return b""  # RFC 3261 §26.2.2: TLS is what sips means
    return listener.uri_transport


def _is_sips(branch: HeaderList) -> bool:
    """RFC 3261 §16.6 item 4: a SIPS Request-URI wants a SIPS Record-Route."""
    start = branch.lines[0]
    at = start.find(b" ") + 1
    return start[at : at + 5].lower() == b"sips:"
