"""TLS: the layer against the standard library's client and server, then with real sockets."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sipedge.errors import ConfigError
from sipedge.flow import CONNECTING, TLS, Flow, Listener
from sipedge.net.tls import ALPN, RECORD, TlsContexts, TlsLayer, without_noise
from sipedge.tls_settings import KeyPair, Tls, TlsSettings
from tests.certs import Authority, Pair
from tests.helpers_net import PATIENCE, RunningEdge, receive, running_edge, tcp_peer
from tests.net.fakes import FakeCore, FakeEdge, eventually


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def edge_pair(ca: Authority) -> Pair:
    return ca.pair("edge", "edge.example.com", addresses=["127.0.0.1"])


def key_pair(pair: Pair, *names: str) -> KeyPair:
    return KeyPair(str(pair.certificate), str(pair.private_key), names)


@pytest.fixture
def settings(ca: Authority, edge_pair: Pair) -> TlsSettings:
    return TlsSettings(key_pair(edge_pair), ca_list=str(ca.file), client_ca_list=str(ca.file))


def layer(settings: TlsSettings) -> TlsLayer:
    return TlsContexts(Tls(settings)).accepted(TLS)


class Peer:
    """The other side of a layer: the standard library's own, over memory buffers."""

    def __init__(self, ours: TlsLayer, context: ssl.SSLContext, server_side: bool = False) -> None:
        self.ours = ours
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "edge.example.com"
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=name
        )
        self.got: list[bytes] = []  # what our layer has given to the layer above
        self.error: ssl.SSLError | None = None
        self.done = False
        ours.start()

    def shake(self, step: int = 1 << 20) -> None:
        """Carry octets to and fro, ``step`` at a time, until nobody has any."""
        while True:
            if not self.done and self.error is None:
                try:
                    self.tls.do_handshake()
                    self.done = True
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as exc:
                    self.error = exc
            there = self.outgoing.read()
            for at in range(0, len(there), step):
                self.got += self.ours.receive(there[at : at + step])
            back = self.ours.outgoing()
            self.incoming.write(back)
            if not there and not back:
                return

    def read(self) -> bytes:
        data = b""
        try:
            while chunk := self.tls.read(65536):
                data += chunk
        except ssl.SSLWantReadError:
            pass
        return data


def client(ca: Authority, **attributes: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca.file)
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


# the layer as a server


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_handshake_and_octets(
    ca: Authority, settings: TlsSettings, version: ssl.TLSVersion, step: int
) -> None:
    ours = layer(settings)
    peer = Peer(ours, client(ca, maximum_version=version))
    assert not ours.established
    peer.shake(step)
    assert ours.established
    assert peer.done
    peer.tls.write(b"hello")
    peer.shake(step)
    assert b"".join(peer.got) == b"hello"
    peer.incoming.write(ours.send(b"answer"))
    assert peer.read() == b"answer"
    facts = ours.facts["tls"]
    assert facts.version == version.name.replace("_", ".")
    assert facts.cipher
    assert facts.bits in (128, 256)
    assert facts.server_name == "edge.example.com"
    assert not facts.verified
    assert ours.over == ""


def test_much_at_once_is_cut_into_records(ca: Authority, settings: TlsSettings) -> None:
    """Memory buffers of OpenSSL never shrink; a chunk of a megabyte must not stay for ever."""
    ours = layer(settings)
    peer = Peer(ours, client(ca))
    peer.shake()
    much = bytes(range(256)) * 4096
    for at in range(0, len(much), RECORD):
        peer.tls.write(much[at : at + RECORD])
    peer.shake()
    assert b"".join(peer.got) == much
    peer.incoming.write(ours.send(much))
    assert peer.read() == much


