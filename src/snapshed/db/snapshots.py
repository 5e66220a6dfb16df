"""Rows about snapshots and their images. Every reader here passes over what a deletion has marked.

Writes happen in one transaction, the commit of a snapshot; nothing is updated later but by a deletion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.manifest import Commit, Manifest


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is not marked, with its commit facts."""

    artifact_id: UUID
    number: int
    project_id: int
    project_slug: str
    org_id: int
    org_slug: str
    app_id: str
    created_at: datetime
    created_by: str
    image_count: int
    selective: bool
    all_names: list[str] | None
    diff_threshold: float | None
    head_sha: str | None
    base_sha: str | None
    provider: str | None
    head_repo_name: str | None
    base_repo_name: str | None
    head_ref: str | None
    base_ref: str | None
    pr_number: int | None
    lost_base: int | None


@dataclass(frozen=True, slots=True)
class Image:
    """One named image; `image_id` is None once the image was withdrawn, `storage_key` also while its bytes are lost."""

    name: str
    digest: str
    width: int
    height: int
    diff_threshold: float | None
    facts: dict[str, Any]
    image_id: UUID | None
    storage_key: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the list of snapshots."""

    number: int
    project_slug: str
    app_id: str
    created_at: datetime
    image_count: int
    head_sha: str | None
    base_sha: str | None
    head_ref: str | None
    pr_number: int | None
    comparison_state: str | None
    counts: dict[str, int] | None
    decision: str | None


def next_number(tx: Tx) -> int:
    """Draw the public number of an artifact to be. The manifest tells it, so that it outlives the database; one that is
    drawn and not used is never given to another."""
    number = rows.value(tx, int, "SELECT nextval('artifact_number')")
    assert number is not None  # noqa: S101  nextval has a value
    return number


def add(tx: Tx, artifact_id: UUID, project_id: int, app_id: str, number: int, now: datetime) -> None:
    """Add the root row under a number that was drawn for it."""
    rows.run(
        tx,
        """
        INSERT INTO artifact (id, project_id, number, kind, app_id, created_at)
        VALUES (%(id)s, %(project)s, %(number)s, 'snapshot', %(app)s, %(now)s)
        """,
        {"id": artifact_id, "project": project_id, "number": number, "app": app_id, "now": now},
    )


def fill(
    tx: Tx,
    artifact_id: UUID,
    manifest: Manifest,
    manifest_id: UUID,
    created_by: str,
    image_ids: Mapping[str, UUID],
    withdrawn_by: Mapping[str, UUID] = MappingProxyType({}),
) -> None:
    """Add the snapshot and its references; `image_ids` maps every digest to its locked live blob, or `withdrawn_by` to the
    deletion that withdrew it from this snapshot."""
    commit: Commit = manifest.commit
    rows.run(
        tx,
        """
        INSERT INTO snapshot (artifact_id, manifest_id, image_count, selective, all_names, diff_threshold, head_sha,
                              base_sha, provider, head_repo_name, base_repo_name, head_ref, base_ref, pr_number,
                              created_by)
        VALUES (%(artifact)s, %(manifest)s, %(count)s, %(selective)s, %(names)s, %(threshold)s, %(head_sha)s,
                %(base_sha)s, %(provider)s, %(head_repo)s, %(base_repo)s, %(head_ref)s, %(base_ref)s, %(pr)s,
                %(created_by)s)
        """,
        {
            "artifact": artifact_id,
            "manifest": manifest_id,
            "count": len(manifest.images),
            "selective": manifest.selective,
            "names": None if manifest.all_names is None else list(manifest.all_names),
            "threshold": manifest.threshold,
            "head_sha": commit.head_sha,
            "base_sha": commit.base_sha,
            "provider": commit.provider,
            "head_repo": commit.head_repo_name,
            "base_repo": commit.base_repo_name,
            "head_ref": commit.head_ref,
            "base_ref": commit.base_ref,
            "pr": commit.pr_number,
            "created_by": created_by,
        },
    )
    with (
        tx.cursor() as cursor,
        cursor.copy(
            """
            COPY snapshot_image (artifact_id, name, image_id, digest, width, height, diff_threshold, facts, withdrawn_by)
            FROM STDIN
            """
        ) as copy,
    ):
        for image in manifest.images:
            copy.write_row(
                (
                    artifact_id,
                    image.name,
                    None if image.digest in withdrawn_by else image_ids[image.digest],
                    image.digest,
                    image.width,
                    image.height,
                    image.threshold,
                    Jsonb(image.facts),
                    withdrawn_by.get(image.digest),
                )
            )


def find(tx: Tx, number: int) -> Snapshot | None:
    """The snapshot of that number, unless it is marked."""
    return rows.one(
        tx,
        Snapshot,
        """
        SELECT s.artifact_id, a.number, a.project_id, p.slug AS project_slug, p.org_id, o.slug AS org_slug, a.app_id,
               a.created_at, s.created_by, s.image_count, s.selective, s.all_names, s.diff_threshold, s.head_sha,
               s.base_sha, s.provider, s.head_repo_name, s.base_repo_name, s.head_ref, s.base_ref, s.pr_number,
               s.lost_base
          FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
          JOIN project p ON p.id = a.project_id JOIN org o ON o.id = p.org_id
         WHERE a.number = %(number)s AND a.deletion_id IS NULL
        """,
        {"number": number},
    )


def find_by_artifact(tx: Tx, artifact_id: UUID) -> Snapshot | None:
    """The snapshot of that artifact, unless it is marked."""
    number = rows.value(tx, int, "SELECT number FROM artifact WHERE id = %(id)s", {"id": artifact_id})
    return None if number is None else find(tx, number)


def images(tx: Tx, artifact_id: UUID) -> list[Image]:
    """Every image of a snapshot, by name."""
    return rows.many(
        tx,
        Image,
        """
        SELECT i.name, i.digest, i.width, i.height, i.diff_threshold, i.facts, i.image_id, b.storage_key
          FROM snapshot_image i LEFT JOIN blob b ON b.id = i.image_id AND b.lost_at IS NULL
         WHERE i.artifact_id = %(artifact)s ORDER BY i.name
        """,
        {"artifact": artifact_id},
    )


def images_after(tx: Tx, artifact_id: UUID, after: str, limit: int) -> list[Image]:
    """The next images of a snapshot beyond a name, by name."""
    return rows.many(
        tx,
        Image,
        """
        SELECT i.name, i.digest, i.width, i.height, i.diff_threshold, i.facts, i.image_id, b.storage_key
          FROM snapshot_image i LEFT JOIN blob b ON b.id = i.image_id
         WHERE i.artifact_id = %(artifact)s AND i.name > %(after)s ORDER BY i.name LIMIT %(limit)s
        """,
        {"artifact": artifact_id, "after": after, "limit": limit},
    )


def image_of_digest(tx: Tx, artifact_id: UUID, digest: str) -> Image | None:
    """The first image of a snapshot, by name, that has this digest."""
    return rows.one(
        tx,
        Image,
        """
        SELECT i.name, i.digest, i.width, i.height, i.diff_threshold, i.facts, i.image_id, b.storage_key
          FROM snapshot_image i LEFT JOIN blob b ON b.id = i.image_id
         WHERE i.artifact_id = %(artifact)s AND i.digest = %(digest)s ORDER BY i.name LIMIT 1
        """,
        {"artifact": artifact_id, "digest": digest},
    )


def manifest_key(tx: Tx, artifact_id: UUID) -> str:
    """The storage key of a snapshot's manifest."""
    key = rows.value(
        tx,
        str,
        "SELECT b.storage_key FROM snapshot s JOIN blob b ON b.id = s.manifest_id WHERE s.artifact_id = %(artifact)s",
        {"artifact": artifact_id},
    )
    assert key is not None  # noqa: S101  a snapshot names its manifest by a foreign key
    return key


