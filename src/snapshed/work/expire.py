"""T8: upload sessions whose time is over end under their row lock, and what only they held becomes a candidate.

Nobody else compares a session's end with a clock. What was announced for an artifact and never confirmed, because its
maker died, is condemned here too.
"""

from __future__ import annotations

from uuid import UUID

from snapshed.db import access, sessions, tombstones
from snapshed.db.pool import Tx
from snapshed.ledger import end_sessions
from snapshed.resources import Resources

_BATCH = 100


def expire(resources: Resources) -> int:
    """End what is over. Returns how many sessions."""

    def end(tx: Tx) -> list[UUID]:
        ended = sessions.expire(tx, resources.now(), _BATCH)
        if ended:
            end_sessions(resources, tx, ended)
        access.forget_old_sign_ins(tx, resources.now())
        return ended

    ended = resources.database.run(end)
    if ended:
        resources.failpoints.reach("session.expired")
    return len(ended) + resources.database.run(lambda tx: _condemn_overdue(resources, tx))


def _condemn_overdue(resources: Resources, tx: Tx) -> int:
    now = resources.now()
    overdue = tombstones.overdue_of_artifacts(tx, now, _BATCH)
    if overdue:
        tombstones.condemn_pending(tx, overdue, now, settled=True)
        resources.queue.wake(tx)
    return len(overdue)
