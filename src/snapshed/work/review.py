"""Deciding about a snapshot: the whole of it, one difference, or a group that changes alike; and taking it back.

The decision about the whole is what a gate reads. It follows from the decisions about the images as soon as those say
enough; whoever decides about the whole has the newer word about every image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import comparisons, reviews, snapshots, webhooks
from snapshed.db.pool import Tx
from snapshed.db.reviews import Decision, Door, ImageDecision
from snapshed.db.snapshots import Snapshot
from snapshed.domain import verdict
from snapshed.domain.report import Result
from snapshed.domain.verdict import Decided
from snapshed.errors import Conflict, Invalid, NotFound
from snapshed.resources import Resources


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a decision is about: one difference by name, or all that carry a fingerprint."""

    name: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is decided about one difference: `own` is a decision about it, `whole` one about the whole snapshot."""

    own: ImageDecision | None
    whole: Decision | None

    @property
    def decision(self) -> Decided | None:
        return self.own.decision if self.own else self.whole.decision if self.whole else None


# --- The whole -----------------------------------------------------------------------------------------------------


def decide(
    resources: Resources, project_ids: list[int], number: int, decision: Decided, actor: str, door: Door
) -> bool:
    """Approve or reject a snapshot as it stands; False if this actor's newest decision is already that one. Raises
    NotFound."""

    def write(tx: Tx) -> bool:
        snapshot = _locked(tx, project_ids, number)
        latest = reviews.decisions(tx, snapshot.artifact_id)
        if latest and latest[0].decision == decision and latest[0].actor == actor and not latest[0].by_images:
            return False
        now = resources.now()
        reviews.decide(tx, snapshot.artifact_id, decision, actor, door, now)
        _announce(tx, snapshot, decision, actor, now)
        return True

    return resources.database.run(write)


def undo(resources: Resources, project_ids: list[int], number: int, actor: str, door: Door) -> None:
    """Take the newest decision about the whole back; what was decided before stands again. Raises NotFound and
    Conflict."""

    def write(tx: Tx) -> None:
        snapshot = _locked(tx, project_ids, number)
        before = reviews.decisions(tx, snapshot.artifact_id)
        whole = _whole(before)
        if whole is None:
            raise Conflict("Nobody has decided about the whole of this snapshot; there is nothing to undo.")
        now = resources.now()
        reviews.undo(tx, [whole.id], actor, now)
        _follow(tx, snapshot, before, actor, door, now)

    resources.database.run(write)


# --- Images --------------------------------------------------------------------------------------------------------


def decide_images(
    resources: Resources,
    project_ids: list[int],
    number: int,
    chosen: Chosen,
    decision: Decided,
    actor: str,
    door: Door,
) -> UUID:
    """Decide about one difference or a group of them, in one transaction; returns what undoes exactly this.

    Raises NotFound for a name or fingerprint that is no difference of this snapshot, and Conflict while there is no
    comparison to decide about."""

    def write(tx: Tx) -> UUID:
        snapshot = _locked(tx, project_ids, number)
        wanted = _chosen(_differences(tx, snapshot), chosen)
        before = reviews.decisions(tx, snapshot.artifact_id)
        whole = _whole(before)
        batch, now = resources.new_id(), resources.now()
        since = whole.id if whole else None
        reviews.decide_images(tx, snapshot.artifact_id, batch, wanted, decision, actor, door, since, now)
        _follow(tx, snapshot, before, actor, door, now)
        return batch

    return resources.database.run(write)


def undo_images(
    resources: Resources, project_ids: list[int], number: int, undone: Chosen | UUID, actor: str, door: Door
) -> None:
    """Take back what was decided together, or the newest decision about one difference or a group. Raises NotFound, and
    Conflict if nothing was decided."""

    def write(tx: Tx) -> None:
        snapshot = _locked(tx, project_ids, number)
        now = resources.now()
        before = reviews.decisions(tx, snapshot.artifact_id)
        if isinstance(undone, UUID):
            count = reviews.undo_batch(tx, snapshot.artifact_id, undone, actor, now)
        else:
            names = [result.name for result in _chosen(_differences(tx, snapshot), undone)]
            count = reviews.undo_images(tx, snapshot.artifact_id, names, actor, now)
        if not count:
            raise Conflict("Nothing was decided about this image by itself; there is nothing to undo.")
        _follow(tx, snapshot, before, actor, door, now)

    resources.database.run(write)


def standing(
    results: Sequence[Result], decisions: Sequence[Decision], image_decisions: Sequence[ImageDecision]
) -> dict[str, Standing]:
    """What stands about every difference that can be decided about. A decision about an image counts as long as nobody
    decided about the whole since, and as long as the comparison shows what it was about."""
    whole = _whole(decisions)
    since = whole.id if whole else None
    own = {one.name: one for one in image_decisions if one.since == since}
    found: dict[str, Standing] = {}
    for result in results:
        if result.category in verdict.DECIDABLE:
            about = own.get(result.name)
            found[result.name] = Standing(about if about and _is_about(about, result) else None, whole)
    return found


def _is_about(decision: ImageDecision, result: Result) -> bool:
    return (decision.category, decision.head_digest, decision.base_digest) == (
        result.category,
        result.head_digest,
        result.base_digest,
    )


def _whole(decisions: Sequence[Decision]) -> Decision | None:
    return next((one for one in decisions if not one.by_images), None)


def _locked(tx: Tx, project_ids: list[int], number: int) -> Snapshot:
    snapshot = snapshots.find(tx, number) if number < 2**63 else None
    if snapshot is None or snapshot.project_id not in project_ids:
        raise NotFound("Snapshot not found")
    if not snapshots.lock_unmarked(tx, [snapshot.artifact_id]):
        raise NotFound("Snapshot not found")
    reviews.lock(tx, snapshot.artifact_id)
    return snapshot


def _differences(tx: Tx, snapshot: Snapshot) -> list[Result]:
    comparison = comparisons.newest(tx, snapshot.artifact_id)
    if comparison is None or comparison.state != "done":
        raise Conflict("There is no finished comparison to decide about; wait for it, or decide about the whole.")
    return [result for result in comparisons.results(tx, comparison.id) if result.category in verdict.DECIDABLE]


def _chosen(results: Sequence[Result], chosen: Chosen) -> list[Result]:
    if (chosen.name is None) == (chosen.fingerprint is None):
        raise Invalid("Say either name or fingerprint: what the decision is about.")
    found = [
        result
        for result in results
        if (result.name == chosen.name if chosen.name is not None else result.fingerprint == chosen.fingerprint)
        and (chosen.name is not None or result.category == "changed")
    ]
    if not found:
        raise NotFound("There is no such difference in this snapshot")
    return found


def _follow(tx: Tx, snapshot: Snapshot, before: Sequence[Decision], actor: str, door: Door, now: datetime) -> None:
    """Bring the decision about the whole in line with those about the images, and announce what changed since `before`.
    The caller holds the snapshot's lock."""
    decisions = reviews.decisions(tx, snapshot.artifact_id)
    whole = _whole(decisions)
    followed = [one for one in decisions if one.by_images and (whole is None or one.id > whole.id)]
    stated: Decided | None = whole.decision if whole else None
    said = _said(tx, snapshot, decisions) or stated
    if not followed or followed[0].decision != said or said == stated:
        reviews.undo(tx, [one.id for one in followed], actor, now)
        if said is not None and said != stated:
            reviews.decide(tx, snapshot.artifact_id, said, actor, door, now, by_images=True)
    if said != (before[0].decision if before else None):
        _announce(tx, snapshot, said or "undone", actor, now)


def _said(tx: Tx, snapshot: Snapshot, decisions: Sequence[Decision]) -> Decided | None:
    """What the decisions about images say about the whole, as its newest comparison stands."""
    comparison = comparisons.newest(tx, snapshot.artifact_id)
    if comparison is None or comparison.state != "done":
        return None
    results = comparisons.results(tx, comparison.id)
    stands = standing(results, decisions, reviews.image_decisions(tx, snapshot.artifact_id))
    decided: dict[str, Decided] = {name: one.decision for name, one in stands.items() if one.decision}
    categories: dict[str, str] = {result.name: result.category for result in results if result.name in stands}
    return verdict.of_images(categories, decided)


def _announce(tx: Tx, snapshot: Snapshot, decision: str, actor: str, now: datetime) -> None:
    facts = {"snapshot": str(snapshot.number), "decision": decision, "actor": actor}
    webhooks.announce(tx, [snapshot.project_id], "review.decided", facts, now)
