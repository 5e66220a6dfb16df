"""Rows about holds: while one stands, its artifact cannot be deleted.

A hold is placed and looked for under the artifact's row lock, so that of a hold and a deletion at once one sees the
other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Held:
    """An artifact that can be held: `manifest_id` and `manifest_key` name what its manifest is now."""

    artifact_id: UUID
    number: int
    project_id: int
    org_id: int
    manifest_id: UUID
    manifest_key: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold on an artifact; it stands until `ends_at`, or until it is released."""

    id: UUID
    artifact_id: UUID
    number: int
    org_slug: str
    project_slug: str
    reason: str
    placed_by: str
    placed_at: datetime
    ends_at: datetime | None


def holdable(tx: Tx, project_ids: list[int], number: int) -> Held | None:
    """The unmarked artifact of that number within these projects, with its manifest."""
    return rows.one(
        tx,
        Held,
        """
        SELECT a.id AS artifact_id, a.number, a.project_id, p.org_id, b.id AS manifest_id, b.storage_key AS manifest_key
          FROM artifact a JOIN project p ON p.id = a.project_id
          LEFT JOIN snapshot s ON s.artifact_id = a.id LEFT JOIN build d ON d.artifact_id = a.id
          JOIN blob b ON b.id = coalesce(s.manifest_id, d.manifest_id)
         WHERE a.number = %(number)s AND a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL
        """,
        {"number": number, "projects": project_ids},
    )


def lock_artifact(tx: Tx, artifact_id: UUID) -> bool:
    """Lock an artifact against deletions and other holds; False if it is gone or marked."""
    return bool(
        rows.value(
            tx,
            bool,
            "SELECT true FROM artifact WHERE id = %(id)s AND deletion_id IS NULL FOR NO KEY UPDATE",
            {"id": artifact_id},
        )
    )


def add(tx: Tx, hold: Hold) -> None:
    rows.run(
        tx,
        """
        INSERT INTO hold (id, artifact_id, reason, placed_by, placed_at, ends_at)
        VALUES (%(id)s, %(artifact)s, %(reason)s, %(by)s, %(at)s, %(ends_at)s)
        """,
        {
            "id": hold.id,
            "artifact": hold.artifact_id,
            "reason": hold.reason,
            "by": hold.placed_by,
            "at": hold.placed_at,
            "ends_at": hold.ends_at,
        },
    )


def remove(tx: Tx, hold_ids: list[UUID]) -> int:
    """Release holds; returns how many there were."""
    return rows.run(tx, "DELETE FROM hold WHERE id = ANY(%(ids)s)", {"ids": hold_ids})


def name_manifest(tx: Tx, artifact_id: UUID, manifest_id: UUID) -> None:
    """Let the artifact name another manifest; a trigger enqueues the one it named before."""
    values = {"artifact": artifact_id, "manifest": manifest_id}
    rows.run(tx, "UPDATE snapshot SET manifest_id = %(manifest)s WHERE artifact_id = %(artifact)s", values)
    rows.run(tx, "UPDATE build SET manifest_id = %(manifest)s WHERE artifact_id = %(artifact)s", values)


def standing(tx: Tx, artifact_ids: list[UUID], now: datetime) -> list[Hold]:
    """The holds that stand on these artifacts at `now`, the oldest first."""
    return rows.many(
        tx,
        Hold,
        """
        SELECT h.id, h.artifact_id, a.number, o.slug AS org_slug, p.slug AS project_slug, h.reason, h.placed_by,
               h.placed_at, h.ends_at
          FROM hold h JOIN artifact a ON a.id = h.artifact_id
          JOIN project p ON p.id = a.project_id JOIN org o ON o.id = p.org_id
         WHERE h.artifact_id = ANY(%(artifacts)s) AND (h.ends_at IS NULL OR h.ends_at > %(now)s)
         ORDER BY h.placed_at, h.id
        """,
        {"artifacts": artifact_ids, "now": now},
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """Why an artifact cannot be deleted: a hold of its own, or one of its branch."""

    number: int
    reason: str


def barring(tx: Tx, artifact_ids: list[UUID], now: datetime) -> list[Bar]:
    """What keeps these artifacts from being deleted at `now`. Whoever deletes them holds their locks when asking."""
    return rows.many(
        tx,
        Bar,
        """
        SELECT a.number, x.reason
          FROM artifact a
          LEFT JOIN snapshot s ON s.artifact_id = a.id LEFT JOIN build d ON d.artifact_id = a.id
         CROSS JOIN LATERAL (
               SELECT h.reason, h.placed_at, h.ends_at FROM hold h WHERE h.artifact_id = a.id
               UNION ALL
               SELECT 'with its branch ' || r.branch || ': ' || r.reason, r.placed_at, r.ends_at
                 FROM branch_hold r
                WHERE r.project_id = a.project_id AND r.branch = coalesce(s.head_ref, d.head_ref)
                  AND r.released_at IS NULL) x
         WHERE a.id = ANY(%(artifacts)s) AND (x.ends_at IS NULL OR x.ends_at > %(now)s)
         ORDER BY x.placed_at, a.number
        """,
        {"artifacts": artifact_ids, "now": now},
    )


def listed(tx: Tx, project_ids: list[int], now: datetime) -> list[Hold]:
    """Every hold that stands in these projects, the oldest first."""
    return rows.many(
        tx,
        Hold,
        """
        SELECT h.id, h.artifact_id, a.number, o.slug AS org_slug, p.slug AS project_slug, h.reason, h.placed_by,
               h.placed_at, h.ends_at
          FROM hold h JOIN artifact a ON a.id = h.artifact_id
          JOIN project p ON p.id = a.project_id JOIN org o ON o.id = p.org_id
         WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL
           AND (h.ends_at IS NULL OR h.ends_at > %(now)s)
         ORDER BY h.placed_at, h.id
        """,
        {"projects": project_ids, "now": now},
    )
