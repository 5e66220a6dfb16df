"""Receipts: read as they stand, closed (T9) when nothing a deletion released is left to do, and verified again.

What is said here is what the rows and the store say at that moment; nothing is removed here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from snapshed.db import deletions, installation, releases, sessions, tombstones, webhooks
from snapshed.db.blobs import NewBlob
from snapshed.db.deletions import Deletion
from snapshed.db.pool import Tx
from snapshed.db.releases import ReleasedObject
from snapshed.db.tombstones import Postponed
from snapshed.domain import backoff, keys, receipt
from snapshed.errors import Broken, NotFound, StoreUnavailable
from snapshed.logs import logger
from snapshed.resources import Resources

_SHORTEST = timedelta(seconds=1)
_LONGEST = timedelta(minutes=15)

_STANDS = "The store said that this was removed, and still has it."

_log = logger("receipts")


def close_finished(resources: Resources, limit: int = 200) -> int:
    """T9 for every open deletion that has nothing left to do. Returns how many receipts were closed."""
    with resources.database.transaction() as tx:
        waiting = deletions.open_ones(tx, limit)
        ready = [item for item in waiting if _is_ready(tx, item) and not releases.is_waiting(tx, item.id)]
    closed = 0
    for deletion in ready:
        verified_at = _verify(resources, deletion)
        if verified_at and resources.database.run(
            lambda tx, deletion=deletion, at=verified_at: _close(resources, tx, deletion.id, at)
        ):
            resources.failpoints.reach("receipt.closed")
            _log.info("deletion complete", deletion=str(deletion.id))
            closed += 1
    return closed + _journal_receipts(resources)


def _is_ready(tx: Tx, deletion: Deletion) -> bool:
    """True when only the released objects are left to judge."""
    if deletion.journaled_at is None or deletions.marked_left(tx, deletion.id):
        return False
    return not deletions.trace_tally(tx, deletion.id).waiting


def _verify(resources: Resources, deletion: Deletion) -> datetime | None:
    """Ask the store a second time about everything that is said to be gone. What it still has is condemned again;
    then, and when the store does not answer or is not ours, there is no time to return."""
    with resources.database.transaction() as tx:
        gone = releases.gone_keys(tx, deletion.id)
    try:
        standing = resources.store.held([item.storage_key for item in gone])
    except StoreUnavailable:
        return None
    if standing:
        _log.error("removed objects stand in the store again", deletion=str(deletion.id), objects=len(standing))
        back = [item for item in gone if item.storage_key in standing]
        resources.database.run(lambda tx: _condemn_again(resources, tx, back))
        return None
    # An unmounted disk and a removed bucket have nothing of ours either.
    return resources.now() if resources.store.answers() else None


def _condemn_again(resources: Resources, tx: Tx, back: Sequence[ReleasedObject]) -> None:
    """Objects the store had called removed are removed again, after a wait that grows each time it was not true."""
    now = resources.now()
    times = tombstones.returned(tx, [item.blob_id for item in back])
    for item in back:
        attempts = times.get(item.blob_id, 1)
        dice = random.random()  # noqa: S311  jitter, not a secret
        next_at = now + backoff.wait(attempts, dice, shortest=_SHORTEST, longest=_LONGEST)
        tombstones.condemn_again(
            tx,
            NewBlob(item.blob_id, item.kind, item.digest, item.bytes, item.storage_key),
            keys.project_of(item.storage_key) or 0,
            attempts,
            now,
            Postponed(item.storage_key, next_at, "refused", _STANDS),
        )
    resources.queue.wake(tx)


def _close(resources: Resources, tx: Tx, deletion_id: UUID, verified_at: datetime) -> bool:
    if not deletions.lock_open(tx, deletion_id):
        return False
    deletion = deletions.find(tx, deletion_id)
    key = installation.newest_key(tx, "receipt")
    if key is None:
        raise Broken("The installation has no key to sign receipts with.")
    if deletion is None or not _is_ready(tx, deletion):
        return False
    now = resources.now()
    document = _document(tx, deletion)
    document["state"] = "complete"
    document["completed_at"] = receipt.moment(now)
    document["verified_at"] = receipt.moment(verified_at)
    # One statement has judged every released blob; the receipt says what that statement saw.
    if not receipt.finished(document["objects"]):
        return False
    document["signature"] = receipt.sign(document, key.kid, key.private_pem)
    deletions.complete(tx, deletion_id, document, verified_at, now)
    reached = [deletion.project_id] if deletion.project_id else webhooks.projects_released_by(tx, deletion_id)
    # Which snapshots it took is told only where all of them were that project's.
    numbers = {"snapshots": [str(number) for number in deletion.snapshots]} if len(reached) == 1 else {}
    webhooks.announce(tx, reached, "deletion.completed", {"deletion": str(deletion_id), **numbers}, now)
    return True


def _journal_receipts(resources: Resources) -> int:
    with resources.database.transaction() as tx:
        waiting = deletions.unjournaled_receipts(tx, 100)
    for deletion in waiting:
        try:
            resources.store.note(keys.journal_receipt(deletion.id), json.dumps(deletion.receipt).encode())
        except StoreUnavailable:
            return 0
        resources.database.run(
            lambda tx, deletion=deletion: deletions.receipt_journaled(tx, deletion.id, resources.now())
        )
    return len(waiting)


def find_receipt(resources: Resources, org_id: int, deletion_id: UUID) -> dict[str, Any]:
    """The receipt as it stands now, or the signed one once the deletion is complete. Raises NotFound."""
    with resources.database.transaction() as tx:
        deletion = deletions.find(tx, deletion_id)
        if deletion is None or deletion.org_id != org_id:
            raise NotFound("Deletion not found")
        return deletion.receipt or _document(tx, deletion)


def find_project(resources: Resources, org_id: int, deletion_id: UUID) -> int | None:
    """The one project a deletion is about, None if it is about several. Raises NotFound."""
    with resources.database.transaction() as tx:
        deletion = deletions.find(tx, deletion_id)
    if deletion is None or deletion.org_id != org_id:
        raise NotFound("Deletion not found")
    return deletion.project_id


def list_receipts(
    resources: Resources, org_id: int, project_id: int | None, snapshot: int | None, limit: int
) -> list[dict[str, Any]]:
    """Receipts of an organization, or only of one project, newest first."""
    with resources.database.transaction() as tx:
        found = deletions.listed(tx, org_id, project_id, snapshot, limit)
        return [deletion.receipt or _document(tx, deletion) for deletion in found]


def list_objects(
    resources: Resources, org_id: int, deletion_id: UUID, after: UUID | None, limit: int
) -> list[Mapping[str, Any]]:
    """A page of what a deletion released: each object with its outcome and times. Raises NotFound."""
    with resources.database.transaction() as tx:
        deletion = deletions.find(tx, deletion_id)
        if deletion is None or deletion.org_id != org_id:
            raise NotFound("Deletion not found")
        found = releases.objects(tx, deletion_id, after, limit)
    return [
        {
            "id": str(item.blob_id),
            "kind": item.kind,
            "digest": item.digest,
            "bytes": item.bytes,
            "outcome": item.outcome,
            "released_at": receipt.moment(deletion.requested_at),
            "removed_at": receipt.moment(item.removed_at),
        }
        for item in found
    ]


def _document(tx: Tx, deletion: Deletion) -> dict[str, Any]:
    counts, sums = receipt.objects(releases.tallies(tx, deletion.id))
    traces = deletions.trace_tally(tx, deletion.id)
    numbers = [str(number) for number in deletion.snapshots]
    is_withdrawal = deletion.withdrawn_digest is not None
    return {
        "id": str(deletion.id),
        "state": deletion.state,
        "target": deletion.target,
        "requested_at": receipt.moment(deletion.requested_at),
        "requested_by": deletion.requested_by,
        "reason": deletion.reason,
        "urgent": deletion.urgent,
        "journaled_at": receipt.moment(deletion.journaled_at),
        "completed_at": None,
        "verified_at": None,
        "pins_end_at": receipt.moment(releases.pins_end_at(tx, deletion.id)),
        "refused_uploads": [
            {"requested_by": upload.principal, "opened_at": receipt.moment(upload.opened_at)}
            for upload in sessions.cancelled_by(tx, deletion.id)
        ],
        "snapshots": [] if is_withdrawal else numbers,
        "withdrawn_from": numbers if is_withdrawal else [],
        "rows": deletion.rows,
        "objects": counts,
        "bytes": sums,
        "traces": {"released": traces.released, "removed": traces.removed, "waiting": traces.waiting},
        "failures": [
            {
                "kind": failure.kind,
                "class": failure.error_class,
                "attempts": failure.attempts,
                "last_error": failure.last_error,
                "next_attempt_at": receipt.moment(failure.next_attempt_at),
            }
            for failure in releases.failures(tx, deletion.id)
        ],
        "scope": receipt.scope(installation.store_keeps(tx), recovered=deletion.recovered),
        "signature": None,
    }


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of checking a receipt: its signature, and the objects the store still has though it says gone."""

    signed: bool
    standing: list[str]
    asked: int


def verify(resources: Resources, org_id: int, deletion_id: UUID) -> Verified:
    """Check a complete receipt's signature and ask the store again about every object it says is gone."""
    document = find_receipt(resources, org_id, deletion_id)
    kid = receipt.kid_of(str(document.get("signature")))
    with resources.database.transaction() as tx:
        public_pem = installation.public_pem(tx, "receipt", kid) if kid else None
        gone = releases.gone_keys(tx, deletion_id)
    standing = resources.store.held([item.storage_key for item in gone])
    return Verified(
        signed=public_pem is not None and receipt.is_signed_by(document, public_pem),
        standing=sorted(standing),
        asked=len(gone),
    )
