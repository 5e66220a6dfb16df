"""Rows about holds of branches: while one stands, no artifact of the branch can be deleted, whenever it was made.

A hold is placed under the locks of the project and of the branch's artifacts, and looked for under those of artifacts, so
that of a hold and a deletion at once one sees the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class BranchHold:
    """A hold on a branch of a project; it stands until `ends_at`, or until it is released."""

    id: UUID
    project_id: int
    org_slug: str
    project_slug: str
    branch: str
    reason: str
    placed_by: str
    placed_at: datetime
    ends_at: datetime | None
    released_by: str | None
    released_at: datetime | None


def lock_branch(tx: Tx, project_id: int, branch: str) -> None:
    """Wait for every deletion that is being marked in the branch, and let none begin until this transaction ends. The
    caller holds the project's lock, so that no artifact joins the branch meanwhile."""
    rows.run(
        tx,
        """
        SELECT a.id FROM artifact a
          LEFT JOIN snapshot s ON s.artifact_id = a.id LEFT JOIN build d ON d.artifact_id = a.id
         WHERE a.project_id = %(project)s AND a.deletion_id IS NULL AND coalesce(s.head_ref, d.head_ref) = %(branch)s
         ORDER BY a.id FOR NO KEY UPDATE OF a
        """,
        {"project": project_id, "branch": branch},
    )


def add(tx: Tx, hold: BranchHold) -> None:
    rows.run(
        tx,
        """
        INSERT INTO branch_hold (id, project_id, branch, reason, placed_by, placed_at, ends_at)
        VALUES (%(id)s, %(project)s, %(branch)s, %(reason)s, %(by)s, %(at)s, %(ends_at)s)
        """,
        {
            "id": hold.id,
            "project": hold.project_id,
            "branch": hold.branch,
            "reason": hold.reason,
            "by": hold.placed_by,
            "at": hold.placed_at,
            "ends_at": hold.ends_at,
        },
    )


def release(tx: Tx, project_ids: list[int], hold_id: UUID, released_by: str, now: datetime) -> str | None:
    """Release a hold within these projects and return its branch; None if none of that id stands."""
    return rows.value(
        tx,
        str,
        """
        UPDATE branch_hold SET released_by = %(by)s, released_at = %(now)s, noted_at = NULL
         WHERE id = %(id)s AND project_id = ANY(%(projects)s) AND released_at IS NULL
           AND (ends_at IS NULL OR ends_at > %(now)s)
        RETURNING branch
        """,
        {"id": hold_id, "projects": project_ids, "by": released_by, "now": now},
    )


def listed(tx: Tx, project_ids: list[int], now: datetime) -> list[BranchHold]:
    """Every hold of a branch that stands in these projects, the oldest first."""
    return rows.many(
        tx,
        BranchHold,
        """
        SELECT h.id, h.project_id, o.slug AS org_slug, p.slug AS project_slug, h.branch, h.reason, h.placed_by,
               h.placed_at, h.ends_at, h.released_by, h.released_at
          FROM branch_hold h JOIN project p ON p.id = h.project_id JOIN org o ON o.id = p.org_id
         WHERE h.project_id = ANY(%(projects)s) AND h.released_at IS NULL
           AND (h.ends_at IS NULL OR h.ends_at > %(now)s)
         ORDER BY h.placed_at, h.id
        """,
        {"projects": project_ids, "now": now},
    )


def unnoted(tx: Tx, limit: int) -> list[BranchHold]:
    """Holds whose placing or release the store was not told yet."""
    return rows.many(
        tx,
        BranchHold,
        """
        SELECT h.id, h.project_id, o.slug AS org_slug, p.slug AS project_slug, h.branch, h.reason, h.placed_by,
               h.placed_at, h.ends_at, h.released_by, h.released_at
          FROM branch_hold h JOIN project p ON p.id = h.project_id JOIN org o ON o.id = p.org_id
         WHERE h.noted_at IS NULL ORDER BY h.placed_at LIMIT %(limit)s
        """,
        {"limit": limit},
    )


def noted(tx: Tx, hold: BranchHold, now: datetime) -> None:
    """The store was told of this hold as it was read. If it was released meanwhile, that is still to be told."""
    rows.run(
        tx,
        """
        UPDATE branch_hold SET noted_at = %(now)s
         WHERE id = %(id)s AND (released_at IS NULL) = %(stands)s AND noted_at IS NULL
        """,
        {"id": hold.id, "stands": hold.released_at is None, "now": now},
    )
