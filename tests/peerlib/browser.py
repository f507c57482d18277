"""Browsers as phones: JsSIP in headless Chromium, with the microphone that Chromium itself plays.

Strategy: one Chromium for a test, one page a phone.  The pages come from a server of our own on
loopback (``tests/browser``, and JsSIP as ``tools/setup peers`` built it); they are driven over
Chromium's DevTools protocol: evaluate an expression, and wait for what it promises.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import re
import threading
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.sync.client import ClientConnection, connect

from tests.peerlib.process import LOOPBACK, PATIENCE, Crew, wait_for
from tests.peers import need

_PAGES: Final = Path(__file__).parents[1] / "browser"
DOMAIN: Final = "example.com"


class Chromium:
    """A headless Chromium until the crew ends.

    ``certificate`` is the file of one that it takes, whoever signed it.  ``files`` are served
    beside the page of the tests.
    """

    def __init__(
        self, crew: Crew, certificate: Path | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        self._crew = crew
        served = {f"/{name}": (_PAGES / name).read_bytes() for name in ("page.html", "phone.js")}
        served.update({"/jssip.js": Path(need("jssip")).read_bytes(), **(files or {})})
        self.origin = _serve(crew, served)
        directory = crew.place("chromium")
        argv = [
            need("chromium"), "--headless", "--disable-gpu", "--no-first-run",
            # we may be root, and what runs in it is ours
            "--no-sandbox", "--disable-dev-shm-usage",
            f"--user-data-dir={directory / 'profile'}",
            "--remote-debugging-port=0",
            # shows what the pages log, which is each message, in the output of a failed test
            "--enable-logging=stderr",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            # calls on one machine, by address
            "--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns",
            "--disable-background-networking", "--disable-component-update",
        ]  # fmt: skip
        if certificate:
            argv.append(f"--ignore-certificate-errors-spki-list={_key_hash(certificate)}")
        self.program = crew.start(directory, argv)
        self.program.wait_output("DevTools listening on ws://")
        found = re.search(r"DevTools listening on ws://([^/]+)/", self.program.output)
        assert found, self.program.output
        self._control = found[1]

    def page(self, path: str = "/page.html") -> Page:
        """Open a page."""
        url = self.origin + path
        asked = urllib.request.Request(f"http://{self._control}/json/new?{url}", method="PUT")
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            control = connect(json.load(answer)["webSocketDebuggerUrl"], max_size=None, proxy=None)
        return Page(self._crew.enter_context(control), url)


class Page:
    """One page, driven over its DevTools connection."""

    def __init__(self, control: ClientConnection, url: str) -> None:
        self._control = control
        self._number = 0
        wait_for(f"{url} is loaded", lambda: self._loaded(url))

    def evaluate(self, expression: str, timeout: float = PATIENCE) -> Any:
        """The value of a JavaScript expression; if it is a promise, what that becomes."""
        self._send(
            "Runtime.evaluate",
            {"expression": expression, "awaitPromise": True, "returnByValue": True},
        )
        while True:
            answer = json.loads(self._control.recv(timeout))
            if answer.get("id") == self._number:
                break
        result = answer.get("result", answer)
        if "result" not in result or "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result}")
        return result["result"].get("value")

    def close(self) -> None:
        """Close it without asking it."""
        self._send("Page.close", {})

    def _send(self, method: str, params: dict[str, Any]) -> None:
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        self._control.send(json.dumps(command))

    def _loaded(self, url: str) -> bool:
        try:
            state = self.evaluate("[location.href, document.readyState]")
        except AssertionError:  # it was still the empty page, and went away
            return False
        return bool(state == [url, "complete"])


class BrowserPhone:
    """One phone with the account ``sip:user@example.com``; ``url`` is its WebSocket.

    It registers at once.  Everything is shown to the test as it is to the application.
    """

    def __init__(
        self,
        chromium: Chromium,
        user: str,
        url: str,
        domain: str = DOMAIN,
        password: str | None = None,
        instance: str | None = None,
    ) -> None:
        self.user = user
        self.uri = f"sip:{user}@{domain}"
        self.url = url
        self.instance = instance or str(uuid.uuid4())
        self.password = password
        self._page = chromium.page()
        self.start()

    def start(self) -> None:
        """Connect and register."""
        options = {"url": self.url, "uri": self.uri, "instance": self.instance}
        if self.password is not None:
            options["password"] = self.password
        self._do("start", options)

    def registered(self) -> None:
        """Wait until JsSIP has accepted the registrar's answer."""
        self.event("registered")

    def message(self, other: Any, text: str) -> None:
        """Send a MESSAGE and wait for its 2xx."""
        self._do("message", other.uri, text)
        self.event("delivered")

    def call(self, other: Any) -> None:
        """Call another phone; returns at once."""
        self._do("call", other.uri)

    def answer(self) -> None:
        """Wait until it rings, and take the call."""
        self.event("incoming")
        self._do("answer")

    def in_call(self) -> None:
        """Wait until the call is established: the ACK was sent, or came."""
        self.event("confirmed")

    def hears(self) -> None:
        """Wait until sound comes from the other side."""
        wait_for(f"{self.user} hears", lambda: self._page.evaluate("packetsHeard()") > 0)

    def hang_up(self) -> None:
        """End the call, or give up one that nobody has answered."""
        self._do("hangUp")

    def call_ended(self, timeout: float = PATIENCE) -> None:
        """Wait until it sees the call end."""
        self.event("ended", timeout)

    def event(self, kind: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait for the next event of that kind; events of other kinds are left for later."""
        found = self._page.evaluate(f"event({json.dumps(kind)}, {timeout})", timeout + PATIENCE)
        if found is None:
            seen = [one["kind"] for one in self._page.evaluate("happened")]
            raise TimeoutError(f"{self.user}: no {kind} within {timeout:g} s, only {seen}")
        return dict(found)

    def call_failed(self) -> str:
        """Wait until a call ends that was never answered; JsSIP's word for the cause."""
        return str(self.event("failed")["cause"])

    def vanish(self) -> None:
        """Close the page, as people do: nothing is taken back."""
        self._page.close()

    def messages(self, sent: bool) -> list[str]:
        """Every message that it sent, or that it received, as it went over the WebSocket."""
        return [one["message"] for one in self._page.evaluate("trace") if one["sent"] == sent]

    def evaluate(self, expression: str) -> Any:
        """Anything else: the value of a JavaScript expression in its page."""
        return self._page.evaluate(expression)

    def _do(self, function: str, *arguments: Any) -> None:
        self._page.evaluate(f"{function}({', '.join(map(json.dumps, arguments))})")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Files out of memory."""

    def __init__(self, files: Mapping[str, bytes], *args: Any) -> None:
        self._files = files
        super().__init__(*args)

    def do_GET(self) -> None:
        body = self._files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        kind = "text/javascript" if self.path.endswith(".js") else "text/html"
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: its requests prove nothing."""


def _serve(crew: Crew, files: Mapping[str, bytes]) -> str:
    """Serve the pages until the crew ends; their origin."""
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), functools.partial(_Handler, files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    crew.callback(server.server_close)
    crew.callback(server.shutdown)
    return f"http://{LOOPBACK}:{server.server_port}"


def _key_hash(certificate: Path) -> str:
    """What Chromium calls a certificate: the hash of its public key."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
