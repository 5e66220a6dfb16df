"""Rows about multipart uploads: what each is to become, and its parts, which are stored pins of its session."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.metadata import Described, Expiration, Policy
from snapshed.domain.namespaces import Place


@dataclass(frozen=True, slots=True)
class Multipart:
    """An upload in parts: the object it is to become."""

    session_id: UUID
    use_case: str
    scopes: str
    key: str
    metadata: dict[str, str]
    policy: Policy | None
    lifetime: timedelta | None

    @property
    def place(self) -> Place:
        return Place(self.use_case, self.scopes)

    @property
    def described(self) -> Described:
        """What was said about it when the upload began."""
        if self.policy is None or self.lifetime is None:
            return Described(self.metadata, None)
        return Described(self.metadata, Expiration(self.policy, self.lifetime))


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part; `size` in bytes."""

    number: int
    blob_id: UUID
    digest: str
    size: int
    storage_key: str
    stored_at: datetime


def add(tx: Tx, session_id: UUID, where: Place, key: str, described: Described) -> None:
    expiration = described.expiration
    rows.run(
        tx,
        """
        INSERT INTO multipart (session_id, use_case, scopes, key, metadata, policy, lifetime)
        VALUES (%(session)s, %(use_case)s, %(scopes)s, %(key)s, %(metadata)s::jsonb, %(policy)s, %(lifetime)s)
        """,
        {
            "session": session_id,
            "use_case": where.use_case,
            "scopes": where.scopes,
            "key": key,
            "metadata": json.dumps(described.headers),
            "policy": expiration and expiration.policy,
            "lifetime": expiration and expiration.lifetime,
        },
    )


def find(tx: Tx, session_id: UUID) -> Multipart | None:
    return rows.one(
        tx,
        Multipart,
        """
        SELECT session_id, use_case, scopes, key, metadata, policy, lifetime FROM multipart WHERE session_id = %(id)s
        """,
        {"id": session_id},
    )


def put_part(tx: Tx, session_id: UUID, number: int, blob_id: UUID) -> None:
    """Let a stored blob be this part; the one before is let go of. The caller holds the session's lock."""
    rows.run(
        tx,
        "DELETE FROM pin WHERE session_id = %(session)s AND part = %(number)s",
        {"session": session_id, "number": number},
    )
    rows.run(
        tx,
        "INSERT INTO pin (session_id, blob_id, how, part) VALUES (%(session)s, %(blob)s, 'stored', %(number)s)",
        {"session": session_id, "blob": blob_id, "number": number},
    )


def parts(tx: Tx, session_id: UUID, after: int, limit: int) -> list[Part]:
    """The stored parts numbered above `after`, in their order; none whose bytes are lost."""
    return rows.many(
        tx,
        Part,
        """
        SELECT p.part AS number, b.id AS blob_id, b.digest, b.size, b.storage_key, b.announced_at AS stored_at
          FROM pin p JOIN blob b ON b.id = p.blob_id
         WHERE p.session_id = %(session)s AND p.part > %(after)s AND b.lost_at IS NULL
         ORDER BY p.part LIMIT %(limit)s
        """,
        {"session": session_id, "after": after, "limit": limit},
    )


def forget(tx: Tx, session_id: UUID) -> None:
    """Remove what the upload was to become. The caller holds the session's lock and ends it."""
    rows.run(tx, "DELETE FROM multipart WHERE session_id = %(id)s", {"id": session_id})


def forget_ended(tx: Tx, limit: int) -> int:
    """Remove what uploads were to become whose sessions have ended without them."""
    return rows.run(
        tx,
        """
        DELETE FROM multipart
         WHERE session_id IN (SELECT m.session_id FROM multipart m JOIN session s ON s.id = m.session_id
                               WHERE s.state <> 'open' LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED)
        """,
        {"limit": limit},
    )
