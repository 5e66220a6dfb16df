"""Snapshots, builds and comparisons come back, one transaction each: the rows as their manifests and reports tell them,
naming objects that the store has. Doing it again finds what is back already and leaves it alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from snapshed.db import ancestry, blobs, builds, comparisons, holds, outbox, recoveries, repairs, snapshots
from snapshed.db.blobs import Kind, NewBlob
from snapshed.db.holds import Hold
from snapshed.db.outbox import Due
from snapshed.db.pool import Tx
from snapshed.domain import build, ids, manifest, recovery, report
from snapshed.domain.manifest import Told
from snapshed.domain.recovery import Plan, Stored, ToldManifest, ToldReport
from snapshed.domain.report import Result
from snapshed.resources import Resources
from snapshed.work.recovery.survey import Survey, Tell


def bring_artifacts_back(resources: Resources, told: Survey, plan: Plan, tell: Tell) -> None:
    """Every chosen snapshot and build."""
    withdrawn = _by_artifact(told)
    files = _files(told, plan)
    for done, chosen in enumerate(plan.chosen, 1):
        if chosen.file is not None and chosen.artifact_id not in files:
            continue
        back = _Back(chosen, files.get(chosen.artifact_id), withdrawn.get(chosen.artifact_id, {}))
        if _bring_back(resources, told, plan, back):
            resources.failpoints.reach("rebuild.filled")
        tell("snapshots and builds brought back", done)


@dataclass(frozen=True, slots=True)
class _Back:
    """An artifact on its way back: a build's file, and by digest the deletions that withdrew images from a snapshot."""

    chosen: ToldManifest
    file: Stored | None
    withdrawn: Mapping[str, UUID]


def _files(told: Survey, plan: Plan) -> dict[UUID, Stored]:
    """The file of each build: no two have the same object."""
    taken: set[UUID] = set()
    files: dict[UUID, Stored] = {}
    for chosen in plan.chosen:
        if chosen.file is not None:
            file = told.shelf.file(chosen.stored.project_id, *chosen.file, chosen.stored.id, taken)
            if file is not None:
                taken.add(file.id)
                files[chosen.artifact_id] = file
    return files


def _bring_back(resources: Resources, told: Survey, plan: Plan, back: _Back) -> bool:
    artifact_id, kind = back.chosen.artifact_id, back.chosen.kind
    text = resources.store.get(back.chosen.stored.key)
    if text is None:
        return False
    said = manifest.read_stored(text)
    moments = resources.traces.moments([ids.trace_id(artifact_id)])
    made = _traced(moments, artifact_id, kind, said.created_at)

    def write(tx: Tx) -> None:
        number = plan.numbers.get(artifact_id) or snapshots.next_number(tx)
        if back.file is None:
            _snapshot(tx, told, back, said, number, made)
        else:
            _build(tx, back.chosen, said, number, back.file, made)
        _holds(tx, back.chosen, said, number)
        _trace(resources, tx, artifact_id, moments)

    resources.database.run(write)
    return True


def _by_artifact(told: Survey) -> dict[UUID, dict[str, UUID]]:
    found: dict[UUID, dict[str, UUID]] = {}
    for (artifact_id, digest), deletion_id in told.withdrawn.items():
        found.setdefault(artifact_id, {})[digest] = deletion_id
    return found


def _traced(moments: set[tuple[UUID, str, datetime]], artifact_id: UUID, event: str, told_at: datetime) -> datetime:
    """When it happened, by a trace engine of its own if that has outlived the database."""
    trace = ids.trace_id(artifact_id)
    times = [at for trace_id, name, at in moments if (trace_id, name) == (trace, event)]
    return min(times, key=lambda at: abs(at - told_at), default=told_at)


def _row(stored: Stored, kind: Kind) -> NewBlob:
    return NewBlob(stored.id, kind, stored.place.digest, stored.size, stored.key)


def _snapshot(tx: Tx, told: Survey, back: _Back, said: Told, number: int, made: datetime) -> None:
    chosen, gone = back.chosen, back.withdrawn
    project = chosen.stored.project_id
    wanted = manifest.of_snapshot(said)
    digests = [digest for digest in wanted.digests if digest not in gone]
    images = {image.digest: image.id for image in blobs.live_images(tx, project, digests)}
    new = [told.shelf.image(project, digest) for digest in digests if digest not in images]
    rows = [_row(stored, "image") for stored in new if stored is not None]
    recoveries.make_live(tx, project, rows, [], made)
    recoveries.make_live(tx, project, [_row(chosen.stored, "manifest")], [chosen.artifact_id], made)
    images |= {row.digest: row.id for row in rows}
    snapshots.add(tx, chosen.artifact_id, project, wanted.app_id, number, made)
    snapshots.fill(tx, chosen.artifact_id, wanted, chosen.stored.id, said.created_by, images, gone)


def _build(tx: Tx, chosen: ToldManifest, said: Told, number: int, file: Stored, made: datetime) -> None:
    project = chosen.stored.project_id
    rows = [_row(file, "file"), _row(chosen.stored, "manifest")]
    recoveries.make_live(tx, project, rows, [chosen.artifact_id], made)
    wanted = build.of_build(said)
    builds.add(tx, chosen.artifact_id, project, wanted, number, file.id, chosen.stored.id, said.created_by, made)


