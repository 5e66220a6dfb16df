"""Rows about stored bytes: announced, live, promised, readable, nameable.

How rows leave is in `tombstones`, what has become of lost ones in `lost`; nothing here talks to the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx

Kind = Literal["image", "manifest", "comparison", "mask", "thumbnail", "archive", "file"]


@dataclass(frozen=True, slots=True)
class NewBlob:
    """An object about to be stored; `size` in bytes."""

    id: UUID
    kind: Kind
    digest: str
    size: int
    storage_key: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A live object, as its readers need it."""

    id: UUID
    digest: str
    size: int
    storage_key: str
    announced_at: datetime


@dataclass(frozen=True, slots=True)
class Digested:
    id: UUID
    digest: str


# --- T1: what may be promised ------------------------------------------------------------------------------


def promise(tx: Tx, project_id: int, session_id: UUID, digests: list[str]) -> list[Stored]:
    """Those images that a live snapshot names or this session stored, share-locked in id order and pinned (`told`)."""
    return rows.many(
        tx,
        Stored,
        """
        WITH promised AS (
            SELECT b.id, b.digest, b.size, b.storage_key, b.announced_at
              FROM blob b
             WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.lost_at IS NULL
               AND b.digest = ANY(%(digests)s)
               AND (EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
                    OR EXISTS (SELECT FROM pin p
                                WHERE p.blob_id = b.id AND p.session_id = %(session)s AND p.how = 'stored'))
             ORDER BY b.id FOR KEY SHARE OF b
        ), pinned AS (
            INSERT INTO pin (session_id, blob_id, how)
            SELECT %(session)s, id, 'told' FROM promised ORDER BY id
                ON CONFLICT (session_id, blob_id) DO NOTHING
        )
        SELECT id, digest, size, storage_key, announced_at FROM promised
        """,
        {"project": project_id, "session": session_id, "digests": digests},
    )


def readable(tx: Tx, project_id: int, digest: str, session_id: UUID | None) -> Stored | None:
    """An image that a live snapshot of the project names, or that the caller's own open session stored."""
    return rows.one(
        tx,
        Stored,
        """
        SELECT b.id, b.digest, b.size, b.storage_key, b.announced_at
          FROM blob b
         WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.digest = %(digest)s
           AND b.lost_at IS NULL
           AND (EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
                OR EXISTS (SELECT FROM pin p JOIN session s ON s.id = p.session_id
                            WHERE p.blob_id = b.id AND p.how = 'stored' AND s.id = %(session)s AND s.state = 'open'))
        """,
        {"project": project_id, "digest": digest, "session": session_id},
    )


def readable_by_id(tx: Tx, project_id: int, blob_id: UUID) -> Stored | None:
    """Any object of the project that something live names: a mask, a report, a manifest, an image."""
    return rows.one(
        tx,
        Stored,
        """
        SELECT b.id, b.digest, b.size, b.storage_key, b.announced_at
          FROM blob b
         WHERE b.id = %(id)s AND b.project_id = %(project)s AND b.state = 'live' AND b.lost_at IS NULL
           AND EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
        """,
        {"id": blob_id, "project": project_id},
    )


# --- T2, T3: announced, then live ----------------------------------------------------------------------------


def announce(
    tx: Tx,
    project_id: int,
    blobs: list[NewBlob],
    deadline: datetime,
    now: datetime,
    *,
    session_id: UUID | None = None,
    comparison_id: UUID | None = None,
    artifact_id: UUID | None = None,
    made_of: list[UUID] | None = None,
) -> None:
    """Write objects down before their first byte. The caller holds the owner's lock."""
    rows.run(
        tx,
        """
        INSERT INTO blob (id, project_id, kind, digest, size, storage_key, state, put_deadline, session_id,
                          comparison_id, artifact_id, made_of, announced_at)
        SELECT n.id, %(project)s, n.kind, n.digest, n.size, n.storage_key, 'pending', %(deadline)s, %(session)s,
               %(comparison)s, %(artifact)s, %(made_of)s, %(now)s
          FROM unnest(%(ids)s::uuid[], %(kinds)s::text[], %(digests)s::text[], %(sizes)s::bigint[], %(keys)s::text[])
               AS n (id, kind, digest, size, storage_key)
         ORDER BY n.id
        """,
        {
            "project": project_id,
            "deadline": deadline,
            "session": session_id,
            "comparison": comparison_id,
            "artifact": artifact_id,
            "made_of": made_of or [],
            "now": now,
            "ids": [blob.id for blob in blobs],
            "kinds": [blob.kind for blob in blobs],
            "digests": [blob.digest for blob in blobs],
            "sizes": [blob.size for blob in blobs],
            "keys": [blob.storage_key for blob in blobs],
        },
    )


def lock_images(tx: Tx, project_id: int) -> None:
    """Let one finalise at a time into a project: overlapping uploaders would deadlock on the unique image index."""
    rows.run(tx, "SELECT pg_advisory_xact_lock(1, %(project)s::int)", {"project": project_id})


def live_images(tx: Tx, project_id: int, digests: list[str]) -> list[Digested]:
    """The live images of these digests, whoever names them, locked in id order against being condemned."""
    return rows.many(
        tx,
        Digested,
        """
        SELECT id, digest FROM blob
         WHERE project_id = %(project)s AND kind = 'image' AND state = 'live' AND digest = ANY(%(digests)s)
           AND lost_at IS NULL
         ORDER BY id FOR KEY SHARE
        """,
        {"project": project_id, "digests": digests},
    )


def make_live(tx: Tx, blob_ids: list[UUID]) -> list[UUID]:
    """Turn announced rows live, their one PUT answered; the ids of those that were still announced."""
    return rows.column(
        tx,
        UUID,
        """
        UPDATE blob SET state = 'live', put_deadline = NULL, session_id = NULL, comparison_id = NULL, artifact_id = NULL
         WHERE id = ANY(%(ids)s) AND state = 'pending'
        RETURNING id
        """,
        {"ids": blob_ids},
    )


# --- T4: what may be named -----------------------------------------------------------------------------------


def lock_named(tx: Tx, blob_ids: list[UUID]) -> set[UUID]:
    """Those live blobs that an unmarked artifact names, key-share-locked in id order: none of them can be condemned
    until this transaction ends. Looked at in a second statement, as whoever held the lock before left them."""
    rows.run(tx, "SELECT FROM blob WHERE id = ANY(%(ids)s) ORDER BY id FOR KEY SHARE", {"ids": blob_ids})
    return set(
        rows.column(
            tx,
            UUID,
            """
            SELECT b.id FROM blob b
             WHERE b.id = ANY(%(ids)s) AND b.state = 'live' AND b.lost_at IS NULL
               AND EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
            """,
            {"ids": blob_ids},
        )
    )


def nameable(tx: Tx, project_id: int, session_id: UUID, digests: list[str]) -> list[Digested]:
    """Those images that this session pinned or a live snapshot names, locked in id order. Nobody who never had the
    bytes can bring an image back that is only waiting to go."""
    return rows.many(
        tx,
        Digested,
        """
        SELECT b.id, b.digest FROM blob b
         WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.digest = ANY(%(digests)s)
           AND b.lost_at IS NULL
           AND (EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id AND p.session_id = %(session)s)
                OR EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0))
         ORDER BY b.id FOR KEY SHARE OF b
        """,
        {"project": project_id, "session": session_id, "digests": digests},
    )
