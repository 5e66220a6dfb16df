"""Rows about withdrawing one image from every snapshot of a project: names stay, bytes and masks go.

Everything is marked and released in one transaction under the project's lock, so that no snapshot commits and no
comparison finishes beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from snapshed.db import rows
from snapshed.db.deletions import Target
from snapshed.db.pool import Tx
from snapshed.db.releases import PreviewedBlob


@dataclass(frozen=True, slots=True)
class Affected:
    """A comparison a withdrawal reaches: it has a mask of the image, or is unfinished and may have it in memory."""

    id: UUID
    is_finished: bool


def image_of(tx: Tx, project_id: int, digest: str) -> UUID | None:
    """The one live image of a digest that an unmarked snapshot names."""
    return rows.value(
        tx,
        UUID,
        """
        SELECT b.id FROM blob b
         WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.digest = %(digest)s
           AND EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
        """,
        {"project": project_id, "digest": digest},
    )


def naming(tx: Tx, image_id: UUID) -> list[Target]:
    """The unmarked artifacts that name an image."""
    return rows.many(
        tx,
        Target,
        """
        SELECT a.id AS artifact_id, a.number, a.project_id FROM artifact a
         WHERE a.deletion_id IS NULL
           AND a.id IN (SELECT artifact_id FROM snapshot_image WHERE image_id = %(image)s)
         ORDER BY a.id
        """,
        {"image": image_id},
    )


def names(tx: Tx, image_id: UUID, artifact_ids: list[UUID]) -> int:
    """Under how many names these artifacts show an image."""
    return (
        rows.value(
            tx,
            int,
            "SELECT count(*) FROM snapshot_image WHERE image_id = %(image)s AND artifact_id = ANY(%(artifacts)s)",
            {"image": image_id, "artifacts": artifact_ids},
        )
        or 0
    )


def lock_comparisons(tx: Tx, project_id: int, image_id: UUID, digest: str) -> list[Affected]:
    """Every comparison the image reaches, locked in id order; of snapshots that another deletion has marked too."""
    return rows.many(
        tx,
        Affected,
        """
        SELECT c.id, c.state IN ('done', 'failed') AS is_finished FROM comparison c
         WHERE c.id IN (
            SELECT i.comparison_id FROM comparison_image i
              JOIN comparison m ON m.id = i.comparison_id JOIN artifact a ON a.id = m.head_id
             WHERE a.project_id = %(project)s AND i.mask_id IS NOT NULL
               AND (i.head_digest = %(digest)s OR i.base_digest = %(digest)s)
            UNION
            SELECT u.id FROM comparison u JOIN snapshot_image s ON s.artifact_id IN (u.head_id, u.base_id)
             WHERE u.state IN ('waiting', 'running') AND s.image_id = %(image)s)
         ORDER BY c.id FOR UPDATE
        """,
        {"project": project_id, "image": image_id, "digest": digest},
    )


def release(tx: Tx, deletion_id: UUID, project_id: int, image_id: UUID, digest: str, unfinished: list[UUID]) -> None:
    """Write down what the withdrawal lets go of: the image; every mask that shows it, named by a row, announced by an
    unfinished comparison or by none any more; and tombstones of the same bytes or made of snapshots that show them."""
    rows.run(
        tx,
        """
        WITH showing AS (
            SELECT array_agg(DISTINCT artifact_id) AS ids FROM snapshot_image WHERE image_id = %(image)s
        ), masks AS (
            SELECT i.mask_id FROM comparison_image i
              JOIN comparison c ON c.id = i.comparison_id JOIN artifact a ON a.id = c.head_id
             WHERE a.project_id = %(project)s AND i.mask_id IS NOT NULL
               AND (i.head_digest = %(digest)s OR i.base_digest = %(digest)s)
        ), let_go AS (
            SELECT id, kind, digest, size AS bytes, storage_key FROM blob
             WHERE id = %(image)s OR id IN (SELECT mask_id FROM masks) OR comparison_id = ANY(%(unfinished)s)
            UNION
            SELECT b.id, b.kind, b.digest, b.size, b.storage_key FROM blob b, showing
             WHERE b.kind IN ('mask', 'thumbnail', 'archive') AND b.made_of <> '{}' AND b.made_of && showing.ids
               AND NOT EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
            UNION
            SELECT t.blob_id, t.kind, t.digest, t.bytes, t.storage_key FROM tombstone t
             WHERE t.project_id = %(project)s AND t.digest = %(digest)s
            UNION
            SELECT t.blob_id, t.kind, t.digest, t.bytes, t.storage_key FROM tombstone t, showing
             WHERE t.kind IN ('mask', 'thumbnail', 'archive') AND t.made_of <> '{}' AND t.made_of && showing.ids
        ), written AS (
            INSERT INTO release (deletion_id, blob_id, kind, digest, bytes, storage_key)
            SELECT %(deletion)s, id, kind, digest, bytes, storage_key FROM let_go
                ON CONFLICT (deletion_id, blob_id) DO NOTHING
            RETURNING blob_id
        )
        INSERT INTO candidate (blob_id, project_id, cause) SELECT blob_id, %(project)s, 'release' FROM written
        """,
        {
            "deletion": deletion_id,
            "project": project_id,
            "image": image_id,
            "digest": digest,
            "unfinished": unfinished,
        },
    )


def withdraw(tx: Tx, deletion_id: UUID, project_id: int, image_id: UUID, digest: str, artifact_ids: list[UUID]) -> None:
    """Empty the image and its masks out of the rows; names and numbers stay. The caller holds the artifacts' locks."""
    values = {"deletion": deletion_id, "project": project_id, "image": image_id, "digest": digest}
    rows.run(
        tx,
        """
        UPDATE snapshot_image SET withdrawn_by = %(deletion)s, image_id = NULL
         WHERE image_id = %(image)s AND artifact_id = ANY(%(artifacts)s)
        """,
        values | {"artifacts": artifact_ids},
    )
    rows.run(
        tx,
        """
        UPDATE comparison_image i SET mask_id = NULL
          FROM comparison c JOIN artifact a ON a.id = c.head_id
         WHERE c.id = i.comparison_id AND a.project_id = %(project)s AND i.mask_id IS NOT NULL
           AND (i.head_digest = %(digest)s OR i.base_digest = %(digest)s)
        """,
        values,
    )


