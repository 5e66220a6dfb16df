"""Holds: a held snapshot cannot be deleted by anyone or any rule, until the hold ends or is released.

A hold is written into the snapshot's manifest as well, as a new object under a new key, so that it survives the loss of
the database. It stands from the transaction that names that manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from snapshed.db import blobs, holds
from snapshed.db.holds import Held, Hold
from snapshed.db.pool import Tx
from snapshed.domain import manifest
from snapshed.errors import Busy, Conflict, Invalid, NotFound, OwnerGone, SnapshedError, StoreUnavailable
from snapshed.ledger import Draft, ForArtifact, give_up, sha256, store
from snapshed.logs import logger
from snapshed.resources import Resources

MOST_REASON = 1000

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_ATTEMPTS = 5
_log = logger("holds")


def place(
    resources: Resources,
    project_ids: Sequence[int],
    number: int,
    reason: str,
    placed_by: str,
    ends_at: datetime | None,
) -> Hold:
    """Hold a snapshot or build, until `ends_at` if that is given. Holds add up; each is released by itself.

    Raises Invalid for a reason or end that cannot be, NotFound when there is no such snapshot, and Unavailable.
    """
    if not 0 < len(reason.strip()) <= MOST_REASON or _UNSTORABLE.search(reason):
        raise Invalid(f"The field reason must be text of 1 to {MOST_REASON} characters that says why it is held.")
    now = resources.now()
    if ends_at is not None and ends_at <= now:
        raise Invalid("The field ends_at lies in the past; a hold must end in the future, or not at all.")
    placed: list[Hold] = []

    def add(held: Held, standing: list[Hold]) -> list[Hold]:
        hold = Hold(resources.new_id(), held.artifact_id, number, "", "", reason.strip(), placed_by, now, ends_at)
        placed[:] = [hold]
        return [*standing, hold]

    _rewrite(resources, project_ids, number, add)
    with resources.database.transaction() as tx:
        written = [hold for hold in holds.standing(tx, [placed[0].artifact_id], now) if hold.id == placed[0].id]
    _log.info("hold placed", snapshot=number, hold=str(placed[0].id))
    return written[0] if written else placed[0]


def release(resources: Resources, project_ids: Sequence[int], number: int, hold_id: UUID | None) -> int:
    """Release one hold of a snapshot, or with None all of them. Returns how many. Raises NotFound and Unavailable."""
    released: list[Hold] = []

    def drop(held: Held, standing: list[Hold]) -> list[Hold]:
        released[:] = [hold for hold in standing if hold_id in (None, hold.id)]
        if not released:
            raise NotFound("Hold not found")
        return [hold for hold in standing if hold not in released]

    _rewrite(resources, project_ids, number, drop)
    _log.info("holds released", snapshot=number, holds=[str(hold.id) for hold in released])
    return len(released)


def find(resources: Resources, project_ids: Sequence[int], hold_id: UUID) -> Hold:
    """The hold of that id, if it stands. Raises NotFound."""
    for hold in list_holds(resources, project_ids):
        if hold.id == hold_id:
            return hold
    raise NotFound("Hold not found")


def list_holds(resources: Resources, project_ids: Sequence[int]) -> list[Hold]:
    """Every hold that stands in these projects."""
    with resources.database.transaction() as tx:
        return holds.listed(tx, list(project_ids), resources.now())


# --- The manifest ----------------------------------------------------------------------------------------------------


def _rewrite(
    resources: Resources,
    project_ids: Sequence[int],
    number: int,
    change: Callable[[Held, list[Hold]], list[Hold]],
) -> None:
    """Announce and store a manifest with the holds that `change` makes of those that stand, then name it and write the
    holds in one transaction. Begins again when the artifact's manifest or holds were changed meanwhile."""
    for _ in range(_ATTEMPTS):
        with resources.database.transaction() as tx:
            held = holds.holdable(tx, list(project_ids), number) if number < 2**63 else None
            if held is None:
                raise NotFound("Snapshot not found")
            before = holds.standing(tx, [held.artifact_id], resources.now())
        if _replace(resources, held, before, change(held, before)):
            resources.failpoints.reach("hold.committed")
            return
    raise Busy(f"The holds of snapshot {number} are being changed by others; try again in a moment.")


def _replace(resources: Resources, held: Held, before: list[Hold], after: list[Hold]) -> bool:
    """Announce → store → confirm one new manifest; False if others have changed the artifact's holds meanwhile."""
    text = _manifest_with(resources, held, after)
    owner = ForArtifact(held.artifact_id, held.org_id, held.project_id)
    try:
        (stored,) = store(resources, owner, [Draft("manifest", sha256(text), text)], stored="hold.stored")
    except OwnerGone:
        raise NotFound("Snapshot not found") from None
    try:
        is_confirmed = resources.database.run(lambda tx: _confirm(resources, tx, held, stored.id, before, after))
    except SnapshedError:
        give_up(resources, [stored.id], settled=True)
        raise
    if not is_confirmed:
        give_up(resources, [stored.id], settled=True)
    return is_confirmed


def _confirm(
    resources: Resources, tx: Tx, held: Held, manifest_id: UUID, before: list[Hold], after: list[Hold]
) -> bool:
    """Name the new manifest and write the holds, under the artifact's lock; False if they are no longer as read."""
    if not holds.lock_artifact(tx, held.artifact_id):
        raise NotFound("Snapshot not found")
    now_named = holds.holdable(tx, [held.project_id], held.number)
    now_standing = holds.standing(tx, [held.artifact_id], resources.now())
    if now_named is None or now_named.manifest_id != held.manifest_id or now_standing != before:
        return False
    if not blobs.make_live(tx, [manifest_id]):
        raise Conflict("The hold took too long to be stored and was given up; try again.")
    holds.name_manifest(tx, held.artifact_id, manifest_id)
    holds.remove(tx, [hold.id for hold in before if hold not in after])
    for hold in after:
        if hold not in before:
            holds.add(tx, hold)
    resources.queue.wake(tx)
    return True


def _manifest_with(resources: Resources, held: Held, standing: Sequence[Hold]) -> bytes:
    data = resources.store.get(held.manifest_key)
    if data is None:
        raise StoreUnavailable(
            f"The manifest of snapshot {held.number} is not in the store; run `snapshed reconcile` to see what is."
        )
    return manifest.with_holds(data, standing)
