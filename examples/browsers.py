"""Browsers, desk phones and softphones call each other: edge and registrar, with every way in.

Phones register over WebSocket, UDP, TCP or TLS and are called over the very flow that they
registered on (RFC 5626, RFC 7118).  A page that does it is in docs/browsers.md.  Nothing is relayed
for strangers: a call must be for a registered user of ours.  There is no authentication in here;
think before you let the Internet in (registrar_with_passwords.py has it).

Try it:  sipedge init --tls DIR makes a certificate for this machine and a key for flow tokens; copy
this file to DIR, then sipedge run DIR/browsers.py.  What to edit for a real one is marked with
EDIT.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, alias, core, keyfile, listen, loadmodule, modparam

FROM_PHONE = 1  # message flag: keep its flow even if its Contact has no ob (GRUUs of browsers)
FLOW_TIMER = 25  # seconds between the keep-alives that we ask phones for (RFC 5626 §8)

listen("udp:127.0.0.1:5060")  # EDIT: "udp:0.0.0.0:5060", and so on
listen("tcp:127.0.0.1:5060")
listen("tls:127.0.0.1:5061")
listen("ws:127.0.0.1:8080")  # for pages from http://localhost, and behind a proxy that ends TLS
listen("wss:127.0.0.1:8443")  # a page from https:// may connect to this only
alias("example.com")  # EDIT: users may be called alice@example.com as well as alice@127.0.0.1
core.tcp_connection_lifetime = FLOW_TIMER + 10  # a phone that misses its keep-alives is gone

loadmodule("tm")
loadmodule("sl")
loadmodule("tls")
loadmodule("websocket")
loadmodule("outbound")  # before rr: it binds to it
loadmodule("rr")
loadmodule("registrar")
loadmodule("maxfwd")
loadmodule("sanity")
loadmodule("textops")
loadmodule("siputils")

modparam("tls", "certificate", "tls.pem")  # EDIT: with its chain; browsers want one they trust
modparam("tls", "private_key", "tls.key")
modparam("websocket", "keepalive_timeout", FLOW_TIMER + 5)  # browsers send no keep-alives: we ping
modparam("outbound", "flow_token_key", keyfile("flow_token.key"))
modparam("outbound", "force_outbound_flag", FROM_PHONE)
modparam("registrar", "flow_timer", FLOW_TIMER)
modparam("registrar", "db_url", "sqlite:///location.sqlite")  # survives a restart
modparam("siputils", "options_support", "path, outbound, gruu")
modparam("siputils", "options_allow", "OPTIONS, REGISTER")


def request_route(ksr: "Ksr", msg: "SipMessage") -> None:
    """Every request.  Retransmissions, CANCEL and the ACK to an error never get here."""
    if ksr.maxfwd.process_maxfwd(msg, 70) == -1:
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
        return
    if not ksr.sanity.sanity_check(msg, 1511, 7):
        return  # it was answered
    if ksr.siputils.has_totag(msg):
        within_dialog(ksr, msg)
        return
    if msg.method in (b"INVITE", b"SUBSCRIBE", b"NOTIFY", b"REFER"):
        ksr.setflag(msg, FROM_PHONE)
        ksr.rr.record_route(msg)  # before its Route goes: that is part of the outbound decision
    ksr.textops.remove_hf(msg, "Route")
    if not ksr.is_myself(msg.ruri) and not ksr.registrar.own_gruu(msg):
        if msg.method == b"REGISTER":
            ksr.sl.send_reply(msg, 404, "Not Found")  # a domain that we do not serve
        else:
            ksr.sl.send_reply(msg, 403, "Relaying Forbidden")
    elif msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")  # answers the request, good or bad
    elif ksr.siputils.uas_reply(msg):
        return  # it was for us: somebody asks whether we are alive, or wants what we cannot do
    else:
        to_user(ksr, msg)


def within_dialog(ksr: "Ksr", msg: "SipMessage") -> None:
    """A request of a dialog follows the route set that we wrote into its first request."""
    if ksr.outbound.check_flow_token(msg) in (-1, -2, -3) and not ksr.registrar.own_gruu(msg):
        # all our route sets begin with a flow token: this one is not ours, and we relay for nobody
        ksr.sl.send_reply(msg, 403, "Relaying Forbidden")
        return
    rc = ksr.rr.loose_route(msg)
    if rc == -2:
        ksr.sl.send_reply(msg, 403, "Forbidden")  # a flow token that was tampered with
    elif ksr.registrar.own_gruu(msg):
        to_user(ksr, msg)  # the phone called itself by its GRUU: where it is, we know (RFC 5627)
    elif not rc:
        ksr.sl.send_reply(msg, 404, "Not Found")  # an ACK is never answered: it ends here
    else:
        if msg.method == b"NOTIFY":
            ksr.rr.record_route(msg)  # it may be the one that makes the dialog (RFC 6665 §4.1.2.4)
        ksr.tm.t_relay(msg)  # answers 430 by itself if the flow is gone


def to_user(ksr: "Ksr", msg: "SipMessage") -> None:
    """To all phones of a user, or to the one that a GRUU names."""
    rc = ksr.registrar.lookup(msg, "location")
    if rc:
        ksr.tm.t_relay(msg)  # over the flows of the bindings; dead ones are dropped and skipped
    elif rc == -1:
        ksr.sl.send_reply(msg, 480, "Temporarily Unavailable")  # no phone of his is on
    else:
        ksr.sl.send_reply(msg, 404, "Not Found")  # no address of ours, or a GRUU of nobody
