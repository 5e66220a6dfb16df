"""Having a snapshot compared again, as an administrator asks for it."""

from __future__ import annotations

from snapshed.db import ancestry, comparisons, snapshots
from snapshed.db.pool import Tx
from snapshed.errors import Invalid, NotFound
from snapshed.resources import Resources


def recompare(resources: Resources, project_ids: list[int], number: int) -> None:
    """Have the newest comparison of a snapshot made again with the same base, or choose a base if there is none.
    Decisions of people stay. Raises NotFound, also without a base, and Invalid when no base commit is named."""
    resources.database.run(lambda tx: _recompare(resources, tx, project_ids, number))


def _recompare(resources: Resources, tx: Tx, project_ids: list[int], number: int) -> None:
    snapshot = snapshots.find(tx, number)
    if snapshot is None or snapshot.project_id not in project_ids:
        raise NotFound("Snapshot not found")
    snapshots.lock_commits(tx, snapshot.project_id)
    comparison = comparisons.newest(tx, snapshot.artifact_id)
    if comparison is None and snapshot.base_sha is None:
        found = "Incomplete VCS info" if snapshot.head_sha else "No VCS info available"
        raise Invalid(f"{found} to find base")
    choice = ancestry.base_of(tx, snapshot)
    base_id = comparison.base_id if comparison else choice.base_id
    if base_id is None or not snapshots.lock_unmarked(tx, [snapshot.artifact_id, base_id]):
        raise NotFound("No base artifact found")
    now = resources.now()
    if comparison is None:
        made = comparisons.add(tx, resources.new_id(), snapshot.artifact_id, base_id, choice.passed_over, now)
    else:
        made = comparison.id
        comparisons.restart(tx, made, now)
    if made is None:
        raise NotFound("No base artifact found")
    resources.queue.defer(tx, "compare", {"comparison_id": str(made)})
    resources.queue.wake(tx)
