from __future__ import annotations

import base64
import hashlib
import hmac
import string

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from registrar_plugin import gruu
from registrar_plugin.bindings import AorRules, Binding
from registrar_plugin.contact import Contact
from registrar_plugin.gruu import Gruus, Named, next_epoch
from sipedge.errors import ConfigError
from sipedge.sip.uri import parse_uri
from tests.registrar_plugin.home import Home

RULES = AorRules(False, True, b"")
KEY = b"k" * 20
UUID = b"urn:uuid:00000000-0000-1000-8000-aabbccddee01"
HOST = b"example.com"


def temporary(
    gruus: Gruus, user: bytes = b"bob", instance: bytes = UUID, host: bytes = HOST, epoch: int = 5
) -> bytes:
    return gruus.temporary(user, host, instance, epoch)


def read(gruus: Gruus, user: bytes, host: bytes = HOST) -> tuple[bytes, bytes, int] | None:
    named = gruus.read(parse_uri(b"sip:%s@%s;gr" % (user, host)))
    return (named.aor, named.instance, named.epoch) if named else None


def binding(
    instance: bytes = UUID, reg_id: int = 1, call_id: bytes = b"c", epoch: int = 0, stamp: int = 1
) -> Binding:
    contact = b'<sip:bob@10.0.0.9>;+sip.instance="<%s>"' % instance if instance else b"<sip:b@c>"
    return Binding(contact, reg_id, -1, b"", None, call_id, 1, stamp, 60, None, epoch)


@given(
    st.binary(min_size=1, max_size=255),
    st.one_of(
        st.uuids().map(lambda value: value.urn.encode()),
        st.binary(min_size=1, max_size=254),
    ),
    st.integers(1, 2**48 - 1),
)
def test_what_goes_in_comes_out(user: bytes, instance: bytes, epoch: int) -> None:
    gruus = Gruus(AorRules(True, True, b""), [KEY])
    text = gruus.temporary(user, HOST, instance, epoch)
    assert read(gruus, text) == (user + b"@" + HOST, instance, epoch)
    assert set(text.decode()) <= {*string.ascii_letters, *string.digits, *"-_."}


def test_names_that_are_too_long_get_none() -> None:
    gruus = Gruus(RULES, [KEY])
    assert temporary(gruus, user=b"b" * 256) == b""
    assert temporary(gruus, instance=b"urn:x:" + b"y" * 249) == b""
    text = gruus.offer(b"b" * 256, HOST).params(binding(epoch=5))
    assert b"pub-gruu" in text
    assert b"temp-gruu" not in text


def test_each_changed_character_is_refused() -> None:
    gruus = Gruus(RULES, [KEY])
    text = temporary(gruus)
    for at in range(len(text)):
        for other in (b"A", b"B", b"*", b""):
            changed = text[:at] + other + text[at + 1 :]
            assert changed == text or read(gruus, changed) is None, changed
    for more in (b"A", b"=", b"AAAA"):
        assert read(gruus, text + more) is None
    for short in range(len(text)):
        assert read(gruus, text[:short] or b"x") is None


def test_it_belongs_to_one_domain_and_one_key() -> None:
    gruus = Gruus(RULES, [KEY])
    text = temporary(gruus)
    assert read(gruus, text, b"example.net") is None
    assert read(Gruus(RULES, [b"l" * 20]), text) is None
    assert read(Gruus(RULES, [b"l" * 32, KEY]), text) == (b"bob@example.com", UUID, 5)
    assert read(Gruus(RULES, ()), text) is None
    # the same after a restart with the same key, however the user part is escaped
    assert read(Gruus(RULES, [KEY]), text.replace(b"t", b"%74", 1)) is not None


def test_two_of_them_have_nothing_in_common() -> None:
    """Nobody without the key can tell whether they are of one user (RFC 5627 §5.1)."""
    gruus = Gruus(RULES, [KEY])
    users = [b"bob"] * 50 + [b"carol", b"a", b"b" * 32]
    texts = [temporary(gruus, user)[6:] for user in users]
    assert len({len(text) for text in texts}) == 1
    for start in range(0, len(texts[0]) - 4):
        assert len({text[start : start + 4] for text in texts}) > 45, start


