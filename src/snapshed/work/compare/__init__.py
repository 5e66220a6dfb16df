"""Comparing a head with its base: claimed, planned, decoded in child processes, stored, committed.

Equal digests are never decoded, and no pair of digests twice. A mask made from a snapshot that was deleted meanwhile
cannot land: it is announced under its comparison's row, which a deletion of either side takes away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from snapshed.db import access, ancestry, blobs, comparisons, outbox, reviews, snapshots, tombstones, webhooks
from snapshed.db.comparisons import Comparison
from snapshed.db.outbox import Due
from snapshed.db.pool import Tx
from snapshed.db.snapshots import Image, Snapshot
from snapshed.domain import categorise, ids, report
from snapshed.domain.categorise import Entry
from snapshed.domain.report import Result, Side
from snapshed.domain.verdict import AUTOMATIC, BASE_GRACE
from snapshed.engine import Engine
from snapshed.errors import OwnerGone, SnapshedError, Unavailable
from snapshed.ledger import Draft, ForComparison, give_up, sha256, store
from snapshed.logs import logger
from snapshed.resources import Resources
from snapshed.work.compare import ancestors
from snapshed.work.compare.decoding import Judging, Sides
from snapshed.work.compare.scratch import sweep_scratch

__all__ = ["CLAIM", "Stopping", "compare", "sweep_scratch", "unclaimed"]

CLAIM = timedelta(seconds=30)
"""A worker that does not extend its claim within this time is taken for dead; a living one extends it thrice."""

_ATTEMPTS = 5
"""After this many workers have died or failed over one comparison, it is failed instead of taken again."""

_ANCESTOR_WAIT = timedelta(seconds=60)
"""How long a comparison rests while a snapshot that its partial base leans on may still arrive."""

_log = logger("compare")


class Stopping(Exception):
    """The worker is asked to stop; the comparison has been given back."""


class _MasksGone(Exception):
    """Masks that were to be shared are on their way out; nothing was committed."""

    def __init__(self, gone: Collection[UUID]) -> None:
        super().__init__("masks to be shared are gone")
        self.gone = gone


def compare(resources: Resources, engine: Engine, comparison_id: UUID, stopping: Callable[[], bool]) -> None:
    """Do one comparison, if it is still there and nobody else does it. Repeating it does nothing.

    Raises Stopping when asked to stop and Unavailable when a part does not answer; either way it is given back.
    """
    now = resources.now()
    claim = resources.new_id()
    found = resources.database.run(lambda tx: _claim(tx, comparison_id, claim, now))
    if found is None:
        return
    comparison, sides = found
    owner = ForComparison(
        comparison.id, claim, comparison.head_id, comparison.base_id, sides.head.org_id, sides.head.project_id
    )
    try:
        _run(resources, engine, owner, sides, stopping, now)
    except OwnerGone:
        _log.info("comparison cancelled", comparison=str(comparison_id), snapshot=sides.head.number)
    except (Stopping, Unavailable):
        _give_back(resources, owner, blameless=True)
        raise
    except Exception:  # noqa: BLE001  a bug in one comparison must not stop the worker's others
        _give_back(resources, owner, blameless=stopping())
        if stopping():
            raise Stopping from None  # the engine was closed under us
        _log.exception("comparison broke", comparison=str(comparison_id), snapshot=sides.head.number)


def _claim(tx: Tx, comparison_id: UUID, claim: UUID, now: datetime) -> tuple[Comparison, Sides] | None:
    comparison = comparisons.claim(tx, comparison_id, claim, now, now + CLAIM)
    if comparison is None:
        return None
    # What an earlier run announced and never committed is nobody's any more.
    tombstones.condemn_pending(tx, tombstones.pending_of_comparison(tx, comparison_id), now, settled=False)
    if comparisons.attempts(tx, comparison_id) > _ATTEMPTS:
        error = f"The comparison did not succeed in {_ATTEMPTS} attempts; upload the head or the base again."
        _fail(tx, comparison, claim, error, now)
        return None
    head = snapshots.find_by_artifact(tx, comparison.head_id)
    base = snapshots.find_by_artifact(tx, comparison.base_id)
    if head is None or base is None:
        return None
    try:
        whole = ancestors.whole(tx, base)
    except ancestors.ChainIncomplete:
        if now - comparison.created_at <= BASE_GRACE:
            comparisons.postpone(tx, comparison_id, claim, now + _ANCESTOR_WAIT)
        else:
            error = "Base snapshot chain incomplete (missing ancestor build)."
            _fail(tx, comparison, claim, error, now)
        return None
    except ancestors.ChainEndless:
        error = "No complete base snapshot exists in the ancestry chain."
        _fail(tx, comparison, claim, error, now)
        return None
    return comparison, Sides(
        head=head,
        base=base,
        head_images={image.name: image for image in snapshots.images(tx, head.artifact_id)},
        base_images=whole.images,
        ancestors=whole.ancestors,
        inherited=whole.inherited,
    )


def _give_back(resources: Resources, owner: ForComparison, *, blameless: bool) -> None:
    with suppress(SnapshedError):
        resources.database.run(
            lambda tx: comparisons.give_back(tx, owner.comparison_id, owner.claim, blameless=blameless)
        )


def _run(
    resources: Resources,
    engine: Engine,
    owner: ForComparison,
    sides: Sides,
    stopping: Callable[[], bool],
    started: datetime,
) -> None:
    plan = categorise.plan(
        {name: _entry(image) for name, image in sides.head_images.items()},
        {name: _entry(image) for name, image in sides.base_images.items()},
        selective=sides.head.selective,
        all_names=sides.head.all_names,
        manifest_threshold=sides.head.diff_threshold,
    )
    outcomes = [report.undecoded(outcome) for outcome in plan.outcomes]
    with _Alive(resources, owner, stopping) as alive:
        judging = Judging(resources, engine, owner, sides, plan.pairs, alive.check)
        judging.remember()
        while True:
            judging.decode()
            results = sorted([*outcomes, *judging.results()], key=lambda result: result.name)
            text = report.document(_side(sides.head), _side(sides.base), engine.ALGORITHM, results)
            (stored,) = store(resources, owner, [Draft("comparison", sha256(text), text)], stored="comparison.stored")
            try:
                resources.database.run(
                    lambda tx, results=results, stored=stored: _commit(
                        resources, tx, owner, sides, results, judging.shared, stored.id, engine, started
                    )
                )
            except _MasksGone as error:
                give_up(resources, [stored.id], settled=True)
                judging.forget(error.gone)
            else:
                break
    resources.failpoints.reach("comparison.committed")


class _Alive:
    """Keeps the claim alive from a thread of its own, since one pair may take longer than a claim lasts, and knows
    whether the work still makes sense."""

    def __init__(self, resources: Resources, owner: ForComparison, stopping: Callable[[], bool]) -> None:
        self._resources = resources
        self._owner = owner
        self._stopping = stopping
        self._lost = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._extend, name="claim", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raise Stopping when asked to stop, and OwnerGone when the comparison is gone or somebody else's."""
        if self._stopping():
            raise Stopping
        if self._lost.is_set():
            raise OwnerGone("The comparison is deleted, or another worker has taken over.")

    def _extend(self) -> None:
        owner = self._owner
        while not self._done.wait(CLAIM.total_seconds() / 3):
            until = self._resources.now() + CLAIM
            try:
                kept = self._resources.database.run(
                    lambda tx, until=until: comparisons.extend_claim(tx, owner.comparison_id, owner.claim, until)
                )
            except Unavailable:
                continue  # the commit will tell
            if not kept:
                self._lost.set()
                return


