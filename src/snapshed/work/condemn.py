"""T6: what nobody references or is promised any more moves from `blob` to `tombstone` and can never be named again.

No clock reading takes part in that decision, and no byte is touched here.
"""

from __future__ import annotations

from psycopg import errors as pg

from snapshed.db import sessions, tombstones
from snapshed.db.pool import Tx
from snapshed.ledger import end_sessions
from snapshed.resources import Resources

_PASS = 1000


def condemn(resources: Resources) -> int:
    """One pass over the oldest candidates. Returns how many candidates were settled, one way or the other."""
    try:
        settled = resources.database.run(lambda tx: _pass(resources, tx, _PASS))
    except (pg.ForeignKeyViolation, pg.RestrictViolation):  # the second from PostgreSQL 18 on
        # Somebody named a blob between our second look and the delete. The key has judged; of a smaller pass most
        # get through, and the one in question is seen referenced next time.
        settled = resources.database.run(lambda tx: _pass(resources, tx, 1))
    if settled:
        resources.failpoints.reach("condemn.committed")
    return settled


def _pass(resources: Resources, tx: Tx, limit: int) -> int:
    candidates = tombstones.take_candidates(tx, limit)
    if not candidates:
        return 0
    ids = sorted({candidate.blob_id for candidate in candidates})
    # Where a pin is all that keeps a blob from an urgent deletion, its session is cancelled; its pins become
    # candidates again and the next pass takes them.
    if cancelled := sessions.cancel_for_urgent(tx, ids):
        end_sessions(resources, tx, cancelled)
    free = tombstones.unreferenced(tx, ids)
    locked = tombstones.lock_unclaimed(tx, free)
    tombstones.condemn(tx, locked, resources.now())
    # A row that somebody holds right now keeps its candidate; "condemned" or "seen referenced or pinned" settles one.
    # So does one that an urgent deletion wants and a session still pins, until that session is met and cancelled.
    skipped = (set(free) - set(locked)) | sessions.urgently_wanted(tx, ids)
    settled = [candidate.seq for candidate in candidates if candidate.blob_id not in skipped]
    tombstones.drop_candidates(tx, settled)
    resources.queue.wake(tx)
    return len(settled)
