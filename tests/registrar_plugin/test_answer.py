"""The header rows of a 200, from bindings."""

from __future__ import annotations

from registrar_plugin.answer import ok_headers
from registrar_plugin.bindings import MICRO, Binding
from tests.registrar_plugin.home import Home

CONTACT = b"<sip:bob@10.0.0.9>"


def binding(flow: object, seconds: int = 600) -> Binding:
    return Binding(CONTACT, 0, -1, b"", flow, b"c", 1, 1000 * MICRO, seconds, None)  # type: ignore[arg-type]


def rows_of(home: Home, *bindings: Binding) -> list[tuple[bytes, bytes]]:
    location = home.registrar._location
    return ok_headers(location, bindings, home.now, [b"<sip:e;lr>"], False, True, None)


def test_what_is_left_of_each_binding() -> None:
    home = Home(flow_timer=20)
    home.now += 100.4
    assert rows_of(home, binding(None), binding(None, 101)) == [
        (b"contact", CONTACT + b";expires=500"),
        (b"contact", CONTACT + b";expires=1"),
        (b"path", b"<sip:e;lr>"),
        (b"supported", b"path, outbound"),
        (b"require", b"outbound"),
        (b"flow-timer", b"20"),
    ]


def test_path_if_it_is_wanted_and_outbound_if_it_is_on() -> None:
    home = Home(path_mode=1, outbound_mode=0)
    assert rows_of(home) == [(b"supported", b"path")]


def test_the_address_of_a_flow() -> None:
    home = Home(received_param="received")
    udp = (home.udp_listener, ("2001:db8::1", 5062))
    tcp = home.tcp("198.51.100.7", 40001)
    shown = [value for name, value in rows_of(home, binding(udp), binding(tcp), binding(None))]
    assert shown[:3] == [
        CONTACT + b';expires=600;received="sip:[2001:db8::1]:5062"',
        CONTACT + b';expires=600;received="sip:198.51.100.7:40001;transport=tcp"',
        CONTACT + b";expires=600",
    ]
