"""What a recovery writes: objects the store has and no row names yet, deletions only its journal knows, and what those
let go of. Nothing else works on the database meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.types.json import Json, Jsonb

from snapshed.db import rows
from snapshed.db.blobs import NewBlob
from snapshed.db.branch_holds import BranchHold
from snapshed.db.deletions import Deletion
from snapshed.db.pool import Tx
from snapshed.db.retention import StoredRule


def make_live(tx: Tx, project_id: int, blobs: list[NewBlob], made_of: list[UUID], now: datetime) -> None:
    """Add objects that the store has as live rows; rows that only announced them turn live."""
    rows.run(
        tx,
        """
        INSERT INTO blob (id, project_id, kind, digest, size, storage_key, state, made_of, announced_at)
        SELECT n.id, %(project)s, n.kind, n.digest, n.size, n.storage_key, 'live', %(made_of)s, %(now)s
          FROM unnest(%(ids)s::uuid[], %(kinds)s::text[], %(digests)s::text[], %(sizes)s::bigint[], %(keys)s::text[])
               AS n (id, kind, digest, size, storage_key)
            ON CONFLICT (id) DO UPDATE
                    SET state = 'live', put_deadline = NULL, session_id = NULL, comparison_id = NULL, artifact_id = NULL
                  WHERE blob.state = 'pending'
        """,
        {
            "project": project_id,
            "made_of": made_of,
            "now": now,
            "ids": [blob.id for blob in blobs],
            "kinds": [blob.kind for blob in blobs],
            "digests": [blob.digest for blob in blobs],
            "sizes": [blob.size for blob in blobs],
            "keys": [blob.storage_key for blob in blobs],
        },
    )


@dataclass(frozen=True, slots=True)
class KnownArtifact:
    """An artifact that has a row, its public number, and its manifest; marked ones too."""

    id: UUID
    project_id: int
    number: int
    manifest_id: UUID | None
    is_marked: bool


def artifacts(tx: Tx) -> list[KnownArtifact]:
    """Every artifact that has a row."""
    return rows.many(
        tx,
        KnownArtifact,
        """
        SELECT a.id, a.project_id, a.number, coalesce(s.manifest_id, d.manifest_id) AS manifest_id,
               a.deletion_id IS NOT NULL AS is_marked
          FROM artifact a LEFT JOIN snapshot s ON s.artifact_id = a.id LEFT JOIN build d ON d.artifact_id = a.id
        """,
    )


@dataclass(frozen=True, slots=True)
class KnownDeletion:
    """A deletion that has a row."""

    id: UUID
    is_journaled: bool


def deletions(tx: Tx) -> list[KnownDeletion]:
    """Every deletion that has a row."""
    return rows.many(tx, KnownDeletion, "SELECT id, journaled_at IS NOT NULL AS is_journaled FROM deletion")


def images_of(tx: Tx, artifact_ids: list[UUID], digest: str) -> list[UUID]:
    """The images of a digest that these unmarked artifacts name, their artifacts locked."""
    rows.run(tx, "SELECT FROM artifact WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE", {"ids": artifact_ids})
    return rows.column(
        tx,
        UUID,
        """
        SELECT DISTINCT i.image_id FROM snapshot_image i JOIN artifact a ON a.id = i.artifact_id
         WHERE i.artifact_id = ANY(%(ids)s) AND i.digest = %(digest)s AND i.image_id IS NOT NULL AND a.deletion_id IS NULL
        """,
        {"ids": artifact_ids, "digest": digest},
    )


def shown(tx: Tx, blob_ids: list[UUID]) -> list[UUID]:
    """Those live objects that something live names."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT b.id FROM blob b
         WHERE b.id = ANY(%(ids)s) AND b.state = 'live' AND b.lost_at IS NULL
           AND EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
        """,
        {"ids": blob_ids},
    )


def add_deletion(tx: Tx, deletion: Deletion, receipt_journaled_at: datetime | None) -> None:
    """Add a deletion as the journal tells it: complete with its receipt, or open again."""
    rows.run(
        tx,
        """
        INSERT INTO deletion (id, org_id, project_id, target, requested_by, reason, urgent, state, snapshots, artifacts, rows,
                              requested_at, journaled_at, completed_at, verified_at, receipt, receipt_journaled_at, recovered)
        VALUES (%(id)s, %(org)s, %(project)s, %(target)s, %(by)s, %(reason)s, %(urgent)s, %(state)s, %(snapshots)s,
                %(artifacts)s, %(rows)s, %(at)s, %(journaled)s, %(completed)s, %(verified)s, %(receipt)s,
                %(receipt_journaled)s, true)
        """,
        {
            "id": deletion.id,
            "org": deletion.org_id,
            "project": deletion.project_id,
            "target": Jsonb(deletion.target),
            "by": deletion.requested_by,
            "reason": deletion.reason,
            "urgent": deletion.urgent,
            "state": deletion.state,
            "snapshots": deletion.snapshots,
            "artifacts": deletion.artifacts,
            "rows": Json(deletion.rows),
            "at": deletion.requested_at,
            "journaled": deletion.journaled_at,
            "completed": deletion.completed_at,
            "verified": deletion.verified_at,
            "receipt": None if deletion.receipt is None else Json(deletion.receipt),
            "receipt_journaled": receipt_journaled_at,
        },
    )


def reopened(tx: Tx) -> list[UUID]:
    """Deletions from the journal that are to be finished."""
    return rows.column(
        tx, UUID, "SELECT id FROM deletion WHERE recovered AND state = 'removing' ORDER BY requested_at, id"
    )


def release_standing(tx: Tx, deletion_id: UUID) -> None:
    """Let a deletion from the journal answer for every tombstone that stands in its project, or without one in its
    organization: which of them it had let go of, nobody knows any more."""
    rows.run(
        tx,
        """
        INSERT INTO release (deletion_id, blob_id, kind, digest, bytes, storage_key)
        SELECT d.id, t.blob_id, t.kind, t.digest, t.bytes, t.storage_key
          FROM deletion d JOIN project p ON p.org_id = d.org_id AND (d.project_id IS NULL OR p.id = d.project_id)
          JOIN tombstone t ON t.project_id = p.id
         WHERE d.id = %(id)s
            ON CONFLICT (deletion_id, blob_id) DO NOTHING
        """,
        {"id": deletion_id},
    )


def release_shared(tx: Tx, deletion_id: UUID, project_id: int, digests: list[str]) -> None:
    """Let a deletion answer for live images of these digests as well: a manifest it took, and that still stood, named
    them, and others do now."""
    rows.run(
        tx,
        """
        INSERT INTO release (deletion_id, blob_id, kind, digest, bytes, storage_key)
        SELECT %(deletion)s, b.id, b.kind, b.digest, b.size, b.storage_key FROM blob b
         WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.digest = ANY(%(digests)s)
            ON CONFLICT (deletion_id, blob_id) DO NOTHING
        """,
        {"deletion": deletion_id, "project": project_id, "digests": digests},
    )


# --- Comparisons ----------------------------------------------------------------------------------------------------


def add_comparison(tx: Tx, comparison_id: UUID, head_id: UUID, base_id: UUID, at: datetime) -> bool:
    """Add a comparison of two unmarked artifacts, to be finished in this transaction; False if a side is not here, or the
    pair has one that is finished. One that waits is taken."""
    return bool(
        rows.value(
            tx,
            bool,
            """
            INSERT INTO comparison (id, head_id, base_id, created_at)
            SELECT %(id)s, h.id, b.id, %(at)s FROM artifact h, artifact b
             WHERE h.id = %(head)s AND b.id = %(base)s AND h.deletion_id IS NULL AND b.deletion_id IS NULL
                ON CONFLICT ON CONSTRAINT comparison_pair_is_unique DO NOTHING
            RETURNING true
            """,
            {"id": comparison_id, "head": head_id, "base": base_id, "at": at},
        )
    )


def heads_without(tx: Tx, artifact_ids: list[UUID]) -> list[UUID]:
    """Those unmarked snapshots that build on a commit and have no comparison."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT s.artifact_id FROM snapshot s JOIN artifact a ON a.id = s.artifact_id
         WHERE s.artifact_id = ANY(%(ids)s) AND s.base_sha IS NOT NULL AND a.deletion_id IS NULL
           AND NOT EXISTS (SELECT FROM comparison c WHERE c.head_id = s.artifact_id)
         ORDER BY s.artifact_id
        """,
        {"ids": artifact_ids},
    )


# --- Rules and holds of branches ----------------------------------------------------------------------------------------


def bring_rule_back(tx: Tx, stored: StoredRule) -> None:
    """Set a project's rule as the store was told it, unless a newer version is here."""
    rows.run(
        tx,
        """
        INSERT INTO retention_rule AS r (project_id, version, superseded_days, quiet_days, default_days,
                                         default_branches, set_by, set_at, noted_at)
        VALUES (%(project)s, %(version)s, %(superseded)s, %(quiet)s, %(default)s, %(branches)s, %(by)s, %(at)s, %(at)s)
            ON CONFLICT (project_id) DO UPDATE
                    SET version = excluded.version, superseded_days = excluded.superseded_days,
                        quiet_days = excluded.quiet_days, default_days = excluded.default_days,
                        default_branches = excluded.default_branches, set_by = excluded.set_by, set_at = excluded.set_at,
                        noted_at = excluded.noted_at
                  WHERE r.version < excluded.version
        """,
        {
            "project": stored.project_id,
            "version": stored.version,
            "superseded": stored.superseded_days,
            "quiet": stored.quiet_days,
            "default": stored.default_days,
            "branches": stored.default_branches,
            "by": stored.set_by,
            "at": stored.set_at,
        },
    )


def bring_branch_hold_back(tx: Tx, hold: BranchHold) -> None:
    """Place a hold of a branch as the store was told of it; one that was released stays so, whichever note comes first."""
    rows.run(
        tx,
        """
        INSERT INTO branch_hold AS h (id, project_id, branch, reason, placed_by, placed_at, ends_at, released_by,
                                      released_at, noted_at)
        VALUES (%(id)s, %(project)s, %(branch)s, %(reason)s, %(by)s, %(at)s, %(ends_at)s, %(released_by)s,
                %(released_at)s, %(at)s)
            ON CONFLICT (id) DO UPDATE SET released_by = excluded.released_by, released_at = excluded.released_at
                  WHERE h.released_at IS NULL AND excluded.released_at IS NOT NULL
        """,
        {
            "id": hold.id,
            "project": hold.project_id,
            "branch": hold.branch,
            "reason": hold.reason,
            "by": hold.placed_by,
            "at": hold.placed_at,
            "ends_at": hold.ends_at,
            "released_by": hold.released_by,
            "released_at": hold.released_at,
        },
    )