@pytest.mark.rfc("TLS-10")
def test_close_notify_of_the_peer_ends_the_layer_and_is_answered(
    ca: Authority, settings: TlsSettings
) -> None:
    ours = layer(settings)
    peer = Peer(ours, client(ca))
    peer.shake()
    peer.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.shake()
    assert peer.got == [b"last"]
    assert "close_notify" in ours.over
    # what came before is still answered
    peer.incoming.write(ours.send(b"answer"))
    peer.incoming.write(ours.close())
    assert ours.send(b"too late") == b""
    assert peer.tls.read(100) == b"answer"
    peer.tls.unwrap()


@pytest.mark.rfc("TLS-10")
def test_close_sends_close_notify(ca: Authority, settings: TlsSettings) -> None:
    ours = layer(settings)
    peer = Peer(ours, client(ca))
    peer.shake()
    peer.incoming.write(ours.close())
    assert peer.tls.read(100) == b""


def test_close_before_the_handshake_says_nothing(settings: TlsSettings) -> None:
    assert layer(settings).close() == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"OPTIONS sip:x SIP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(600),
        b"\x16\x03\x01\xff" * 9,
    ],
    ids=["sip", "http", "zeros", "records"],
)
def test_what_is_no_tls_ends_the_layer(settings: TlsSettings, octets: bytes) -> None:
    ours = layer(settings)
    for at in range(len(octets)):
        assert ours.receive(octets[at : at + 1]) == []
    assert ours.over.startswith("TLS: ")
    assert ours.receive(b"more") == []
    assert not ours.established


def test_a_broken_record_ends_the_layer_with_an_alert(ca: Authority, settings: TlsSettings) -> None:
    ours = layer(settings)
    peer = Peer(ours, client(ca))
    peer.shake()
    peer.tls.write(b"good")
    record = bytearray(peer.outgoing.read())
    record[-1] ^= 1
    assert ours.receive(bytes(record)) == []
    assert ours.over.startswith("TLS: ")
    peer.incoming.write(ours.outgoing())
    with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
        peer.tls.read(10)


@pytest.mark.rfc("TRN-19")
def test_old_versions_are_refused(ca: Authority, settings: TlsSettings) -> None:
    old = client(ca)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    peer = Peer(layer(settings), old)
    peer.shake()
    assert not peer.ours.established
    assert "unsupported protocol" in peer.ours.over
    assert peer.error is not None
    only_13 = replace(settings, method="TLSv1.3+")
    peer = Peer(layer(only_13), client(ca, maximum_version=ssl.TLSVersion.TLSv1_2))
    peer.shake()
    assert "unsupported protocol" in peer.ours.over


def test_ciphers_are_those_of_the_list(ca: Authority, settings: TlsSettings) -> None:
    name = "ECDHE-ECDSA-AES128-GCM-SHA256"
    ours = layer(replace(settings, method="TLSv1.2", cipher_list=name))
    peer = Peer(ours, client(ca))
    peer.shake()
    assert ours.facts["tls"].cipher == name
    picky = client(ca)
    picky.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    peer = Peer(layer(replace(settings, method="TLSv1.2", cipher_list=name)), picky)
    peer.shake()
    assert peer.ours.over == "TLS: no shared cipher"


@pytest.mark.parametrize("offered", [None, ["sip/2"], ["h2", "imap"]])
def test_alpn_is_answered_if_it_is_known(
    ca: Authority, settings: TlsSettings, offered: list[str] | None
) -> None:
    context = client(ca)
    if offered is not None:
        context.set_alpn_protocols(offered)
    peer = Peer(layer(settings), context)
    peer.shake()
    assert peer.done
    chosen = "sip/2" if offered == ALPN[TLS] else None
    assert peer.tls.selected_alpn_protocol() == chosen


# SNI


