"""Rows about objects whose bytes the store no longer has as they were stored.

Such a row keeps its references, but nobody may read, promise or name it. The next upload of an image's bytes takes its
place: references and pins move to the new row, and the old one is condemned.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import rows
from snapshed.db.blobs import Digested, Kind
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Lost:
    """An object marked as lost that something still names or was promised; `size` in bytes."""

    id: UUID
    project_id: int
    kind: Kind
    digest: str
    size: int
    storage_key: str


@dataclass(frozen=True, slots=True)
class _Named:
    blob_id: UUID
    number: int


def mark(tx: Tx, blob_ids: list[UUID], now: datetime) -> list[UUID]:
    """Mark live objects as lost. Returns those that were not before."""
    return rows.column(
        tx,
        UUID,
        """
        UPDATE blob SET lost_at = %(now)s
         WHERE id IN (SELECT id FROM blob WHERE id = ANY(%(ids)s) AND state = 'live' AND lost_at IS NULL
                       ORDER BY id FOR NO KEY UPDATE)
        RETURNING id
        """,
        {"ids": blob_ids, "now": now},
    )


def found_again(tx: Tx, blob_id: UUID) -> bool:
    """Take a mark away, unless another upload of the same image has taken the row's place. The caller keeps others from
    finalising images of the project."""
    return bool(
        rows.run(
            tx,
            """
            UPDATE blob b SET lost_at = NULL
             WHERE b.id = %(id)s AND b.lost_at IS NOT NULL
               AND (b.kind <> 'image' OR NOT EXISTS (
                    SELECT FROM blob o
                     WHERE o.project_id = b.project_id AND o.digest = b.digest AND o.kind = 'image'
                       AND o.state = 'live' AND o.lost_at IS NULL))
            """,
            {"id": blob_id},
        )
    )


def page_after(tx: Tx, after: UUID, limit: int) -> list[Lost]:
    """A page of lost objects that something names or was promised, in the order of their ids."""
    return rows.many(
        tx,
        Lost,
        """
        SELECT b.id, b.project_id, b.kind, b.digest, b.size, b.storage_key FROM blob b
         WHERE b.lost_at IS NOT NULL AND b.id > %(after)s
           AND (EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
                OR EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id))
         ORDER BY b.id LIMIT %(limit)s
        """,
        {"after": after, "limit": limit},
    )


def suffering(tx: Tx, blob_ids: list[UUID]) -> dict[UUID, tuple[int, ...]]:
    """The public numbers of the unmarked snapshots and builds that name each of these objects, ascending."""
    found = rows.many(
        tx,
        _Named,
        """
        SELECT DISTINCT x.blob_id, a.number
          FROM (SELECT image_id AS blob_id, artifact_id FROM snapshot_image WHERE image_id = ANY(%(ids)s)
                UNION ALL SELECT manifest_id, artifact_id FROM snapshot WHERE manifest_id = ANY(%(ids)s)
                UNION ALL SELECT file_id, artifact_id FROM build WHERE file_id = ANY(%(ids)s)
                UNION ALL SELECT manifest_id, artifact_id FROM build WHERE manifest_id = ANY(%(ids)s)
                UNION ALL SELECT report_id, head_id FROM comparison WHERE report_id = ANY(%(ids)s)
                UNION ALL SELECT i.mask_id, c.head_id FROM comparison_image i JOIN comparison c ON c.id = i.comparison_id
                           WHERE i.mask_id = ANY(%(ids)s)) x
          JOIN artifact a ON a.id = x.artifact_id AND a.deletion_id IS NULL
         ORDER BY a.number
        """,
        {"ids": blob_ids},
    )
    numbers: dict[UUID, list[int]] = {}
    for named in found:
        numbers.setdefault(named.blob_id, []).append(named.number)
    return {blob_id: tuple(named) for blob_id, named in numbers.items()}


# --- Healing, a part of T3 ------------------------------------------------------------------------------------------


def lock_images(tx: Tx, project_id: int, digests: list[str]) -> list[Digested]:
    """The lost images of these digests, locked with whatever names or was promised them: sessions, then artifacts, then
    the rows themselves, which nobody can be naming any more once this returns. The caller finalises alone."""
    wanted = {"project": project_id, "digests": digests}
    ids = rows.column(
        tx,
        UUID,
        """
        SELECT id FROM blob
         WHERE project_id = %(project)s AND kind = 'image' AND state = 'live' AND digest = ANY(%(digests)s)
           AND lost_at IS NOT NULL
        """,
        wanted,
    )
    if not ids:
        return []
    rows.run(
        tx,
        """
        SELECT FROM session WHERE id IN (SELECT session_id FROM pin WHERE blob_id = ANY(%(ids)s))
         ORDER BY id FOR KEY SHARE
        """,
        {"ids": ids},
    )
    rows.run(
        tx,
        """
        SELECT FROM artifact WHERE id IN (SELECT artifact_id FROM snapshot_image WHERE image_id = ANY(%(ids)s))
         ORDER BY id FOR SHARE
        """,
        {"ids": ids},
    )
    return rows.many(
        tx,
        Digested,
        "SELECT id, digest FROM blob WHERE id = ANY(%(ids)s) AND lost_at IS NOT NULL ORDER BY id FOR UPDATE",
        {"ids": ids},
    )


def replace_images(tx: Tx, replaced: dict[UUID, UUID]) -> None:
    """Move every reference and pin from lost images to the live ones that hold the same bytes; `replaced` maps old ids
    to new ones. The caller holds both rows' locks, and condemns the old ones.

    Deletions that are still open and released an old one answer for the new one too: their receipts must not close
    while the same bytes stand for a pin alone.
    """
    values = {"old": list(replaced.keys()), "new": list(replaced.values())}
    rows.run(
        tx,
        """
        UPDATE snapshot_image i SET image_id = n.new
          FROM unnest(%(old)s::uuid[], %(new)s::uuid[]) AS n (old, new) WHERE i.image_id = n.old
        """,
        values,
    )
    rows.run(
        tx,
        """
        INSERT INTO pin (session_id, blob_id, how)
        SELECT p.session_id, n.new, p.how
          FROM pin p JOIN unnest(%(old)s::uuid[], %(new)s::uuid[]) AS n (old, new) ON n.old = p.blob_id
         ORDER BY p.session_id, n.new
            ON CONFLICT (session_id, blob_id) DO UPDATE SET how = 'stored'
         WHERE excluded.how = 'stored' AND pin.how <> 'stored'
        """,
        values,
    )
    rows.run(tx, "DELETE FROM pin WHERE blob_id = ANY(%(old)s)", values)
    rows.run(
        tx,
        """
        WITH answering AS (
            -- One that closes at this moment is passed over: what it said was true when it said it.
            SELECT d.id, r.blob_id FROM release r JOIN deletion d ON d.id = r.deletion_id
             WHERE r.blob_id = ANY(%(old)s) AND d.state = 'removing'
             ORDER BY d.id FOR KEY SHARE OF d
        ), written AS (
            INSERT INTO release (deletion_id, blob_id, kind, digest, bytes, storage_key)
            SELECT a.id, b.id, b.kind, b.digest, b.size, b.storage_key
              FROM answering a JOIN unnest(%(old)s::uuid[], %(new)s::uuid[]) AS n (old, new) ON n.old = a.blob_id
              JOIN blob b ON b.id = n.new
                ON CONFLICT (deletion_id, blob_id) DO NOTHING
            RETURNING blob_id
        )
        INSERT INTO candidate (blob_id, project_id, cause)
        SELECT DISTINCT b.id, b.project_id, 'release' FROM written w JOIN blob b ON b.id = w.blob_id
        """,
        values,
    )
