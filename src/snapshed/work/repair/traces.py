"""Trace rows of nothing go; missing ones are announced again, with what the rows still know."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from snapshed.db import outbox, repairs, snapshots
from snapshed.db.outbox import Due, Expected
from snapshed.db.pool import Tx
from snapshed.domain import ids
from snapshed.domain.disagreement import Disagreement, Mended
from snapshed.resources import Resources


def remove_strays(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Remove the trace rows of ids that no artifact explains even now. An id that is explained later is another."""
    strays = {UUID(item.key) for item in found}
    with resources.database.transaction() as tx:
        strays -= {ids.trace_id(artifact) for artifact in outbox.expected(tx)} | outbox.doomed(tx)
    if strays:
        resources.traces.remove(sorted(strays))
    return [Mended(item.kind, item.key, "the trace rows are removed") for item in found if UUID(item.key) in strays]


def write_again(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Announce missing trace rows again, for a worker to write."""
    artifacts = sorted({item.about for item in found if item.about is not None})
    present = resources.traces.moments([ids.trace_id(artifact) for artifact in artifacts])

    def announce(tx: Tx, artifact: UUID) -> list[Expected]:
        if not snapshots.lock_unmarked(tx, [artifact]):
            return []
        trace_id = ids.trace_id(artifact)
        absent = [item for item in outbox.expected_of(tx, [artifact]) if (trace_id, item.event, item.at) not in present]
        for item in absent:
            facts = repairs.facts_of(tx, item)
            if facts is not None:
                outbox.announce(tx, artifact, Due(resources.new_id(), trace_id, item.event, item.at, facts))
        resources.queue.wake(tx)
        return absent

    written = [
        item for artifact in artifacts for item in resources.database.run(lambda tx, a=artifact: announce(tx, a))
    ]
    return [
        Mended("missing-trace", str(ids.trace_id(item.artifact_id)), f"the {item.event} is written again")
        for item in written
    ]
