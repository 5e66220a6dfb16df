"""What the blob API reads out of headers, paths and tokens, and what it shows of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshed.domain import durations, grants, key_tokens, metadata, namespaces, ranges
from snapshed.domain.key_tokens import RegisteredKey
from snapshed.domain.namespaces import Place
from snapshed.errors import Forbidden, Invalid, Unauthenticated

# The key whose seed is 32 bytes of 7, as clients publish it to check their own signatures.
PUBLIC = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=
-----END PUBLIC KEY-----
"""
KEY = RegisteredKey("kid1", PUBLIC, ["*"], list(key_tokens.PERMISSIONS))
TOKEN = (
    "eyJhbGciOiJFZERTQSIsImtpZCI6ImtpZDEiLCJ0eXAiOiJKV1QifQ.eyJyZXMiOnsib3M6dXNlY2FzZSI6InRlc3RpbmciLCJvcmciOiI0MiIsInBy"
    "b2plY3QiOiIxMzM3In0sInBlcm1pc3Npb25zIjpbIm9iamVjdC5yZWFkIiwib2JqZWN0LndyaXRlIiwib2JqZWN0LmRlbGV0ZSJdLCJleHAiOjE3OTU0"
    "Njg3NDN9.0rQWJ1Vec9UlJdkByMHE4sqDvwPwT7crG8JZBMXncFyF1Hx60s4ltvBT34XsbubvttZ5gjZIE_JLw3vDd1MuAA"
)
ENDS = datetime.fromtimestamp(1795468743, UTC)
SIGNED_PATH = "/v1/objects/testing/org=42;project=1337/foo/b%20r"
SIGNED_QUERY = "os_kid=kid1&os_timestamp=2026-11-23T21:18:03Z&os_duration=3600"
SIGNATURE = "I9W2jA-ySL1MLrejcvahtI6rJuKukWXh37kStwBggBaqi-AVwy7kfkvEUxiOXXyJlNiBUWVri1--GnjAfYj1CA"
SIGNED_AT = datetime(2026, 11, 23, 21, 18, 3, tzinfo=UTC)


# --- Lengths of time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 30 * 86400),
        ("30 days", 30 * 86400),
        ("1d12h", 129600),
        (" 1 d 12 h ", 129600),
        ("30.5 days", 30.5 * 86400),
        ("2w", 14 * 86400),
        ("1week 1wk 2wks", 28 * 86400),
        ("1y", 31557600),
        ("1M", 2630016),
        ("1m", 60),
        ("1500ms", 1.5),
        ("1s 500msec", 1.5),
        ("1hr 1min 1sec", 3661),
        ("5us 5usec 5µs", 0.000015),
        ("999nanos", 0),
        ("0s", 0),
        ("2months 29days 2h 52m 48s", 90 * 86400),
        ("400d 1m 30s", 400 * 86400 + 90),
    ],
)
def test_a_length_of_time_is_read_in_every_spelling_of_the_clients(text: str, seconds: float) -> None:
    assert durations.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", " ", "90", "1D", "1mo", "1d,2h", "-1d", "+1d", "d", "1 2d", "1e3s", "٣d", "101y"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"length of time|at most"):
        durations.parse(text)


@given(st.integers(0, int(durations.LONGEST.total_seconds())))
def test_what_is_written_is_read_as_the_same(seconds: int) -> None:
    length = timedelta(seconds=seconds)
    written = durations.written(length)
    assert set(written) <= set("0123456789dhms ")
    assert durations.parse(written) == length


# --- Places ------------------------------------------------------------------------------------------------------------------


def test_scopes_keep_their_order() -> None:
    assert namespaces.parse_scopes("org=1;project=2") == (("org", "1"), ("project", "2"))
    assert namespaces.parse_scopes("_") == ()
    assert namespaces.parse_scopes("a()$!+'_-=b()$!+'_-") == (("a()$!+'_-", "b()$!+'_-"),)


@pytest.mark.parametrize(
    ("pattern", "scopes", "reached"),
    [
        ("*", "org=1;project=2", True),
        ("*", "_", True),
        ("_", "_", True),
        ("_", "org=1", False),
        ("org=*", "_", False),
        ("org=*;project=2", "org=9;project=2", True),
        ("org=*;project=2", "org=9;project=3", False),
        ("org=*;project=*", "org=1", False),
        ("org=*", "org=1;project=2", False),
        ("org=*;*", "org=1;project=2", True),
        ("org=*;*", "org=1", True),
        ("org=*;*", "_", False),
        ("org=1;project=2", "project=2;org=1", False),
        ("org=1", "org=11", False),
        ("org=*", "team=1", False),
    ],
)
def test_a_pattern_reaches_what_it_says(pattern: str, scopes: str, reached: bool) -> None:
    namespaces.check_pattern(pattern)
    assert namespaces.matches(pattern, namespaces.parse_scopes(scopes)) is reached