def restart(tx: Tx, comparison_ids: list[UUID]) -> None:
    """Take unfinished comparisons from whoever works on them: what they have in memory cannot be committed any more."""
    rows.run(
        tx,
        """
        UPDATE comparison
           SET state = 'waiting', claim = NULL, claimed_until = NULL,
               attempts = CASE WHEN state = 'running' THEN attempts - 1 ELSE attempts END
         WHERE id = ANY(%(ids)s)
        """,
        {"ids": comparison_ids},
    )


def preview(tx: Tx, image_id: UUID) -> list[PreviewedBlob]:
    """What withdrawing the image would let go of now. Reads only."""
    return rows.many(
        tx,
        PreviewedBlob,
        """
        WITH masks AS (
            SELECT i.mask_id FROM blob w
              JOIN comparison_image i ON w.digest IN (i.head_digest, i.base_digest) AND i.mask_id IS NOT NULL
              JOIN comparison c ON c.id = i.comparison_id JOIN artifact a ON a.id = c.head_id
             WHERE w.id = %(image)s AND a.project_id = w.project_id
        )
        SELECT b.id AS blob_id, b.kind, b.size AS bytes,
               CASE WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id) THEN 'kept_pinned'
                    ELSE 'waiting' END AS outcome
          FROM blob b WHERE b.id = %(image)s OR b.id IN (SELECT mask_id FROM masks)
         ORDER BY b.id
        """,
        {"image": image_id},
    )