def _side(snapshot: Snapshot) -> Side:
    return Side(snapshot.artifact_id, snapshot.number)


def _entry(image: Image) -> Entry:
    return Entry(image.name, image.digest, image.width, image.height, image.diff_threshold)


def _commit(
    resources: Resources,
    tx: Tx,
    owner: ForComparison,
    sides: Sides,
    results: Sequence[Result],
    shared: Collection[UUID],
    report_id: UUID,
    engine: Engine,
    started: datetime,
) -> None:
    """All of it or nothing: the masks and the report turn live, and the results that name them appear. Masks that are
    `shared` with other comparisons are looked at again under their locks; raises _MasksGone if one is on its way out."""
    if access.lock_project_shared(tx, owner.project_id) != "active":
        raise OwnerGone("The project is being deleted.")
    seen = [owner.head_id, owner.base_id, *(one.artifact_id for one in sides.ancestors)]
    if not snapshots.lock_unmarked(tx, seen) or not comparisons.lock_claimed(tx, owner.comparison_id, owner.claim):
        raise OwnerGone("The snapshot is deleted, or another worker has taken over.")
    if gone := set(shared) - blobs.lock_named(tx, sorted(shared)):
        raise _MasksGone(gone)
    wanted = {report_id} | {result.mask_id for result in results if result.mask_id} - set(shared)
    if len(blobs.make_live(tx, sorted(wanted))) != len(wanted):
        raise OwnerGone("What was stored for this comparison has been condemned.")
    kept = [result for result in results if report.is_kept(result)]
    comparisons.add_results(tx, owner.comparison_id, kept)
    now = resources.now()
    counts = report.counts(results)
    comparisons.finish(
        tx, owner.comparison_id, report_id, counts, engine.ALGORITHM, [one.number for one in sides.ancestors], now
    )
    facts = {
        **counts,
        "changed_pixels": sum(result.changed_pixels or 0 for result in results),
        "seconds": (now - started).total_seconds(),
        "algorithm": engine.ALGORITHM,
    }
    outbox.announce(tx, owner.head_id, Due(resources.new_id(), ids.trace_id(owner.head_id), "comparison", now, facts))
    _approve_as_before(tx, sides.head, results, now)
    _announce(tx, sides.head, sides.base, "done", counts, now)
    resources.queue.wake(tx)


