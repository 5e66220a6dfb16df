"""What is stored, for whom, and what is on its way out: sums over rows. Reads only.

`stored` bytes are those of objects; `logical` ones are what they would be if every snapshot kept its own copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from snapshed.db import rows
from snapshed.db.blobs import Kind
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class OfKind:
    """Objects of one kind that are stored: their bytes, how often they are named, and the bytes that would be without
    sharing. What nothing names any more, or nothing names yet, counts once."""

    kind: Kind
    objects: int
    stored: int
    named: int
    logical: int


def by_kind(tx: Tx, project_ids: list[int]) -> list[OfKind]:
    return rows.many(
        tx,
        OfKind,
        """
        WITH named AS (
            SELECT f.blob_id, count(*) AS times FROM blob_reference f GROUP BY f.blob_id
        )
        SELECT b.kind, count(*) AS objects, sum(b.size)::bigint AS stored,
               sum(coalesce(n.times, 0))::bigint AS named,
               sum(b.size * greatest(coalesce(n.times, 0), 1))::bigint AS logical
          FROM blob b LEFT JOIN named n ON n.blob_id = b.id
         WHERE b.project_id = ANY(%(projects)s) AND b.state = 'live' AND b.lost_at IS NULL
         GROUP BY b.kind ORDER BY stored DESC, b.kind
        """,
        {"projects": project_ids},
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Images of a project or a branch: in how many snapshots, their bytes, and what they would be without sharing."""

    name: str | None
    snapshots: int
    stored: int
    logical: int


def by_project(tx: Tx, project_ids: list[int]) -> list[Part]:
    """Every project's images of unmarked snapshots, those with most bytes first."""
    return rows.many(
        tx,
        Part,
        """
        WITH shown AS (
            SELECT a.project_id, i.image_id, count(*) AS times FROM artifact a JOIN snapshot_image i ON i.artifact_id = a.id
             WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL AND i.image_id IS NOT NULL
             GROUP BY a.project_id, i.image_id
        ), summed AS (
            SELECT s.project_id, sum(b.size)::bigint AS stored, sum(b.size * s.times)::bigint AS logical
              FROM shown s JOIN blob b ON b.id = s.image_id GROUP BY s.project_id
        )
        SELECT p.slug AS name, (SELECT count(*) FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
                                 WHERE a.project_id = p.id AND a.deletion_id IS NULL) AS snapshots,
               coalesce(x.stored, 0) AS stored, coalesce(x.logical, 0) AS logical
          FROM project p LEFT JOIN summed x ON x.project_id = p.id
         WHERE p.id = ANY(%(projects)s) ORDER BY stored DESC, p.slug
        """,
        {"projects": project_ids},
    )


def by_branch(tx: Tx, project_ids: list[int], limit: int) -> list[Part]:
    """The branches with most bytes of images; what two branches share counts for both. `name` is None without a branch."""
    return rows.many(
        tx,
        Part,
        """
        WITH shown AS (
            SELECT s.head_ref, i.image_id, count(*) AS times
              FROM artifact a JOIN snapshot s ON s.artifact_id = a.id JOIN snapshot_image i ON i.artifact_id = a.id
             WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL AND i.image_id IS NOT NULL
             GROUP BY s.head_ref, i.image_id
        ), summed AS (
            SELECT s.head_ref, sum(b.size)::bigint AS stored, sum(b.size * s.times)::bigint AS logical
              FROM shown s JOIN blob b ON b.id = s.image_id GROUP BY s.head_ref
        ), counted AS (
            SELECT s.head_ref, count(*) AS snapshots FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
             WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL GROUP BY s.head_ref
        )
        SELECT c.head_ref AS name, c.snapshots, coalesce(x.stored, 0) AS stored, coalesce(x.logical, 0) AS logical
          FROM counted c LEFT JOIN summed x ON x.head_ref IS NOT DISTINCT FROM c.head_ref
         ORDER BY stored DESC, name LIMIT %(limit)s
        """,
        {"projects": project_ids, "limit": limit},
    )


@dataclass(frozen=True, slots=True)
class Leaving:
    """What is on its way: announced and not stored yet, condemned and not removed yet, removed since the beginning."""

    announced: int
    waiting: int
    waiting_bytes: int
    failing: int
    open_deletions: int
    done_deletions: int
    removed: int
    removed_bytes: int


def leaving(tx: Tx, org_id: int, project_ids: list[int]) -> Leaving:
    """`removed` are objects that deletions of the organization released and the store has removed; an object that two
    deletions released counts once."""
    found = rows.one(
        tx,
        Leaving,
        """
        WITH gone AS (
            SELECT DISTINCT r.blob_id, r.bytes FROM release r JOIN deletion d ON d.id = r.deletion_id
             WHERE d.org_id = %(org)s AND r.removed_at IS NOT NULL
               AND (d.project_id IS NULL OR d.project_id = ANY(%(projects)s))
        )
        SELECT (SELECT count(*) FROM blob WHERE project_id = ANY(%(projects)s) AND state = 'pending') AS announced,
               (SELECT count(*) FROM tombstone WHERE project_id = ANY(%(projects)s)) AS waiting,
               (SELECT coalesce(sum(bytes), 0)::bigint FROM tombstone WHERE project_id = ANY(%(projects)s)) AS waiting_bytes,
               (SELECT count(*) FROM tombstone WHERE project_id = ANY(%(projects)s) AND error_class IS NOT NULL) AS failing,
               (SELECT count(*) FROM deletion WHERE org_id = %(org)s AND state = 'removing'
                   AND (project_id IS NULL OR project_id = ANY(%(projects)s))) AS open_deletions,
               (SELECT count(*) FROM deletion WHERE org_id = %(org)s AND state = 'complete'
                   AND (project_id IS NULL OR project_id = ANY(%(projects)s))) AS done_deletions,
               (SELECT count(*) FROM gone) AS removed,
               (SELECT coalesce(sum(bytes), 0)::bigint FROM gone) AS removed_bytes
        """,
        {"org": org_id, "projects": project_ids},
    )
    assert found is not None  # noqa: S101  a SELECT without FROM has one row
    return found
