"""A database that is older than the store catches up: what it knows and was deleted since is deleted again, what was
changed since is changed, and what is gone is named. What it never knew comes back as in a rebuild."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from snapshed.db import blobs, deletions, documents, holds, inventory, lost, recoveries, sessions, tombstones
from snapshed.db.blobs import Kind, NewBlob
from snapshed.db.deletions import Deletion
from snapshed.db.holds import Hold
from snapshed.db.inventory import Known
from snapshed.db.pool import Tx
from snapshed.domain import manifest
from snapshed.domain.recovery import ToldManifest
from snapshed.ledger import end_sessions
from snapshed.resources import Resources
from snapshed.work.recovery.survey import Survey

Withdraw = Callable[[Resources, Tx, Deletion, UUID], None]
"""Lets go of one image in every artifact of a deletion."""

_PAGE = 1000
_FIRST = UUID(int=0)
_ANY_END = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is gone although something live names it, and the numbers of what suffers."""

    key: str
    kind: Kind
    snapshots: tuple[int, ...]


def delete_again(resources: Resources, tx: Tx, deletion: Deletion, withdraw: Withdraw) -> bool:
    """Mark what a deletion of the journal names and this database still shows, or withdraw its image from there. The
    worker lets go of it like of anything else. True if there was any. The deletion has its row."""
    digest = deletion.withdrawn_digest
    if digest is None:
        shown = deletions.lock_unmarked(tx, sorted(deletion.artifacts))
        deletions.mark(tx, deletion.id, shown)
        return bool(shown)
    images = recoveries.images_of(tx, sorted(deletion.artifacts), digest)
    for image_id in images:
        withdraw(resources, tx, deletion, image_id)
    return bool(images)


def take_newer_manifests(resources: Resources, told: Survey, known: dict[UUID, UUID]) -> None:
    """Where the store has a newer manifest of a snapshot or build than this database, a hold was placed or released
    since: the newest counts. `known` has the manifest of each artifact that is shown."""
    newest: dict[UUID, ToldManifest] = {}
    for one in told.manifests:
        if one.artifact_id in known and (
            one.artifact_id not in newest or newest[one.artifact_id].stored.id < one.stored.id
        ):
            newest[one.artifact_id] = one
    for artifact_id, one in newest.items():
        if one.stored.id > known[artifact_id] or known[artifact_id] not in told.shelf.by_id:
            _take(resources, artifact_id, one)


def _take(resources: Resources, artifact_id: UUID, one: ToldManifest) -> None:
    text = resources.store.get(one.stored.key)
    if text is None:
        return
    said = manifest.read_stored(text)
    stored, now = one.stored, resources.now()

    def write(tx: Tx) -> None:
        if not holds.lock_artifact(tx, artifact_id):
            return
        mine = documents.written_anew(tx, artifact_id, now)
        if mine is None or not manifest.differ_in_holds_at_most(text, mine):
            return  # of another attempt of the same create, which was never confirmed
        row = NewBlob(stored.id, "manifest", stored.place.digest, stored.size, stored.key)
        recoveries.make_live(tx, stored.project_id, [row], [artifact_id], now)
        holds.name_manifest(tx, artifact_id, stored.id)
        holds.remove(tx, [hold.id for hold in holds.standing(tx, [artifact_id], now)])
        for hold in said.holds:
            holds.add(
                tx,
                Hold(hold.id, artifact_id, 0, "", "", hold.reason, hold.placed_by, hold.placed_at, hold.ends_at),
            )

    resources.database.run(write)


def find_damages(resources: Resources, told: Survey) -> list[Damage]:
    """Live objects that the store does not have: where it has the same image under another key, that takes its place, as an
    upload since has healed it; else images and files are marked as lost. Returns what is gone for good."""
    damages: list[Damage] = []
    for row in _absent(resources, told):
        with resources.database.transaction() as tx:
            suffering = lost.suffering(tx, [row.id]).get(row.id, ())
            is_shown = bool(recoveries.shown(tx, [row.id]))
        if not is_shown or _healed(resources, told, row):
            continue
        if row.kind in ("image", "file"):
            resources.database.run(lambda tx, row=row: lost.mark(tx, [row.id], resources.now()))
        damages.append(Damage(row.storage_key, row.kind, suffering))
    return damages


def _absent(resources: Resources, told: Survey) -> Iterator[Known]:
    after = _FIRST
    while True:
        with resources.database.transaction() as tx:
            page = inventory.live_after(tx, after, _PAGE)
        if not page:
            return
        missing = [row for row in page if row.id not in told.shelf.by_id]
        standing = resources.store.held([row.storage_key for row in missing])
        yield from (row for row in missing if row.storage_key not in standing)
        after = page[-1].id


def _healed(resources: Resources, told: Survey, row: Known) -> bool:
    found = told.shelf.image(row.project_id, row.digest) if row.kind == "image" else None
    if found is None or found.id == row.id:
        return False

    def write(tx: Tx) -> None:
        now = resources.now()
        blobs.lock_images(tx, row.project_id)
        lost.mark(tx, [row.id], now)
        if row.id not in {image.id for image in lost.lock_images(tx, row.project_id, [row.digest])}:
            return
        image = NewBlob(found.id, "image", found.place.digest, found.size, found.key)
        recoveries.make_live(tx, row.project_id, [image], [], now)
        lost.replace_images(tx, {row.id: found.id})
        tombstones.condemn(tx, [row.id], now)

    resources.database.run(write)
    return True


def end_every_session(resources: Resources) -> int:
    """End the uploads that were under way when the backup was made: their clients are long gone. Called when everything
    that a manifest names has its row, so that only what nobody committed goes. Returns how many."""

    def end(tx: Tx) -> int:
        ended = sessions.expire(tx, resources.now() + _ANY_END, _PAGE)
        end_sessions(resources, tx, ended)
        return len(ended)

    ended = 0
    while more := resources.database.run(end):
        ended += more
    return ended
