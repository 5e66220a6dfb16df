"""The rows that a stored manifest or report tells about, and the manifest as it would be written from them now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from snapshed.db import comparisons, holds, rows, snapshots
from snapshed.db.pool import Tx
from snapshed.domain import build, manifest
from snapshed.domain.build import NewBuild
from snapshed.domain.manifest import Commit, Image, Manifest
from snapshed.domain.report import Result, Side


@dataclass(frozen=True, slots=True)
class Stored:
    """The manifest an unmarked artifact names, where it lies, and whose it is."""

    artifact_id: UUID
    number: int
    org_id: int
    project_id: int
    blob_id: UUID
    storage_key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A finished comparison of unmarked sides, and where its report lies."""

    id: UUID
    head_id: UUID
    head_number: int
    base_id: UUID
    base_number: int
    algorithm: str
    counts: dict[str, int]
    blob_id: UUID
    storage_key: str
    digest: str

    @property
    def sides(self) -> tuple[Side, Side]:
        """Head and base."""
        return Side(self.head_id, self.head_number), Side(self.base_id, self.base_number)


def artifacts_after(tx: Tx, after: UUID, limit: int) -> list[UUID]:
    """A page of unmarked artifacts in the order of their ids."""
    return rows.column(
        tx,
        UUID,
        "SELECT id FROM artifact WHERE deletion_id IS NULL AND id > %(after)s ORDER BY id LIMIT %(limit)s",
        {"after": after, "limit": limit},
    )


def manifest_of(tx: Tx, artifact_id: UUID) -> Stored | None:
    """The manifest of an unmarked snapshot or build."""
    return rows.one(
        tx,
        Stored,
        """
        SELECT a.id AS artifact_id, a.number, p.org_id, a.project_id, b.id AS blob_id, b.storage_key, b.digest
          FROM artifact a JOIN project p ON p.id = a.project_id
          LEFT JOIN snapshot s ON s.artifact_id = a.id LEFT JOIN build d ON d.artifact_id = a.id
          JOIN blob b ON b.id = coalesce(s.manifest_id, d.manifest_id)
         WHERE a.id = %(artifact)s AND a.deletion_id IS NULL
        """,
        {"artifact": artifact_id},
    )


def manifest_owner(tx: Tx, blob_id: UUID) -> UUID | None:
    """The artifact whose manifest this object is."""
    return rows.value(
        tx,
        UUID,
        """
        SELECT artifact_id FROM snapshot WHERE manifest_id = %(id)s
        UNION ALL SELECT artifact_id FROM build WHERE manifest_id = %(id)s
        """,
        {"id": blob_id},
    )


def written_anew(tx: Tx, artifact_id: UUID, now: datetime) -> bytes | None:
    """The manifest of an unmarked artifact as the rows have it, with the holds that stand; None if it is gone."""
    text = _snapshot(tx, artifact_id) or _build(tx, artifact_id)
    return None if text is None else manifest.with_holds(text, holds.standing(tx, [artifact_id], now))


def _snapshot(tx: Tx, artifact_id: UUID) -> bytes | None:
    found = snapshots.find_by_artifact(tx, artifact_id)
    if found is None:
        return None
    said = Manifest(
        app_id=found.app_id,
        images=tuple(
            Image(image.name, image.digest, image.width, image.height, image.diff_threshold, image.facts)
            for image in snapshots.images(tx, artifact_id)
        ),
        threshold=found.diff_threshold,
        selective=found.selective,
        all_names=None if found.all_names is None else tuple(found.all_names),
        commit=Commit(**{field: getattr(found, field) for field in Commit.__dataclass_fields__}),
    )
    return manifest.stored(said, artifact_id, found.number, found.created_at, found.created_by)


@dataclass(frozen=True, slots=True)
class _Build:
    number: int
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


def _build(tx: Tx, artifact_id: UUID) -> bytes | None:
    found = rows.one(
        tx,
        _Build,
        """
        SELECT a.number, a.app_id, d.file_name, d.size, d.digest, d.head_sha, d.head_repo_name, d.head_ref, d.facts, a.created_at,
               d.created_by
          FROM artifact a JOIN build d ON d.artifact_id = a.id WHERE a.id = %(id)s AND a.deletion_id IS NULL
        """,
        {"id": artifact_id},
    )
    if found is None:
        return None
    said = NewBuild(**{field: getattr(found, field) for field in NewBuild.__dataclass_fields__})
    return build.stored(said, artifact_id, found.number, found.created_at, found.created_by)


def reports_of(tx: Tx, head_id: UUID) -> list[Reported]:
    """The reports of an artifact's finished comparisons as head, of unmarked sides only."""
    return rows.many(
        tx,
        Reported,
        """
        SELECT c.id, c.head_id, h.number AS head_number, c.base_id, s.number AS base_number, c.algorithm, c.counts,
               b.id AS blob_id, b.storage_key, b.digest
          FROM comparison c JOIN artifact h ON h.id = c.head_id JOIN artifact s ON s.id = c.base_id
          JOIN blob b ON b.id = c.report_id
         WHERE c.head_id = %(head)s AND c.state = 'done' AND h.deletion_id IS NULL AND s.deletion_id IS NULL
         ORDER BY c.id
        """,
        {"head": head_id},
    )


def results_of(tx: Tx, comparison_id: UUID) -> list[Result]:
    """What the rows say about the names of a comparison."""
    return comparisons.results(tx, comparison_id)