@pytest.mark.rfc("TLS-04")
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("one.example.com", "one"),
        ("ONE.Example.com", "one"),
        ("any.example.org", "wild"),
        ("a.b.example.org", "edge"),
        ("other.example.com", "edge"),
        (None, "edge"),
    ],
)
def test_the_certificate_is_chosen_by_name(
    ca: Authority, settings: TlsSettings, asked: str | None, shown: str
) -> None:
    one = key_pair(ca.pair("one", "one.example.com", cn="one"), "one.example.com")
    wild = key_pair(ca.pair("wild", "*.example.org", cn="wild"), "*.example.org")
    default = key_pair(ca.pair("default", "edge.example.com", cn="edge"))
    ours = layer(replace(settings, default=default, profiles=(one, wild)))
    context = client(ca, check_hostname=False)
    peer = Peer(ours, context)
    peer.tls = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname=asked)
    peer.shake()
    found = peer.tls.getpeercert()
    assert found is not None
    assert dict(part[0] for part in found["subject"]) == {"commonName": shown}  # type: ignore[index,misc]
    assert ours.facts["tls"].server_name == (asked or "")


# certificates of clients


def certified(ca: Authority, pair: Pair | None) -> ssl.SSLContext:
    context = client(ca)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.private_key)
    return context


@pytest.mark.rfc("TLS-05", "TRN-19")
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("who", ["nobody", "phone", "stranger"])
def test_certificates_of_clients(
    ca: Authority, settings: TlsSettings, tmp_path: Path, required: bool, who: str
) -> None:
    phone = ca.pair("phone", "phone.example.com", cn="phone")
    stranger = Authority(tmp_path, "mallory").pair("phone", "phone.example.com")
    pair = {"nobody": None, "phone": phone, "stranger": stranger}[who]
    ours = layer(replace(settings, verify_certificate=True, require_certificate=required))
    peer = Peer(ours, certified(ca, pair))
    peer.shake()
    if who == "stranger":
        assert "certificate verify failed" in ours.over
        assert not ours.established
    elif who == "nobody" and required:
        assert "peer did not return a certificate" in ours.over
    else:
        assert ours.established
        facts = ours.facts["tls"]
        assert facts.verified is (who == "phone")
        if who == "phone":
            assert facts.peer.identities == ("phone.example.com",)


def test_nobody_is_asked_for_a_certificate_by_default(ca: Authority, settings: TlsSettings) -> None:
    ours = layer(settings)
    Peer(ours, certified(ca, ca.pair("phone", "phone.example.com"))).shake()
    assert not ours.facts["tls"].verified


# the layer as a client


def dialed(settings: TlsSettings, name: str) -> TlsLayer:
    flow = Flow(Listener(TLS, "127.0.0.1", 5061), ("127.0.0.1", 5061), None, b"1", True, name)
    return TlsContexts(Tls(settings)).dialed(flow)


def server(pair: Pair, asked: list[str | None] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.private_key)
    if asked is not None:
        context.sni_callback = lambda _, name, __: asked.append(name)  # type: ignore[assignment]
    return context


@pytest.mark.rfc("TLS-01", "TLS-04")
@pytest.mark.parametrize(
    ("names", "wanted", "good"),
    [
        ({"dns": ["core.example.com"]}, "core.example.com", True),
        ({"dns": ["core.example.com"]}, "CORE.example.COM", True),
        ({"uris": ["sip:example.com"], "dns": ["core.example.com"]}, "example.com", True),
        ({"uris": ["sip:example.com"], "dns": ["core.example.com"]}, "core.example.com", False),
        ({"dns": ["core.example.com"]}, "example.com", False),
        ({"dns": ["*.example.com"]}, "core.example.com", False),
        ({"dns": ["core.example.com"], "cn": "example.com"}, "example.com", False),
        ({"cn": "example.com"}, "example.com", True),
        ({"addresses": ["127.0.0.1"]}, "127.0.0.1", True),
        ({"addresses": ["127.0.0.1"]}, "", True),
        ({"addresses": ["127.0.0.2"]}, "127.0.0.1", False),
        ({"dns": ["core.example.com"]}, ".example.com", False),
        ({"dns": ["core.example.com"]}, "x" * 70 + ".example.com", False),
    ],
)
def test_servers_are_who_we_want(
    ca: Authority, settings: TlsSettings, names: dict[str, object], wanted: str, good: bool
) -> None:
    asked: list[str | None] = []
    pair = ca.pair("core", *names.pop("dns", ()), **names)  # type: ignore[misc]
    ours = dialed(settings, wanted)
    peer = Peer(ours, server(pair, asked), server_side=True)
    peer.shake()
    assert ours.established is good
    if good:
        assert ours.over == ""
        assert ours.facts["tls"].verified
        peer.incoming.write(ours.send(b"REGISTER"))
        assert peer.read() == b"REGISTER"
    else:
        assert "the certificate is of" in ours.over
    is_name = wanted[:1].isalpha() and len(wanted) < 64
    assert asked == [wanted.lower() if is_name else None]


