"""The store's journal of deletions: ids, never content, so that a database lost or restored forgets none of them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from snapshed.db import deletions
from snapshed.db.deletions import Deletion
from snapshed.db.pool import Tx
from snapshed.domain import keys, receipt
from snapshed.errors import StoreUnavailable
from snapshed.logs import logger
from snapshed.resources import Resources

_log = logger("deletion")


def journal(resources: Resources, deletion_id: UUID) -> bool:
    """Write a deletion into the store's journal, if it is not there yet. False if the store does not answer: the
    deletion holds all the same and is journaled later. Repeating it writes the same again."""
    with resources.database.transaction() as tx:
        deletion = deletions.find(tx, deletion_id)
    if deletion is None or deletion.journaled_at is not None:
        return True
    entry = json.dumps(_entry(deletion, resources.installation.epoch)).encode()
    try:
        resources.store.note(keys.journal_entry(deletion.id), entry)
    except StoreUnavailable as failed:
        _log.warning("deletion not journaled yet", deletion=str(deletion.id), error_class=failed.code)
        return False

    resources.failpoints.reach("deletion.journaled")

    def note(tx: Tx) -> None:
        deletions.journaled(tx, deletion.id, resources.now())
        resources.queue.wake(tx)

    resources.database.run(note)
    return True


def _entry(deletion: Deletion, epoch: int) -> dict[str, Any]:
    """For a withdrawal, pairs of artifact and digest: the artifacts stay, without that image."""
    artifacts = [str(artifact) for artifact in deletion.artifacts]
    digest = deletion.withdrawn_digest
    return {
        "deletion": str(deletion.id),
        "artifacts": artifacts if digest is None else [],
        "images": [] if digest is None else [[artifact, digest] for artifact in artifacts],
        "requested_at": receipt.moment(deletion.requested_at),
        "requested_by": deletion.requested_by,
        "reason": deletion.reason,
        "epoch": epoch,
    }


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
