"""The registrar that is measured: bindings in memory, answered in one process."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, alias, core, listen, loadmodule, modparam

PORT = os.environ.get("BENCH_PORT", "5060")
listen("udp:127.0.0.1:" + PORT)
listen("tcp:127.0.0.1:" + PORT)
core.control_socket = ""  # several of these may run at once
core.tcp_connection_lifetime = 3600  # memory.py has connections that say nothing
core.tcp_msg_data_timeout = 0
core.tcp_accept_iplimit = 0
core.tcp_max_connections = 0
alias("example.com")

loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("path")
loadmodule("registrar")
loadmodule("maxfwd")

modparam("outbound", "flow_token_key", b"johndoessecretphrase")
if "BENCH_WT_TIMER" in os.environ:  # ms that an ended transaction is kept; Kamailio's default: 5000
    modparam("tm", "wt_timer", int(os.environ["BENCH_WT_TIMER"]))


def request_route(ksr: "Ksr", msg: "SipMessage") -> None:
    if not ksr.maxfwd.process_maxfwd(msg, 10):
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
    elif msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    else:
        ksr.sl.send_reply(msg, 404, "Not Found")
