"""Rows about builds: artifacts that are one uploaded file with its metadata.

Every reader here passes over what a deletion has marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.build import NewBuild


@dataclass(frozen=True, slots=True)
class Build:
    """A build that is not marked; `size` in bytes."""

    artifact_id: UUID
    number: int
    project_id: int
    project_slug: str
    app_id: str
    file_name: str
    size: int
    digest: str
    head_sha: str | None
    head_repo_name: str | None
    head_ref: str | None
    facts: dict[str, Any]
    created_at: datetime
    created_by: str
    storage_key: str | None


def add(
    tx: Tx,
    artifact_id: UUID,
    project_id: int,
    build: NewBuild,
    number: int,
    file_id: UUID,
    manifest_id: UUID,
    created_by: str,
    now: datetime,
) -> None:
    """Add a build with its root row, under a number that was drawn for it."""
    rows.run(
        tx,
        """
        WITH root AS (
            INSERT INTO artifact (id, project_id, number, kind, app_id, created_at)
            VALUES (%(artifact)s, %(project)s, %(number)s, 'build', %(app)s, %(now)s) RETURNING id
        )
        INSERT INTO build (artifact_id, file_id, manifest_id, file_name, size, digest, head_sha, head_repo_name, head_ref,
                           facts, created_by)
        SELECT id, %(file)s, %(manifest)s, %(name)s, %(size)s, %(digest)s, %(sha)s, %(repo)s, %(ref)s, %(facts)s, %(by)s
          FROM root
        """,
        {
            "artifact": artifact_id,
            "project": project_id,
            "number": number,
            "app": build.app_id,
            "file": file_id,
            "manifest": manifest_id,
            "name": build.file_name,
            "size": build.size,
            "digest": build.digest,
            "sha": build.head_sha,
            "repo": build.head_repo_name,
            "ref": build.head_ref,
            "facts": Jsonb(build.facts),
            "by": created_by,
            "now": now,
        },
    )


def find(tx: Tx, project_ids: list[int], number: int) -> Build | None:
    """The build of that number within these projects, unless it is marked."""
    return rows.one(
        tx,
        Build,
        """
        SELECT d.artifact_id, a.number, a.project_id, p.slug AS project_slug, a.app_id, d.file_name, d.size, d.digest,
               d.head_sha, d.head_repo_name, d.head_ref, d.facts, a.created_at, d.created_by,
               CASE WHEN b.lost_at IS NULL THEN b.storage_key END AS storage_key
          FROM artifact a JOIN build d ON d.artifact_id = a.id
          JOIN project p ON p.id = a.project_id JOIN blob b ON b.id = d.file_id
         WHERE a.number = %(number)s AND a.project_id = ANY(%(projects)s) AND a.deletion_id IS NULL
        """,
        {"number": number, "projects": project_ids},
    )
