"""The HTTP request that a WebSocket begins with: who gets in, and what the others are told."""

from __future__ import annotations

from typing import Any

import pytest

from sipedge.net.layers import Layer
from sipedge.websocket import Request, Settings
from tests.helpers_net import running_edge, tcp_peer
from tests.helpers_ws import ACCEPT, ANSWER_ALL, TEXT, WS, frame, new_layer, upgrade_request

PROTOCOL = "Sec-WebSocket-Protocol"


def status(answer: bytes) -> int:
    version, code, _ = answer.split(b" ", 2)
    assert version == b"HTTP/1.1"
    return int(code)


def headers(answer: bytes) -> dict[str, str]:
    """By lower-case name; none comes twice."""
    lines = answer.decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
    found = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    assert len(found) == len(lines)
    return found


def ask(data: bytes, settings: Settings | None = None) -> bytes:
    """The answer to a request; a connection that is refused is over."""
    layer = new_layer(settings)
    assert layer.receive(data) == []
    answer = layer.outgoing()
    accepted = answer.startswith(b"HTTP/1.1 101 ")
    assert layer.established == accepted
    assert bool(layer.over) == (bool(answer) and not accepted)
    assert layer.close() == b"" or accepted
    return answer


def test_the_answer_to_a_browser() -> None:
    answer = ask(upgrade_request())
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert answer.endswith(b"\r\n\r\n")
    found = headers(answer)
    assert found["sec-websocket-accept"] == ACCEPT
    assert found["sec-websocket-protocol"] == "sip"
    assert found["upgrade"].lower() == "websocket"
    assert found["connection"].lower() == "upgrade"
    assert "sec-websocket-extensions" not in found
    assert "access-control-allow-origin" not in found


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["sip"], 101),
        (["chat, sip"], 101),
        (["sip,msrp"], 101),
        (["chat", "sip"], 101),
        ([" chat ,\tsip "], 101),
        ([], 400),
        (["chat"], 400),
        (["xsipx"], 400),
        (["SIP"], 400),  # RFC 6455 §4.1: compared octet by octet
        (["sips"], 400),
        (["si p"], 400),
        ([""], 400),
    ],
)
def test_the_sub_protocol_is_a_token(lines: list[str], wanted: int) -> None:
    add = [f"{PROTOCOL}: {line}" for line in lines]
    answer = ask(upgrade_request(drop=[PROTOCOL], add=add))
    assert status(answer) == wanted
    if wanted == 101:
        assert headers(answer)["sec-websocket-protocol"] == "sip"


def test_names_and_values_in_any_case() -> None:
    data = upgrade_request(
        drop=["Connection", "Upgrade"], add=["CONNECTION: UPGRADE", "upgrade: wEbSoCkEt"]
    )
    assert status(ask(data)) == 101


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (upgrade_request(drop=["Upgrade"]), 426),
        (upgrade_request(drop=["Connection"]), 426),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (upgrade_request(drop=["Upgrade"], add=["Upgrade: h2c"]), 426),
        (upgrade_request(drop=["Sec-WebSocket-Key"]), 400),
        (upgrade_request(drop=["Sec-WebSocket-Key"], add=["Sec-WebSocket-Key: short"]), 400),
        (upgrade_request(add=["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]), 400),
        (upgrade_request(drop=["Sec-WebSocket-Version"]), 400),
        (upgrade_request(add=["Sec-WebSocket-Version: 13"]), 400),
        (upgrade_request(add=["Origin: https://other.example"]), 400),
        (upgrade_request(drop=["Host"]), 400),
        (upgrade_request(method="POST"), 405),
        (upgrade_request(method="OPTIONS"), 405),
        (upgrade_request(protocol="HTTP/1.0"), 505),
        (upgrade_request(add=["Content-Length: 3"]), 400),
        (upgrade_request(add=["no colon"]), 400),
        (upgrade_request(add=["X: " + "x" * 9000]), 431),
        (upgrade_request(add=["X: y"] * 200), 431),
        (upgrade_request("/" + "x" * 9000), 414),
        (b"OPTIONS sip:edge.example.com SIP/2.0\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\r\n\r\n", 400),
        (b"A" * 100, 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20000, 431),
        (b"GET /" + b"x" * 20000, 431),
    ],
)
def test_refused(data: bytes, wanted: int) -> None:
    answer = ask(data)
    assert status(answer) == wanted
    found = headers(answer)
    body = answer.partition(b"\r\n\r\n")[2]
    assert body
    assert int(found["content-length"]) == len(body)
    assert found["connection"] == "close"


def test_a_browser_s_address_bar_is_told_what_this_is() -> None:
    answer = ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"SIP over WebSocket" in answer
    assert headers(answer)["upgrade"] == "websocket"


def test_another_version() -> None:
    data = upgrade_request(drop=["Sec-WebSocket-Version"], add=["Sec-WebSocket-Version: 8"])
    answer = ask(data)
    assert status(answer) == 426
    assert headers(answer)["sec-websocket-version"] == "13"


def test_other_methods_are_told_which() -> None:
    assert headers(ask(upgrade_request(method="PUT")))["allow"] == "GET"


def test_half_a_request_waits() -> None:
    layer = new_layer()
    data = upgrade_request()
    for i in range(len(data)):
        assert not layer.over
        assert not layer.established
        layer.receive(data[i : i + 1])
    assert layer.established


def test_the_head_has_a_limit() -> None:
    settings = Settings(max_head_size=1024)
    assert status(ask(upgrade_request(add=["X: " + "x" * 1024]), settings)) == 431
    assert status(ask(upgrade_request() + frame(TEXT, b"x" * 2000), settings)) == 431
    assert status(ask(upgrade_request(), settings)) == 101


# -- policy ------------------------------------------------------------------------------------

ORIGINS = Settings(allowed_origins=frozenset(["https://phone.example.com"]))


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        ("https://phone.example.com", 101),
        ("HTTPS://Phone.Example.COM", 101),
        ("https://evil.example", 403),
        ("http://phone.example.com", 403),
        ("https://phone.example.com.evil.example", 403),
        ("null", 403),
        (None, 403),
    ],
)
def test_origins(origin: str | None, wanted: int) -> None:
    add = [] if origin is None else [f"Origin: {origin}"]
    assert status(ask(upgrade_request(drop=["Origin"], add=add), ORIGINS)) == wanted


