"""Module tls: what is wrong with files and parameters, files that change, dates, aliases."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sipedge.config import load_config
from sipedge.errors import ConfigError
from sipedge.module import CommandError
from sipedge.modules.tls.module import DAY, TlsModule
from sipedge.net.tls import TlsContexts
from sipedge.sip.uri import parse_uri
from sipedge.tls_settings import TlsFacts, TlsSettings
from tests.certs import Authority, key_pem, new_key
from tests.helpers_tls import SOURCE, Site, TlsSim, options
from tests.sim import answer, request
from tests.test_tls_settings import der


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def serve(edge: Any) -> Any:
    """What net does at start, without sockets."""
    core = edge.core
    core.now = 1000.0
    core.wall_offset = time.time() - 1000.0
    core.on_timer(core.now)
    edge.child_init(0)
    return edge


def wait(edge: Any, seconds: float) -> None:
    edge.core.now += seconds
    edge.core.on_timer(edge.core.now)


# parameters and files


def test_the_files_become_settings(site: Site) -> None:
    site.pair("one", "one.example.com", "www.example.com")
    site.pair("two", "two.example.com")
    settings: TlsSettings = site.load(
        'modparam("tls", "profiles", [{"certificate": "one.pem", "private_key": "one.key"},'
        '{"server_name": "Two.example.com", "certificate": "two.pem", "private_key": "two.key"}])\n'
        'modparam("tls", "ca_list", "ca-ca.pem")\n'
        'modparam("tls", "verify_certificate", 1)\n'
    ).core.tls.settings
    assert settings.default.certificate == str(site.directory / "edge.pem")
    assert settings.default.private_key == str(site.directory / "edge.key")
    assert settings.client == settings.default
    assert [pair.names for pair in settings.profiles] == [
        ("one.example.com", "www.example.com"),
        ("two.example.com",),
    ]
    assert settings.ca_list == settings.client_ca_list == str(site.ca.file)
    assert settings.verify_certificate
    assert not settings.require_certificate
    assert settings.method == "TLSv1.2+"
    assert settings.source == (str(site.directory / "edge.py"), 9)


def test_certificate_and_key_may_be_one_file(site: Site) -> None:
    both = site.edge.certificate.read_bytes() + site.edge.private_key.read_bytes()
    (site.directory / "both.pem").write_bytes(both)
    edge = site.load(files='modparam("tls", "certificate", "both.pem")\n')
    assert edge.core.tls.settings.default.private_key == str(site.directory / "both.pem")


def test_what_a_client_shows_and_trusts(site: Site) -> None:
    site.pair("us", "us.example.com")
    other = Authority(site.directory, "other")
    settings: TlsSettings = site.load(
        'modparam("tls", "client_certificate", "us.pem")\n'
        'modparam("tls", "client_private_key", "us.key")\n'
        'modparam("tls", "client_ca_list", "other-ca.pem")\n'
    ).core.tls.settings
    assert settings.client is not None
    assert settings.client.certificate == str(site.directory / "us.pem")
    assert settings.client_ca_list == str(other.file)
    assert settings.ca_list == ""


def test_mistakes_are_found_at_start_with_their_line(site: Site) -> None:
    def missing() -> None:
        site.edge.certificate.unlink()

    def another_key() -> None:
        site.edge.private_key.write_bytes(key_pem(new_key()))

    changes: list[tuple[Callable[[], None], str]] = [
        (another_key, "certificate: tls: certificate: {dir}/edge.key is not the key of {dir}/"),
        (missing, "certificate: tls: certificate: {dir}/edge.pem: No such file or directory"),
    ]  # fmt: skip
    for change, says in changes:
        change()
        assert site.problem().startswith(says.replace("{dir}", str(site.directory)))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ('"tls_method", "TLSv1"', "tls: tls_method: 'TLSv1' is not one of TLSv1.2, "),
        ('"ca_list", "nowhere.pem"', "ca_list: tls: ca_list: {dir}/nowhere.pem: No such file"),
        ('"verify_certificate", 1', "tls: ca_list: clients are asked for certificates, but nobody"),
        ('"require_certificate", 1', "tls: ca_list: clients are asked for certificates, but"),
        ('"client_certificate", "x.pem"', "tls: client_certificate: {dir}/x.pem"),
        ('"profiles", [{"certificate": "x.pem"}]', "tls: profiles: number 1: {dir}/x.pem"),
        ('"profiles", ["x.pem"]', "profiles: tls: profiles: profiles, number 1 is no"),
        ('"profiles", [{"cert": "x.pem"}]', "tls: profiles: profiles, number 1 is no"),
        ('"profiles", [{"server_name": "x"}]', "tls: profiles: profiles, number 1 has no"),
        ('"profiles", {"certificate": "x.pem"}', "tls: profiles: wants list, not dict"),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense(site: Site, params: str, says: str) -> None:
    found = site.problem(f'modparam("tls", {params})\n')
    assert says.replace("{dir}", str(site.directory)) in found


def test_without_a_certificate(site: Site) -> None:
    assert "sipedge init --tls DIR" in site.problem(files="")


def test_a_listener_needs_the_module_and_the_module_a_listener(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    without = SOURCE.replace('loadmodule("tls")', "").replace("{params}", "")
    config = site.directory / "edge.py"
    config.write_text(without)
    with pytest.raises(ConfigError, match=r"write loadmodule\('tls'\)") as caught:
        load_config(config)
    assert caught.value.line == 3
    edge = site.load(text=SOURCE.replace('listen("tls', '# listen("tls'), files="")
    assert edge.core.tls is None
    assert "nothing to do" in caplog.text
    serve(edge)
    assert list(edge.config.commands["tls.certificates"].call()) == []
    with pytest.raises(CommandError):
        edge.config.commands["tls.reload"].call()


def test_a_key_for_everybody(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.load()
    assert "chmod" not in caplog.text
    site.edge.private_key.chmod(0o644)
    site.load()
    assert f"chmod 600 {site.edge.private_key}" in caplog.text


# names (RFC 5922 §7.5)


@pytest.mark.rfc("OUT-13", "OUT-05")
@pytest.mark.parametrize(
    ("listen", "warned"),
    [
        ('listen("tls:127.0.0.1:5061", advertise="edge.example.com")', False),
        ('listen("tls:127.0.0.1:5061", advertise="one.example.com")', False),
        ('listen("tls:127.0.0.1:5061", advertise="other.example.com")', True),
        ('listen("tls:127.0.0.1:5061")', True),
        ('listen("tls:127.0.0.2:5061")', False),
    ],
)
def test_record_route_names_what_the_certificate_covers(
    site: Site, caplog: pytest.LogCaptureFixture, listen: str, warned: bool
) -> None:
    site.edge.replace(*site.ca.sign(["edge.example.com"], addresses=["127.0.0.2"]))
    site.pair("one", "one.example.com")
    text = SOURCE.replace('listen("tls:127.0.0.1:5061", advertise="edge.example.com")', listen)
    site.load(
        'modparam("tls", "profiles", [{"certificate": "one.pem", "private_key": "one.key"}])', text
    )
    assert ("will name" in caplog.text) is warned
    if warned:
        assert "write listen('tls:127.0.0.1:5061', advertise='edge.example.com')" in caplog.text


# files that change


@pytest.fixture
def edge(site: Site) -> Any:
    return serve(site.load())


def serial(edge: Any) -> str:
    (row,) = edge.config.commands["tls.certificates"].call()
    return str(row["serial"])


def test_new_files_are_used_without_a_restart(site: Site, edge: Any) -> None:
    before, settings = serial(edge), edge.core.tls.settings
    wait(edge, 10.2)
    assert serial(edge) == before
    assert edge.core.tls.settings is settings
    loaded: list[TlsSettings] = []
    edge.core.tls.load = loaded.append
    site.edge.replace(*site.ca.sign(["edge.example.com", "new.example.com"]))
    wait(edge, 10.2)
    assert serial(edge) != before
    assert edge.core.stats["tls_reloads"] == 1
    assert len(loaded) == 1
    wait(edge, 10.2)
    assert len(loaded) == 1


def test_a_symbolic_link_that_changes(site: Site) -> None:
    """As certbot does it: live/edge/fullchain.pem points into an archive."""
    for name in ("edge.pem", "edge.key"):
        (site.directory / name).rename(site.directory / f"1-{name}")
        (site.directory / name).symlink_to(f"1-{name}")
    edge = serve(site.load())
    before = serial(edge)
    pair = site.pair("2-edge", "edge.example.com")
    for name, new in (("edge.pem", pair.certificate), ("edge.key", pair.private_key)):
        (site.directory / name).unlink()
        (site.directory / name).symlink_to(new.name)
    wait(edge, 10.2)
    assert serial(edge) != before


def test_bad_new_files_change_nothing_and_are_told_once(
    site: Site, edge: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = serial(edge)
    certificate, key = site.ca.sign(["edge.example.com"])
    site.edge.certificate.write_bytes(certificate)  # the key comes later
    for _ in range(5):
        wait(edge, 10.2)
    assert serial(edge) == before
    assert caplog.text.count("the old ones stay") == 1
    assert edge.core.stats["tls_reload_failures"] == 1
    site.edge.replace(certificate, key)
    wait(edge, 10.2)
    assert serial(edge) != before
    site.edge.certificate.unlink()
    wait(edge, 10.2)
    assert caplog.text.count("the old ones stay") == 2


def test_what_net_cannot_use_changes_nothing_either(site: Site, edge: Any) -> None:
    def refuse(settings: TlsSettings) -> None:
        raise ValueError("no")

    edge.core.tls.load = refuse
    before = serial(edge)
    site.edge.replace(*site.ca.sign(["edge.example.com"]))
    wait(edge, 10.2)
    assert serial(edge) == before
    with pytest.raises(CommandError, match="the old certificates stay: no"):
        edge.config.commands["tls.reload"].call()


def test_reload_on_command(site: Site) -> None:
    edge = serve(site.load('modparam("tls", "reload_interval", 0)\n'))
    before = serial(edge)
    site.edge.replace(*site.ca.sign(["edge.example.com"]))
    wait(edge, 100.0)
    assert serial(edge) == before
    assert edge.config.commands["tls.reload"].call() == {"certificates": 1}
    assert serial(edge) != before


# dates


def test_an_expired_certificate_refuses_the_start(site: Site) -> None:
    site.edge.replace(*site.ca.sign(["edge.example.com"], days=-2.5))
    edge = site.load()
    with pytest.raises(ConfigError, match=r"edge.pem has expired; renew it") as caught:
        TlsContexts(edge.core.tls)
    assert caught.value.line == 9


@pytest.mark.parametrize(("days", "warned"), [(31, False), (29.5, True), (0.52, True)])
def test_a_warning_before_it_expires(
    site: Site, caplog: pytest.LogCaptureFixture, days: float, warned: bool
) -> None:
    site.edge.replace(*site.ca.sign(["edge.example.com"], days=days))
    edge = serve(site.load())
    left = "29 days" if days > 1 else "12 hours"
    assert (f"expires in {left}; renew it" in caplog.text) is warned
    expires = edge.core.stats["tls_certificate_expires"]
    wanted = datetime.now(UTC) + timedelta(days=days)
    assert abs(expires - wanted.timestamp()) < 60


def test_warned_daily_until_it_is_renewed(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.edge.replace(*site.ca.sign(["edge.example.com"], days=1.52))
    edge = serve(site.load())
    assert caplog.text.count("expires in 1 day;") == 1
    wait(edge, DAY + 1)
    assert caplog.text.count("expires in 12 hours;") == 1
    wait(edge, DAY)
    assert caplog.text.count("expired 11 hours ago") == 1
    caplog.clear()
    site.edge.replace(*site.ca.sign(["edge.example.com"], days=90))
    wait(edge, 10.2)
    wait(edge, DAY)
    assert [x for x in caplog.records if x.levelno > logging.INFO] == []


def test_the_list_of_certificates(site: Site, edge: Any) -> None:
    (row,) = edge.config.commands["tls.certificates"].call()
    assert row["param"] == "certificate"
    assert row["certificate"] == str(site.edge.certificate)
    assert row["names"] == ["edge.example.com"]
    assert row["days_left"] in (89, 90)
    assert row["issuer"] == "/CN=ca"


# messages


@pytest.fixture
def sim(site: Site) -> TlsSim:
    return TlsSim(site)


BACK = "sip:127.0.0.9:5061;transport=tls"


@pytest.mark.rfc("TLS-06", "TLS-07")
@pytest.mark.parametrize(
    ("names", "via", "reused"),
    [
        ({"addresses": ["127.0.0.9"]}, "127.0.0.9:5061;alias", True),
        ({"addresses": ["127.0.0.9"]}, "core.example.com;Alias", True),  # 5061 is the default
        ({"addresses": ["127.0.0.9"]}, "127.0.0.9:5061", False),
        ({"addresses": ["127.0.0.9"]}, "127.0.0.9:5063;alias", False),
        ({"addresses": ["127.0.0.8"]}, "127.0.0.9:5061;alias", False),
        ({"dns": ["other.example.com"]}, "127.0.0.9:5061;alias", False),
        ({"cn": "127.0.0.9"}, "127.0.0.9:5061;alias", False),
        (None, "127.0.0.9:5061;alias", False),
    ],
)
def test_a_connection_goes_both_ways_only_for_who_proved_its_name(
    site: Site, sim: TlsSim, names: dict[str, Any] | None, via: str, reused: bool
) -> None:
    """RFC 5923 §8.2, §9.2: resolved address and identity, both."""
    certificate = None if names is None else der(site.ca.sign(**names)[0])
    core = sim.tls("127.0.0.9", certificate=certificate)
    core.send(options(via, "sip:127.0.0.20:5060"))  # never refused because of alias
    asked = sim.udp("127.0.0.20").take()
    sim.udp("127.0.0.20").send(answer(asked, 200))
    assert core.take().status == 200
    sim.udp("127.0.0.3").send(request("INVITE", BACK, branch="z9hG4bKback"))
    assert (not sim.dialed_to()) is reused
    assert core.silent() is not reused


@pytest.mark.rfc("TLS-06")
@pytest.mark.parametrize("certified", [False, True])
def test_an_alias_over_tcp_steals_nothing(site: Site, certified: bool) -> None:
    """Nor over WSS, where there may be a certificate: RFC 5923 is for TLS alone."""
    sim = TlsSim(site, text=SOURCE + '\nlisten("tcp:127.0.0.1:5060")\n')
    thief = sim.tcp("127.0.0.9", 40000)
    if certified:
        good = der(site.ca.sign(addresses=["127.0.0.9"])[0])
        thief.flow.facts = {"tls": TlsFacts("TLSv1.3", "", 128, "", good)}
    thief.send(request("OPTIONS", "sip:127.0.0.20", via="SIP/2.0/TCP 127.0.0.9:5060;alias"))
    sim.udp("127.0.0.3").send(request("INVITE", "sip:127.0.0.9;transport=tcp", branch="z9hG4bKb"))
    assert thief.silent()
    assert [flow.remote for flow in sim.dialed] == [("127.0.0.9", 5060)]


@pytest.mark.rfc("TLS-07")
def test_an_alias_ends_with_its_connection(site: Site, sim: TlsSim) -> None:
    core = sim.tls("127.0.0.9", certificate=der(site.ca.sign(addresses=["127.0.0.9"])[0]))
    core.send(options("127.0.0.9:5061;alias", "sip:127.0.0.20:5060"))
    core.close()
    sim.udp("127.0.0.3").send(request("INVITE", BACK, branch="z9hG4bKback"))
    assert [flow.remote for flow in sim.dialed_to()] == [("127.0.0.9", 5061)]
    assert sim.core.flows._aliases == {}


@pytest.mark.rfc("TLS-06")
def test_we_offer_an_alias_on_connections_that_we_dial_over_tls(sim: TlsSim) -> None:
    sim.udp("127.0.0.3").send(request("INVITE", BACK))
    (flow,) = sim.dialed_to()
    sent = sim._peer(flow).take()
    assert sent.via().has(b"alias")
    # and the answer finds its way, whatever stands behind the branch
    sim._peer(flow).send(answer(sent, 200))
    assert sim.udp("127.0.0.3").take().status in (100, 200)
    sim.udp("127.0.0.3").send(request("INVITE", "sip:127.0.0.9;transport=udp", branch="z9hG4bKu"))
    assert not sim.udp("127.0.0.9").take().via().has(b"alias")


@pytest.mark.rfc("TLS-10")
@pytest.mark.parametrize("reason", ["closed by the peer", "closed by the peer (TLS close_notify)"])
def test_what_waited_on_a_connection_fails_when_it_ends(sim: TlsSim, reason: str) -> None:
    sim.udp("127.0.0.3").send(request("INVITE", BACK))
    (flow,) = sim.dialed_to()
    sim.core.flow_closed(flow, reason, sim.now)
    sim.drain()
    statuses = [msg.status for msg in sim.udp("127.0.0.3").got]
    assert statuses == [100, 500]


@pytest.mark.rfc("TLS-01")
def test_the_name_of_the_uri_is_what_the_certificate_must_say(sim: TlsSim) -> None:
    sim.udp("127.0.0.3").send(request("INVITE", BACK))
    (flow,) = sim.dialed_to()
    assert flow.server_name == "127.0.0.9"


# strict URIs (ruling A13)

ROUTED = SOURCE.replace(
    "    ksr.tm.t_relay(msg)",
    "    ksr.rr.record_route(msg)\n    ksr.path.add_path(msg)\n    ksr.tm.t_relay(msg)",
).replace(
    'loadmodule("tls")',
    'loadmodule("outbound")\nmodparam("outbound", "flow_token_key", b"k" * 20)\n'
    'loadmodule("rr")\nloadmodule("path")\nloadmodule("tls")',
)


@pytest.mark.rfc("TLS-09")
@pytest.mark.parametrize("strict", [False, True])
def test_what_we_write_into_uris(site: Site, strict: bool) -> None:
    sim = TlsSim(site, f'modparam("tls", "strict_uris", {int(strict)})\n', ROUTED)
    phone = sim.tls("127.0.0.9")
    phone.send(
        options("127.0.0.9:40000", "sip:127.0.0.20:5060", headers="Contact: <sip:a@x;ob>\r\n")
    )
    sent = sim.udp("127.0.0.20").take()
    theirs = sent.values(b"record-route")[-1]
    assert b"transport=tcp" not in b"".join(sent.lines)
    if strict:
        assert b"transport=tls" not in b"".join(sent.lines)
        assert theirs.partition(b"@")[2].startswith(b"edge.example.com;")
    else:
        assert theirs.partition(b"@")[2].startswith(b"edge.example.com:5061;transport=tls;")
    # both forms are ours when they come back
    for host in (b"edge.example.com:5061;transport=tls", b"edge.example.com"):
        uri = parse_uri(b"sip:token@" + host + b";lr")
        assert sim.core.is_myself(uri) is (strict or b":" in host)


@pytest.mark.rfc("TLS-09")
def test_strict_uris_need_a_name(site: Site) -> None:
    text = SOURCE.replace(', advertise="edge.example.com"', "")
    with pytest.raises(ConfigError, match="has no name that DNS could lead to it by"):
        site.load('modparam("tls", "strict_uris", 1)\n', text)


def test_two_modules_share_nothing() -> None:
    one, other = TlsModule(), TlsModule()
    assert one.params == other.params
    assert one.params is not other.params
