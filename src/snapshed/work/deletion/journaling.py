"""The store's journal of deletions: ids, never content, so that a database lost or restored forgets none of them."""

from __future__ import annotations

from uuid import UUID

from snapshed.db import deletions
from snapshed.db.deletions import Deletion
from snapshed.db.pool import Tx
from snapshed.domain import keys
from snapshed.domain.journal import Entry, written
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
    entry = written(_entry(deletion), resources.installation.epoch)
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


def _entry(deletion: Deletion) -> Entry:
    """For a withdrawal, pairs of artifact and digest: the artifacts stay, without that image."""
    digest = deletion.withdrawn_digest
    return Entry(
        deletion_id=deletion.id,
        artifacts=tuple(deletion.artifacts) if digest is None else (),
        images=() if digest is None else tuple((artifact, digest) for artifact in deletion.artifacts),
        requested_at=deletion.requested_at,
        requested_by=deletion.requested_by,
        reason=deletion.reason,
        org_id=deletion.org_id,
        project_id=deletion.project_id,
    )


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
