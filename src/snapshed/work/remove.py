"""T7: condemned objects leave the store, in bulk and in parallel, and are retried for ever.

Only tombstones are ever removed, never a key with a `blob` row; whoever does it twice, late, or beside somebody else
does no harm, since a condemned key is never used again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from snapshed.blobs import Failure
from snapshed.db import tombstones
from snapshed.db.pool import Tx
from snapshed.db.tombstones import Claimed, Postponed
from snapshed.domain import backoff
from snapshed.logs import logger
from snapshed.resources import Resources

_CLAIM = timedelta(seconds=15)
"""After this time a claim is taken for abandoned. Removing twice is harmless; whoever is answered first closes."""

_SHORTEST = timedelta(seconds=1)
_LONGEST = timedelta(minutes=15)
_LONGEST_OUTAGE = timedelta(seconds=30)
"""Waits of `domain.backoff`. What failed only because the whole store was away is due again soon: the store itself is
asked sparingly meanwhile, and when it is back the rest follows within this time, not a quarter of an hour later."""

_log = logger("remove")


def remove(resources: Resources) -> int:
    """Remove one batch of due tombstones and one of those that have failed before. Returns how many were dealt with,
    confirmed or postponed; 0 also while the store is left alone because it asked for it or does not answer."""
    return _remove_batch(resources, again=False) + _remove_batch(resources, again=True)


def _remove_batch(resources: Resources, *, again: bool) -> int:
    now = resources.now()
    most = resources.store.pace.allowance(now)
    if not most:
        return 0
    claim = resources.new_id()
    claimed = resources.database.run(
        lambda tx: tombstones.claim_tombstones(tx, claim, now, now + _CLAIM, most, again=again)
    )
    if not claimed:
        return 0
    resources.failpoints.reach("removal.claimed")
    sent_at = resources.now()
    failed = resources.store.remove([item.storage_key for item in claimed])
    resources.failpoints.reach("removal.sent")
    resources.store.pace.note(len(claimed), failed, resources.now(), _dice())
    closed = resources.database.run(lambda tx: _confirm(resources, tx, claim, claimed, failed, sent_at))
    resources.failpoints.reach("removal.confirmed")
    _log.info("objects removed", removed=closed, failed=len(failed), waiting=len(claimed) - closed - len(failed))
    if failed:
        _tell(resources, claimed, failed)
    return len(claimed)


def _confirm(
    resources: Resources,
    tx: Tx,
    claim: UUID,
    claimed: Sequence[Claimed],
    failed: Mapping[str, Failure],
    sent_at: datetime,
) -> int:
    now = resources.now()
    tombstones.postpone_tombstones(
        tx, claim, [_postponed(item, failed[item.storage_key], now) for item in claimed if item.storage_key in failed]
    )
    done = [item.storage_key for item in claimed if item.storage_key not in failed]
    closed = tombstones.close_tombstones(tx, done, sent_at, now)
    resources.queue.wake(tx)
    return closed


def _postponed(item: Claimed, failure: Failure, now: datetime) -> Postponed:
    longest = _LONGEST_OUTAGE if failure.store_is_down else _LONGEST
    wait = backoff.wait(item.attempts + 1, _dice(), shortest=_SHORTEST, longest=longest)
    return Postponed(item.storage_key, now + wait, failure.kind, failure.sentence)


def _tell(resources: Resources, claimed: Sequence[Claimed], failed: Mapping[str, Failure]) -> None:
    """One line for every object that was not removed, with everybody whom it concerns."""
    with resources.database.transaction() as tx:
        about = {item.storage_key: item for item in tombstones.concerned(tx, list(failed))}
    for item in claimed:
        failure = failed.get(item.storage_key)
        if failure is None:
            continue
        whom = about.get(item.storage_key)
        deletions = [str(deletion) for deletion in whom.deletions] if whom else []
        _log.warning(
            "object not removed",
            deletion=deletions[0] if deletions else None,
            deletions=deletions,
            org=whom.org if whom else None,
            project=whom.project if whom else None,
            kind=item.kind,
            key=item.storage_key,
            error_class=failure.kind,
            attempts=item.attempts + 1,
        )


def _dice() -> float:
    return random.random()  # noqa: S311  jitter, not a secret
