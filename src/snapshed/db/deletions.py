"""Rows about deletions: what was asked, what each let go of, and what is left to do.

`release` speaks about blobs, not about work done: a receipt is closed on what has become of every blob released,
whichever deletion removed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Json, Jsonb

from snapshed.db import rows
from snapshed.db.blobs import Kind
from snapshed.db.pool import Tx

Class = Literal["removed", "kept_shared", "kept_pinned", "waiting"]


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


@dataclass(frozen=True, slots=True)
class Tally:
    """How many blobs of one kind a deletion released, by what has become of them."""

    kind: Kind
    outcome: Class
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ReleasedObject:
    blob_id: UUID
    kind: Kind
    digest: str
    bytes: int
    storage_key: str
    outcome: Class
    removed_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailureCount:
    kind: Kind
    error_class: str
    attempts: int
    last_error: str
    next_attempt_at: datetime


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
          FROM artifact a LEFT JOIN snapshot s ON s.artifact_id = a.id
         WHERE a.project_id = %(project)s AND a.deletion_id IS NULL
           AND (%(app)s::text IS NULL OR a.app_id = %(app)s)
           AND (%(branch)s::text IS NULL OR s.head_ref = %(branch)s)
           AND (%(older)s::timestamptz IS NULL OR a.created_at < %(older)s)
         ORDER BY a.id
        """,
        {"project": project_id, "app": app_id, "branch": branch, "older": older_than},
    )


def count_rows(tx: Tx, artifact_ids: list[UUID]) -> dict[str, int]:
    """How many rows of each public kind belong to these artifacts."""
    row = tx.execute(
        """
        SELECT (SELECT count(*) FROM snapshot WHERE artifact_id = ANY(%(ids)s)),
               (SELECT count(*) FROM snapshot_image WHERE artifact_id = ANY(%(ids)s)),
               (SELECT count(*) FROM comparison WHERE head_id = ANY(%(ids)s) OR base_id = ANY(%(ids)s)),
               (SELECT count(*) FROM approval WHERE artifact_id = ANY(%(ids)s))
        """,
        {"ids": artifact_ids},
    ).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    return dict(zip(("snapshots", "snapshot_images", "comparisons", "approvals"), row, strict=True))


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


def lock_comparisons(tx: Tx, artifact_ids: list[UUID]) -> list[UUID]:
    """Every comparison with one of these on either side, locked in id order."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT id FROM comparison WHERE head_id = ANY(%(ids)s) OR base_id = ANY(%(ids)s) ORDER BY id FOR UPDATE
        """,
        {"ids": artifact_ids},
    )


def release(tx: Tx, deletion_id: UUID, artifact_ids: list[UUID], comparison_ids: list[UUID]) -> int:
    """Write down every blob these rows let go of, whoever else names it. Returns how many are new to the deletion."""
    return rows.run(
        tx,
        """
        WITH named AS (
            -- What the rows name now.
            SELECT image_id AS blob_id FROM snapshot_image
             WHERE artifact_id = ANY(%(artifacts)s) AND image_id IS NOT NULL
            UNION SELECT manifest_id FROM snapshot WHERE artifact_id = ANY(%(artifacts)s)
            UNION SELECT report_id FROM comparison WHERE id = ANY(%(comparisons)s) AND report_id IS NOT NULL
            UNION SELECT mask_id FROM comparison_image
             WHERE comparison_id = ANY(%(comparisons)s) AND mask_id IS NOT NULL
        ), made AS (
            -- What was computed from the artifacts, announced or standing, named by a row or by none.
            SELECT id AS blob_id FROM blob WHERE made_of <> '{}' AND made_of && %(artifacts)s::uuid[]
            UNION SELECT id FROM blob WHERE comparison_id = ANY(%(comparisons)s)
        ), digests AS (
            SELECT DISTINCT b.project_id, b.digest FROM blob b JOIN named n ON n.blob_id = b.id WHERE b.kind = 'image'
        ), let_go AS (
            SELECT b.id, b.kind, b.digest, b.size AS bytes, b.storage_key
              FROM blob b JOIN (SELECT blob_id FROM named UNION SELECT blob_id FROM made) x ON x.blob_id = b.id
            UNION
            -- Condemned already, and its bytes may still stand: something made of the artifacts ...
            SELECT t.blob_id, t.kind, t.digest, t.bytes, t.storage_key
              FROM tombstone t WHERE t.made_of <> '{}' AND t.made_of && %(artifacts)s::uuid[]
            UNION
            -- ... or the same bytes under another key, the loser of two uploads at once.
            SELECT t.blob_id, t.kind, t.digest, t.bytes, t.storage_key
              FROM tombstone t JOIN digests d ON d.project_id = t.project_id AND d.digest = t.digest
        ), written AS (
            INSERT INTO release (deletion_id, blob_id, kind, digest, bytes, storage_key)
            SELECT %(deletion)s, id, kind, digest, bytes, storage_key FROM let_go
                ON CONFLICT (deletion_id, blob_id) DO NOTHING
            RETURNING blob_id
        )
        INSERT INTO candidate (blob_id, cause) SELECT blob_id, 'release' FROM written
        """,
        {"deletion": deletion_id, "artifacts": artifact_ids, "comparisons": comparison_ids},
    )


