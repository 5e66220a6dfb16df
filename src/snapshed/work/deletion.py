"""Asking for a deletion: preview, mark (T5a), journal, release (T5b). Receipts are closed in `receipts`.

What a deletion lets go of is written down before a byte is touched; bytes are removed elsewhere, in `remove`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from snapshed.blobs import Item
from snapshed.db import access, deletions, releases, tombstones
from snapshed.db.access import Project
from snapshed.db.deletions import Deletion, Target
from snapshed.db.pool import Tx
from snapshed.db.releases import PreviewedBlob
from snapshed.domain import ids, keys, receipt
from snapshed.errors import Conflict, Invalid, NotFound, PlanChanged, StoreUnavailable
from snapshed.logs import logger
from snapshed.resources import Resources

_AT_ONCE_IMAGES = 20_000
"""Up to this many images a deletion is marked and released in one transaction, so that its answer finds the rows gone."""

_STEP_ARTIFACTS = 50
_STEP_IMAGES = 20_000
"""How much one releasing step takes: at least one artifact, and short enough that nobody waits long for its locks."""

_log = logger("deletion")


@dataclass(frozen=True, slots=True)
class Order:
    """One deletion as it was asked for. Exactly one of the targets is given; `projects` are those it may reach, and
    `is_for_all_projects` says that whoever asks reaches the whole organization."""

    org_id: int
    projects: Sequence[Project]
    requested_by: str
    snapshots: Sequence[int] = ()
    filter: Filter | None = None
    everything: bool = False
    reason: str | None = None
    urgent: bool = False
    request_id: str | None = None
    plan: str | None = None
    is_for_all_projects: bool = False

    @property
    def target(self) -> dict[str, Any]:
        """The target in the words of the API, as it is kept and shown."""
        if self.snapshots:
            return {"snapshots": [str(number) for number in self.snapshots]}
        if self.filter is not None:
            return {"project": self.projects[0].slug, "filter": self.filter.as_asked()}
        return {"project": self.projects[0].slug, "everything": True}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which snapshots of a project; every condition given must fit, and one at least is given."""

    app_id: str | None = None
    branch: str | None = None
    older_than: datetime | None = None
    older_than_asked: str | None = None

    def as_asked(self) -> dict[str, str]:
        """The conditions in the words they were asked with: `30d` stays `30d`, whenever it is asked again."""
        older = self.older_than_asked or receipt.moment(self.older_than)
        said = {"app_id": self.app_id, "branch": self.branch, "older_than": older}
        return {field: value for field, value in said.items() if value is not None}


# --- Looking ---------------------------------------------------------------------------------------------------------


def preview(resources: Resources, order: Order) -> dict[str, Any]:
    """What this order would do if it were carried out now, as a receipt in the state `preview`. Changes nothing.

    `waiting` counts what would go. Raises NotFound or Invalid as carrying it out would.
    """
    now = resources.now()
    with resources.database.transaction() as tx:
        targets = _targets(tx, order)
        found = releases.preview(tx, [target.artifact_id for target in targets])
        row_counts = deletions.count_rows(tx, [target.artifact_id for target in targets])
    counts, sums = receipt.objects(_tallied(found))
    return {
        "id": None,
        "state": "preview",
        "plan": _plan(targets, found),
        "target": order.target,
        "requested_at": receipt.moment(now),
        "requested_by": order.requested_by,
        "reason": order.reason,
        "urgent": order.urgent,
        "journaled_at": None,
        "completed_at": None,
        "verified_at": None,
        "pins_end_at": None,
        "snapshots": [str(number) for number in sorted(target.number for target in targets)],
        "rows": row_counts,
        "objects": counts,
        "bytes": sums,
        "traces": {"released": len(targets), "removed": 0, "waiting": len(targets)},
        "failures": [],
        "scope": list(receipt.SCOPE),
        "signature": None,
    }


@dataclass(frozen=True, slots=True)
class _Previewed:
    kind: str
    outcome: str
    objects: int
    bytes: int


def _tallied(found: Sequence[PreviewedBlob]) -> list[_Previewed]:
    return [_Previewed(blob.kind, blob.outcome, 1, blob.bytes) for blob in found]