def images_named(tx: Tx, artifact_id: UUID, names: list[str]) -> list[Image]:
    """Those images of a snapshot that have one of these names, by name."""
    return rows.many(
        tx,
        Image,
        """
        SELECT i.name, i.digest, i.width, i.height, i.diff_threshold, i.facts, i.image_id, b.storage_key
          FROM snapshot_image i LEFT JOIN blob b ON b.id = i.image_id AND b.lost_at IS NULL
         WHERE i.artifact_id = %(artifact)s AND i.name = ANY(%(names)s) ORDER BY i.name
        """,
        {"artifact": artifact_id, "names": names},
    )


def waiting_heads(
    tx: Tx, project_id: int, app_id: str, base_sha: str, repo_name: str | None, not_artifact: UUID
) -> list[UUID]:
    """Snapshots that build on that commit and have no finished comparison yet."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT a.id FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
         WHERE a.project_id = %(project)s AND a.app_id = %(app)s AND a.deletion_id IS NULL AND a.id <> %(not)s
           AND s.base_sha = %(sha)s
           AND coalesce(s.base_repo_name, s.head_repo_name) IS NOT DISTINCT FROM %(repo)s
           AND NOT EXISTS (SELECT FROM comparison c JOIN artifact b ON b.id = c.base_id
                            WHERE c.head_id = a.id AND c.state = 'done' AND b.deletion_id IS NULL)
         ORDER BY a.id
        """,
        {"project": project_id, "app": app_id, "sha": base_sha, "repo": repo_name, "not": not_artifact},
    )


def lock_commits(tx: Tx, project_id: int) -> None:
    """Let one commit at a time look for its base and its heads, so that of two at once the second sees the first."""
    rows.run(tx, "SELECT pg_advisory_xact_lock(2, %(project)s::int)", {"project": project_id})


