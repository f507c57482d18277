"""The parameters of the registrar (``modparam("registrar", ...)``), with Kamailio's names.

Strategy: one dataclass holds the defaults, one table the types, ranges and what they mean.  Where a
default is not Kamailio's, the line says so; ``docs/modules/registrar.md`` says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import FunctionType
from typing import Final

from registrar_plugin.gruu import KEY_OCTETS
from sipedge.errors import ParseError
from sipedge.module import Context, Param
from sipedge.sip.nameaddr import parse_nameaddr
from sipedge.sip.uri import parse_uri
from sipedge.sip.values import split_list

_SECONDS: Final = 2**31 - 1

_NODE_ID: Final = re.compile(r"[A-Za-z0-9\-_.:]{1,64}")

MAKE_A_KEY: Final = (
    "gruu_key is 20 to 32 octets, or a list of such keys; make one with "
    "`sipedge keygen > gruu.key` "
    'and write modparam("registrar", "gruu_key", keyfile("gruu.key"))'
)
Keys = bytes | str | tuple[bytes | str, ...] | list[bytes | str]


@dataclass(slots=True)
class RegistrarParams:
    default_expires: int = 3600
    default_expires_range: int = 0
    expires_range: int = 0
    min_expires: int = 60
    min_expires_mode: int = 1  # Kamailio: 0
    max_expires: int = 0
    default_q: int = -1
    append_branches: int = 1
    append_late_branches: int = 0  # Kamailio: module tsilo
    case_sensitive: int = 0
    use_domain: int = 1  # Kamailio's usrloc: 0
    realm_prefix: str = ""
    received_param: str = ""  # Kamailio: "received"
    max_contacts: int = 100  # Kamailio: 0
    contact_max_size: int = 512
    retry_after: int = 0
    method_filtering: int = 0
    use_path: int = 1  # Kamailio: 0
    path_mode: int = 3  # Kamailio: 2, and knows no 3
    outbound_mode: int = 1  # Kamailio: 0
    regid_mode: int = 0
    flow_timer: int = 0
    service_route: str = ""  # Kamailio has none
    gruu_enabled: int = 1
    gruu_key: Keys = b""  # Kamailio has none
    db_url: str = ""
    db_mode: int = 2  # Kamailio: 0
    db_batch_ms: int = 100  # Kamailio's timer_interval: a minute
    node_id: str = ""  # Kamailio: server_id of the core
    event_callback: str | FunctionType = ""


PARAMS: Final = (
    Param("default_expires", int, "seconds granted when the UA does not ask", 1, _SECONDS),
    Param("default_expires_range", int, "percent by which a default is lowered at random", 0, 100),
    Param("expires_range", int, "percent by which what was asked is lowered at random", 0, 100),
    Param("min_expires", int, "shortest registration in seconds; 0: any", 0, _SECONDS),
    Param("min_expires_mode", int, "too short: 0 raise it, 1 answer 423", 0, 1),
    Param("max_expires", int, "longest registration in seconds; 0: any", 0, _SECONDS),
    Param("default_q", int, "q of a Contact without one, in thousandths; -1: as if 1000", -1, 1000),
    Param("append_branches", int, "lookup yields 1 all contacts, 0 the best one", 0, 1),
    Param("append_late_branches", int, "1: who registers while a call rings is called, too", 0, 1),
    Param("case_sensitive", int, "user parts that differ in case are 1 two, 0 one", 0, 1),
    Param("use_domain", int, "an AOR is 1 user@domain, 0 the user alone", 0, 1),
    Param("realm_prefix", str, "removed from the start of the domain of an AOR"),
    Param("received_param", str, "Contact parameter that shows the flow's address; '': none"),
    Param("max_contacts", int, "bindings per AOR; 0: any number", 0, 100_000),
    Param("contact_max_size", int, "octets of a Contact URI", 16, 4096),
    Param("retry_after", int, "seconds in Retry-After of a 5xx; 0: no such header", 0, _SECONDS),
    Param("method_filtering", int, "1: only contacts that allow the method are called", 0, 1),
    Param("use_path", int, "1: Path is stored and used", 0, 1),
    Param("path_mode", int, "Path in the answer: 0 no, 1 if listed, 2 else 420, 3 always", 0, 3),
    Param("outbound_mode", int, "RFC 5626: 0 off, 1 on, 2 required", 0, 2),
    Param("regid_mode", int, "1: reg-id counts whatever the first hop can do", 0, 1),
    Param("flow_timer", int, "seconds in Flow-Timer; 0: no such header", 0, 999),
    Param("service_route", str, "Service-Route of a 2xx (RFC 3608); '': no such header"),
    Param("gruu_enabled", int, "GRUUs (RFC 5627): 0 off, 1 on", 0, 1),
    Param(
        "gruu_key",
        (bytes, str, tuple, list),
        "20 to 32 octets that hide users in temporary GRUUs, or a list: the present key first",
    ),
    Param(
        "db_url",
        str,
        "sqlite:///FILE keeps bindings across restarts, redis://HOST or postgresql://HOST/DATABASE "
        "shares them; '': memory only",
    ),
    Param("db_mode", int, "0 memory only, 1 stored before the 200, 2 soon after it", 0, 2),
    Param("db_batch_ms", int, "milliseconds from a change to its transaction", 100, 60_000),
    Param("node_id", str, "name among registrars that share bindings; '': another at each start"),
    Param(
        "event_callback",
        (str, FunctionType),
        "function(ksr, event) that is told what becomes of bindings; '': none",
    ),
)


def check_params(params: RegistrarParams, ctx: Context) -> None:
    """What the ranges cannot say; raises ``ConfigError``."""
    if params.flow_timer and not params.outbound_mode:
        raise ctx.param_error(
            "flow_timer",
            "flow_timer needs outbound: set outbound_mode to 1 or 2, or flow_timer to 0",
        )
    if params.max_expires and params.max_expires < params.min_expires:
        raise ctx.param_error(
            "max_expires",
            f"max_expires {params.max_expires} is below min_expires {params.min_expires}: "
            "no registration could be granted",
        )
    if params.service_route and not _is_route(params.service_route.encode()):
        raise ctx.param_error(
            "service_route", "service_route is a list like '<sip:home.example.com;lr>', with lr"
        )
    if params.db_mode == 1 and not params.db_url:
        raise ctx.param_error("db_mode", "db_mode 1 needs db_url: where shall bindings be stored?")
    if params.node_id and not _NODE_ID.fullmatch(params.node_id):
        raise ctx.param_error("node_id", "node_id has up to 64 of a-z, A-Z, 0-9 and -_.:")
    if not params.received_param.isascii() or set(params.received_param) & set(' ;,="<>'):
        raise ctx.param_error("received_param", "received_param is a parameter name, or ''")


def gruu_keys(params: RegistrarParams, ctx: Context) -> list[bytes]:
    """The keys as octets, none if none was set; raises ``ConfigError``."""
    value: object = params.gruu_key
    if value == b"":
        return []
    entries = list(value) if isinstance(value, tuple | list) else [value]
    keys = []
    for entry in entries:
        key = entry.encode() if isinstance(entry, str) else entry
        if not isinstance(key, bytes) or len(key) not in KEY_OCTETS:
            raise ctx.param_error("gruu_key", MAKE_A_KEY)
        keys.append(key)
    if not keys:
        raise ctx.param_error("gruu_key", MAKE_A_KEY)
    return keys


def _is_route(row: bytes) -> bool:
    """RFC 3608 §6.3: Service-Route values are loose routes."""
    try:
        uris = [parse_uri(parse_nameaddr(value).uri) for value in split_list(row)]
    except ParseError:
        return False
    return bool(uris) and all(b"lr" in uri.params and uri.host for uri in uris)
