"""What the service made itself is made anew: manifests from the rows, reports and masks by comparing again."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from snapshed.db import blobs, documents, holds, repairs, snapshots
from snapshed.db.documents import Stored
from snapshed.db.inventory import Known
from snapshed.db.pool import Tx
from snapshed.domain.disagreement import Disagreement, Kind, Mended
from snapshed.errors import OwnerGone, SnapshedError
from snapshed.ledger import Draft, ForArtifact, give_up, sha256, store
from snapshed.resources import Resources
from snapshed.work.repair.damages import damaged_rows

# --- Manifests --------------------------------------------------------------------------------------------------------


def rewrite_manifests(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Write manifests that are gone or edited again from the rows, each as a new object under a new key. What stands of
    the old one is condemned."""
    kinds: dict[str, Kind] = {item.key: item.kind for item in found}
    rows = damaged_rows(resources, found, ("manifest",)) if found else []
    return [
        Mended(kinds[row.storage_key], row.storage_key, "written again from the rows, as a new object")
        for row in rows
        if _rewrite(resources, row)
    ]


def _rewrite(resources: Resources, row: Known) -> bool:
    with resources.database.transaction() as tx:
        artifact_id = documents.manifest_owner(tx, row.id)
        stored = None if artifact_id is None else documents.manifest_of(tx, artifact_id)
        text = None if artifact_id is None else documents.written_anew(tx, artifact_id, resources.now())
    if stored is None or text is None or stored.blob_id != row.id:
        return False  # deleted, or named another one meanwhile
    owner = ForArtifact(stored.artifact_id, stored.org_id, stored.project_id)
    try:
        (written,) = store(resources, owner, [Draft("manifest", sha256(text), text)])
    except OwnerGone:
        return False
    try:
        is_named = resources.database.run(lambda tx: _name(resources, tx, stored, written.id, text))
    except SnapshedError:
        give_up(resources, [written.id], settled=True)
        raise
    if not is_named:
        give_up(resources, [written.id], settled=True)
    return is_named


def _name(resources: Resources, tx: Tx, stored: Stored, manifest_id: UUID, text: bytes) -> bool:
    """Let the artifact name the new manifest, under its lock; False if it is no longer what was written."""
    if not holds.lock_artifact(tx, stored.artifact_id) or documents.manifest_of(tx, stored.artifact_id) != stored:
        return False
    if documents.written_anew(tx, stored.artifact_id, resources.now()) != text:
        return False  # a hold was placed or has ended; the next repair writes what is so then
    if not blobs.make_live(tx, [manifest_id]):
        return False
    holds.name_manifest(tx, stored.artifact_id, manifest_id)
    resources.queue.wake(tx)
    return True


# --- Reports and masks --------------------------------------------------------------------------------------------------


def compare_again(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Have comparisons made again whose report or masks are gone or not as stored, where every image of both sides can
    be read. Decisions of people stay."""
    kinds: dict[str, Kind] = {item.key: item.kind for item in found}
    rows = damaged_rows(resources, found, ("comparison", "mask")) if found else []
    return [
        Mended(kinds[row.storage_key], row.storage_key, "its comparison waits to be made again by a worker")
        for row in rows
        if resources.database.run(lambda tx, row=row: _restart(resources, tx, row))
    ]


def _restart(resources: Resources, tx: Tx, row: Known) -> bool:
    """Forget the results that name this object; True if nothing names it any more."""
    found = repairs.comparisons_with(tx, row.id)
    if not found:
        return True  # restarted for another of its objects, or deleted meanwhile
    sides = sorted({side for comparison in found for side in (comparison.head_id, comparison.base_id)})
    if not all(comparison.is_whole for comparison in found) or not snapshots.lock_unmarked(tx, sides):
        return False
    for comparison in found:
        if repairs.forget_results(tx, comparison.id):
            resources.queue.defer(tx, "compare", {"comparison_id": str(comparison.id)})
    resources.queue.wake(tx)
    return True
