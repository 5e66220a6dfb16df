"""T7: condemned objects leave the store, in bulk and in parallel, and are retried for ever.

Only tombstones are ever removed, never a key with a `blob` row; whoever does it twice, late, or beside somebody else
does no harm, since a condemned key is never used again.
"""

from __future__ import annotations

import random
from datetime import timedelta
from uuid import UUID

from snapshed.blobs import Failure
from snapshed.db import tombstones
from snapshed.db.pool import Tx
from snapshed.db.tombstones import Claimed
from snapshed.logs import logger
from snapshed.resources import Resources

_BATCH = 1000
"""Keys of one bulk request, the most S3 takes."""

_CLAIM = timedelta(seconds=15)
"""After this time a claim is taken for abandoned. Removing twice is harmless; whoever is answered first closes."""

_SHORTEST = 1.0
_LONGEST = 900.0
"""Seconds between attempts: doubled from the first to the second, then held for ever."""

_log = logger("remove")


def remove(resources: Resources) -> int:
    """Remove one batch of due tombstones. Returns how many were dealt with, confirmed or postponed."""
    now = resources.now()
    claim = resources.new_id()
    claimed = resources.database.run(lambda tx: tombstones.claim_tombstones(tx, claim, now, now + _CLAIM, _BATCH))
    if not claimed:
        return 0
    resources.failpoints.reach("removal.claimed")
    sent_at = resources.now()
    failed = resources.store.remove([item.storage_key for item in claimed])
    resources.failpoints.reach("removal.sent")

    def confirm(tx: Tx) -> int:
        done = [item.storage_key for item in claimed if item.storage_key not in failed]
        closed = tombstones.close_tombstones(tx, done, sent_at, resources.now())
        for item in claimed:
            if failure := failed.get(item.storage_key):
                _postpone(resources, tx, item, failure, claim)
        resources.queue.wake(tx)
        return closed

    closed = resources.database.run(confirm)
    resources.failpoints.reach("removal.confirmed")
    _log.info("objects removed", removed=closed, failed=len(failed), waiting=len(claimed) - closed - len(failed))
    return len(claimed)


def _postpone(resources: Resources, tx: Tx, item: Claimed, failure: Failure, claim: UUID) -> None:
    wait = min(_LONGEST, _SHORTEST * 2 ** min(item.attempts, 12)) * random.uniform(0.5, 1.0)  # noqa: S311  jitter
    next_at = resources.now() + timedelta(seconds=wait)
    tombstones.postpone_tombstone(tx, claim, item.storage_key, next_at, failure.kind, failure.sentence)
    _log.warning(
        "object not removed",
        key=item.storage_key,
        error_class=failure.kind,
        attempts=item.attempts + 1,
        deletions=[str(deletion) for deletion in tombstones.releasing(tx, item.blob_id)],
    )
