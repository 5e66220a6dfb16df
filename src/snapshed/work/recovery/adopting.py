"""What nothing brought back is removed like anything else: as tombstones, of a deletion with a receipt. Deletions that
the journal opened again answer for those of their project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from snapshed.db import deletions, inventory, recoveries, repairs
from snapshed.db.blobs import Kind, NewBlob
from snapshed.db.deletions import Deletion
from snapshed.db.pool import Tx
from snapshed.domain.recovery import Plan, Stored, ToldManifest
from snapshed.resources import Resources
from snapshed.work.recovery.survey import Survey, Tell

REQUESTED_BY = "rebuild"

_AT_ONCE = 10_000
"""Objects of one deletion: written in one transaction, so that its receipt cannot close before the last is in it."""

_PAGE = 1000


def adopt_unnamed(resources: Resources, told: Survey, plan: Plan, tell: Tell) -> dict[str, tuple[int, int]]:
    """Take every object that no row explains as a tombstone, but what a held snapshot names that is left out: nobody may
    delete that. Returns objects and bytes by kind."""
    spared = _spared(plan)
    by_org: dict[int, list[Stored]] = {}
    for stored in _unexplained(resources, told):
        if stored.id in spared or (stored.project_id, stored.place.digest) in spared:
            continue
        by_org.setdefault(stored.place.org_id, []).append(stored)
    counts: dict[str, tuple[int, int]] = {}
    done = 0
    for org_id, objects in by_org.items():
        for start in range(0, len(objects), _AT_ONCE):
            some = objects[start : start + _AT_ONCE]
            resources.database.run(lambda tx, org_id=org_id, some=some: _adopt(resources, tx, org_id, some))
            resources.failpoints.reach("rebuild.adopted")
            done += len(some)
            tell("objects that nothing names", done)
            for stored in some:
                number, size = counts.get(kind_of(stored), (0, 0))
                counts[kind_of(stored)] = number + 1, size + stored.size
    return counts


def _spared(plan: Plan) -> set[UUID | tuple[int, str]]:
    """Manifests of held snapshots and builds that are left out, and what they name."""
    spared: set[UUID | tuple[int, str]] = set()
    for item in plan.left_out:
        one = item.manifest
        if one.is_held:
            spared.add(one.stored.id)
            spared |= {(one.stored.project_id, digest) for digest in one.digests}
            spared |= {(one.stored.project_id, one.file[0])} if one.file else set()
    return spared


def kind_of(stored: Stored) -> str:
    """What a stored object is told to be; one of an earlier release that is no document was mostly an image."""
    return stored.kind or "image"


def _unexplained(resources: Resources, told: Survey) -> Iterator[Stored]:
    every = sorted(told.shelf.by_id)
    for start in range(0, len(every), _PAGE):
        objects = [told.shelf.by_id[one] for one in every[start : start + _PAGE]]
        with resources.database.transaction() as tx:
            explained = {row.storage_key for row in inventory.known(tx, [one.key for one in objects])}
        yield from (one for one in objects if one.key not in explained)


def _adopt(resources: Resources, tx: Tx, org_id: int, some: Sequence[Stored]) -> None:
    now = resources.now()
    projects = {stored.project_id for stored in some}
    deletion = Deletion(
        id=resources.new_id(),
        org_id=org_id,
        project_id=projects.pop() if len(projects) == 1 else None,
        target={"orphans": len(some)},
        requested_by=REQUESTED_BY,
        reason="Objects that nothing named when the database was rebuilt.",
        urgent=False,
        request_id=None,
        state="removing",
        snapshots=[],
        artifacts=[],
        rows=deletions.count_rows(tx, []),
        requested_at=now,
        journaled_at=None,
        completed_at=None,
        verified_at=None,
        receipt=None,
    )
    deletions.add(tx, deletion)
    blobs = [NewBlob(one.id, _kind(one), one.place.digest, one.size, one.key) for one in some]
    repairs.adopt(tx, deletion.id, [one.project_id for one in some], blobs, now)


def _kind(stored: Stored) -> Kind:
    return kind_of(stored)  # pyright: ignore[reportReturnType]  an id tells no other words than these


def reopen(resources: Resources, told: Survey, plan: Plan) -> list[UUID]:
    """Let deletions of the journal that are open again answer for what stands. Returns them."""
    with resources.database.transaction() as tx:
        open_again = recoveries.reopened(tx)
    owners = {artifact: entry.deletion_id for entry in told.entries.values() for artifact in entry.artifacts}
    named: dict[UUID, list[ToldManifest]] = {}
    for one in plan.journaled:
        named.setdefault(owners[one.artifact_id], []).append(one)
    for deletion_id in open_again:
        resources.database.run(lambda tx, deletion_id=deletion_id: _answer(tx, deletion_id, named.get(deletion_id, [])))
    return open_again


def _answer(tx: Tx, deletion_id: UUID, named: Sequence[ToldManifest]) -> None:
    recoveries.release_standing(tx, deletion_id)
    for one in named:
        recoveries.release_shared(tx, deletion_id, one.stored.project_id, sorted(one.digests))
