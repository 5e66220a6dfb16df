"""Rows about what deletions let go of, and what has become of it.

A receipt speaks about blobs, not about work done: it is closed on what has become of every blob released, whichever
deletion removed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from snapshed.db import rows
from snapshed.db.blobs import Kind
from snapshed.db.pool import Tx

Class = Literal["removed", "kept_shared", "kept_pinned", "waiting"]


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


def release(tx: Tx, deletion_id: UUID, artifact_ids: list[UUID], comparison_ids: list[UUID]) -> None:
    """Write down every blob these rows let go of, whoever else names it."""
    rows.run(
        tx,
        """
        WITH named AS (
            -- What the rows name now.
            SELECT image_id AS blob_id FROM snapshot_image
             WHERE artifact_id = ANY(%(artifacts)s) AND image_id IS NOT NULL
            UNION SELECT manifest_id FROM snapshot WHERE artifact_id = ANY(%(artifacts)s)
            UNION SELECT file_id FROM build WHERE artifact_id = ANY(%(artifacts)s)
            UNION SELECT manifest_id FROM build WHERE artifact_id = ANY(%(artifacts)s)
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
            SELECT b.id, b.project_id, b.kind, b.digest, b.size AS bytes, b.storage_key
              FROM blob b JOIN (SELECT blob_id FROM named UNION SELECT blob_id FROM made) x ON x.blob_id = b.id
            UNION
            -- Condemned already, and its bytes may still stand: something made of the artifacts ...
            SELECT t.blob_id, t.project_id, t.kind, t.digest, t.bytes, t.storage_key
              FROM tombstone t WHERE t.made_of <> '{}' AND t.made_of && %(artifacts)s::uuid[]
            UNION
            -- ... or the same bytes under another key, the loser of two uploads at once.
            SELECT t.blob_id, t.project_id, t.kind, t.digest, t.bytes, t.storage_key
              FROM tombstone t JOIN digests d ON d.project_id = t.project_id AND d.digest = t.digest
        ), written AS (
            INSERT INTO release (deletion_id, blob_id, kind, digest, bytes, storage_key)
            SELECT %(deletion)s, id, kind, digest, bytes, storage_key FROM let_go
                ON CONFLICT (deletion_id, blob_id) DO NOTHING
            RETURNING blob_id
        )
        -- What the rows name is enqueued by trigger when they go.
        INSERT INTO candidate (blob_id, project_id, cause)
        SELECT w.blob_id, l.project_id, 'release' FROM written w JOIN let_go l ON l.id = w.blob_id
         WHERE NOT EXISTS (SELECT FROM named n WHERE n.blob_id = w.blob_id)
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
    # Heads that stay are told that the base they were compared with is gone; locked in id order, since another
    # deletion may take another base of theirs.
    rows.run(
        tx,
        """
        WITH told AS (
            SELECT s.artifact_id, b.number
              FROM comparison c JOIN artifact b ON b.id = c.base_id JOIN snapshot s ON s.artifact_id = c.head_id
             WHERE c.id = ANY(%(comparisons)s) AND c.base_id = ANY(%(artifacts)s)
               AND s.artifact_id <> ALL(%(artifacts)s)
             ORDER BY s.artifact_id FOR NO KEY UPDATE OF s
        )
        UPDATE snapshot s SET lost_base = t.number FROM told t WHERE s.artifact_id = t.artifact_id
        """,
        ids,
    )
    rows.run(tx, "DELETE FROM comparison_image WHERE comparison_id = ANY(%(comparisons)s)", ids)
    rows.run(tx, "DELETE FROM comparison WHERE id = ANY(%(comparisons)s)", ids)
    rows.run(tx, "DELETE FROM snapshot_image WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM snapshot WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM build WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM hold WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM image_decision WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM approval WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM trace_due WHERE artifact_id = ANY(%(artifacts)s)", ids)
    rows.run(tx, "DELETE FROM artifact WHERE id = ANY(%(artifacts)s)", ids)


def tallies(tx: Tx, deletion_id: UUID) -> list[Tally]:
    """One statement, one snapshot of the rows: every released blob in the first class that fits it."""
    return rows.many(
        tx,
        Tally,
        """
        SELECT x.kind, x.outcome, count(*) AS objects, coalesce(sum(x.bytes), 0)::bigint AS bytes
          FROM (SELECT r.kind, r.bytes,
                       -- Asked per blob, not joined: the planner takes `tombstone`, mostly empty, for tiny, and would
                       -- read all of it for every blob when it is not.
                       CASE WHEN NOT EXISTS (SELECT FROM blob b WHERE b.id = r.blob_id OFFSET 0)
                             AND NOT EXISTS (SELECT FROM tombstone t WHERE t.blob_id = r.blob_id OFFSET 0) THEN 'removed'
                            WHEN EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0) THEN 'kept_shared'
                            WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = r.blob_id OFFSET 0) THEN 'kept_pinned'
                            ELSE 'waiting' END AS outcome
                  FROM release r
                 WHERE r.deletion_id = %(id)s) x
         GROUP BY x.kind, x.outcome
        """,
        {"id": deletion_id},
    )


