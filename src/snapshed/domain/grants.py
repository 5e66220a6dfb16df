"""Secrets as text: organization tokens in the form `sentry-cli` reads, and the signed upload tokens of the blob API.

Whether a secret is known, revoked or over is not decided here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from snapshed.errors import Invalid, Unauthenticated

Scope = Literal["read", "upload", "review", "delete", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "upload", "review", "delete", "admin")
Permission = Literal["object.read", "object.write", "object.delete"]

USE_CASE = "preprod"
"""The use case under which snapshot images are stored; clients that are told nothing else assume it."""

_LEEWAY = timedelta(seconds=60)
_KID = re.compile(r"[A-Za-z0-9._:-]{1,100}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What an upload token says: its session, and where it may read and write."""

    session_id: UUID
    org_id: int
    project_id: int
    permissions: frozenset[str]


def allows(scopes: list[str] | frozenset[str], wanted: Scope) -> bool:
    """Every scope includes `read`; `admin` includes all."""
    return "admin" in scopes or wanted in scopes or (wanted == "read" and bool(scopes))


def org_token(address: str, org_slug: str, issued_at: datetime, secret: str) -> str:
    """`sntrys_` + padded base64 of `{iat, url, region_url, org}` + `_` + secret. The secret is plain base64: clients read
    the organization only out of a token with exactly two `_`."""
    facts = {"iat": issued_at.timestamp(), "url": address, "region_url": address, "org": org_slug}
    return f"sntrys_{base64.b64encode(json.dumps(facts).encode()).decode()}_{secret}"


def new_secret(random: bytes) -> str:
    """Random bytes as plain base64 without padding.

    >>> new_secret(bytes([251, 255]))
    '+/8'
    """
    return base64.b64encode(random).decode().rstrip("=")


def digest(secret: str) -> bytes:
    """What is stored of a secret. Our secrets carry 256 random bits, so one round of SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).digest()


def key_pair(private: Ed25519PrivateKey) -> tuple[str, str]:
    """The PEM texts of a key, private and public."""
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )


def upload_token(grant: Grant, ends_at: datetime, kid: str, private_pem: str) -> str:
    """An EdDSA token that carries the session; clients pass it on unread."""
    claims = {
        "res": {"os:usecase": USE_CASE, "org": str(grant.org_id), "project": str(grant.project_id)},
        "permissions": sorted(grant.permissions),
        "session": str(grant.session_id),
        "exp": int(ends_at.timestamp()),
    }
    return jwt.encode(claims, private_pem, algorithm="EdDSA", headers={"kid": kid})


def kid_of(token: str) -> str:
    """The key an upload token names. Raises Unauthenticated for what is no token and Invalid for one that names none."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError:
        raise Unauthenticated("The upload token is unreadable; ask for new upload options.") from None
    if not isinstance(kid, str):
        raise Invalid("The upload token names no key; ask for new upload options.")
    if not is_kid(kid):
        raise Unauthenticated("The upload token names a key that is not known here; ask for new upload options.")
    return kid


def is_kid(text: str) -> bool:
    """Whether a key may have this name: 1 to 100 letters, digits and `._:-`."""
    return bool(_KID.fullmatch(text))


def read_upload_token(token: str, public_pem: str, now: datetime) -> Grant:
    """Check an upload token's signature and time, and read it. Raises Unauthenticated."""
    wrong = Unauthenticated("The upload token is invalid or over; ask for new upload options and upload again.")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            public_pem,
            algorithms=["EdDSA"],
            # The clock arrives as an argument, so the time is judged below and not by the library.
            options={"verify_exp": False, "verify_aud": False, "require": ["exp"]},
        )
        resources = cast("dict[str, str]", claims["res"])
        grant = Grant(
            session_id=UUID(claims["session"]),
            org_id=int(resources["org"]),
            project_id=int(resources["project"]),
            permissions=frozenset(claims["permissions"]),
        )
        over = now.timestamp() > float(claims["exp"]) + _LEEWAY.total_seconds()
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
        raise wrong from None
    if over:
        raise wrong
    return grant