def _holds(tx: Tx, chosen: ToldManifest, said: Told, number: int) -> None:
    for hold in said.holds:
        holds.add(
            tx,
            Hold(
                hold.id, chosen.artifact_id, number, "", "", hold.reason, hold.placed_by, hold.placed_at, hold.ends_at
            ),
        )


def _trace(resources: Resources, tx: Tx, artifact_id: UUID, moments: set[tuple[UUID, str, datetime]]) -> None:
    """Have the trace rows written again that this artifact should have and its engine has not."""
    trace = ids.trace_id(artifact_id)
    for item in outbox.expected_of(tx, [artifact_id]):
        if (trace, item.event, item.at) not in moments and (facts := repairs.facts_of(tx, item)) is not None:
            outbox.announce(tx, artifact_id, Due(resources.new_id(), trace, item.event, item.at, facts))


# --- Comparisons ----------------------------------------------------------------------------------------------------


def bring_comparisons_back(resources: Resources, told: Survey, tell: Tell) -> int:
    """Every finished comparison of two sides that are here and whose masks are. Of several of a pair the newest. Those
    that cannot come back wait to be made again. Returns how many came back."""
    with resources.database.transaction() as tx:
        here = {one.id: one.project_id for one in recoveries.artifacts(tx) if not one.is_marked}
    withdrawn = _withdrawn_since(told)
    back = 0
    for done, item in enumerate(sorted(told.reports, key=lambda one: one.stored.id, reverse=True), 1):
        if here.get(item.head_id) == here.get(item.base_id) == item.stored.project_id and item.stored.row != "live":
            back += _comparison(resources, told, item, withdrawn.get(item.stored.project_id, {}))
        tell("reports read", done)
    _start_missing(resources, list(here))
    return back


def _withdrawn_since(told: Survey) -> dict[int, dict[str, datetime]]:
    """By project, when each image was last withdrawn."""
    projects = {one.artifact_id: one.stored.project_id for one in told.manifests}
    found: dict[int, dict[str, datetime]] = {}
    for (artifact_id, digest), deletion_id in told.withdrawn.items():
        if (project := projects.get(artifact_id)) is not None:
            at = ids.minted_at(deletion_id)
            times = found.setdefault(project, {})
            times[digest] = max(at, times.get(digest, at))
    return found


def _comparison(resources: Resources, told: Survey, item: ToldReport, withdrawn: Mapping[str, datetime]) -> bool:
    text = resources.store.get(item.stored.key)
    if text is None:
        return False
    said = report.read_stored(text)
    shown = recovery.readable_masks(
        [(one.head_digest, one.base_digest, one.mask_id) for one in said.results], item.stored.id, withdrawn
    )
    masks = [told.shelf.by_id[mask] for mask in sorted(shown) if mask in told.shelf.by_id]
    if len(masks) != len(shown) or any(mask.kind not in (None, "mask") for mask in masks):
        return False
    moments = resources.traces.moments([ids.trace_id(item.head_id)])
    at = _traced(moments, item.head_id, "comparison", ids.minted_at(item.stored.id))

    def write(tx: Tx) -> bool:
        comparison_id = resources.new_id()
        if not recoveries.add_comparison(tx, comparison_id, item.head_id, item.base_id, at):
            return False
        rows = [_row(item.stored, "comparison"), *(_row(mask, "mask") for mask in masks)]
        recoveries.make_live(tx, item.stored.project_id, rows, [item.head_id, item.base_id], at)
        kept = [_without_masks(one, shown) for one in said.results if report.is_kept(one)]
        comparisons.add_results(tx, comparison_id, kept)
        comparisons.finish(tx, comparison_id, item.stored.id, said.summary, said.algorithm, (), at)
        _trace(resources, tx, item.head_id, moments)
        return True

    return resources.database.run(write)


def _without_masks(result: Result, shown: Collection[UUID]) -> Result:
    """A result without the mask of a withdrawn image."""
    return result if result.mask_id is None or result.mask_id in shown else replace(result, mask_id=None)


def _start_missing(resources: Resources, artifact_ids: Sequence[UUID]) -> None:
    """Heads without any comparison whose base is here wait for one, as after their create."""
    with resources.database.transaction() as tx:
        heads = recoveries.heads_without(tx, list(artifact_ids))
    for head_id in heads:
        resources.database.run(lambda tx, head_id=head_id: _start(resources, tx, head_id))


def _start(resources: Resources, tx: Tx, head_id: UUID) -> None:
    head = snapshots.find_by_artifact(tx, head_id)
    choice = None if head is None else ancestry.base_of(tx, head)
    if choice is None or choice.base_id is None:
        return
    comparison_id = comparisons.add(
        tx, resources.new_id(), head_id, choice.base_id, choice.passed_over, resources.now()
    )
    if comparison_id is not None:
        resources.queue.defer(tx, "compare", {"comparison_id": str(comparison_id)})