@pytest.mark.parametrize("pattern", ["", "org", "org=", "=1", "org=a*", "*;org=1", "org=1;*;p=2", "**", "org=.", "*;*"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="pattern"):
        namespaces.check_pattern(pattern)


# --- Headers -----------------------------------------------------------------------------------------------------------------


def test_what_describes_an_object_is_taken_out_of_a_request_and_nothing_else() -> None:
    described = metadata.read(
        {
            "host": "x",
            "x-os-auth": "Bearer secret",
            "content-type": 'text/plain; charset="utf-8"',
            "content-encoding": "zstd",
            "x-sn-time-created": "2020-01-01T00:00:00Z",
            "x-sn-size": "1",
            "x-sn-expiration": "ttl:1w",
            "x-snme-build": "7",
        }
    )
    assert described.headers == {
        "content-type": 'text/plain; charset="utf-8"',
        "content-encoding": "zstd",
        "x-snme-build": "7",
    }
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert metadata.shown(described, 12, now, now + timedelta(days=7)) == {
        **described.headers,
        "x-sn-time-created": "2026-01-01T00:00:00.000Z",
        "x-sn-size": "12",
        "x-sn-expiration": "ttl:7d",
        "x-sn-time-expires": "2026-01-08T00:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("a/b\\c", 'attachment; filename="a-b-c"'),
        ('say "hi"', 'attachment; filename="say \\"hi\\""'),
        ("..", 'attachment; filename="--"'),
        ("a%0D%0Aset-cookie: x", 'attachment; filename="a--set-cookie: x"'),
        ("100%", 'attachment; filename="100%"'),
        ("%C3%A9.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
        ("%E2%80%AE.txt", 'attachment; filename="-.txt"'),
    ],
)
def test_a_file_name_is_told_to_browsers_and_tells_them_nothing_more(sent: str, shown: str) -> None:
    assert metadata.disposition(metadata.read({"x-sn-filename": sent})) == shown


# --- Ranges --------------------------------------------------------------------------------------------------------------------


@given(st.text("0123456789-=,bytes ", max_size=20), st.integers(0, 20))
def test_whatever_a_range_says_it_stays_within_the_object(header: str, total: int) -> None:
    try:
        found = ranges.parse(header, total)
    except Invalid:
        return
    if isinstance(found, ranges.Span):
        assert 0 <= found.start < found.end <= total


# --- Tokens and signatures -------------------------------------------------------------------------------------------------------


def test_a_token_of_a_client_is_read_and_reaches_its_place_only() -> None:
    grant = key_tokens.read_token(TOKEN, KEY, ENDS)
    key_tokens.check(grant, Place("testing", "org=42;project=1337"), "object.delete")
    key_tokens.check(grant, Place("testing", "org=42"), "object.read")
    for place in (Place("testing", "org=42;project=1"), Place("other", "org=42"), Place("testing", "team=1")):
        with pytest.raises(Forbidden):
            key_tokens.check(grant, place, "object.read")
    with pytest.raises(Unauthenticated):
        key_tokens.read_token(TOKEN, KEY, ENDS + timedelta(seconds=61))
    with pytest.raises(Unauthenticated):
        key_tokens.read_token(TOKEN[:-4] + "AAAA", KEY, ENDS)


def test_a_pre_signed_address_of_a_client_is_believed_as_it_is_and_no_other() -> None:
    query = f"{SIGNED_QUERY}&os_sig={SIGNATURE}"
    for method in ("GET", "HEAD"):
        signed = key_tokens.read_signed(method, SIGNED_PATH, query)
        grant = key_tokens.accept(signed, KEY, SIGNED_AT + timedelta(minutes=59))
        key_tokens.check(grant, Place("testing", "org=42;project=1337"), "object.read")
        with pytest.raises(Forbidden):
            key_tokens.check(grant, Place("testing", "org=42;project=1337"), "object.write")
    reordered = key_tokens.read_signed(
        "GET", SIGNED_PATH, f"os_sig={SIGNATURE}&" + "&".join(sorted(SIGNED_QUERY.split("&")))
    )
    key_tokens.accept(reordered, KEY, SIGNED_AT)
    for path, text in (
        (SIGNED_PATH.replace("%20", "+"), query),
        (SIGNED_PATH, query.replace("3600", "3601")),
        (SIGNED_PATH, query + "&more=1"),
    ):
        with pytest.raises(Unauthenticated):
            key_tokens.accept(key_tokens.read_signed("GET", path, text), KEY, SIGNED_AT)
    for late in (timedelta(seconds=3601), -timedelta(seconds=61)):
        with pytest.raises(Unauthenticated):
            key_tokens.accept(signed, KEY, SIGNED_AT + late)


def test_only_the_exact_name_of_the_signature_makes_an_address_a_signed_one() -> None:
    assert key_tokens.is_signed("a=1&os_sig=x")
    assert key_tokens.is_signed("os_sig")
    assert not key_tokens.is_signed("OS_SIG=x&xos_sig=y&a=os_sig")


def test_a_private_key_or_one_of_another_kind_is_not_registered() -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private, public = grants.key_pair(Ed25519PrivateKey.generate())
    assert key_tokens.public_key(f"\n{public}\n") == public
    other = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for pem, says in ((private, "private"), (other.decode(), "Ed25519"), ("", "no public key"), ("x", "no public key")):
        with pytest.raises(Invalid, match=says):
            key_tokens.public_key(pem)