def test_without_a_list_any_origin_will_do() -> None:
    assert status(ask(upgrade_request(drop=["Origin"]))) == 101


@pytest.mark.parametrize(("mode", "wanted"), [(1, "*"), (2, "https://phone.example.com")])
def test_cors(mode: int, wanted: str) -> None:
    answer = ask(upgrade_request(), Settings(cors_mode=mode))
    assert headers(answer)["access-control-allow-origin"] == wanted


def test_cors_without_an_origin() -> None:
    answer = ask(upgrade_request(drop=["Origin"]), Settings(cors_mode=2))
    assert "access-control-allow-origin" not in headers(answer)


def test_disabled() -> None:
    assert status(ask(upgrade_request(), Settings(enabled=False))) == 503


def test_the_policy_sees_the_request_and_may_refuse() -> None:
    seen: list[Request] = []

    def policy(request: Request) -> None:
        seen.append(request)
        if request.cookie("session") != "good":
            request.refuse(401, "Log in.", [("WWW-Authenticate", 'Basic realm="x"')])

    settings = Settings(policy=policy)
    answer = ask(upgrade_request("/sip?a=b%20c", add=["Cookie: session=bad"]), settings)
    assert status(answer) == 401
    assert answer.endswith(b"\r\n\r\nLog in.")
    assert headers(answer)["www-authenticate"] == 'Basic realm="x"'
    assert status(ask(upgrade_request(add=["Cookie: session=good"]), settings)) == 101
    assert seen[0].path == "/sip"
    assert seen[0].argument("a") == "b c"
    assert seen[0].remote == ("192.0.2.7", 40000)
    assert seen[0].local == ("127.0.0.1", 8080)
    assert not seen[0].secure


def test_the_policy_is_not_asked_about_what_is_refused_anyway() -> None:
    def policy(request: Request) -> None:
        raise AssertionError

    assert status(ask(upgrade_request(drop=[PROTOCOL]), Settings(policy=policy))) == 400
    origins = Settings(policy=policy, allowed_origins=frozenset())
    assert status(ask(upgrade_request(), origins)) == 403


def test_a_policy_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    def policy(request: Request) -> None:
        raise KeyError("oops")

    assert status(ask(upgrade_request(), Settings(policy=policy))) == 500
    assert "oops" in caplog.text


def test_layers_below_know_better_who_it_is() -> None:
    below = Layer()
    below.facts = {"remote": ("198.51.100.9", 5), "local": ("192.0.2.1", 443), "name": "alice"}
    seen: list[Any] = []
    layer = new_layer(Settings(policy=seen.append), [below])
    layer.receive(upgrade_request())
    assert seen[0].remote == ("198.51.100.9", 5)
    assert seen[0].local == ("192.0.2.1", 443)
    assert seen[0].facts == {"name": "alice"}


def test_kept_headers() -> None:
    seen: list[Any] = []
    settings = Settings(
        policy=lambda request: seen.append(set(request.headers)),
        keep_headers=frozenset(["origin"]),
    )
    layer = new_layer(settings)
    layer.receive(upgrade_request())
    assert "host" in seen[0]
    assert layer.facts["websocket"].headers == {"origin": "https://phone.example.com"}


def test_the_connection_is_closed_after_a_refusal() -> None:
    with running_edge(ANSWER_ALL) as edge, tcp_peer(edge.address(WS)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while more := sock.recv(65536):
            data += more
        assert status(data) == 426
        assert edge.core.stats["handshakes_failed"] == 1
        assert not edge.core.stats["flows_opened"]
