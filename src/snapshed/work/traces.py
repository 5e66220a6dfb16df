"""Trace rows, written and removed through the outbox, so that a crash forgets neither.

The engine that keeps them is never called inside a transaction of ours.
"""

from __future__ import annotations

from datetime import timedelta

from snapshed.db import outbox
from snapshed.db.pool import Tx
from snapshed.resources import Resources
from snapshed.traces import Trace

_BATCH = 1000
_CLAIM = timedelta(seconds=10)
"""A deletion waits for a claim to end before its count of zero is final: an engine of its own knows nothing of the
outbox, and what it was sent may land until then. The main database refuses a writer that comes later still."""


def write_traces(resources: Resources) -> int:
    """Write trace rows that are due: claimed, written to their engine, confirmed. Returns how many."""
    now = resources.now()
    claim = resources.new_id()
    due = resources.database.run(lambda tx: outbox.claim(tx, claim, now, now + _CLAIM, _BATCH))
    if not due:
        return 0
    resources.traces.write([Trace(item.id, item.trace_id, item.event, item.at, item.facts) for item in due])
    resources.database.run(lambda tx: outbox.written(tx, claim))
    return len(due)


def remove_traces(resources: Resources) -> int:
    """Remove the trace rows of deleted artifacts until their engine counts zero, finally only for what no writer can
    add to any more. Returns how many trace ids were settled."""
    with resources.database.transaction() as tx:
        waiting = outbox.removals(tx, _BATCH)
    if not waiting:
        return 0
    sent_at = resources.now()
    trace_ids = [item.trace_id for item in waiting]
    resources.traces.remove(trace_ids)
    left = resources.traces.count(trace_ids)
    empty = [trace_id for trace_id in trace_ids if not left.get(trace_id)]

    def note(tx: Tx) -> int:
        settled = outbox.removed(tx, empty, sent_at, resources.now())
        if settled:
            resources.queue.wake(tx)
        return settled

    return resources.database.run(note)