def _fail(tx: Tx, comparison: Comparison, claim: UUID, error: str, now: datetime) -> None:
    comparisons.fail(tx, comparison.id, claim, error, now)
    if head := snapshots.find_by_artifact(tx, comparison.head_id):
        _announce(tx, head, snapshots.find_by_artifact(tx, comparison.base_id), "failed", {}, now)


def _announce(
    tx: Tx, head: Snapshot, base: Snapshot | None, state: str, counts: Mapping[str, int], now: datetime
) -> None:
    about = {"snapshot": str(head.number), "base": str(base.number) if base else None}
    facts = {**about, "state": state, "counts": dict(counts)}
    webhooks.announce(tx, [head.project_id], "comparison.finished", facts, now)


def _approve_as_before(tx: Tx, head: Snapshot, results: Sequence[Result], now: datetime) -> None:
    """Approve a head whose differences a person has approved already, all of them and no other, in the newest approved
    snapshot of the same pull request. Whoever decided about the head itself knew better, even
    if it was taken back."""
    found = report.changes(results)
    if head.pr_number is None or head.head_repo_name is None or found is None:
        return
    sibling = ancestry.approved_sibling(
        tx, head.artifact_id, head.project_id, head.app_id, head.head_repo_name, head.pr_number
    )
    if sibling is None or reviews.was_decided(tx, head.artifact_id):
        return
    if report.changes(comparisons.results(tx, sibling.comparison_id)) == found:
        reviews.decide(tx, head.artifact_id, "approved", f"{AUTOMATIC}{sibling.number}", "rule", now)


def unclaimed(resources: Resources, limit: int) -> list[UUID]:
    """Comparisons that wait for a worker, or were left by one that died."""
    with resources.database.transaction() as tx:
        return comparisons.unclaimed(tx, resources.now(), limit)
