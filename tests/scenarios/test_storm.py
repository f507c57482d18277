"""A hundred registrations a second for a minute, and not one of them lost.

The three sites take their six thousand each within the same minute.
"""

from __future__ import annotations

import pytest

from tests.peerlib.process import Crew
from tests.peerlib.sipedge import all_in_one, edge, registrar
from tests.peerlib.sipp import Agent
from tests.peerlib.ua import Phone
from tests.scenarios.play import Cast

RATE = 100  # registrations a second
COUNT = 60 * RATE
LOAD = {"rate": RATE, "limit": COUNT, "call_count": COUNT}
PATIENCE = 180.0  # seconds, for all of it


class Storm:
    """One site, and a crowd of phones that begins to register at once."""

    def __init__(self, crew: Crew, proxy: tuple[str, int], home: Agent | None = None) -> None:
        self.proxy = proxy
        self.home = home
        self.phones = Cast(crew, proxy).crowd("uac_storm", **LOAD)


@pytest.fixture(scope="module")
def storms(module_crew: Crew) -> dict[str, Storm]:
    crew = module_crew
    home = Cast(crew).crowd("uas_registrar", **LOAD)
    sites = {
        "edge only": (edge(crew, home.address).at, home),
        "all in one": (all_in_one(crew).at, None),
        "edge and registrar": (edge(crew, registrar(crew).address).at, None),
    }
    return {name: Storm(crew, *site) for name, site in sites.items()}


@pytest.mark.parametrize("site", ["edge only", "all in one", "edge and registrar"])
@pytest.mark.rfc("EPR-01", "RGO-04")
def test_six_thousand_registrations(site: str, storms: dict[str, Storm]) -> None:
    storm = storms[site]
    storm.phones.finish(PATIENCE)
    assert storm.phones.succeeded == COUNT
    if storm.home:
        storm.home.finish(PATIENCE)
        assert storm.home.succeeded == COUNT
        return
    # SIPp numbers its calls from 1; every sixtieth phone is asked for: they are really bound
    for number in range(1, COUNT + 1, COUNT // 100):
        with Phone(f"storm{number}", storm.proxy) as asking:
            (binding,) = asking.bindings()
        assert f"sip:storm{number}@" in binding