def newest_by_head(tx: Tx, project_ids: list[int], head_sha: str, app_id: str | None) -> int | None:
    """The number of the newest snapshot of a commit, over all apps unless one is named."""
    return rows.value(
        tx,
        int,
        """
        SELECT a.number FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
         WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL AND s.head_sha = %(sha)s
           AND (%(app)s::text IS NULL OR a.app_id = %(app)s)
         ORDER BY a.created_at DESC, a.number DESC LIMIT 1
        """,
        {"projects": project_ids, "sha": head_sha, "app": app_id},
    )


def newest_base(tx: Tx, project_ids: list[int], app_id: str, branch: str | None) -> int | None:
    """The number of the newest snapshot of an app that has no base itself, on one branch if that is given."""
    return rows.value(
        tx,
        int,
        """
        SELECT a.number FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
         WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL AND a.app_id = %(app)s AND s.base_sha IS NULL
           AND (%(branch)s::text IS NULL OR s.head_ref = %(branch)s)
         ORDER BY a.created_at DESC, a.number DESC LIMIT 1
        """,
        {"projects": project_ids, "app": app_id, "branch": branch},
    )


@dataclass(frozen=True, slots=True)
class Offered:
    """What there is to filter by: an app or a branch, and how many snapshots it has."""

    kind: Literal["app", "branch"]
    name: str
    count: int


def offered(tx: Tx, project_ids: list[int], limit: int) -> list[Offered]:
    """The apps and branches of unmarked snapshots, those with most of each kind."""
    return rows.many(
        tx,
        Offered,
        """
        WITH known AS (
            SELECT a.app_id, s.head_ref FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
             WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL
        )
        (SELECT 'app' AS kind, app_id AS name, count(*) FROM known GROUP BY app_id ORDER BY 3 DESC, 2 LIMIT %(limit)s)
        UNION ALL
        (SELECT 'branch', head_ref, count(*) FROM known WHERE head_ref IS NOT NULL
          GROUP BY head_ref ORDER BY 3 DESC, 2 LIMIT %(limit)s)
        """,
        {"projects": project_ids, "limit": limit},
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which snapshots are listed; None asks for nothing. `commit` is the beginning of a commit."""

    app_id: str | None = None
    branch: str | None = None
    commit: str | None = None
    pr_number: int | None = None


def listed(tx: Tx, project_ids: list[int], wanted: Filter, before: int | None, limit: int) -> list[Listed]:
    """A page of unmarked snapshots, newest first, with the state of their newest comparison and decision."""
    return rows.many(
        tx,
        Listed,
        """
        SELECT a.number, p.slug AS project_slug, a.app_id, a.created_at, s.image_count, s.head_sha, s.base_sha,
               s.head_ref, s.pr_number, c.state AS comparison_state, c.counts, d.decision
          FROM artifact a
          JOIN snapshot s ON s.artifact_id = a.id
          JOIN project p ON p.id = a.project_id
          LEFT JOIN LATERAL (
               SELECT c.state, c.counts FROM comparison c JOIN artifact b ON b.id = c.base_id
                WHERE c.head_id = a.id AND b.deletion_id IS NULL
                ORDER BY c.created_at DESC, c.id DESC LIMIT 1) c ON true
          LEFT JOIN LATERAL (
               SELECT decision FROM approval WHERE artifact_id = a.id AND undone_at IS NULL
                ORDER BY id DESC LIMIT 1) d ON true
         WHERE a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL
           AND (%(before)s::bigint IS NULL OR a.number < %(before)s)
           AND (%(app)s::text IS NULL OR a.app_id = %(app)s)
           AND (%(branch)s::text IS NULL OR s.head_ref = %(branch)s)
           AND (%(commit)s::text IS NULL OR starts_with(s.head_sha, %(commit)s))
           AND (%(pr)s::int IS NULL OR s.pr_number = %(pr)s)
         ORDER BY a.number DESC LIMIT %(limit)s
        """,
        {
            "projects": project_ids,
            "before": before,
            "limit": limit,
            "app": wanted.app_id,
            "branch": wanted.branch,
            "commit": wanted.commit,
            "pr": wanted.pr_number,
        },
    )


def lock_unmarked(tx: Tx, artifact_ids: list[UUID]) -> bool:
    """Share-lock artifacts in id order; True if all are there and none is marked. No deletion marks them until this
    transaction ends."""
    found = rows.column(
        tx,
        bool,
        "SELECT deletion_id IS NULL FROM artifact WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE",
        {"ids": artifact_ids},
    )
    return len(found) == len(set(artifact_ids)) and all(found)


def lock_unmarked_of(tx: Tx, artifact_ids: list[UUID]) -> list[UUID]:
    """Share-lock artifacts in id order; those of them that are there and not marked."""
    return rows.column(
        tx,
        UUID,
        "SELECT id FROM artifact WHERE id = ANY(%(ids)s) AND deletion_id IS NULL ORDER BY id FOR SHARE",
        {"ids": artifact_ids},
    )
