"""Tokens in the form clients read, and upload tokens nobody but us can make."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from snapshed.domain import grants
from snapshed.domain.grants import Grant
from snapshed.errors import Unauthenticated

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PRIVATE, PUBLIC = grants.key_pair(Ed25519PrivateKey.generate())
GRANT = Grant(UUID(int=7), 1, 2, frozenset({"object.read", "object.write"}))


def test_an_organization_token_carries_address_and_organization_for_clients_that_read_it() -> None:
    token = grants.org_token("https://snaps.example", "acme", NOW, "secret")
    prefix, facts, secret = token.split("_", 2)
    assert (prefix, secret) == ("sntrys", "secret")
    read = json.loads(base64.b64decode(facts, validate=True))
    assert read == {
        "iat": NOW.timestamp(), "url": "https://snaps.example", "region_url": "https://snaps.example", "org": "acme",
    }  # fmt: skip


def test_an_upload_token_says_what_was_granted_until_it_is_over() -> None:
    token = grants.upload_token(GRANT, NOW + timedelta(hours=6), "k", PRIVATE)
    assert grants.kid_of(token) == "k"
    assert grants.read_upload_token(token, PUBLIC, NOW) == GRANT
    with pytest.raises(Unauthenticated):
        grants.read_upload_token(token, PUBLIC, NOW + timedelta(hours=7))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_of_another_algorithm_is_refused(algorithm: str) -> None:
    claims = {"res": {"org": "1", "project": "2"}, "permissions": [], "session": str(UUID(int=7)), "exp": 2**40}
    key = None if algorithm == "none" else "x" * 64
    token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "k"})
    with pytest.raises(Unauthenticated):
        grants.read_upload_token(token, PUBLIC, NOW)


def test_a_token_of_another_key_or_without_claims_is_refused() -> None:
    other, _ = grants.key_pair(Ed25519PrivateKey.generate())
    with pytest.raises(Unauthenticated):
        grants.read_upload_token(grants.upload_token(GRANT, NOW, "k", other), PUBLIC, NOW)
    empty = jwt.encode({"exp": 2**40}, PRIVATE, algorithm="EdDSA", headers={"kid": "k"})
    with pytest.raises(Unauthenticated):
        grants.read_upload_token(empty, PUBLIC, NOW)
    with pytest.raises(Unauthenticated):
        grants.kid_of("not.a.token")


@pytest.mark.parametrize(
    ("scopes", "wanted", "allowed"),
    [
        (["read"], "read", True),
        (["upload"], "read", True),
        (["upload"], "upload", True),
        (["upload"], "delete", False),
        (["review"], "upload", False),
        (["delete"], "review", False),
        (["admin"], "delete", True),
        ([], "read", False),
    ],
)
def test_scopes_allow_what_they_say_and_reading(scopes: list[str], wanted: grants.Scope, allowed: bool) -> None:
    assert grants.allows(scopes, wanted) is allowed
