"""T5b: the rows of what is marked go, in bounded steps, and every blob they let go of is written down first."""

from __future__ import annotations

from uuid import UUID

from snapshed.db import deletions, releases, tombstones
from snapshed.db.pool import Tx
from snapshed.resources import Resources

_STEP_ARTIFACTS = 50
_STEP_IMAGES = 20_000
"""How much one releasing step takes: at least one artifact, and short enough that nobody waits long for its locks."""

_DELETIONS = 20


def release_waiting(resources: Resources) -> int:
    """One bounded step for each of some deletions that were only marked, in turn. Returns how many steps it took."""
    with resources.database.transaction() as tx:
        waiting = deletions.unreleased(tx, _DELETIONS)
    steps = 0
    for deletion_id in waiting:
        if resources.database.run(lambda tx, deletion_id=deletion_id: release_step(resources, tx, deletion_id)):
            steps += 1
            resources.failpoints.reach("deletion.released")
    return steps


def fits_one_step(artifacts: int, images: int) -> bool:
    """Whether a deletion is small enough to be let go of in the transaction that marks it."""
    return artifacts <= _STEP_ARTIFACTS and images <= _STEP_IMAGES


def release_step(resources: Resources, tx: Tx, deletion_id: UUID) -> int:
    """Remove the rows of some marked artifacts and write down every blob they let go of. Returns how many artifacts.

    Locks the artifacts, their comparisons and what was announced for them, each in id order.
    """
    artifact_ids = deletions.next_marked(tx, deletion_id, _STEP_ARTIFACTS, _STEP_IMAGES)
    if artifact_ids:
        compared = releases.lock_comparisons(tx, artifact_ids)
        releases.release(tx, deletion_id, artifact_ids, compared)
        pending = releases.pending_derived(tx, artifact_ids, compared)
        tombstones.condemn_pending(tx, pending, resources.now(), settled=False)
        releases.delete_rows(tx, artifact_ids, compared)
        resources.queue.wake(tx)
    return len(artifact_ids)
