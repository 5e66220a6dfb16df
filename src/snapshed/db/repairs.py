"""What mending writes: adopted orphans, comparisons to be made again, trace rows as their events would be told now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from snapshed.db import rows
from snapshed.db.blobs import NewBlob
from snapshed.db.outbox import Expected
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Home:
    """A project and the organization it belongs to."""

    id: int
    org_id: int


def homes(tx: Tx) -> list[Home]:
    """Every project, the oldest first."""
    return rows.many(tx, Home, "SELECT id, org_id FROM project ORDER BY id")


def adopt(tx: Tx, deletion_id: UUID, projects: list[int], blobs: list[NewBlob], now: datetime) -> list[str]:
    """Take objects that no row explains as tombstones that this deletion released, so that each gets an outcome.
    `projects` are theirs, in the same order. Returns the keys taken: none that a row explains by now."""
    return rows.column(
        tx,
        str,
        """
        WITH taken AS (
            INSERT INTO tombstone (storage_key, blob_id, project_id, kind, digest, bytes, made_of, condemned_at,
                                   not_final_before, next_at)
            SELECT n.storage_key, n.id, n.project_id, n.kind, n.digest, n.size, '{}', %(now)s, %(now)s, %(now)s
              FROM unnest(%(ids)s::uuid[], %(projects)s::bigint[], %(kinds)s::text[], %(digests)s::text[],
                          %(sizes)s::bigint[], %(keys)s::text[])
                   AS n (id, project_id, kind, digest, size, storage_key)
             WHERE NOT EXISTS (SELECT FROM blob b WHERE b.storage_key = n.storage_key)
                ON CONFLICT DO NOTHING
            RETURNING storage_key, blob_id, kind, digest, bytes
        )
        INSERT INTO release (deletion_id, blob_id, kind, digest, bytes, storage_key)
        SELECT %(deletion)s, blob_id, kind, digest, bytes, storage_key FROM taken
        RETURNING storage_key
        """,
        {
            "deletion": deletion_id,
            "now": now,
            "projects": projects,
            "ids": [blob.id for blob in blobs],
            "kinds": [blob.kind for blob in blobs],
            "digests": [blob.digest for blob in blobs],
            "sizes": [blob.size for blob in blobs],
            "keys": [blob.storage_key for blob in blobs],
        },
    )


def enqueue(tx: Tx, blob_ids: list[UUID]) -> int:
    """Have somebody look whether these live objects are still needed. Returns how many there are."""
    return rows.run(
        tx,
        """
        INSERT INTO candidate (blob_id, project_id, cause)
        SELECT id, project_id, 'repair' FROM blob WHERE id = ANY(%(ids)s) AND state = 'live'
        """,
        {"ids": blob_ids},
    )


# --- Comparisons ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparable:
    """A finished comparison, and whether every image of both its sides can be read."""

    id: UUID
    head_id: UUID
    base_id: UUID
    is_whole: bool


def comparisons_with(tx: Tx, blob_id: UUID) -> list[Comparable]:
    """The finished comparisons whose report or mask this object is."""
    return rows.many(
        tx,
        Comparable,
        """
        SELECT c.id, c.head_id, c.base_id,
               NOT EXISTS (SELECT FROM snapshot_image i LEFT JOIN blob b ON b.id = i.image_id AND b.lost_at IS NULL
                            WHERE i.artifact_id IN (c.head_id, c.base_id) AND b.id IS NULL) AS is_whole
          FROM comparison c
         WHERE c.state = 'done'
           AND (c.report_id = %(id)s
                OR c.id IN (SELECT comparison_id FROM comparison_image WHERE mask_id = %(id)s))
         ORDER BY c.id
        """,
        {"id": blob_id},
    )


def forget_results(tx: Tx, comparison_id: UUID) -> bool:
    """Let a finished comparison wait to be made again; triggers enqueue its report and masks. False if it is not
    finished any more."""
    values = {"id": comparison_id}
    if not rows.value(tx, bool, "SELECT true FROM comparison WHERE id = %(id)s AND state = 'done' FOR UPDATE", values):
        return False
    rows.run(tx, "DELETE FROM comparison_image WHERE comparison_id = %(id)s", values)
    rows.run(
        tx,
        """
        UPDATE comparison
           SET state = 'waiting', report_id = NULL, counts = NULL, algorithm = NULL, error = NULL, attempts = 0,
               claim = NULL, claimed_until = NULL, finished_at = NULL
         WHERE id = %(id)s
        """,
        values,
    )
    return True


# --- Traces ---------------------------------------------------------------------------------------------------------


def facts_of(tx: Tx, expected: Expected) -> dict[str, Any] | None:
    """What a trace row about this event would say, as far as the rows still know; None if there is no such event.
    How long a comparison took is known to nobody any more."""
    return rows.value(
        tx,
        dict[str, Any],
        """
        SELECT jsonb_build_object('project', p.slug, 'app_id', a.app_id, 'images', s.image_count,
                                  'selective', s.selective, 'head_sha', s.head_sha, 'branch', s.head_ref)
          FROM artifact a JOIN project p ON p.id = a.project_id JOIN snapshot s ON s.artifact_id = a.id
         WHERE a.id = %(artifact)s AND %(event)s = 'snapshot'
        UNION ALL
        SELECT jsonb_build_object('project', p.slug, 'app_id', a.app_id, 'bytes', d.size, 'head_sha', d.head_sha)
          FROM artifact a JOIN project p ON p.id = a.project_id JOIN build d ON d.artifact_id = a.id
         WHERE a.id = %(artifact)s AND %(event)s = 'build'
        UNION ALL
        SELECT c.counts || jsonb_build_object(
                   'changed_pixels', (SELECT coalesce(sum(changed_pixels), 0) FROM comparison_image i
                                       WHERE i.comparison_id = c.id),
                   'seconds', NULL, 'algorithm', c.algorithm)
          FROM comparison c
         WHERE c.head_id = %(artifact)s AND c.finished_at = %(at)s AND c.state = 'done' AND %(event)s = 'comparison'
        """,
        {"artifact": expected.artifact_id, "event": expected.event, "at": expected.at},
    )
