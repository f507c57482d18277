"""The registrar of the location benchmark: it saves, and it says whether somebody is registered."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipedge.script import Ksr, SipMessage, alias, core, listen, loadmodule, modparam

listen("udp:127.0.0.1:" + os.environ.get("BENCH_PORT", "5060"))
core.control_socket = ""  # several of these may run at once
alias("example.com")

loadmodule("tm")
loadmodule("sl")
loadmodule("outbound")
loadmodule("registrar")
loadmodule("maxfwd")

modparam("outbound", "flow_token_key", b"johndoessecretphrase")
modparam("tm", "wt_timer", int(os.environ.get("BENCH_WT_TIMER", "5000")))
if "BENCH_DB_URL" in os.environ:
    modparam("registrar", "db_url", os.environ["BENCH_DB_URL"])


def request_route(ksr: "Ksr", msg: "SipMessage") -> None:
    if not ksr.maxfwd.process_maxfwd(msg, 10):
        ksr.sl.send_reply(msg, 483, "Too Many Hops")
    elif msg.method == b"REGISTER":
        ksr.registrar.save(msg, "location")
    elif ksr.registrar.lookup(msg, "location"):
        ksr.sl.send_reply(msg, 200, "OK")
    else:
        ksr.sl.send_reply(msg, 404, "Not Found")