def is_waiting(tx: Tx, deletion_id: UUID) -> bool:
    """True while something this deletion released is neither gone nor named by anything live: the same question as
    `tallies` answers, for less, since it ends with the first such blob."""
    return bool(
        rows.value(
            tx,
            bool,
            """
            SELECT true FROM release r
             WHERE r.deletion_id = %(id)s
               AND (EXISTS (SELECT FROM tombstone t WHERE t.blob_id = r.blob_id OFFSET 0)
                    OR (EXISTS (SELECT FROM blob b WHERE b.id = r.blob_id OFFSET 0)
                        AND NOT EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0)))
             -- The youngest are removed last, so the first look mostly finds one.
             ORDER BY r.blob_id DESC LIMIT 1
            """,
            {"id": deletion_id},
        )
    )


def objects(tx: Tx, deletion_id: UUID, after: UUID | None, limit: int) -> list[ReleasedObject]:
    """A page of what a deletion released, by blob id."""
    return rows.many(
        tx,
        ReleasedObject,
        """
        SELECT r.blob_id, r.kind, r.digest, r.bytes, r.storage_key, r.removed_at,
               CASE WHEN NOT EXISTS (SELECT FROM blob b WHERE b.id = r.blob_id OFFSET 0)
                     AND NOT EXISTS (SELECT FROM tombstone t WHERE t.blob_id = r.blob_id OFFSET 0) THEN 'removed'
                    WHEN EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0) THEN 'kept_shared'
                    WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = r.blob_id OFFSET 0) THEN 'kept_pinned'
                    ELSE 'waiting' END AS outcome
          FROM release r
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


def gone_keys(tx: Tx, deletion_id: UUID) -> list[ReleasedObject]:
    """What this deletion released and no row stands for any more: what the store must not have."""
    return rows.many(
        tx,
        ReleasedObject,
        """
        SELECT r.blob_id, r.kind, r.digest, r.bytes, r.storage_key, r.removed_at, 'removed' AS outcome
          FROM release r
         WHERE r.deletion_id = %(id)s
           AND NOT EXISTS (SELECT FROM blob b WHERE b.id = r.blob_id OFFSET 0)
           AND NOT EXISTS (SELECT FROM tombstone t WHERE t.blob_id = r.blob_id OFFSET 0)
         ORDER BY r.blob_id
        """,
        {"id": deletion_id},
    )


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
            UNION SELECT file_id FROM build WHERE artifact_id = ANY(%(ids)s)
            UNION SELECT manifest_id FROM build WHERE artifact_id = ANY(%(ids)s)
            UNION SELECT report_id FROM comparison WHERE id IN (SELECT id FROM compared) AND report_id IS NOT NULL
            UNION SELECT mask_id FROM comparison_image
             WHERE comparison_id IN (SELECT id FROM compared) AND mask_id IS NOT NULL
            UNION SELECT id FROM blob WHERE made_of <> '{}' AND made_of && %(ids)s::uuid[]
        )
        SELECT b.id AS blob_id, b.kind, b.size AS bytes,
               CASE WHEN EXISTS (SELECT FROM snapshot_image i JOIN artifact a ON a.id = i.artifact_id
                                  WHERE i.image_id = b.id AND i.withdrawn_by IS NULL AND a.deletion_id IS NULL
                                    AND a.id <> ALL(%(ids)s)) THEN 'kept_shared'
                    -- The same two images, compared for others: their mask is the same one.
                    WHEN EXISTS (SELECT FROM comparison_image m JOIN comparison c ON c.id = m.comparison_id
                                   JOIN artifact h ON h.id = c.head_id JOIN artifact o ON o.id = c.base_id
                                  WHERE m.mask_id = b.id AND h.deletion_id IS NULL AND o.deletion_id IS NULL
                                    AND h.id <> ALL(%(ids)s) AND o.id <> ALL(%(ids)s)) THEN 'kept_shared'
                    WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id) THEN 'kept_pinned'
                    ELSE 'waiting' END AS outcome
          FROM blob b JOIN named n ON n.blob_id = b.id
         ORDER BY b.id
        """,
        {"ids": artifact_ids},
    )
