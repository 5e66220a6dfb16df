"""Rows about deletions: what was asked, what is marked, and how far each has come.

What a deletion let go of, and what became of it, is in `releases`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Json, Jsonb

from snapshed.db import rows
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Target:
    """An artifact a deletion would take: its root row and public number."""

    artifact_id: UUID
    number: int
    project_id: int


@dataclass(frozen=True, slots=True)
class Deletion:
    id: UUID
    org_id: int
    project_id: int | None
    target: dict[str, Any]
    requested_by: str
    reason: str | None
    urgent: bool
    request_id: str | None
    state: Literal["removing", "complete"]
    snapshots: list[int]
    artifacts: list[UUID]
    rows: dict[str, int]
    requested_at: datetime
    journaled_at: datetime | None
    completed_at: datetime | None
    verified_at: datetime | None
    receipt: dict[str, Any] | None
    recovered: bool = False

    @property
    def withdrawn_digest(self) -> str | None:
        """The digest of the image that is withdrawn; None where whole artifacts are deleted."""
        return self.target.get("image")


@dataclass(frozen=True, slots=True)
class TraceTally:
    released: int
    removed: int
    waiting: int


# --- T5a: mark -----------------------------------------------------------------------------------------------------


def targets_by_number(tx: Tx, project_ids: list[int], numbers: list[int]) -> list[Target]:
    """The unmarked artifacts of these numbers within these projects."""
    return rows.many(
        tx,
        Target,
        """
        SELECT id AS artifact_id, number, project_id FROM artifact
         WHERE number = ANY(%(numbers)s) AND project_id = ANY(%(projects)s) AND deletion_id IS NULL
         ORDER BY id
        """,
        {"numbers": numbers, "projects": project_ids},
    )


def targets_by_filter(
    tx: Tx, project_id: int, app_id: str | None, branch: str | None, older_than: datetime | None
) -> list[Target]:
    """The unmarked artifacts of a project that fit every condition given; with none given, all of them."""
    return rows.many(
        tx,
        Target,
        """
        SELECT a.id AS artifact_id, a.number, a.project_id
          FROM artifact a
          LEFT JOIN snapshot s ON s.artifact_id = a.id LEFT JOIN build d ON d.artifact_id = a.id
         WHERE a.project_id = %(project)s AND a.deletion_id IS NULL
           AND (%(app)s::text IS NULL OR a.app_id = %(app)s)
           AND (%(branch)s::text IS NULL OR coalesce(s.head_ref, d.head_ref) = %(branch)s)
           AND (%(older)s::timestamptz IS NULL OR a.created_at < %(older)s)
         ORDER BY a.id
        """,
        {"project": project_id, "app": app_id, "branch": branch, "older": older_than},
    )


def count_rows(tx: Tx, artifact_ids: list[UUID]) -> dict[str, int]:
    """How many rows of each public kind belong to these artifacts; builds are counted where there are any.
    Approvals are decisions of every kind, about the whole or about one image."""
    row = tx.execute(
        """
        SELECT (SELECT count(*) FROM snapshot WHERE artifact_id = ANY(%(ids)s)),
               (SELECT count(*) FROM snapshot_image WHERE artifact_id = ANY(%(ids)s)),
               (SELECT count(*) FROM comparison WHERE head_id = ANY(%(ids)s) OR base_id = ANY(%(ids)s)),
               (SELECT count(*) FROM approval WHERE artifact_id = ANY(%(ids)s))
                   + (SELECT count(*) FROM image_decision WHERE artifact_id = ANY(%(ids)s)),
               (SELECT count(*) FROM build WHERE artifact_id = ANY(%(ids)s))
        """,
        {"ids": artifact_ids},
    ).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    counts: dict[str, int] = dict(zip(("snapshots", "snapshot_images", "comparisons", "approvals"), row, strict=False))
    return counts | ({"builds": row[4]} if row[4] else {})


def add(tx: Tx, deletion: Deletion) -> None:
    rows.run(
        tx,
        """
        INSERT INTO deletion (id, org_id, project_id, target, requested_by, reason, urgent, request_id, snapshots,
                              artifacts, rows, requested_at)
        VALUES (%(id)s, %(org)s, %(project)s, %(target)s, %(by)s, %(reason)s, %(urgent)s, %(request_id)s,
                %(snapshots)s, %(artifacts)s, %(rows)s, %(at)s)
        """,
        {
            "id": deletion.id,
            "org": deletion.org_id,
            "project": deletion.project_id,
            "target": Jsonb(deletion.target),
            "by": deletion.requested_by,
            "reason": deletion.reason,
            "urgent": deletion.urgent,
            "request_id": deletion.request_id,
            "snapshots": deletion.snapshots,
            "artifacts": deletion.artifacts,
            "rows": Json(deletion.rows),
            "at": deletion.requested_at,
        },
    )


def lock_requests(tx: Tx, org_id: int) -> None:
    """Let one deletion with a request id at a time look whether it was asked before."""
    rows.run(tx, "SELECT pg_advisory_xact_lock(4, %(org)s::int)", {"org": org_id})


def lock_unmarked(tx: Tx, artifact_ids: list[UUID]) -> list[UUID]:
    """Lock artifacts in id order and return those that no deletion has marked meanwhile."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT id FROM artifact WHERE id = ANY(%(ids)s) AND deletion_id IS NULL ORDER BY id FOR NO KEY UPDATE
        """,
        {"ids": artifact_ids},
    )


def mark(tx: Tx, deletion_id: UUID, artifact_ids: list[UUID]) -> None:
    """Hide artifacts everywhere at once. The caller holds their locks and has seen them unmarked."""
    rows.run(
        tx,
        "UPDATE artifact SET deletion_id = %(deletion)s WHERE id = ANY(%(ids)s) AND deletion_id IS NULL",
        {"deletion": deletion_id, "ids": artifact_ids},
    )


def doom_traces(tx: Tx, deletion_id: UUID, trace_ids: dict[UUID, UUID], now: datetime) -> None:
    """Announce the removal of each artifact's trace rows; `trace_ids` maps artifacts to trace ids. A trace that a
    writer has claimed may land until that claim ends, so only a later count is final."""
    rows.run(
        tx,
        """
        INSERT INTO trace_removal (deletion_id, trace_id, not_final_before)
        SELECT %(deletion)s, n.trace_id,
               greatest(%(now)s, (SELECT max(claimed_until) FROM trace_due d WHERE d.artifact_id = n.artifact_id))
          FROM unnest(%(artifacts)s::uuid[], %(traces)s::uuid[]) AS n (artifact_id, trace_id)
        """,
        {
            "deletion": deletion_id,
            "now": now,
            "artifacts": list(trace_ids.keys()),
            "traces": list(trace_ids.values()),
        },
    )


def journaled(tx: Tx, deletion_id: UUID, now: datetime) -> None:
    rows.run(
        tx,
        "UPDATE deletion SET journaled_at = %(now)s WHERE id = %(id)s AND journaled_at IS NULL",
        {"id": deletion_id, "now": now},
    )


# --- T5b: release -----------------------------------------------------------------------------------------------------


def next_marked(tx: Tx, deletion_id: UUID, most_artifacts: int, most_images: int) -> list[UUID]:
    """The next marked artifacts of a deletion, locked: as many as fit the bounds, at least one if any is left."""
    return rows.column(
        tx,
        UUID,
        """
        WITH sized AS (
            SELECT a.id, sum(coalesce(s.image_count, 0)) OVER (ORDER BY a.id) - coalesce(s.image_count, 0) AS before
              FROM artifact a LEFT JOIN snapshot s ON s.artifact_id = a.id
             WHERE a.deletion_id = %(deletion)s
             ORDER BY a.id LIMIT %(artifacts)s
        )
        SELECT a.id FROM artifact a JOIN sized z ON z.id = a.id
         WHERE z.before < %(images)s ORDER BY a.id FOR UPDATE OF a
        """,
        {"deletion": deletion_id, "artifacts": most_artifacts, "images": most_images},
    )


def unreleased(tx: Tx, limit: int) -> list[UUID]:
    """Deletions with marked artifacts left: those of people before those of rules, every project in turn, the oldest
    first."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT d.id FROM deletion d
         WHERE d.state = 'removing' AND EXISTS (SELECT FROM artifact a WHERE a.deletion_id = d.id)
         ORDER BY d.requested_by LIKE 'rule:%%',
                  row_number() OVER (PARTITION BY d.project_id, d.requested_by LIKE 'rule:%%' ORDER BY d.requested_at),
                  d.requested_at
         LIMIT %(limit)s
        """,
        {"limit": limit},
    )


def unjournaled(tx: Tx, limit: int) -> list[Deletion]:
    return _select(tx, "journal", limit=limit)


def open_ones(tx: Tx, limit: int) -> list[Deletion]:
    """Some deletions that are not complete, each time others."""
    return _select(tx, "open", limit=limit)


def open_count(tx: Tx) -> int:
    return rows.value(tx, int, "SELECT count(*) FROM deletion WHERE state = 'removing'") or 0


def find(tx: Tx, deletion_id: UUID) -> Deletion | None:
    found = _select(tx, "id", deletion_id=deletion_id, limit=1)
    return found[0] if found else None


def find_by_request(tx: Tx, org_id: int, request_id: str) -> Deletion | None:
    found = _select(tx, "request", org_id=org_id, request_id=request_id, limit=1)
    return found[0] if found else None


def listed(tx: Tx, org_id: int, project_id: int | None, snapshot: int | None, limit: int) -> list[Deletion]:
    """Deletions of an organization, newest first; only of one project, or only those that took one snapshot."""
    return _select(tx, "org", org_id=org_id, project_id=project_id, snapshot=snapshot, limit=limit)


def _select(
    tx: Tx,
    by: Literal["id", "request", "org", "open", "journal"],
    *,
    deletion_id: UUID | None = None,
    org_id: int | None = None,
    project_id: int | None = None,
    request_id: str | None = None,
    snapshot: int | None = None,
    limit: int,
) -> list[Deletion]:
    return rows.many(
        tx,
        Deletion,
        """
        SELECT id, org_id, project_id, target, requested_by, reason, urgent, request_id, state, snapshots, artifacts,
               rows, requested_at, journaled_at, completed_at, verified_at, receipt, recovered
          FROM deletion
         WHERE CASE %(by)s
               WHEN 'id' THEN id = %(id)s
               WHEN 'request' THEN org_id = %(org)s AND request_id = %(request)s
               WHEN 'org' THEN org_id = %(org)s AND (%(project)s::bigint IS NULL OR project_id = %(project)s)
                               AND (%(snapshot)s::bigint IS NULL OR snapshots @> ARRAY[%(snapshot)s::bigint])
               WHEN 'open' THEN state = 'removing'
               ELSE journaled_at IS NULL END
            -- Open ones in any order: those that cannot finish must not keep the others from being looked at.
         ORDER BY CASE %(by)s WHEN 'org' THEN -extract(epoch FROM requested_at)
                              WHEN 'open' THEN random()
                              ELSE extract(epoch FROM requested_at) END
         LIMIT %(limit)s
        """,
        {
            "by": by,
            "id": deletion_id,
            "org": org_id,
            "project": project_id,
            "request": request_id,
            "snapshot": snapshot,
            "limit": limit,
        },
    )


# --- T9: what has become of it ------------------------------------------------------------------------------------------


def lock_open(tx: Tx, deletion_id: UUID) -> bool:
    """Lock a deletion that is not complete; False if it is, or somebody else is closing it."""
    return bool(
        rows.value(
            tx,
            bool,
            "SELECT true FROM deletion WHERE id = %(id)s AND state = 'removing' FOR UPDATE SKIP LOCKED",
            {"id": deletion_id},
        )
    )


def marked_left(tx: Tx, deletion_id: UUID) -> int:
    """How many artifacts this deletion has marked and not yet released. A withdrawn image is released as it is marked."""
    return rows.value(tx, int, "SELECT count(*) FROM artifact WHERE deletion_id = %(id)s", {"id": deletion_id}) or 0


def trace_tally(tx: Tx, deletion_id: UUID) -> TraceTally:
    found = rows.one(
        tx,
        TraceTally,
        """
        SELECT count(*) AS released, count(*) FILTER (WHERE removed_at IS NOT NULL) AS removed,
               count(*) FILTER (WHERE removed_at IS NULL) AS waiting
          FROM trace_removal WHERE deletion_id = %(id)s
        """,
        {"id": deletion_id},
    )
    assert found is not None  # noqa: S101  an aggregate has one row
    return found


def complete(tx: Tx, deletion_id: UUID, receipt: dict[str, Any], verified_at: datetime, now: datetime) -> None:
    rows.run(
        tx,
        """
        UPDATE deletion SET state = 'complete', receipt = %(receipt)s, completed_at = %(now)s, verified_at = %(verified)s
         WHERE id = %(id)s AND state = 'removing'
        """,
        {"id": deletion_id, "receipt": Json(receipt), "verified": verified_at, "now": now},
    )


def unjournaled_receipts(tx: Tx, limit: int) -> list[Deletion]:
    """Complete deletions whose receipt the store's journal does not have yet."""
    return rows.many(
        tx,
        Deletion,
        """
        SELECT id, org_id, project_id, target, requested_by, reason, urgent, request_id, state, snapshots, artifacts,
               rows, requested_at, journaled_at, completed_at, verified_at, receipt, recovered
          FROM deletion WHERE state = 'complete' AND receipt_journaled_at IS NULL
         ORDER BY completed_at LIMIT %(limit)s
        """,
        {"limit": limit},
    )


def receipt_journaled(tx: Tx, deletion_id: UUID, now: datetime) -> None:
    rows.run(
        tx,
        "UPDATE deletion SET receipt_journaled_at = %(now)s WHERE id = %(id)s",
        {"id": deletion_id, "now": now},
    )