def pending_derived(tx: Tx, artifact_ids: list[UUID], comparison_ids: list[UUID]) -> list[UUID]:
    """Announced objects made of these artifacts, locked in id order: their PUT may still be under way."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT id FROM blob
         WHERE state = 'pending'
           AND (comparison_id = ANY(%(comparisons)s) OR (made_of <> '{}' AND made_of && %(artifacts)s::uuid[]))
         ORDER BY id FOR UPDATE
        """,
        {"artifacts": artifact_ids, "comparisons": comparison_ids},
    )


def delete_rows(tx: Tx, artifact_ids: list[UUID], comparison_ids: list[UUID]) -> None:
    """Remove the rows themselves, references first and the root last. Triggers enqueue every blob they named."""
    ids = {"artifacts": artifact_ids, "comparisons": comparison_ids}
    rows.run(tx, "DELETE FROM comparison_image WHERE comparison_id = ANY(%(comparisons)s)", ids)
    rows.run(tx, "DELETE FROM comparison WHERE id = ANY(%(comparisons)s)", ids)
    rows.run(tx, "DELETE FROM snapshot_image WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM snapshot WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM approval WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM trace_due WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM artifact WHERE id = ANY(%(artifacts)s)", ids)


def unreleased(tx: Tx, limit: int) -> list[UUID]:
    """Deletions with marked artifacts left, the oldest first."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT d.id FROM deletion d
         WHERE d.state = 'removing' AND EXISTS (SELECT FROM artifact a WHERE a.deletion_id = d.id)
         ORDER BY d.requested_at LIMIT %(limit)s
        """,
        {"limit": limit},
    )


def unjournaled(tx: Tx, limit: int) -> list[Deletion]:
    return _select(tx, "journal", limit=limit)


def open_ones(tx: Tx, limit: int) -> list[Deletion]:
    """Deletions that are not complete, the oldest first."""
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
               rows, requested_at, journaled_at, completed_at, verified_at, receipt
          FROM deletion
         WHERE CASE %(by)s
               WHEN 'id' THEN id = %(id)s
               WHEN 'request' THEN org_id = %(org)s AND request_id = %(request)s
               WHEN 'org' THEN org_id = %(org)s AND (%(project)s::bigint IS NULL OR project_id = %(project)s)
                               AND (%(snapshot)s::bigint IS NULL OR snapshots @> ARRAY[%(snapshot)s::bigint])
               WHEN 'open' THEN state = 'removing'
               ELSE journaled_at IS NULL END
         ORDER BY CASE WHEN %(by)s = 'org' THEN -extract(epoch FROM requested_at)
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
    """How many rows this deletion has marked and not yet released."""
    return (
        rows.value(
            tx,
            int,
            """
            SELECT (SELECT count(*) FROM artifact WHERE deletion_id = %(id)s)
                 + (SELECT count(*) FROM snapshot_image WHERE withdrawn_by = %(id)s AND image_id IS NOT NULL)
            """,
            {"id": deletion_id},
        )
        or 0
    )


def tallies(tx: Tx, deletion_id: UUID) -> list[Tally]:
    """One statement, one snapshot of the rows: every released blob in the first class that fits it."""
    return rows.many(
        tx,
        Tally,
        """
        SELECT x.kind, x.outcome, count(*) AS objects, coalesce(sum(x.bytes), 0)::bigint AS bytes
          FROM (SELECT r.kind, r.bytes,
                       CASE WHEN b.id IS NULL AND t.blob_id IS NULL THEN 'removed'
                            WHEN EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0) THEN 'kept_shared'
                            WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = r.blob_id) THEN 'kept_pinned'
                            ELSE 'waiting' END AS outcome
                  FROM release r
                  LEFT JOIN blob b ON b.id = r.blob_id
                  LEFT JOIN tombstone t ON t.blob_id = r.blob_id
                 WHERE r.deletion_id = %(id)s) x
         GROUP BY x.kind, x.outcome
        """,
        {"id": deletion_id},
    )


