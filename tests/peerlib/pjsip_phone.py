"""A phone of PJSIP, as a program of its own: the library wants a process for itself.

``pjsip_phone.py HOST PORT TRANSPORT USER PASSWORD [CALLED]``: registers by way of the outbound
proxy at HOST:PORT with SIP Outbound on, calls CALLED or takes what comes, hangs up once a call that
it took is established, and says on stdout what happens.  At log level 5 PJSIP writes each message.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pjsua2 as pj  # type: ignore[import-not-found]

DOMAIN = "example.com"


class Call(pj.Call):  # type: ignore[misc]
    """A call; the side that was called ends it."""

    def __init__(self, account: Phone, ident: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(account, ident)
        self.taken = ident != pj.PJSUA_INVALID_ID
        self.established = False

    def onCallState(self, prm: Any) -> None:
        state = self.getInfo().stateText
        print("call:", state, self.getInfo().lastStatusCode, flush=True)
        self.established = state == "CONFIRMED"


class Phone(pj.Account):  # type: ignore[misc]
    """One account."""

    call: Call | None = None

    def onRegState(self, prm: Any) -> None:
        print("registration:", prm.code, prm.reason, flush=True)

    def onIncomingCall(self, prm: Any) -> None:
        self.call = Call(self, prm.callId)
        for status in (180, 200):
            answer = pj.CallOpParam()
            answer.statusCode = status
            self.call.answer(answer)


def main(host: str, port: str, transport: str, user: str, password: str, called: str = "") -> None:
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    settings = pj.EpConfig()
    settings.logConfig.level = settings.logConfig.consoleLevel = 5
    settings.uaConfig.threadCnt = 0
    settings.uaConfig.mainThreadOnly = True
    endpoint.libInit(settings)
    kind = {"udp": pj.PJSIP_TRANSPORT_UDP, "tcp": pj.PJSIP_TRANSPORT_TCP}[transport]
    address = pj.TransportConfig()
    address.boundAddress = "127.0.0.1"
    endpoint.transportCreate(kind, address)
    endpoint.audDevManager().setNullDev()
    endpoint.libStart()
    account = pj.AccountConfig()
    account.idUri = f"sip:{user}@{DOMAIN}"
    account.regConfig.registrarUri = f"sip:{DOMAIN}"
    account.sipConfig.proxies.append(f"sip:{host}:{port};transport={transport};lr")
    account.sipConfig.authCreds.append(pj.AuthCredInfo("digest", DOMAIN, user, 0, password))
    account.natConfig.sipOutboundUse = 1
    phone = Phone()
    phone.create(account)
    while not phone.getInfo().regIsActive:
        endpoint.libHandleEvents(50)
    if called:
        phone.call = Call(phone)
        phone.call.makeCall(called, pj.CallOpParam(True))
    while phone.call is None or phone.call.isActive():
        endpoint.libHandleEvents(50)
        if phone.call is not None and phone.call.taken and phone.call.established:
            phone.call.hangup(pj.CallOpParam(True))
            phone.call.established = False
    print("call: over", flush=True)
    os._exit(0)  # it would unregister, and does not like how Python lets go of objects


if __name__ == "__main__":
    main(*sys.argv[1:])
