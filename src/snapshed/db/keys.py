"""Rows about registered keys: public keys whose tokens the blob API accepts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.key_tokens import RegisteredKey


@dataclass(frozen=True, slots=True)
class Listed:
    kid: str
    scopes: list[str]
    permissions: list[str]
    created_at: datetime
    revoked_at: datetime | None


def add(tx: Tx, key: RegisteredKey, now: datetime) -> bool:
    """Register a key; False if a key of that name was ever registered, or is one of the installation's own."""
    return (
        rows.run(
            tx,
            """
            INSERT INTO registered_key (kid, public_pem, scopes, permissions, created_at)
            SELECT %(kid)s, %(pem)s, %(scopes)s, %(permissions)s, %(now)s
             WHERE NOT EXISTS (SELECT FROM signing_key WHERE kid = %(kid)s)
                ON CONFLICT (kid) DO NOTHING
            """,
            {
                "kid": key.kid,
                "pem": key.public_pem,
                "scopes": key.scopes,
                "permissions": key.permissions,
                "now": now,
            },
        )
        == 1
    )


def find(tx: Tx, kid: str) -> RegisteredKey | None:
    """The key of that name, unless it is revoked."""
    return rows.one(
        tx,
        RegisteredKey,
        """
        SELECT kid, public_pem, scopes, permissions FROM registered_key WHERE kid = %(kid)s AND revoked_at IS NULL
        """,
        {"kid": kid},
    )


def listing(tx: Tx) -> list[Listed]:
    return rows.many(
        tx,
        Listed,
        "SELECT kid, scopes, permissions, created_at, revoked_at FROM registered_key ORDER BY created_at, kid",
    )


def revoke(tx: Tx, kid: str, now: datetime) -> bool:
    """Revoke a key; False if there is none of that name that is not revoked."""
    return (
        rows.run(
            tx,
            "UPDATE registered_key SET revoked_at = %(now)s WHERE kid = %(kid)s AND revoked_at IS NULL",
            {"kid": kid, "now": now},
        )
        == 1
    )
