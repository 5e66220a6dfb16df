"""Lost and damaged images and files are marked, so that nobody is promised them; found ones are unmarked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

from snapshed.blobs import Store
from snapshed.db import blobs, inventory, lost
from snapshed.db.inventory import Known
from snapshed.db.pool import Tx
from snapshed.domain.disagreement import Disagreement, Kind, Mended
from snapshed.logs import logger
from snapshed.resources import Resources

_MARKED = ("image", "file")
"""Kinds that only an upload makes whole. What the service made itself is made anew, by `documents`."""

_log = logger("repair")


def is_whole(store: Store, row: Known) -> bool:
    """Whether the store has exactly the bytes this row speaks of, asked by name and read to the end."""
    found = store.head(row.storage_key)
    pieces = store.stream(row.storage_key) if found and found.size == row.size else None
    if pieces is None:
        return False
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest() == row.digest


def damaged_rows(resources: Resources, found: Sequence[Disagreement], kinds: Sequence[str]) -> list[Known]:
    """The rows of these kinds that are still live and not marked, and whose bytes are still not whole."""
    with resources.database.transaction() as tx:
        rows = inventory.known(tx, [item.key for item in found])
    return [
        row
        for row in rows
        if row.state == "live" and not row.is_lost and row.kind in kinds and not is_whole(resources.store, row)
    ]


def mark(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Mark images and files whose bytes are gone or not theirs. Snapshots that name them stay as they are."""
    rows = damaged_rows(resources, found, _MARKED) if found else []
    if not rows:
        return []
    marked = set(resources.database.run(lambda tx: lost.mark(tx, [row.id for row in rows], resources.now())))
    mended: list[Mended] = []
    kinds: dict[str, Kind] = {item.key: item.kind for item in found}
    for row in rows:
        if row.id in marked:
            _log.error("object lost", kind=row.kind, key=row.storage_key)
            mended.append(
                Mended(
                    kinds[row.storage_key],
                    row.storage_key,
                    f"the {row.kind} is marked as lost until it is uploaded again",
                )
            )
    return mended


def take_marks_away(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Unmark what the store has again, whole, unless another upload has taken its place meanwhile."""
    with resources.database.transaction() as tx:
        rows = inventory.known(tx, [item.key for item in found])
    mended: list[Mended] = []
    for row in rows:
        if row.is_lost and is_whole(resources.store, row) and _unmark(resources, row.project_id, row.id):
            mended.append(Mended("found-again", row.storage_key, f"the {row.kind} can be read again"))
    return mended


def _unmark(resources: Resources, project_id: int, blob_id: UUID) -> bool:
    def write(tx: Tx) -> bool:
        # So that no upload turns the same image live in between.
        blobs.lock_images(tx, project_id)
        return lost.found_again(tx, blob_id)

    return resources.database.run(write)
