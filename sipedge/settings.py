"""Settings of the host: what ``core.<name> = value`` in a configuration file may say.

Strategy: the defaults are class attributes, which ``Core`` inherits; an operator's value becomes an
attribute of the instance.  Names, units and meaning are Kamailio's where Kamailio has them.  Read
by ``Core`` and by ``net``; no stop of a datagram.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from sipedge.lookups import DnsSettings
from sipedge.module import Param

_SECONDS: Final = (int, float)


@mypyc_attr(allow_interpreted_subclasses=True)
class Settings(DnsSettings):
    """The settings and their defaults; times in seconds."""

    #: answer to the source port even if the client did not ask for it by ``rport``
    force_rport: bool = True
    #: path of the socket for commands, "auto", or "" for none; net opens it
    control_socket: str = "auto"
    #: without a byte from the peer until a stream is closed; <= 0: never
    tcp_connection_lifetime: float = 120.0
    #: from the first byte of a handshake (PROXY, TLS, WebSocket) to its end (requirement TRN-18)
    tcp_handshake_timeout: float = 10.0
    #: from the beginning of an accepted stream to its first SIP message; 0: never
    tcp_msg_data_timeout: float = 20.0
    #: from the first byte of a message on a stream to its last; 0: never (requirement TRN-18)
    tcp_msg_read_timeout: float = 20.0
    #: until a server that we connect to has answered (requirement TRN-17)
    tcp_connect_timeout: float = 5.0
    #: accepted streams at a time; 0: as many as there are descriptors
    tcp_max_connections: int = 65536
    #: accepted streams of one address (IPv6: of one /64) at a time; 0: as many as it likes
    tcp_accept_iplimit: int = 1024
    #: at SIGTERM: until transactions that are under way have to be over
    drain_timeout: float = 32.0
    #: after that: over which connections are closed, so that phones do not all come back at once
    drain_spread: float = 10.0
    #: a file that is there while new calls are welcome; "" for none
    ready_file: str = ""


#: what ``core.<name> = value`` in a configuration file may set
SETTINGS: Final = (
    Param("force_rport", bool, "answer to the source port whether or not Via has rport"),
    Param("control_socket", str, "path of the socket for commands; 'auto', or '' for none"),
    Param("tcp_connection_lifetime", _SECONDS, "idle seconds until a stream is closed"),
    Param("tcp_handshake_timeout", _SECONDS, "seconds for PROXY, TLS and WebSocket together", 1),
    Param("tcp_msg_data_timeout", _SECONDS, "seconds until the first message; 0: never", 0),
    Param("tcp_msg_read_timeout", _SECONDS, "seconds for one message on a stream; 0: never", 0),
    Param("tcp_connect_timeout", _SECONDS, "seconds until a server must have answered", 1),
    Param("tcp_max_connections", int, "accepted streams; 0: no limit", 0),
    Param("tcp_accept_iplimit", int, "accepted streams of one address; 0: no limit", 0),
    Param("drain_timeout", _SECONDS, "seconds for transactions to end after SIGTERM", 0),
    Param("drain_spread", _SECONDS, "seconds over which connections are closed", 0),
    Param("ready_file", str, "path of a file that is there while we are ready; '' for none"),
    Param("dns_servers", list, "DNS servers, as '192.0.2.53' or '192.0.2.53:5353'"),
    Param("dns_try_naptr", bool, "ask for NAPTR records first"),
    Param("dns_try_ipv6", bool, "ask for AAAA records if there is a listener for IPv6"),
    Param("dns_use_search_list", bool, "complete short names by the search list of resolv.conf"),
    Param("dns_retr_time", _SECONDS, "seconds until a question is asked again"),
    Param("dns_retr_no", int, "how often a question is asked again", 0, 10),
    Param("dns_cache_min_ttl", _SECONDS, "seconds that an answer is remembered at least", 0),
    Param("dns_cache_max_ttl", _SECONDS, "seconds that an answer is remembered at most", 0),
    Param("dns_cache_negative_ttl", _SECONDS, "the same for answers that there is nothing", 0),
    Param("dst_blocklist_expire", _SECONDS, "seconds that a failed server is tried last", 0),
    Param("udp_mtu", int, "octets of a request that make it leave over TCP; 0: never", 0),
)
