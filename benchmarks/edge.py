"""The edge that is measured: the steps of kamailio.cfg, with every check that the core makes."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, core, listen, loadmodule, modparam

REGISTRAR = "sip:127.0.0.1:5090"

listen("udp:127.0.0.1:" + os.environ.get("BENCH_PORT", "5060"))
core.control_socket = ""  # several of these may run at once

loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("rr")
loadmodule("path")
loadmodule("maxfwd")
loadmodule("textops")

modparam("outbound", "flow_token_key", b"johndoessecretphrase")
if "BENCH_WT_TIMER" in os.environ:  # ms that an ended transaction is kept; Kamailio's default: 5000
    modparam("tm", "wt_timer", int(os.environ["BENCH_WT_TIMER"]))


def request_route(ksr: "Ksr", msg: "SipMessage") -> None:
    if not ksr.maxfwd.process_maxfwd(msg, 10):
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
    elif msg.method == b"REGISTER":
        if not ksr.path.add_path(msg):
            ksr.sl.send_reply(msg, 503, "Bad Path")
            return
        ksr.setdsturi(msg, REGISTRAR)
        ksr.tm.t_relay(msg)
    else:
        if ksr.textops.is_method(msg, "INVITE|SUBSCRIBE"):
            ksr.rr.record_route(msg)
        if not ksr.rr.loose_route(msg):
            ksr.sl.send_reply(msg, 404, "Not Found")
            return
        ksr.tm.t_relay(msg)