@pytest.mark.rfc("TLS-03")
def test_wildcards_if_the_operator_says_so(ca: Authority, settings: TlsSettings) -> None:
    ours = dialed(replace(settings, wildcards=True), "core.example.com")
    Peer(ours, server(ca.pair("core", "*.example.com")), server_side=True).shake()
    assert ours.established


@pytest.mark.rfc("TLS-01")
def test_servers_that_nobody_we_trust_has_signed(settings: TlsSettings, tmp_path: Path) -> None:
    ours = dialed(settings, "core.example.com")
    pair = Authority(tmp_path, "mallory").pair("core", "core.example.com")
    peer = Peer(ours, server(pair), server_side=True)
    peer.shake()
    assert not ours.established
    assert ours.over.startswith("TLS: certificate verify failed")
    assert peer.error is not None
    assert "ALERT_UNKNOWN_CA" in str(peer.error)


@pytest.mark.rfc("TRN-19", "TLS-06")
def test_we_show_our_certificate_to_servers_that_ask(ca: Authority, settings: TlsSettings) -> None:
    context = server(ca.pair("core", "core.example.com"))
    context.load_verify_locations(ca.file)
    context.verify_mode = ssl.CERT_REQUIRED
    for own in (None, key_pair(ca.pair("us", "us.example.com"))):
        ours = dialed(replace(settings, client=own), "core.example.com")
        peer = Peer(ours, context, server_side=True)
        peer.shake()
        assert ours.established
        found = peer.tls.getpeercert()
        assert found is not None
        name = "edge.example.com" if own is None else "us.example.com"
        assert ("DNS", name) in found["subjectAltName"]


