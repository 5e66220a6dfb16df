"""A snapshot's images and its manifest as one zip, read from the store while it is sent.

Nothing is stored, so a deletion has nothing to find; one that comes in the middle breaks the download off, and the
client gets no archive that looks whole.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime

from snapshed.db import snapshots
from snapshed.errors import NotFound, OwnerGone
from snapshed.resources import Resources

_MANIFEST = "manifest.json"
_BATCH = 500


def pieces(resources: Resources, project_ids: Sequence[int], number: int) -> Iterator[bytes]:
    """The zip, in pieces of about an image each: every image that was not withdrawn, under its name, stored as it is,
    and the manifest, compressed. Raises NotFound before the first piece; in the middle OwnerGone or Unavailable."""
    with resources.database.transaction() as tx:
        snapshot = snapshots.find(tx, number)
        if snapshot is None or snapshot.project_id not in project_ids:
            raise NotFound("Snapshot not found")
        manifest_key = snapshots.manifest_key(tx, snapshot.artifact_id)
    return _written(resources, snapshot.number, snapshot.created_at, manifest_key)


def _written(resources: Resources, number: int, at: datetime, manifest_key: str) -> Iterator[bytes]:
    out = _Outlet()
    with zipfile.ZipFile(out, "w") as archive:  # pyright: ignore[reportArgumentType]  it needs write and flush only
        after = ""
        while named := _names(resources, number, after):
            for name, key in named:
                if key is not None:
                    archive.writestr(_entry(name, at, zipfile.ZIP_STORED), _bytes(resources, number, key))
                    yield out.taken()
            after = named[-1][0]
        archive.writestr(_entry(_MANIFEST, at, zipfile.ZIP_DEFLATED), _bytes(resources, number, manifest_key))
    yield out.taken()


def _names(resources: Resources, number: int, after: str) -> list[tuple[str, str | None]]:
    """The next names and storage keys, in order: asked again each time, since the snapshot may be deleted meanwhile."""
    with resources.database.transaction() as tx:
        snapshot = snapshots.find(tx, number)
        if snapshot is None:
            raise OwnerGone("The snapshot was deleted while it was being downloaded.")
        return [
            (image.name, image.storage_key) for image in snapshots.images_after(tx, snapshot.artifact_id, after, _BATCH)
        ]


def _bytes(resources: Resources, number: int, key: str) -> bytes:
    data = resources.store.get(key)
    if data is None:
        raise OwnerGone(f"An image of snapshot {number} was deleted while it was being downloaded.")
    return data


def _entry(name: str, at: datetime, how: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, at.timetuple()[:6])
    entry.compress_type = how
    entry.external_attr = 0o644 << 16
    return entry


class _Outlet(io.RawIOBase):
    """What the archive is written to: keeps what was written until it is taken, and cannot be sought in."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data).cast("B")  # pyright: ignore[reportArgumentType]  whatever holds bytes
        self._kept += view
        return len(view)

    def taken(self) -> bytes:
        """What was written since the last time."""
        kept = bytes(self._kept)
        self._kept.clear()
        return kept
