"""Requirements DNS-01 to DNS-10 over real sockets, with NSD as the DNS server (RFC 3263).

The servers are sockets of the test: one that is closed is a server that is dead, and the kernel
says so by ICMP or by a reset.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sipedge.flow import TCP
from sipedge.sip.message import SipMessage, parse
from tests.certs import Authority, Pair
from tests.helpers_net import (
    PATIENCE,
    RunningEdge,
    options,
    receive_message,
    running_edge,
    silent,
    tcp_peer,
    udp_peer,
)
from tests.peerlib.dns import Nsd
from tests.peerlib.fixtures import crew, pytest_runtest_makereport
from tests.peerlib.process import LOOPBACK, Crew
from tests.sim import answer

__all__ = ["crew", "pytest_runtest_makereport"]

EDGE = """
{settings}
core.dns_servers = ["{dns}"]
listen("udp:127.0.0.1:0")
listen("tcp:127.0.0.1:0")
{more}
loadmodule("tm")
loadmodule("sl")
def request_route(ksr, msg):
    if ksr.is_myself(msg.ruri):
        ksr.sl.send_reply(msg, 200, "OK")
    else:
        ksr.tm.t_relay(msg)
"""
HOST = "host IN A 127.0.0.1\nhost IN AAAA ::1\n"


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def srv(service: str, *ports: int, weights: tuple[int, ...] = ()) -> str:
    """SRV records of falling preference, or of the same and with these weights."""
    lines = ""
    for at, port in enumerate(ports):
        priority, weight = (10, weights[at]) if weights else (at, 0)
        lines += f"{service} IN SRV {priority} {weight} {port} host\n"
    return lines


class Phone:
    """A UDP phone that sends requests to ``example.test`` through the edge."""

    def __init__(self, edge: RunningEdge) -> None:
        self.edge = edge
        self.sock = udp_peer()
        self.number = 0

    def send(self, uri: str = "sip:example.test", **how: object) -> None:
        self.number += 1
        via = f"SIP/2.0/UDP 127.0.0.1:{port_of(self.sock)}"
        data = options(self.number, via=via, uri=uri, **how)  # type: ignore[arg-type]
        self.sock.sendto(data, self.edge.udp)

    def final(self) -> SipMessage:
        while True:
            msg = parse(self.sock.recv(65536))
            if msg.status >= 200:
                return msg

    def final_status(self, uri: str = "sip:example.test") -> int:
        self.send(uri)
        return self.final().status


Phones = Callable[[RunningEdge], Phone]


@pytest.fixture
def dial_in() -> Iterator[Phones]:
    """Makes phones, and closes their sockets."""
    with ExitStack() as phones:

        def make(edge: RunningEdge) -> Phone:
            phone = Phone(edge)
            phones.enter_context(phone.sock)
            return phone

        yield make


def serve(sock: socket.socket, status: int = 200, headers: str = "") -> SipMessage:
    """Answer the next request; returns it."""
    data, source = sock.recvfrom(65536)
    msg = parse(data)
    sock.sendto(answer(msg, status, headers=headers), source)
    return msg


def edge_of(nsd: Nsd, settings: str = "", more: str = "") -> str:
    return EDGE.format(dns=nsd.server, settings=settings, more=more)


def until(what: str, condition: Callable[[], bool], seconds: float = 3 * PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.rfc("DNS-02", "DNS-03", "DNS-05", "PXF-07")
def test_naptr_to_srv_to_a_and_the_second_server_when_the_first_is_dead(
    crew: Crew, dial_in: Phones
) -> None:
    with udp_peer() as first, udp_peer() as second:
        naptr = '@ IN NAPTR 10 10 "s" "SIP+D2U" "" _sip._udp.alpha\n'
        nsd = Nsd(crew, naptr + srv("_sip._udp.alpha", port_of(first), port_of(second)) + HOST)
        with running_edge(edge_of(nsd)) as edge:
            phone = dial_in(edge)
            phone.send()
            msg = serve(first)
            assert msg.ruri == b"sip:example.test"
            assert phone.final().status == 200
            first.close()
            phone.send()
            again = serve(second)
            assert again.via().branch != msg.via().branch
            assert phone.final().status == 200
            assert edge.core.stats["server_failovers"] == 1
            phone.send()  # it is remembered (DNS-08)
            serve(second)
            assert phone.final().status == 200
            assert edge.core.stats["server_failovers"] == 1


@pytest.mark.rfc("DNS-05")
def test_tcp_servers(crew: Crew, dial_in: Phones) -> None:
    with (
        socket.create_server((LOOPBACK, 0)) as first,
        socket.create_server((LOOPBACK, 0)) as second,
    ):
        second.settimeout(PATIENCE)
        nsd = Nsd(crew, srv("_sip._tcp", port_of(first), port_of(second)) + HOST)
        first.close()
        with running_edge(edge_of(nsd)) as edge:
            phone = dial_in(edge)
            phone.send()
            connection, _ = second.accept()
            with connection:
                connection.settimeout(PATIENCE)
                msg = parse(receive_message(connection))
                assert msg.via().transport == b"TCP"
                connection.sendall(answer(msg, 200))
                assert phone.final().status == 200


@pytest.mark.rfc("DNS-05", "DNS-08")
def test_503_and_retry_after(crew: Crew, dial_in: Phones) -> None:
    with udp_peer() as first, udp_peer() as second:
        nsd = Nsd(crew, srv("_sip._udp", port_of(first), port_of(second)) + HOST)
        with running_edge(edge_of(nsd)) as edge:
            phone = dial_in(edge)
            phone.send()
            serve(first, 503, "Retry-After: 600\r\n")
            serve(second)
            assert phone.final().status == 200
            phone.send()
            serve(second)
            assert phone.final().status == 200
            assert silent(first)


@pytest.mark.rfc("DNS-05")
def test_weights(crew: Crew, dial_in: Phones) -> None:
    with udp_peer() as light, udp_peer() as heavy:
        ports = port_of(light), port_of(heavy)
        nsd = Nsd(crew, srv("_sip._udp", *ports, weights=(1, 9)) + HOST)
        with running_edge(edge_of(nsd)) as edge:
            phone = dial_in(edge)
            light.setblocking(False)
            got: Counter[str] = Counter()
            for _ in range(150):
                phone.send()
                while True:
                    try:
                        serve(light)
                        got["light"] += 1
                        break
                    except BlockingIOError:
                        pass
                    heavy.settimeout(0.001)
                    try:
                        serve(heavy)
                        got["heavy"] += 1
                        break
                    except TimeoutError:
                        pass
                assert phone.final().status == 200
    # the chance of failing by accident is less than one in a million
    assert 0 < got["light"] < 50 < got["heavy"]


@pytest.mark.rfc("DNS-09")
def test_a_server_moves_and_is_found_when_its_records_are_too_old(
    crew: Crew, dial_in: Phones
) -> None:
    with udp_peer() as old, udp_peer() as new:
        nsd = Nsd(crew, srv("_sip._udp", port_of(old)) + HOST, ttl=1)
        with running_edge(edge_of(nsd)) as edge:
            phone = dial_in(edge)
            phone.send()
            serve(old)
            assert phone.final().status == 200
            nsd.zone(srv("_sip._udp", port_of(new)) + HOST, ttl=1)
            old.settimeout(0.02)
            new.settimeout(0.02)

            def moved() -> bool:
                phone.send()
                for sock in (new, old):
                    try:
                        serve(sock)
                    except TimeoutError:
                        continue
                    phone.final()
                    return sock is new
                phone.final()
                return False

            until("the new records are used", moved)


@pytest.mark.rfc("DNS-09")
def test_dns_is_dead_and_then_back(crew: Crew, dial_in: Phones) -> None:
    """What was known goes on; what was not is an error, soon; and nobody else waits for it."""
    with udp_peer() as server:
        records = srv("_sip._udp", port_of(server)) + srv("_sip._udp.later", port_of(server)) + HOST
        nsd = Nsd(crew, records, ttl=1)
        settings = "core.dns_retr_time = 0.2\ncore.dns_retr_no = 0"
        with running_edge(edge_of(nsd, settings)) as edge:
            phone = dial_in(edge)
            phone.send()
            serve(server)
            assert phone.final().status == 200
            nsd.stop()
            time.sleep(1.2)  # the records are too old by now
            phone.send()
            serve(server)
            assert phone.final().status == 200
            assert phone.final_status("sip:later.example.test") == 500
            nsd.start()

            def found() -> bool:
                phone.send("sip:later.example.test")
                server.settimeout(0.3)
                try:
                    serve(server)
                except TimeoutError:
                    pass
                return phone.final().status == 200

            until("DNS is asked again", found)


@pytest.mark.rfc("DNS-09")
def test_a_silent_dns_server_blocks_nobody(crew: Crew, dial_in: Phones) -> None:
    with udp_peer() as deaf:
        source = EDGE.format(dns=f"127.0.0.1:{port_of(deaf)}", settings="", more="")
        with running_edge(source) as edge:
            slow, quick = dial_in(edge), dial_in(edge)
            for _ in range(50):
                slow.send()
            questions = {deaf.recv(2048)[12:]}
            deaf.settimeout(0.2)
            try:
                while True:
                    questions.add(deaf.recv(2048)[12:])
            except TimeoutError:
                pass
            assert len(questions) == 1, "one question, however many wait"
            slow.send("sip:x1y2.invalid")  # fails at once, and nobody is asked
            assert slow.final().cseq()[0] == slow.number
            begin = time.monotonic()
            assert quick.final_status(f"sip:127.0.0.1:{edge.udp[1]}") == 200
            assert time.monotonic() - begin < 2.0


@pytest.mark.rfc("DNS-09")
def test_more_records_than_a_datagram_holds(crew: Crew, dial_in: Phones) -> None:
    with udp_peer() as server:
        many = "".join(
            f"_sip._udp IN SRV {n} 0 {port_of(server)} rather-a-long-name-of-number-{n}\n"
            f"rather-a-long-name-of-number-{n} IN A 127.0.0.1\n"
            for n in range(40)
        )
        nsd = Nsd(crew, many)
        with running_edge(edge_of(nsd)) as edge:
            phone = dial_in(edge)
            phone.send()
            serve(server)
            assert phone.final().status == 200


@pytest.mark.rfc("DNS-03", "DNS-04")
def test_ipv6_and_from_one_family_to_the_other(crew: Crew, dial_in: Phones) -> None:
    with udp_peer("::1") as six, udp_peer() as four:
        more = 'listen("udp:[::1]:0")'
        records = "six IN AAAA ::1\nfour IN A 127.0.0.1\n"
        nsd = Nsd(crew, records)
        with running_edge(edge_of(nsd, more=more)) as edge:
            phone = dial_in(edge)
            phone.send(f"sip:six.example.test:{port_of(six)}")
            assert serve(six).via().host == b"::1"
            assert phone.final().status == 200
            phone.send(f"sip:four.example.test:{port_of(four)}")
            serve(four)
            assert phone.final().status == 200


@pytest.mark.rfc("DNS-03")
def test_localhost_is_known_without_dns(crew: Crew, dial_in: Phones) -> None:
    nsd = Nsd(crew)
    nsd.stop()
    with udp_peer() as server, running_edge(edge_of(nsd)) as edge:
        phone = dial_in(edge)
        phone.send(f"sip:localhost:{port_of(server)}")
        serve(server)
        assert phone.final().status == 200


@pytest.mark.rfc("TRN-11")
def test_a_big_request_and_a_server_with_tcp_and_one_without(crew: Crew, dial_in: Phones) -> None:
    nsd = Nsd(crew)
    with running_edge(edge_of(nsd)) as edge, socket.create_server((LOOPBACK, 0)) as tcp:
        tcp.settimeout(PATIENCE)
        phone = dial_in(edge)
        phone.send(f"sip:127.0.0.1:{port_of(tcp)}", method="MESSAGE", body=b"x" * 2000)
        connection, _ = tcp.accept()
        with connection:
            connection.settimeout(PATIENCE)
            msg = parse(receive_message(connection))
            assert msg.via().transport == b"TCP"
            connection.sendall(answer(msg, 200))
            assert phone.final().status == 200
        with udp_peer() as udp:
            phone.send(f"sip:127.0.0.1:{port_of(udp)}", method="MESSAGE", body=b"x" * 2000)
            assert serve(udp).via().transport == b"UDP"
            assert phone.final().status == 200


@pytest.mark.rfc("DNS-07")
def test_a_server_that_lost_its_connection_is_found_by_its_via(crew: Crew) -> None:
    with (
        udp_peer() as callee,
        socket.create_server((LOOPBACK, 0)) as server,
    ):
        nsd = Nsd(crew, srv("_sip._tcp.proxy", port_of(server)) + HOST)
        with running_edge(edge_of(nsd)) as edge:
            below = "Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKua\r\n"
            uri = f"sip:127.0.0.1:{port_of(callee)}"
            via = "SIP/2.0/TCP proxy.example.test"
            with tcp_peer(edge.address(TCP)) as client:
                client.sendall(options(1, via=via, headers=below, uri=uri))
                data, source = callee.recvfrom(65536)
            until("the edge knows", lambda: edge.core.stats["flows_closed"] == 1)
            callee.sendto(answer(parse(data), 200), source)
            server.settimeout(PATIENCE)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(PATIENCE)
                assert parse(receive_message(connection)).status == 200


class TlsServer:
    """A SIP server over TLS that answers everything with 200; ``heard``: the requests."""

    def __init__(self, sock: socket.socket, pair: Pair) -> None:
        self.heard: list[SipMessage] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.private_key)
        self._sock = sock
        sock.settimeout(PATIENCE)
        self.tried = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            plain, _ = self._sock.accept()
        except OSError:
            return
        self.tried.set()
        with plain:
            plain.settimeout(PATIENCE)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    while data := connection.recv(65536):
                        self.heard.append(parse(data))
                        connection.sendall(answer(self.heard[-1], 200))
            except OSError:  # the edge does not like what it sees
                return


@pytest.mark.rfc("DNS-02", "DNS-05", "DNS-10", "TLS-01")
@pytest.mark.parametrize("uri", ["sip:example.test", "sips:example.test"])
def test_who_forges_records_cannot_forge_a_server(
    crew: Crew, dial_in: Phones, tmp_path: Path, uri: str
) -> None:
    """NAPTR and SRV lead to a server that has a good certificate, for its own name only."""
    authority = Authority(tmp_path)
    forged = authority.pair("forged", "forged.example.test")
    good = authority.pair("good", "example.test")
    with socket.create_server((LOOPBACK, 0)) as bad, socket.create_server((LOOPBACK, 0)) as right:
        naptr = '@ IN NAPTR 1 1 "s" "SIPS+D2T" "" _sips._tcp.forged\n'
        nsd = Nsd(crew, naptr + srv("_sips._tcp.forged", port_of(bad), port_of(right)) + HOST)
        more = (
            'listen("tls:127.0.0.1:0")\nloadmodule("tls")\n'
            f'modparam("tls", "certificate", "{good.certificate}")\n'
            f'modparam("tls", "private_key", "{good.private_key}")\n'
            f'modparam("tls", "ca_list", "{authority.file}")\n'
        )
        forger, server = TlsServer(bad, forged), TlsServer(right, good)
        with running_edge(edge_of(nsd, more=more)) as edge:
            phone = dial_in(edge)
            phone.send(uri)
            assert phone.final().status == 200
            assert forger.tried.is_set()
            assert [msg.ruri for msg in server.heard] == [uri.encode()]
            assert server.heard[0].via().transport == b"TLS"
            assert forger.heard == []