def test_the_construction_is_the_one_that_is_written_down() -> None:
    """By another way: whoever shares bindings must read what another version has given out."""
    text = temporary(Gruus(RULES, [KEY]))[6:]
    derived = hmac.new(KEY, b"sipedge temp-gruu AES-SIV", hashlib.sha512).digest()
    body = AESSIV(derived).decrypt(base64.urlsafe_b64decode(text + b"=="[: -len(text) % 4]), [HOST])
    assert len(body) == 64
    uuid = bytes.fromhex(UUID[9:].replace(b"-", b"").decode())
    assert body[8:] == bytes((0, 0, 0, 0, 0, 5, 3, 255)) + b"bob" + uuid + bytes(29)


def test_without_a_key_a_random_one_lasts_as_long_as_the_process() -> None:
    gruus = Gruus(RULES, ())
    assert read(gruus, temporary(gruus)) is not None
    assert read(Gruus(RULES, ()), temporary(gruus)) is None


def test_public_ones_are_written_and_read() -> None:
    gruus = Gruus(RULES, [KEY])
    text = gruus.offer(b'B"o;b', HOST, 5070).params(binding(b"urn:x:a;b=c"))
    assert text == b';pub-gruu="sip:b%22o;b@example.com:5070;gr=urn:x:a%3Bb%3Dc"'
    named = gruus.read(parse_uri(text[11:-1]))
    assert named is not None
    assert (named.aor, named.instance, named.epoch) == (b'b"o;b@example.com', b"urn:x:a;b=c", 0)
    assert b"@[2001:db8::1];gr=" in gruus.offer(b"bob", b"2001:db8::1").params(binding())
    assert gruus.offer(b"bob", HOST).params(binding(b"")) == b""


def test_an_offer_has_one_of_each_kind_for_an_instance() -> None:
    offer = Gruus(RULES, [KEY]).offer(b"bob", HOST)
    assert offer.params(binding(reg_id=1, epoch=5)) == offer.params(binding(reg_id=2, epoch=5))
    assert offer.params(binding(b"urn:x:y", epoch=5)) != offer.params(binding(epoch=5))


def test_what_a_name_selects() -> None:
    mine, other, old = binding(epoch=5), binding(b"urn:x:y", epoch=5), binding(epoch=4)
    rows = (mine, other, old)
    assert Named(b"bob").select(rows) == rows
    assert Named(b"bob", UUID).select(rows) == (mine, old)
    assert Named(b"bob", UUID, 5).select(rows) == (mine,)
    lasts = [Named(b"b", UUID).lasts, Named(b"b", b"x").lasts, Named(b"b", UUID, 5).lasts]
    assert lasts == [True, False, False]


@pytest.mark.parametrize(
    ("rows", "reg_id", "stays"),
    [
        ([binding(epoch=5)], 1, True),
        ([binding(epoch=5)], 2, True),  # the first of another flow joins
        ([binding(epoch=5, call_id=b"old")], 1, False),
        ([binding(epoch=5, call_id=b"old")], 2, True),
        ([binding(epoch=5, call_id=b"old"), binding(epoch=5, reg_id=2)], 2, True),
        # without reg-id the most recent one of the instance counts
        ([binding(epoch=5, reg_id=0, call_id=b"x", stamp=2), binding(epoch=5, reg_id=0)], 0, False),
        ([binding(epoch=5, reg_id=0, call_id=b"x"), binding(epoch=5, reg_id=0, stamp=2)], 0, True),
        ([binding(b"urn:x:y", epoch=5)], 1, False),
    ],
)  # fmt: skip
def test_the_epoch_ends_with_the_call_id(rows: list[Binding], reg_id: int, stays: bool) -> None:
    contact = Contact(b'<sip:bob@10.0.0.9>;+sip.instance="<%s>"' % UUID)
    epoch = next_epoch(rows, contact, reg_id, b"c", True)
    assert 0 < epoch < 2**48
    assert (epoch == 5) is stays


def test_no_epoch_for_who_does_not_want_it() -> None:
    contact = Contact(b'<sip:bob@10.0.0.9>;+sip.instance="<%s>"' % UUID)
    assert next_epoch([binding()], contact, 1, b"c", False) == 0
    assert next_epoch([binding(epoch=5)], contact, 1, b"c", False) == 5
    assert next_epoch([], Contact(b"<sip:bob@10.0.0.9>"), 0, b"c", True) == 0


def test_a_library_without_aes_siv_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(key: bytes) -> object:
        raise UnsupportedAlgorithm("AES-SIV is not supported by this version of OpenSSL")

    monkeypatch.setattr(gruu, "AESSIV", missing)
    with pytest.raises(ConfigError, match="or set gruu_enabled to 0"):
        Home()
    Home(gruu_enabled=0)
