"""Snapshots planted quickly: rows by SQL, bytes straight into the store. What is planted is what an upload leaves.

Measuring a deletion needs tens of thousands of images that nobody has the time to upload one by one; they are deleted
through the product all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import obstore
from obstore.store import ObjectStore

from snapshed.db.access import Project
from snapshed.resources import Resources

BYTES = 1024
"""Of one image. A removal costs the same whatever the size; putting does not."""


@dataclass(frozen=True)
class Image:
    id: UUID
    digest: str
    key: str


def put(store: ObjectStore, keys: Sequence[str], data: bytes) -> None:
    """The same bytes under every key, many at a time."""
    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(lambda key: obstore.put(store, key, data, use_multipart=False), keys):
            pass


class Field:
    """One project of an installation, and a handle on where its objects lie."""

    def __init__(self, resources: Resources, store: ObjectStore, project: Project) -> None:
        self.resources = resources
        self.store = store
        self.project = project

    def images(self, count: int) -> list[Image]:
        """Live images that nobody has seen before. Nothing names them until a snapshot does."""
        made: list[Image] = []
        for _ in range(count):
            blob_id, digest = self.resources.new_id(), hashlib.sha256(os.urandom(16)).hexdigest()
            key = self.resources.new_key(self.project.org_id, self.project.id, digest, blob_id)
            made.append(Image(blob_id, digest, key))
        put(self.store, [image.key for image in made], os.urandom(BYTES))
        self._add_blobs(made, "image", [], BYTES)
        return made

    def snapshot(self, images: Sequence[Image]) -> int:
        """A snapshot that names these images, with its manifest; returns its public number."""
        now = self.resources.now()
        artifact_id = self.resources.new_id()
        manifest = self._manifest(artifact_id, images)
        with self.resources.database.transaction() as tx:
            row = tx.execute(
                """
                INSERT INTO artifact (id, project_id, kind, app_id, created_at)
                VALUES (%s, %s, 'snapshot', 'web', %s) RETURNING number
                """,
                [artifact_id, self.project.id, now],
            ).fetchone()
            assert row is not None
            tx.execute(
                """
                INSERT INTO snapshot (artifact_id, manifest_id, image_count, selective, created_by)
                VALUES (%s, %s, %s, false, 'benchmark')
                """,
                [artifact_id, manifest.id, len(images)],
            )
            names = [name_of(index) for index in range(len(images))]
            tx.execute(
                """
                INSERT INTO snapshot_image (artifact_id, name, image_id, digest, width, height)
                SELECT %s, name, id, digest, 32, 32 FROM unnest(%s::text[], %s::uuid[], %s::text[]) AS n (name, id, digest)
                """,
                [artifact_id, names, [image.id for image in images], [image.digest for image in images]],
            )
        return int(row[0])

    def siblings(self, number: int, count: int, most: int) -> None:
        """`count` more snapshots of the project that name the first `most` images of that one, and its manifest."""
        with self.resources.database.transaction() as tx:
            tx.execute("SET LOCAL statement_timeout = 0")
            # Rows that repeat rows need no check: three million of them would take minutes.
            tx.execute("SET LOCAL session_replication_role = replica")
            tx.execute(
                """
                CREATE TEMPORARY TABLE planted ON COMMIT DROP AS
                SELECT gen_random_uuid() AS id, a.id AS of, a.project_id, a.created_at
                  FROM artifact a, generate_series(1, %s) WHERE a.number = %s
                """,
                [count, number],
            )
            tx.execute(
                """
                INSERT INTO artifact (id, project_id, kind, app_id, created_at)
                SELECT id, project_id, 'snapshot', 'web', created_at FROM planted
                """
            )
            tx.execute(
                """
                INSERT INTO snapshot (artifact_id, manifest_id, image_count, selective, created_by)
                SELECT p.id, s.manifest_id, least(s.image_count, %s), false, 'benchmark'
                  FROM planted p JOIN snapshot s ON s.artifact_id = p.of
                """,
                [most],
            )
            tx.execute(
                """
                INSERT INTO snapshot_image (artifact_id, name, image_id, digest, width, height)
                SELECT p.id, i.name, i.image_id, i.digest, 32, 32
                  FROM planted p JOIN snapshot_image i ON i.artifact_id = p.of AND i.name < %s
                """,
                [name_of(most)],
            )
        self.analyse()

    def analyse(self) -> None:
        """What autovacuum does a minute after so many rows have come, before anything is measured."""
        with self.resources.database.transaction() as tx:
            tx.execute("SET LOCAL statement_timeout = 0")
            tx.execute("ANALYZE")

    def _manifest(self, artifact_id: UUID, images: Sequence[Image]) -> Image:
        entries = {
            name_of(index): {"content_hash": image.digest, "width": 32, "height": 32}
            for index, image in enumerate(images)
        }
        data = json.dumps({"artifact": str(artifact_id), "app_id": "web", "images": entries}).encode()
        blob_id, digest = self.resources.new_id(), hashlib.sha256(data).hexdigest()
        key = self.resources.new_key(self.project.org_id, self.project.id, digest, blob_id)
        made = Image(blob_id, digest, key)
        obstore.put(self.store, key, data, use_multipart=False)
        self._add_blobs([made], "manifest", [artifact_id], len(data))
        return made

    def _add_blobs(self, images: Sequence[Image], kind: str, made_of: list[UUID], size: int) -> None:
        with self.resources.database.transaction() as tx:
            tx.execute(
                """
                INSERT INTO blob (id, project_id, kind, digest, size, storage_key, state, made_of, announced_at)
                SELECT n.id, %s, %s, n.digest, %s, n.key, 'live', %s, %s
                  FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS n (id, digest, key)
                """,
                [
                    self.project.id,
                    kind,
                    size,
                    made_of,
                    self.resources.now(),
                    [image.id for image in images],
                    [image.digest for image in images],
                    [image.key for image in images],
                ],
            )


def name_of(index: int) -> str:
    """Names in the order of their numbers."""
    return f"page-{index // 100:03}/shot-{index:05}.png"