def _plan(targets: Sequence[Target], found: Sequence[PreviewedBlob]) -> str:
    going = [blob.blob_id for blob in found if blob.outcome == "waiting"]
    return receipt.plan([target.artifact_id for target in targets], going)


def _targets(tx: Tx, order: Order) -> list[Target]:
    """The unmarked artifacts an order means. Raises NotFound for any id that is not there: nothing is deleted then."""
    if order.snapshots:
        wanted = sorted(set(order.snapshots))
        found = deletions.targets_by_number(tx, [project.id for project in order.projects], wanted)
        if absent := sorted(set(wanted) - {target.number for target in found}):
            raise NotFound(f"Snapshot not found: {', '.join(str(number) for number in absent[:20])}")
        return found
    (project,) = order.projects
    if order.filter is not None:
        chosen = order.filter
        if chosen.app_id is None and chosen.branch is None and chosen.older_than is None:
            raise Invalid("The filter is empty; give app_id, branch or older_than, or ask for everything.")
        return deletions.targets_by_filter(tx, project.id, chosen.app_id, chosen.branch, chosen.older_than)
    if not order.everything:
        raise Invalid("The deletion names no target; give snapshots, a filter, or everything.")
    return deletions.targets_by_filter(tx, project.id, None, None, None)


# --- Asking --------------------------------------------------------------------------------------------------------------


def request(resources: Resources, order: Order) -> UUID:
    """Mark everything the order means, journal it, and return the deletion's id. What it means is hidden everywhere
    from the moment this returns, however large it is.

    The same `request_id` returns the same deletion. Raises NotFound, Invalid or PlanChanged, with nothing deleted.
    """
    marked = resources.database.run(lambda tx: _mark(resources, tx, order))
    if marked.is_new:
        resources.failpoints.reach("deletion.marked")
        if marked.is_released:
            resources.failpoints.reach("deletion.released")
        journal(resources, marked.id)
    return marked.id


@dataclass(frozen=True, slots=True)
class _Marked:
    id: UUID
    is_new: bool
    is_released: bool


def _mark(resources: Resources, tx: Tx, order: Order) -> _Marked:
    """T5a, and T5b in the same transaction when the target is small."""
    if not order.snapshots:
        # So that no snapshot commits unseen beside the evaluation of the filter.
        access.lock_project(tx, order.projects[0].id)
    if order.request_id is not None:
        deletions.lock_requests(tx, order.org_id)
        before = deletions.find_by_request(tx, order.org_id, order.request_id)
        if before is not None:
            # The id is what counts, whatever else is asked with it; but nobody is shown somebody else's receipt.
            within = order.is_for_all_projects or before.project_id in {project.id for project in order.projects}
            if before.requested_by != order.requested_by or not within:
                raise Conflict("This request_id belongs to another deletion; nothing was deleted. Choose a new one.")
            return _Marked(before.id, is_new=False, is_released=False)
    now = resources.now()
    targets = _locked_targets(tx, order)
    artifact_ids = [target.artifact_id for target in targets]
    if order.plan is not None:
        _check_plan(tx, order.plan, targets)
    deletion = Deletion(
        id=resources.new_id(),
        org_id=order.org_id,
        project_id=_only_project(targets, order),
        target=order.target,
        requested_by=order.requested_by,
        reason=order.reason,
        urgent=order.urgent,
        request_id=order.request_id,
        state="removing",
        snapshots=sorted(target.number for target in targets),
        artifacts=artifact_ids,
        rows=deletions.count_rows(tx, artifact_ids),
        requested_at=now,
        journaled_at=None,
        completed_at=None,
        verified_at=None,
        receipt=None,
    )
    deletions.add(tx, deletion)
    deletions.mark(tx, deletion.id, artifact_ids)
    deletions.doom_traces(tx, deletion.id, {item: ids.trace_id(item) for item in artifact_ids}, now)
    is_small = deletion.rows["snapshot_images"] <= _AT_ONCE_IMAGES and len(targets) <= _STEP_ARTIFACTS
    if is_small:
        _release_step(resources, tx, deletion.id)
    resources.queue.wake(tx)
    return _Marked(deletion.id, is_new=True, is_released=is_small)


