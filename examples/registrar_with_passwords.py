"""Edge and registrar in one process that lets nobody in without a password.

What ``edge_and_registrar.py`` does, for phones on the Internet: every REGISTER and every new call
is authenticated by digest (RFC 7616, RFC 8760), and a user may be nobody but himself.

Make a user first:  sipedge passwd passwords alice example.com
Then:  sipedge run registrar_with_passwords.py, with a phone whose user is alice, whose domain is
example.com and whose outbound proxy is 127.0.0.1.  What to edit is marked with EDIT.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, alias, core, keyfile, listen, loadmodule, modparam

DOMAIN = "example.com"  # EDIT: the domain of the users, and the realm of their passwords
FROM_PHONE = 1  # message flag: keep its flow even if its Contact has no ob (baresip, GRUUs)
FLOW_TIMER = 25  # seconds between the keep-alives that we ask phones for (RFC 5626 §8)

listen("udp:127.0.0.1:5060")  # EDIT: "udp:0.0.0.0:5060"
listen("tcp:127.0.0.1:5060")
alias(DOMAIN)
core.tcp_connection_lifetime = FLOW_TIMER + 10  # a phone that misses its keep-alives is gone

loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")  # before rr: it binds to it
loadmodule("rr")
loadmodule("registrar")
loadmodule("auth")
loadmodule("maxfwd")
loadmodule("sanity")
loadmodule("textops")
loadmodule("siputils")

modparam("outbound", "flow_token_key", keyfile("flow_token.key"))
modparam("outbound", "force_outbound_flag", FROM_PHONE)
modparam("registrar", "flow_timer", FLOW_TIMER)
modparam("registrar", "db_url", "sqlite:///location.sqlite")  # survives a restart
modparam("auth", "credentials", "file:passwords")  # `sipedge passwd` writes it
modparam("auth", "max_failures", 20)  # wrong passwords of one address in a minute


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
    if not authenticated(ksr, msg):
        return
    if msg.method in (b"INVITE", b"SUBSCRIBE", b"NOTIFY", b"REFER"):
        ksr.setflag(msg, FROM_PHONE)
        ksr.rr.record_route(msg)  # before its Route goes: that is part of the outbound decision
    ksr.textops.remove_hf(msg, "Route")
    if not ksr.is_myself(msg.ruri) and not ksr.registrar.own_gruu(msg):
        ksr.sl.send_reply(msg, 403, "Relaying Forbidden")
    elif msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")  # answers the request, good or bad
    elif ksr.siputils.uas_reply(msg):
        return  # it was for us: somebody asks whether we are alive, or wants what we cannot do
    else:
        to_user(ksr, msg)


def authenticated(ksr: "Ksr", msg: "SipMessage") -> bool:
    """Is this request from the user that it says?  If not, it was answered.

    401 or 407 asks for a password; 403 is for a good one of somebody else, 503 for who has tried
    too often.
    """
    if not ksr.auth.auth_check(msg, DOMAIN):
        ksr.auth.auth_challenge(msg, DOMAIN)
        return False
    ksr.auth.consume_credentials(msg)
    return True


def within_dialog(ksr: "Ksr", msg: "SipMessage") -> None:
    """A request of a dialog follows the route set that we wrote into its first request.

    Whoever knows the flow tokens in it was there when the dialog was made, with his password.
    """
    ksr.auth.consume_credentials(msg, DOMAIN)  # phones go on sending it; the other side shall not
    rc = ksr.rr.loose_route(msg)
    if rc == -2:
        ksr.sl.send_reply(msg, 403, "Forbidden")  # a flow token that was tampered with
    elif not rc or msg.dst_flow is None:
        ksr.sl.send_reply(msg, 404, "Not Found")  # an ACK is never answered: it ends here
    elif ksr.registrar.own_gruu(msg):
        to_user(ksr, msg)  # the phone called itself by its GRUU: where it is, we know (RFC 5627)
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
