"""Rows about one image over time: where its name appears, and what its bytes cost. Reads only; marked snapshots are not
seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.verdict import Decided


@dataclass(frozen=True, slots=True)
class Appearance:
    """One snapshot that shows a name. `category` is what its comparison found, None without one; `decision` is the
    newest about this very image, else about the whole."""

    number: int
    created_at: datetime
    head_sha: str | None
    head_ref: str | None
    digest: str
    is_withdrawn: bool
    category: str | None
    share: float | None
    decision: Decided | None
    decided_by: str | None


def appearances(tx: Tx, project_id: int, app_id: str, name: str, before: int | None, limit: int) -> list[Appearance]:
    """The newest snapshots of an app that show this name, newest first; `before` is the last number of the page before."""
    return rows.many(
        tx,
        Appearance,
        """
        SELECT a.number, a.created_at, s.head_sha, s.head_ref, i.digest, i.image_id IS NULL AS is_withdrawn,
               CASE WHEN c.id IS NULL THEN NULL ELSE coalesce(f.category, 'unchanged') END AS category,
               f.changed_pixels::float8 / nullif(f.total_pixels, 0) AS share, d.decision, d.actor AS decided_by
          FROM artifact a
          JOIN snapshot s ON s.artifact_id = a.id
          JOIN snapshot_image i ON i.artifact_id = a.id AND i.name = %(name)s
          LEFT JOIN LATERAL (
               SELECT x.id FROM comparison x JOIN artifact b ON b.id = x.base_id
                WHERE x.head_id = a.id AND x.state = 'done' AND b.deletion_id IS NULL
                ORDER BY x.created_at DESC, x.id DESC LIMIT 1) c ON true
          LEFT JOIN comparison_image f ON f.comparison_id = c.id AND f.name = i.name
          LEFT JOIN LATERAL (
               SELECT decision, actor, decided_at FROM image_decision
                WHERE artifact_id = a.id AND name = i.name AND undone_at IS NULL
               UNION ALL
               SELECT decision, actor, decided_at FROM approval
                WHERE artifact_id = a.id AND undone_at IS NULL AND NOT by_images
                ORDER BY decided_at DESC LIMIT 1) d ON f.category IS NOT NULL AND f.category <> 'unchanged'
         WHERE a.project_id = %(project)s AND a.app_id = %(app)s AND a.deletion_id IS NULL
           AND (%(before)s::bigint IS NULL OR a.number < %(before)s)
         ORDER BY a.number DESC LIMIT %(limit)s
        """,
        {"project": project_id, "app": app_id, "name": name, "before": before, "limit": limit},
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """One stored image: its size in bytes, and how many snapshots name it, under how many names."""

    digest: str
    bytes: int
    snapshots: int
    names: int


def kept(tx: Tx, project_id: int, digests: list[str]) -> list[Kept]:
    """Those images of a project that are stored under one of these digests."""
    return rows.many(
        tx,
        Kept,
        """
        SELECT b.digest, b.size AS bytes, count(DISTINCT i.artifact_id) AS snapshots, count(DISTINCT i.name) AS names
          FROM blob b JOIN snapshot_image i ON i.image_id = b.id JOIN artifact a ON a.id = i.artifact_id
         WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.digest = ANY(%(digests)s)
           AND a.deletion_id IS NULL
         GROUP BY b.digest, b.size
        """,
        {"project": project_id, "digests": digests},
    )


def artifacts_since(tx: Tx, project_ids: list[int], since: datetime, limit: int) -> list[UUID]:
    """The newest unmarked snapshots made since then."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT a.id FROM artifact a
         WHERE a.project_id = ANY(%(projects)s) AND a.kind = 'snapshot' AND a.deletion_id IS NULL
           AND a.created_at >= %(since)s
         ORDER BY a.created_at DESC LIMIT %(limit)s
        """,
        {"projects": project_ids, "since": since, "limit": limit},
    )
