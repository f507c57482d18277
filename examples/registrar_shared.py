"""One of several registrars and home proxies that share their bindings, behind one or more edges.

What one of them stores is found by the others at once, and one that dies takes nothing with it.
The bindings are in Redis, or in PostgreSQL, and have to be waited for: the routes that use them are
``async def``.  All registrars run this file, each with an address and a name of its own.

Try it:  redis-server --appendonly yes --appendfsync always
         pip install 'sipedge[redis]'
         sipedge keygen > gruu.key
         sipedge run registrar_shared.py beside sipedge run edge.py
What to edit is marked with EDIT.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, alias, keyfile, listen, loadmodule, modparam

listen("udp:127.0.0.2:5060")  # EDIT: the address that the edge knows as its REGISTRAR
listen("tcp:127.0.0.2:5060")
alias("example.com")  # EDIT: the domain of the users; never a name or address of the edge

loadmodule("tm")
loadmodule("sl")
loadmodule("rr")
loadmodule("registrar")
loadmodule("maxfwd")
loadmodule("sanity")
loadmodule("textops")
loadmodule("siputils")

modparam("registrar", "outbound_mode", 1)
modparam("registrar", "use_path", 1)
modparam("registrar", "db_url", "redis://127.0.0.1:6379/0")  # EDIT: or postgresql://sip@host/sip
modparam("registrar", "node_id", "home-1")  # EDIT: another one for each registrar
modparam("registrar", "gruu_key", keyfile("gruu.key"))  # the same for all of them
modparam("siputils", "options_support", "path, outbound, gruu")
modparam("siputils", "options_allow", "OPTIONS, REGISTER")


async def request_route(ksr: "Ksr", msg: "SipMessage") -> None:
    """Every request.  Retransmissions, CANCEL and the ACK to an error never get here."""
    if ksr.maxfwd.process_maxfwd(msg, 70) == -1:
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
        return
    if not ksr.sanity.sanity_check(msg, 1511, 7):
        return  # it was answered
    if ksr.siputils.has_totag(msg):
        await within_dialog(ksr, msg)
        return
    ksr.textops.remove_hf(msg, "Route")
    if not ksr.is_myself(msg.ruri) and not ksr.registrar.own_gruu(msg):
        if msg.method == b"REGISTER":
            ksr.sl.send_reply(msg, 404, "Not Found")  # a domain that we do not serve
        else:
            ksr.sl.send_reply(msg, 403, "Relaying Forbidden")
    elif msg.method == b"REGISTER":
        await ksr.registrar.save_async(msg, "location")  # answers the request, good or bad
    elif ksr.siputils.uas_reply(msg):
        return  # it was for us: somebody asks whether we are alive, or wants what we cannot do
    else:
        if msg.method in (b"INVITE", b"SUBSCRIBE", b"NOTIFY", b"REFER"):
            ksr.rr.record_route(msg)
        await to_user(ksr, msg)


async def within_dialog(ksr: "Ksr", msg: "SipMessage") -> None:
    """A request of a dialog follows the route set that we wrote into its first request."""
    rc = ksr.rr.loose_route(msg)
    if rc == -2:
        ksr.sl.send_reply(msg, 403, "Forbidden")
    elif ksr.registrar.own_gruu(msg):
        await to_user(ksr, msg)  # the phone called itself by its GRUU (RFC 5627)
    elif not rc:
        ksr.sl.send_reply(msg, 404, "Not Found")  # an ACK is never answered: it ends here
    else:
        if msg.method == b"NOTIFY":
            ksr.rr.record_route(msg)
        ksr.tm.t_relay(msg)


async def to_user(ksr: "Ksr", msg: "SipMessage") -> None:
    """A request for one of our users: to all bindings; for a GRUU: to one device of the user.

    A flow that is dead (430, or no answer) loses its binding and the next flow of the device is
    tried; none left is 480 for the caller.  That needs no failure route.  While the database is
    away nobody knows whether there is such a user: that is no 404.
    """
    rc = await ksr.registrar.lookup_async(msg, "location")
    if rc:
        ksr.tm.t_relay(msg)
    elif rc == -2:
        ksr.sl.send_reply(msg, 405, "Method Not Allowed")
    elif rc == -4:
        ksr.sl.send_reply(msg, 503, "Service Unavailable")
    elif rc == -1:
        ksr.sl.send_reply(msg, 480, "Temporarily Unavailable")  # no phone of his is on
    else:
        ksr.sl.send_reply(msg, 404, "Not Found")  # no address of ours, or a GRUU of nobody
