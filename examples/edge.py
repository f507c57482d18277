"""An edge: phones and softphones register and call through it, behind whatever NAT.

It keeps the connection that a phone opened (or the UDP address that it sends from) and delivers
calls over exactly that, as RFC 5626 wants it.  A registrar behind it, here or elsewhere, needs
nothing but Path (RFC 3327): Kamailio, Asterisk with res_pjsip_path, OpenSIPS, or registrar.py.

Try it:  sipedge check edge.py, then sipedge run edge.py and, in another terminal,
sipedge run registrar.py (on macOS first: ifconfig lo0 alias 127.0.0.2).  What to edit for a real
one is marked with EDIT.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, core, keyfile, listen, loadmodule, modparam

REGISTRAR = "sip:127.0.0.2:5060"  # EDIT: where REGISTERs and calls go
CORE_ADDRESSES = {"127.0.0.2"}  # EDIT: numeric addresses that requests to phones may come from
FROM_PHONE = 1  # message flag: keep its flow even if its Contact has no ob (baresip, GRUUs)
FLOW_TIMER = 20  # seconds between the keep-alives that we ask phones for (RFC 5626 §8)

# 0.0.0.0 is every IPv4 address of this machine, [::] every IPv6 address.  Behind port forwarding
# say how the world calls it: listen("udp:10.0.0.5:5060", advertise="edge.example.com:5060")
listen("udp:127.0.0.1:5060")  # EDIT: "udp:0.0.0.0:5060"
listen("tcp:127.0.0.1:5060")
core.tcp_connection_lifetime = FLOW_TIMER + 10  # a phone that misses its keep-alives is gone

loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")  # before rr and path: they bind to it
loadmodule("rr")
loadmodule("path")
loadmodule("maxfwd")
loadmodule("sanity")
loadmodule("textops")
loadmodule("siputils")

# Who has this key can forge flow tokens.  Put a new key on top of the file to change it; tokens of
# the older ones are still accepted.
modparam("outbound", "flow_token_key", keyfile("flow_token.key"))
modparam("outbound", "force_outbound_flag", FROM_PHONE)


def request_route(ksr: "Ksr", msg: "SipMessage") -> None:
    """Every request.  Retransmissions, CANCEL and the ACK to an error never get here."""
    if ksr.maxfwd.process_maxfwd(msg, 70) == -1:
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
        return
    if not ksr.sanity.sanity_check(msg, 1511, 7):
        return  # it was answered
    if ksr.siputils.has_totag(msg):
        within_dialog(ksr, msg)
    elif msg.method == b"REGISTER":
        ksr.textops.remove_hf(msg, "Route")
        ksr.path.add_path(msg)
        ksr.setdsturi(msg, REGISTRAR)
        ksr.tm.t_relay(msg)
    elif msg.method == b"OPTIONS" and ksr.is_myself(msg.ruri) and ksr.siputils.options_reply(msg):
        return  # somebody asks whether we are alive
    elif msg.flow.remote[0] in CORE_ADDRESSES:
        to_phone(ksr, msg)
    else:
        from_phone(ksr, msg)


def within_dialog(ksr: "Ksr", msg: "SipMessage") -> None:
    """A request of a dialog follows the route set that we wrote into its first request."""
    token = ksr.outbound.check_flow_token(msg)
    if token in (-1, -2, -3) and msg.flow.remote[0] not in CORE_ADDRESSES:
        # what a phone sends begins with a flow token of ours: this does not, and we are no relay
        ksr.sl.send_reply(msg, 403, "Relaying Forbidden")
        return
    rc = ksr.rr.loose_route(msg)
    if rc == -2:
        ksr.sl.send_reply(msg, 403, "Forbidden")  # a flow token that was tampered with
    elif not rc:
        ksr.sl.send_reply(msg, 404, "Not Found")  # an ACK is never answered: it ends here
    else:
        if msg.method == b"NOTIFY":
            ksr.rr.record_route(msg)  # it may be the one that makes the dialog (RFC 6665 §4.1.2.4)
        ksr.tm.t_relay(msg)  # answers 430 by itself if the flow is gone


def from_phone(ksr: "Ksr", msg: "SipMessage") -> None:
    """A new request of a phone goes to the core, whatever Route or Via it shows us."""
    if makes_dialog(msg):
        ksr.setflag(msg, FROM_PHONE)
        ksr.rr.record_route(msg)  # before its Route goes: that is part of the outbound decision
    ksr.textops.remove_hf(msg, "Route")
    ksr.setdsturi(msg, REGISTRAR)
    ksr.tm.t_relay(msg)


def to_phone(ksr: "Ksr", msg: "SipMessage") -> None:
    """A new request from the core: the Path that it carries as Route names the flow of a phone."""
    if makes_dialog(msg):
        ksr.rr.record_route(msg)
    rc = ksr.rr.loose_route(msg)
    if rc == -2:
        ksr.sl.send_reply(msg, 403, "Forbidden")
    elif not rc:
        ksr.sl.send_reply(msg, 404, "Not Found")  # no Route of ours: we know no phones ourselves
    else:
        ksr.tm.t_relay(msg)


def reply_route(ksr: "Ksr", msg: "SipMessage") -> None:
    """Every response.  Phones learn our Flow-Timer if the registrar applied outbound."""
    if ksr.textops.is_method(msg, "REGISTER") and 200 <= msg.status < 300:
        ksr.textops.remove_hf(msg, "Flow-Timer")
        if b"outbound" in msg.options(b"require"):
            ksr.textops.insert_hf(msg, f"Flow-Timer: {FLOW_TIMER}\r\n", "Call-ID")


def makes_dialog(msg: "SipMessage") -> bool:
    """Will answers and later requests have to come back through us?"""
    return msg.method in (b"INVITE", b"SUBSCRIBE", b"NOTIFY", b"REFER")
