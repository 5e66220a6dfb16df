"""Objects that no row explains become tombstones of a deletion of their own, and are removed like any others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

from snapshed.blobs import Found
from snapshed.db import deletions, repairs
from snapshed.db.blobs import NewBlob
from snapshed.db.deletions import Deletion
from snapshed.db.pool import Tx
from snapshed.db.repairs import Home
from snapshed.domain import keys
from snapshed.domain.disagreement import Disagreement, Mended
from snapshed.logs import logger
from snapshed.resources import Resources

REQUESTED_BY = "repair"

_AT_ONCE = 10_000
"""Objects of one deletion: written in one transaction, so that its receipt cannot close before the last is in it."""

_log = logger("repair")


@dataclass(frozen=True, slots=True)
class _Orphan:
    disagreement: Disagreement
    home: Home
    blob: NewBlob


class _NothingLeft(Exception):
    """Rows explain every one of them by now; the deletion is not written."""


def adopt(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Ask for each object again, then write those that still stand unexplained down as released by a deletion. It is
    journaled and carried out like any other."""
    with resources.database.transaction() as tx:
        homes = repairs.homes(tx)
    if not found or not homes:
        return []
    by_org: dict[int, list[_Orphan]] = {}
    for orphan in _standing(resources, found, homes):
        by_org.setdefault(orphan.home.org_id, []).append(orphan)
    mended: list[Mended] = []
    for org_id, orphans in by_org.items():
        for start in range(0, len(orphans), _AT_ONCE):
            mended += _adopt(resources, org_id, orphans[start : start + _AT_ONCE])
    return mended


def _standing(resources: Resources, found: Sequence[Disagreement], homes: Sequence[Home]) -> Iterator[_Orphan]:
    with ThreadPoolExecutor(16, "repair-head") as threads:
        asked = list(threads.map(resources.store.head, [item.key for item in found]))
    for item, there in zip(found, asked, strict=True):
        digest = None if there is None else _digest(resources, there)
        if there is not None and digest is not None:
            # The id in its name may be another object's: whoever made this one was not us.
            blob = NewBlob(resources.new_id(), "file", digest, there.size, there.key)
            yield _Orphan(item, _home(there.key, homes), blob)


def _home(key: str, homes: Sequence[Home]) -> Home:
    """The project its name speaks of, else the oldest one of that organization, else the oldest of all."""
    project, org = keys.project_of(key), keys.org_of(key)
    return next(
        (home for home in homes if home.id == project and home.org_id == org),
        next((home for home in homes if home.org_id == org), homes[0]),
    )


def _digest(resources: Resources, there: Found) -> str | None:
    """What its name says; for a name that is none of ours, what its bytes say. None for a file with a name that no key
    of a store may have: only a hand can have put it there, and only a hand can remove it."""
    if named := keys.digest_of(there.key):
        return named
    digest = hashlib.sha256()
    try:
        for piece in resources.store.stream(there.key) or ():
            digest.update(piece)
    except ValueError:
        return None
    return digest.hexdigest()


def _adopt(resources: Resources, org_id: int, orphans: Sequence[_Orphan]) -> list[Mended]:
    projects = {orphan.home.id for orphan in orphans}

    def write(tx: Tx) -> tuple[UUID, set[str]]:
        deletion = _deletion(resources, tx, org_id, projects.copy().pop() if len(projects) == 1 else None, len(orphans))
        taken = repairs.adopt(
            tx,
            deletion.id,
            [orphan.home.id for orphan in orphans],
            [orphan.blob for orphan in orphans],
            deletion.requested_at,
        )
        if not taken:
            raise _NothingLeft
        resources.queue.wake(tx)
        return deletion.id, set(taken)

    try:
        deletion_id, taken = resources.database.run(write)
    except _NothingLeft:
        return []
    resources.failpoints.reach("deletion.marked")
    _log.info("orphans adopted", deletion=str(deletion_id), objects=len(taken))
    return [
        Mended(orphan.disagreement.kind, orphan.blob.storage_key, f"removed by deletion {deletion_id}")
        for orphan in orphans
        if orphan.blob.storage_key in taken
    ]


def _deletion(resources: Resources, tx: Tx, org_id: int, project_id: int | None, count: int) -> Deletion:
    deletion = Deletion(
        id=resources.new_id(),
        org_id=org_id,
        project_id=project_id,
        target={"orphans": count},
        requested_by=REQUESTED_BY,
        reason="Objects that no row explained, found by reconcile.",
        urgent=False,
        request_id=None,
        state="removing",
        snapshots=[],
        artifacts=[],
        rows=deletions.count_rows(tx, []),
        requested_at=resources.now(),
        journaled_at=None,
        completed_at=None,
        verified_at=None,
        receipt=None,
    )
    deletions.add(tx, deletion)
    return deletion
