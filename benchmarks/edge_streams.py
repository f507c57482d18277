"""The edge whose streams are measured: the steps of kamailio_streams.cfg.

TCP, TLS, WebSocket and secure WebSocket towards the phones, on ports that follow one another; UDP
towards the registrar.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, core, listen, loadmodule, modparam

REGISTRAR = "sip:127.0.0.1:" + os.environ.get("BENCH_REGISTRAR", "5090")
PORT = int(os.environ.get("BENCH_PORT", "5060"))

listen(f"udp:127.0.0.1:{PORT}")
listen(f"tcp:127.0.0.1:{PORT}")
listen(f"tls:127.0.0.1:{PORT + 1}")
listen(f"ws:127.0.0.1:{PORT + 2}")
listen(f"wss:127.0.0.1:{PORT + 3}")
core.control_socket = ""  # several of these may run at once
core.tcp_connection_lifetime = 3600  # connections.py has some that say nothing

loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("rr")
loadmodule("path")
loadmodule("maxfwd")
loadmodule("tls")
loadmodule("websocket")

modparam("outbound", "flow_token_key", b"johndoessecretphrase")
modparam("tls", "certificate", os.environ["BENCH_CERTIFICATE"])
modparam("tls", "private_key", os.environ["BENCH_PRIVATE_KEY"])
modparam("websocket", "keepalive_timeout", 3600)
if "BENCH_WT_TIMER" in os.environ:  # ms that an ended transaction is kept; Kamailio's default: 5000
    modparam("tm", "wt_timer", int(os.environ["BENCH_WT_TIMER"]))


def request_route(ksr: "Ksr", msg: "SipMessage") -> None:
    if not ksr.maxfwd.process_maxfwd(msg, 10):
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
    elif msg.method != b"REGISTER":
        ksr.sl.send_reply(msg, 404, "Not Found")
    elif not ksr.path.add_path(msg):
        ksr.sl.send_reply(msg, 503, "Bad Path")
    else:
        ksr.setdsturi(msg, REGISTRAR)
        ksr.tm.t_relay(msg)