def test_without_a_list_the_system_s_authorities_are_trusted(
    settings: TlsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    real = ssl.SSLContext.set_default_verify_paths
    monkeypatch.setattr(
        ssl.SSLContext,
        "set_default_verify_paths",
        lambda context: (called.append(True), real(context)),
    )
    TlsContexts(Tls(replace(settings, client_ca_list="")))
    assert called


# contexts


def test_settings_that_openssl_does_not_take(settings: TlsSettings, tmp_path: Path) -> None:
    source = ("edge.py", 7)
    wrong: list[tuple[TlsSettings, str]] = [
        (replace(settings, cipher_list="NONSENSE", source=source), "knows none of 'NONSENSE'"),
        (replace(settings, client_ca_list=str(tmp_path / "x"), source=source), "No such file"),
        (
            replace(settings, client=replace(settings.default, not_after=1.0), source=source),
            "expired",
        ),
        (replace(settings, default=KeyPair("/nowhere", "/nowhere"), source=source), "No such file"),
    ]
    for bad, words in wrong:
        with pytest.raises(ConfigError, match=words) as caught:
            TlsContexts(Tls(bad))
        assert (caught.value.file, caught.value.line) == source


def test_new_settings_are_for_new_connections_and_old_contexts_go(
    ca: Authority, settings: TlsSettings
) -> None:
    """Kamailio issues 3717 and 3823: what reloading leaves behind."""
    tls = Tls(replace(settings, profiles=(key_pair(ca.pair("p", "p.example.com"), "p"),)))
    contexts = TlsContexts(tls)
    old = Peer(contexts.accepted(TLS), client(ca))
    old.shake()
    before = weakref.ref(contexts._accepting[TLS])
    other = ca.pair("other", "edge.example.com", cn="other")
    tls.replace(replace(settings, default=key_pair(other)))
    new = Peer(contexts.accepted(TLS), client(ca))
    new.shake()
    assert "other" in str(new.tls.getpeercert())
    assert "other" not in str(old.tls.getpeercert())
    old.tls.write(b"still here")
    old.shake()
    assert old.got == [b"still here"]
    assert before() is not None  # kept by the old connection, and by nothing else
    gc.disable()  # reference counting alone must do: what is frozen is never collected
    try:
        del old
        assert before() is None
    finally:
        gc.enable()


def test_reloading_takes_no_memory(ca: Authority, settings: TlsSettings) -> None:
    tls = Tls(settings)
    contexts = TlsContexts(tls)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for _ in range(50):
        tls.replace(settings)
    before = resident()
    for _ in range(500):
        tls.replace(settings)
    assert resident() - before < 4 << 20  # a leaked context is some 50 KB
    assert contexts.accepted(TLS) is not None


def test_bad_new_settings_change_nothing(ca: Authority, settings: TlsSettings) -> None:
    tls = Tls(settings)
    contexts = TlsContexts(tls)
    with pytest.raises(ValueError, match="NONSENSE"):
        tls.replace(replace(settings, cipher_list="NONSENSE"))
    assert tls.settings is settings
    peer = Peer(contexts.accepted(TLS), client(ca))
    peer.shake()
    assert peer.done


# with sockets


@pytest.fixture
def edge(settings: TlsSettings) -> Iterator[RunningEdge]:
    core = FakeCore(Listener(TLS, "127.0.0.1", 0))
    core.tls = Tls(settings)
    with running_edge(FakeEdge(core)) as running:
        yield running


def connect(edge: RunningEdge, ca: Authority) -> ssl.SSLSocket:
    return client(ca).wrap_socket(
        tcp_peer(edge.address(TLS)), server_hostname="edge.example.com", suppress_ragged_eofs=False
    )


@pytest.mark.rfc("TRN-19")
def test_a_connection_is_a_flow_when_the_handshake_is_done(
    edge: RunningEdge, ca: Authority
) -> None:
    with tcp_peer(edge.address(TLS)):
        with connect(edge, ca) as peer:
            [(_, flow)] = edge.core.wait_for("opened")
            assert flow.transport == TLS
            assert flow.facts["tls"].server_name == "edge.example.com"
            peer.sendall(b"hello")
            assert receive(peer, 5) == b"hello"
        assert edge.core.count("opened") == 1


@pytest.mark.rfc("TLS-10")
def test_every_way_to_close_ends_the_flow_once(edge: RunningEdge, ca: Authority) -> None:
    def by_close_notify(peer: ssl.SSLSocket) -> None:
        peer.unwrap().close()

    def by_fin(peer: ssl.SSLSocket) -> None:
        with socket.socket(fileno=peer.detach()) as plain:
            plain.settimeout(PATIENCE)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(100):
                pass

    def by_garbage(peer: ssl.SSLSocket) -> None:
        with socket.socket(fileno=peer.detach()) as plain:
            plain.settimeout(PATIENCE)
            plain.sendall(bytes(100))
            while plain.recv(100):
                pass

    def by_us(peer: ssl.SSLSocket) -> None:
        flow = edge.core.events[-1][1]
        edge.call(lambda: (edge.core.to_close.append((flow, "idle")), edge.server.drain(0.0)))
        assert peer.recv(10) == b""  # a close_notify: without it this would raise
        peer.close()

    ways: list[tuple[Callable[[ssl.SSLSocket], None], str]] = [
        (by_close_notify, "closed by the peer (TLS close_notify)"),
        (by_fin, "closed by the peer"),
        (by_garbage, "TLS: "),
        (by_us, "idle"),
    ]
    for number, (way, reason) in enumerate(ways, 1):
        peer = connect(edge, ca)
        edge.core.wait_for("opened", number)
        way(peer)
        ended = edge.core.wait_for("closed", number)
        assert ended[-1][2].startswith(reason)
        eventually(lambda: not edge.server.connections)
        assert edge.core.count("closed") == number


@pytest.mark.rfc("TRN-18")
def test_a_handshake_that_does_not_end_is_ended(
    edge: RunningEdge, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.core.tcp_handshake_timeout = 0.2
    with tcp_peer(edge.address(TLS)) as silent, connect(edge, ca) as idle:
        assert silent.recv(10) == b""
        idle.sendall(b"hello")
        assert receive(idle, 5) == b"hello"
    assert edge.core.stats["handshakes_failed"] == 1


@pytest.mark.rfc("TRN-19", "TLS-04")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-tls1_3", "-servername", "edge.example.com"], "Verify return code: 0 (ok)"),
        (["-tls1_2"], "Verify return code: 0 (ok)"),
        (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "alert"),
    ],
)
def test_openssl_s_client(
    edge: RunningEdge, ca: Authority, arguments: list[str], says: str
) -> None:
    host, port = edge.address(TLS)
    result = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", ca.file, *arguments],
        input=b"Q\n", capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert says in (result.stdout + result.stderr).decode()