def _locked_targets(tx: Tx, order: Order) -> list[Target]:
    """The targets, locked in id order. What another deletion takes meanwhile stays with that one; an order that names
    it by number is refused whole."""
    targets = _targets(tx, order)
    free = set(deletions.lock_unmarked(tx, [target.artifact_id for target in targets]))
    if order.snapshots and len(free) < len(targets):
        taken = sorted(target.number for target in targets if target.artifact_id not in free)
        raise NotFound(f"Snapshot not found: {', '.join(str(number) for number in taken[:20])}")
    return [target for target in targets if target.artifact_id in free]


def _only_project(targets: Sequence[Target], order: Order) -> int | None:
    if not order.snapshots:
        return order.projects[0].id
    found = {target.project_id for target in targets}
    return found.pop() if len(found) == 1 else None


def _check_plan(tx: Tx, plan: str, targets: Sequence[Target]) -> None:
    found = releases.preview(tx, [target.artifact_id for target in targets])
    actual = _plan(targets, found)
    if actual != plan:
        counts, _ = receipt.objects(_tallied(found))
        raise PlanChanged(
            actual,
            {
                "snapshots": [str(target.number) for target in targets],
                "objects": [f"{kind}: {count['waiting']} would go" for kind, count in counts.items()],
            },
        )


def journal(resources: Resources, deletion_id: UUID) -> bool:
    """Write a deletion into the store's journal, if it is not there yet. False if the store does not answer: the
    deletion holds all the same and is journaled later. Repeating it writes the same again."""
    with resources.database.transaction() as tx:
        deletion = deletions.find(tx, deletion_id)
    if deletion is None or deletion.journaled_at is not None:
        return True
    entry = {
        "deletion": str(deletion.id),
        "artifacts": [str(artifact) for artifact in deletion.artifacts],
        "images": [],
        "requested_at": receipt.moment(deletion.requested_at),
        "requested_by": deletion.requested_by,
        "reason": deletion.reason,
        "epoch": resources.installation.epoch,
    }
    try:
        resources.store.put([Item(keys.journal_entry(deletion.id), json.dumps(entry).encode())])
    except StoreUnavailable as failed:
        _log.warning("deletion not journaled yet", deletion=str(deletion.id), error_class=failed.code)
        return False

    resources.failpoints.reach("deletion.journaled")

    def note(tx: Tx) -> None:
        deletions.journaled(tx, deletion.id, resources.now())
        resources.queue.wake(tx)

    resources.database.run(note)
    return True


def journal_waiting(resources: Resources, limit: int = 100) -> int:
    """Journal what could not be journaled when it was asked for. Returns how many entries were written."""
    with resources.database.transaction() as tx:
        waiting = deletions.unjournaled(tx, limit)
    written = 0
    for deletion in waiting:
        if not journal(resources, deletion.id):
            break  # a store that does not answer is asked again next time, not a hundred times now
        written += 1
    return written


# --- Letting go ---------------------------------------------------------------------------------------------------------


def release_waiting(resources: Resources) -> int:
    """T5b for deletions that were only marked: one bounded step for each, in turn. Returns how many steps it took."""
    with resources.database.transaction() as tx:
        waiting = deletions.unreleased(tx, 20)
    steps = 0
    for deletion_id in waiting:
        if resources.database.run(lambda tx, deletion_id=deletion_id: _release_step(resources, tx, deletion_id)):
            steps += 1
            resources.failpoints.reach("deletion.released")
    return steps


def _release_step(resources: Resources, tx: Tx, deletion_id: UUID) -> int:
    """Remove the rows of some marked artifacts and write down every blob they let go of. Returns how many artifacts."""
    artifact_ids = deletions.next_marked(tx, deletion_id, _STEP_ARTIFACTS, _STEP_IMAGES)
    if artifact_ids:
        compared = releases.lock_comparisons(tx, artifact_ids)
        releases.release(tx, deletion_id, artifact_ids, compared)
        pending = releases.pending_derived(tx, artifact_ids, compared)
        tombstones.condemn_pending(tx, pending, resources.now(), settled=False)
        releases.delete_rows(tx, artifact_ids, compared)
        resources.queue.wake(tx)
    return len(artifact_ids)
