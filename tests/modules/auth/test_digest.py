"""The arithmetic against the vectors of RFC 7616, the grammar against what phones write."""

from __future__ import annotations

import pytest

from sipedge.modules.auth.digest import (
    ALGORITHMS,
    HEX_DIGITS,
    challenge,
    ha1,
    parse_credentials,
    response,
)

MUFASA = (
    b'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", '
    b'algorithm=%s, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
    b'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="%s", '
    b'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
MINIMAL = b'Digest username="a", realm="r", nonce="n", uri="sip:r", response="ab"'


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (b"MD5", b"8ca523f5e9506fed4657c9700eebdbec"),
        (b"SHA-256", b"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616(algorithm: bytes, expected: bytes) -> None:
    found = parse_credentials(MUFASA % (algorithm, expected))
    assert found is not None
    secret = ha1(algorithm, b"Mufasa", b"http-auth@example.org", b"Circle of Life")
    assert response(found, secret, b"GET") == expected == found.response


def test_the_form_of_rfc_2069() -> None:
    """RFC 2069 §2.4 with the response of its erratum 749."""
    found = parse_credentials(
        b'Digest username="Mufasa", realm="testrealm@host.com", '
        b'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html", '
        b'response="1949323746fe6a43ef61f9606e7febea", '
        b'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    assert found is not None
    assert (found.algorithm, found.qop, found.nc) == (b"MD5", b"", None)
    secret = ha1(b"MD5", b"Mufasa", b"testrealm@host.com", b"CircleOfLife")
    assert response(found, secret, b"GET") == found.response


def test_hashes_of_the_standards() -> None:
    """RFC 1321 A.5, FIPS 180-4: the hash of abc; SHA-512/256 is no SHA-512 cut short."""
    known = {
        b"MD5": b"900150983cd24fb0d6963f7d28e17f72",
        b"SHA-256": b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        b"SHA-512-256": b"53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23",
    }
    assert {name: hashed(b"abc") for name, hashed in ALGORITHMS.items()} == known
    assert {name: len(digits) for name, digits in known.items()} == HEX_DIGITS


@pytest.mark.rfc("AUT-04")
def test_quotes_where_none_belong_and_the_other_way_round() -> None:
    exact = parse_credentials(MINIMAL + b', algorithm=SHA-256, qop=auth, nc=00000001, cnonce="c"')
    sloppy = parse_credentials(
        b'DIGEST  Username = "a" ,realm=r, nonce=n,uri="sip:r",\t response=AB '
        b',algorithm="sha-256", qop="auth", nc="00000001", cnonce=c, '
    )
    assert exact is not None
    assert sloppy is not None
    for name in type(exact).__slots__:
        assert getattr(exact, name) == getattr(sloppy, name), name


def test_escapes_commas_and_equal_signs_inside_quotes() -> None:
    found = parse_credentials(
        rb'Digest username="a\"b\\c, realm=x", realm="r", nonce="n==", uri="sip:a,b", response=00'
    )
    assert found is not None
    assert found.username == rb'a"b\c, realm=x'
    assert found.nonce == b"n=="
    assert found.uri == b"sip:a,b"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Basic YWxpY2U6c2VjcmV0",
        b"NoOneKnowsThisScheme opaque-data=here",  # RFC 4475 §3.3.7
        b"Digest",
        b"Digestusername=a",
        b"Digest garbage",
        MINIMAL.replace(b'username="a", ', b""),
        MINIMAL.replace(b', response="ab"', b""),
        MINIMAL + b', realm="other"',  # which of the two?
        MINIMAL + b', REALM="other"',
        MINIMAL + b', opaque="never ends',
        MINIMAL + b" trailing",
        MINIMAL + b", qop=auth",
        MINIMAL + b', qop=auth, nc=00000001, cnonce=""',
        MINIMAL + b", qop=auth, nc=00000001",
        MINIMAL + b', qop=auth, nc=000000001, cnonce="c"',
        MINIMAL + b', qop=auth, nc=-1, cnonce="c"',
        MINIMAL + b', qop=auth, nc=1_0, cnonce="c"',
    ],
)
@pytest.mark.rfc("AUT-11")
def test_what_is_no_digest(value: bytes) -> None:
    assert parse_credentials(value) is None


def test_parsing_takes_linear_time() -> None:
    """Nothing here may take more than a moment, whatever is sent."""
    for part in (b'a="', b'a="\\', b"a=", b", ,", b" ", b'""', b"\t"):
        assert parse_credentials(b"Digest " + part * 30_000) is None


@pytest.mark.rfc("AUT-04")
def test_challenge() -> None:
    assert (
        challenge(b"example.com", b"N", b"SHA-256", False)
        == b'Digest realm="example.com", nonce="N", qop="auth", algorithm=SHA-256'
    )
    assert (
        challenge(b'a"b\\c', b"N", b"MD5", True)
        == b'Digest realm="a\\"b\\\\c", nonce="N", qop="auth", algorithm=MD5, stale=true'
    )
