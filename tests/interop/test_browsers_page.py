"""The page of ``docs/browsers.md`` as people copy it: two of them call each other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.peerlib.browser import Chromium, Page
from tests.peerlib.process import Crew, wait_for
from tests.peerlib.sipedge import every_way

MANUAL = Path(__file__).parents[2] / "docs" / "browsers.md"


def click(page: Page, button: str) -> None:
    page.evaluate(f"on('{button}').click()")


def says(page: Page, text: str) -> None:
    wait_for(f"the page says {text!r}", lambda: text in page.evaluate("on('state').textContent"))


def test_call(crew: Crew) -> None:
    site = every_way(crew)
    found = re.search(r"^```html\n(.*?)^```", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    assert "wss://edge.example.com:8443" in found[1]
    text = found[1].replace("wss://edge.example.com:8443", site.url("wss"))
    chromium = Chromium(crew, site.certificate, {"/manual.html": text.encode()})
    pages = {user: chromium.page("/manual.html") for user in ("alice", "bob")}
    for user, page in pages.items():
        page.evaluate(f"on('user').value = '{user}'")
        click(page, "register")
        says(page, "registered")
    alice, bob = pages.values()
    alice.evaluate("on('other').value = 'bob'")
    click(alice, "call")
    says(bob, "sip:alice@example.com calls")
    click(bob, "answer")
    says(alice, "in a call")
    for page in pages.values():
        wait_for("there is sound", lambda p=page: p.evaluate("on('sound').currentTime") > 0)
    click(bob, "hangup")
    says(alice, "the call is over")
    says(bob, "the call is over")