class TlsServer:
    """A server in a thread: takes connections one after the other, notes what comes in."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.at: tuple[str, int] = self._sock.getsockname()
        self.got: list[bytes] = []
        self.errors: list[Exception] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(sock, server_side=True) as peer:
                    while data := peer.recv(65536):
                        self.got.append(data)
            except OSError as exc:
                self.errors.append(exc)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(PATIENCE)


@pytest.mark.rfc("TLS-01")
@pytest.mark.parametrize("good", [True, False])
def test_nothing_is_said_to_a_server_that_is_somebody_else(
    edge: RunningEdge, ca: Authority, good: bool
) -> None:
    core = edge.core
    there = TlsServer(server(ca.pair("core", "core.example.com" if good else "example.net")))
    try:
        flow = core.flows.dial(edge.listener(TLS), there.at, "core.example.com")
        assert flow.state == CONNECTING
        edge.call(lambda: (core.send(b"REGISTER", flow), edge.server.drain(0.0)))
        if good:
            eventually(lambda: there.got == [b"REGISTER"])
        else:
            [(_, ended, reason)] = core.wait_for("closed")
            assert ended is flow
            assert reason == "TLS: the certificate is of example.net, not of core.example.com"
            assert there.got == []
    finally:
        edge.call(lambda: (core.to_close.append((flow, "over")), edge.server.drain(0.0)))
        eventually(lambda: not edge.server.connections)
        there.close()


@pytest.mark.filterwarnings("ignore:Exception ignored in. b'")  # see without_noise
def test_the_layer_never_raises(settings: TlsSettings, ca: Authority) -> None:
    """Whatever is done to the octets of a peer, at whatever place."""
    for cut in range(0, 400, 7):
        ours = layer(settings)
        peer = Peer(ours, client(ca))
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        octets = bytearray(peer.outgoing.read())
        octets[cut % len(octets)] ^= 0xFF
        ours.receive(bytes(octets) + os.urandom(50))
        ours.outgoing()
        ours.close()


def test_a_name_that_is_no_text_is_no_traceback() -> None:
    """A client may ask for any octets; ``ssl`` would write a traceback about that to stderr."""
    told: list[object] = []
    hook = without_noise(told.append)
    noise = SimpleNamespace(exc_value=UnicodeDecodeError("ascii", b"x", 0, 1, "y"), object=b"x")
    hook(noise)  # type: ignore[arg-type]
    assert told == []
    other = SimpleNamespace(exc_value=ValueError(), object=b"x")
    hook(other)  # type: ignore[arg-type]
    assert told == [other]


def test_what_only_tls_needs_is_loaded_for_tls_only() -> None:
    code = "import sipedge.net.server, sys; print('cryptography' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout == "False\n"