def objects(tx: Tx, deletion_id: UUID, after: UUID | None, limit: int) -> list[ReleasedObject]:
    """A page of what a deletion released, by blob id."""
    return rows.many(
        tx,
        ReleasedObject,
        """
        SELECT r.blob_id, r.kind, r.digest, r.bytes, r.storage_key, r.removed_at,
               CASE WHEN b.id IS NULL AND t.blob_id IS NULL THEN 'removed'
                    WHEN EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0) THEN 'kept_shared'
                    WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = r.blob_id) THEN 'kept_pinned'
                    ELSE 'waiting' END AS outcome
          FROM release r
          LEFT JOIN blob b ON b.id = r.blob_id
          LEFT JOIN tombstone t ON t.blob_id = r.blob_id
         WHERE r.deletion_id = %(id)s AND (%(after)s::uuid IS NULL OR r.blob_id > %(after)s)
         ORDER BY r.blob_id LIMIT %(limit)s
        """,
        {"id": deletion_id, "after": after, "limit": limit},
    )


def failures(tx: Tx, deletion_id: UUID) -> list[FailureCount]:
    """Removals of this deletion that the store has not granted so far, by kind and class."""
    return rows.many(
        tx,
        FailureCount,
        """
        SELECT t.kind, t.error_class, max(t.attempts) AS attempts, max(t.last_error) AS last_error,
               min(t.next_at) AS next_attempt_at
          FROM tombstone t JOIN release r ON r.blob_id = t.blob_id
         WHERE r.deletion_id = %(id)s AND t.error_class IS NOT NULL
         GROUP BY t.kind, t.error_class ORDER BY t.kind, t.error_class
        """,
        {"id": deletion_id},
    )


def pins_end_at(tx: Tx, deletion_id: UUID) -> datetime | None:
    """When the last upload session ends whose pin alone keeps something this deletion released."""
    return rows.value(
        tx,
        datetime,
        """
        SELECT max(s.ends_at) FROM release r
          JOIN pin p ON p.blob_id = r.blob_id JOIN session s ON s.id = p.session_id
         WHERE r.deletion_id = %(id)s
           AND NOT EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0)
        """,
        {"id": deletion_id},
    )


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
               rows, requested_at, journaled_at, completed_at, verified_at, receipt
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


def gone_keys(tx: Tx, deletion_id: UUID) -> list[ReleasedObject]:
    """What this deletion released and no row stands for any more: what the store must not have."""
    return rows.many(
        tx,
        ReleasedObject,
        """
        SELECT r.blob_id, r.kind, r.digest, r.bytes, r.storage_key, r.removed_at, 'removed' AS outcome
          FROM release r
         WHERE r.deletion_id = %(id)s
           AND NOT EXISTS (SELECT FROM blob b WHERE b.id = r.blob_id)
           AND NOT EXISTS (SELECT FROM tombstone t WHERE t.blob_id = r.blob_id)
         ORDER BY r.blob_id
        """,
        {"id": deletion_id},
    )


# --- Preview -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PreviewedBlob:
    """A blob the target names, and what would become of it if the target were deleted now."""

    blob_id: UUID
    kind: Kind
    bytes: int
    outcome: Class


def preview(tx: Tx, artifact_ids: list[UUID]) -> list[PreviewedBlob]:
    """Every blob a deletion of these artifacts would release. Reads only."""
    return rows.many(
        tx,
        PreviewedBlob,
        """
        WITH compared AS (
            SELECT id FROM comparison WHERE head_id = ANY(%(ids)s) OR base_id = ANY(%(ids)s)
        ), named AS (
            SELECT image_id AS blob_id FROM snapshot_image WHERE artifact_id = ANY(%(ids)s) AND image_id IS NOT NULL
            UNION SELECT manifest_id FROM snapshot WHERE artifact_id = ANY(%(ids)s)
            UNION SELECT report_id FROM comparison WHERE id IN (SELECT id FROM compared) AND report_id IS NOT NULL
            UNION SELECT mask_id FROM comparison_image
             WHERE comparison_id IN (SELECT id FROM compared) AND mask_id IS NOT NULL
            UNION SELECT id FROM blob WHERE made_of <> '{}' AND made_of && %(ids)s::uuid[]
        )
        SELECT b.id AS blob_id, b.kind, b.size AS bytes,
               CASE WHEN EXISTS (SELECT FROM snapshot_image i JOIN artifact a ON a.id = i.artifact_id
                                  WHERE i.image_id = b.id AND i.withdrawn_by IS NULL AND a.deletion_id IS NULL
                                    AND a.id <> ALL(%(ids)s)) THEN 'kept_shared'
                    WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id) THEN 'kept_pinned'
                    ELSE 'waiting' END AS outcome
          FROM blob b JOIN named n ON n.blob_id = b.id
         ORDER BY b.id
        """,
        {"ids": artifact_ids},
    )
