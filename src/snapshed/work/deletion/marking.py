"""T5a: an order is carried out. What it means is hidden everywhere at once, however large it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from snapshed.db import access, deletions, holds, releases, tombstones, withdrawals
from snapshed.db.deletions import Deletion, Target
from snapshed.db.pool import Tx
from snapshed.domain import ids
from snapshed.errors import Conflict, Held, NotFound, StoreUnavailable
from snapshed.resources import Resources, raise_mark
from snapshed.work.deletion.journaling import journal
from snapshed.work.deletion.orders import Meant, Order, check_plan, count_rows, meant_by
from snapshed.work.deletion.releasing import fits_one_step, release_step


@dataclass(frozen=True, slots=True)
class Marked:
    """A deletion that holds from now on, whether it was asked for just now, and whether its rows are gone already."""

    id: UUID
    is_new: bool
    is_released: bool


def request(resources: Resources, order: Order) -> UUID:
    """Mark everything the order means, journal it, and return the deletion's id. What it means is hidden everywhere
    from the moment this returns.

    The same `request_id` returns the same deletion. Raises NotFound, Invalid, Held, Conflict or PlanChanged, with
    nothing deleted.
    """
    marked = resources.database.run(lambda tx: mark(resources, tx, order))
    finish(resources, marked)
    return marked.id


def finish(resources: Resources, marked: Marked) -> None:
    """What follows the commit of a mark: the journal, unless this was asked for before."""
    if marked.is_new:
        resources.failpoints.reach("deletion.marked")
        if marked.is_released:
            resources.failpoints.reach("deletion.released")
        if journal(resources, marked.id):
            with suppress(StoreUnavailable):  # should it fail, a worker does it
                raise_mark(resources)


def mark(resources: Resources, tx: Tx, order: Order) -> Marked:
    """T5a, and T5b in the same transaction when the target is small or an image."""
    if not order.snapshots:
        # So that no snapshot commits unseen beside the evaluation of the target.
        access.lock_project(tx, order.projects[0].id)
    if order.request_id is not None and (before := _asked_before(tx, order, order.request_id)):
        return Marked(before, is_new=False, is_released=False)
    now = resources.now()
    meant = _locked(tx, order)
    artifact_ids = meant.artifact_ids
    if held := holds.barring(tx, artifact_ids, now):
        raise Held(held[0].number, held[0].reason)
    if order.plan is not None:
        check_plan(tx, order.plan, meant)
    deletion = Deletion(
        id=resources.new_id(),
        org_id=order.org_id,
        project_id=_only_project(meant.artifacts, order),
        target=order.target,
        requested_by=order.requested_by,
        reason=order.reason,
        urgent=order.urgent,
        request_id=order.request_id,
        state="removing",
        snapshots=meant.numbers,
        artifacts=artifact_ids,
        rows=count_rows(tx, meant),
        requested_at=now,
        journaled_at=None,
        completed_at=None,
        verified_at=None,
        receipt=None,
    )
    deletions.add(tx, deletion)
    is_released = _hide(resources, tx, deletion, meant)
    resources.queue.wake(tx)
    return Marked(deletion.id, is_new=True, is_released=is_released)


def _asked_before(tx: Tx, order: Order, request_id: str) -> UUID | None:
    """The deletion this request id was given to. The id is what counts, whatever else is asked with it; but nobody is
    shown somebody else's receipt."""
    deletions.lock_requests(tx, order.org_id)
    before = deletions.find_by_request(tx, order.org_id, request_id)
    if before is None:
        return None
    within = order.is_for_all_projects or before.project_id in {project.id for project in order.projects}
    if before.requested_by != order.requested_by or not within:
        raise Conflict("This request_id belongs to another deletion; nothing was deleted. Choose a new one.")
    return before.id


def _locked(tx: Tx, order: Order) -> Meant:
    """What is meant, its artifacts locked in id order. What another deletion takes meanwhile stays with that one; an
    order that names it by number is refused whole."""
    meant = meant_by(tx, order)
    free = set(deletions.lock_unmarked(tx, meant.artifact_ids))
    taken = [target.number for target in meant.artifacts if target.artifact_id not in free]
    if order.snapshots and taken:
        raise NotFound(f"Snapshot not found: {', '.join(str(number) for number in sorted(taken)[:20])}")
    kept = [target for target in meant.artifacts if target.artifact_id in free]
    if meant.image is not None and not kept:
        raise NotFound("Image not found")
    return Meant(kept, meant.image)


def _only_project(targets: Sequence[Target], order: Order) -> int | None:
    if not order.snapshots:
        return order.projects[0].id
    found = {target.project_id for target in targets}
    return found.pop() if len(found) == 1 else None


def _hide(resources: Resources, tx: Tx, deletion: Deletion, meant: Meant) -> bool:
    """Hide what is meant. True if it is also let go of already."""
    if meant.image is not None:
        withdraw(resources, tx, deletion, meant.image)
        return True
    now = deletion.requested_at
    deletions.mark(tx, deletion.id, deletion.artifacts)
    deletions.doom_traces(tx, deletion.id, {item: ids.trace_id(item) for item in deletion.artifacts}, now)
    is_small = fits_one_step(len(deletion.artifacts), deletion.rows["snapshot_images"])
    if is_small:
        release_step(resources, tx, deletion.id)
    return is_small


def withdraw(resources: Resources, tx: Tx, deletion: Deletion, image_id: UUID) -> None:
    """Let go of one image in every artifact of the deletion: a statement each for the image's rows and its masks, however many there are.

    Unfinished comparisons begin again, since a worker may have the image in memory; what they had announced is
    condemned.
    """
    project_id, digest = deletion.project_id, deletion.withdrawn_digest
    assert project_id is not None  # noqa: S101  a withdrawal names its project
    assert digest is not None  # noqa: S101  and its image
    reached = withdrawals.lock_comparisons(tx, project_id, image_id, digest)
    unfinished = [comparison.id for comparison in reached if not comparison.is_finished]
    withdrawals.release(tx, deletion.id, project_id, image_id, digest, unfinished)
    pending = releases.pending_derived(tx, [], unfinished)
    tombstones.condemn_pending(tx, pending, deletion.requested_at, settled=False)
    withdrawals.withdraw(tx, deletion.id, project_id, image_id, digest, deletion.artifacts)
    withdrawals.restart(tx, unfinished)
    for comparison_id in unfinished:
        resources.queue.defer(tx, "compare", {"comparison_id": str(comparison_id)})
