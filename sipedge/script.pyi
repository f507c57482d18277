# What a configuration file may use, with types.  The functions of a module are the methods that its
# exports table names, so its class is the type of its namespace.
from typing import Any

from outbound_plugin.plugin import OutboundPlugin
from path_plugin.plugin import PathPlugin
from registrar_plugin.plugin import RegistrarPlugin
from rr_plugin.plugin import RrPlugin
from sipedge.ksr import Ksr as _Ksr
from sipedge.modules.auth.module import AuthModule
from sipedge.modules.maxfwd import MaxfwdModule
from sipedge.modules.pv import PvModule
from sipedge.modules.sanity import SanityModule
from sipedge.modules.siputils import SiputilsModule
from sipedge.modules.sl import SlModule
from sipedge.modules.stun import StunModule
from sipedge.modules.textops import TextopsModule
from sipedge.modules.tm import TmModule
from sipedge.modules.websocket import WebsocketModule
from sipedge.modules.xlog import XlogModule
from sipedge.settings import Settings
from sipedge.sip.message import SipMessage as SipMessage

class Ksr(_Ksr):
    auth: AuthModule
    maxfwd: MaxfwdModule
    outbound: OutboundPlugin
    path: PathPlugin
    pv: PvModule
    registrar: RegistrarPlugin
    rr: RrPlugin
    sanity: SanityModule
    siputils: SiputilsModule
    sl: SlModule
    stun: StunModule
    textops: TextopsModule
    tm: TmModule
    websocket: WebsocketModule
    xlog: XlogModule
    # modules of other packages
    def __getattr__(self, name: str) -> Any: ...

core: Settings

def listen(
    address: str,
    advertise: str | None = None,
    proxy_protocol: str | list[str] | tuple[str, ...] = (),
) -> None: ...
def alias(*names: str) -> None: ...
def loadmodule(name: str) -> None: ...
def modparam(module: str, name: str, value: object) -> None: ...
def keyfile(path: str) -> tuple[bytes, ...]: ...
