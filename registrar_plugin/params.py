"""The parameters of the registrar (``modparam("registrar", ...)``), with Kamailio's names.

Strategy: one dataclass holds the defaults, one table the types, ranges and what they mean.  Where a
default is not Kamailio's, the line says so; ``docs/modules/registrar.md`` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipedge.module import Context, Param

_SECONDS: Final = 2**31 - 1


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


PARAMS: Final = (
    Param("default_expires", int, "seconds granted when the UA does not ask", 1, _SECONDS),
    Param("default_expires_range", int, "percent by which a default is lowered at random", 0, 100),
    Param("expires_range", int, "percent by which what was asked is lowered at random", 0, 100),
    Param("min_expires", int, "shortest registration in seconds; 0: any", 0, _SECONDS),
    Param("min_expires_mode", int, "too short: 0 raise it, 1 answer 423", 0, 1),
    Param("max_expires", int, "longest registration in seconds; 0: any", 0, _SECONDS),
    Param("default_q", int, "q of a Contact without one, in thousandths; -1: as if 1000", -1, 1000),
    Param("append_branches", int, "lookup yields 1 all contacts, 0 the best one", 0, 1),
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
    if not params.received_param.isascii() or set(params.received_param) & set(' ;,="<>'):
        raise ctx.param_error("received_param", "received_param is a parameter name, or ''")
