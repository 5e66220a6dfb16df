"""Level 1: trace rows against the artifacts and comparisons they tell about, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from snapshed.db import documents, outbox
from snapshed.db.outbox import Expected
from snapshed.domain import ids
from snapshed.domain.disagreement import Disagreement
from snapshed.resources import Resources

_PAGE = 1000
_FIRST = UUID(int=0)


def differences(resources: Resources) -> Iterator[Disagreement]:
    """Trace rows of nothing that is there, and artifacts or comparisons without theirs."""
    yield from _strays(resources)
    after = _FIRST
    while True:
        with resources.database.transaction() as tx:
            page = documents.artifacts_after(tx, after, _PAGE)
        if not page:
            return
        for item in missing(resources, page):
            yield Disagreement(
                "missing-trace",
                str(ids.trace_id(item.artifact_id)),
                f"the {item.event} of {item.at.isoformat()} has no trace row; --repair writes it again",
                about=item.artifact_id,
            )
        after = page[-1]


def _strays(resources: Resources) -> Iterator[Disagreement]:
    """Traces first, rows afterwards: a row that appears in between explains what was found, never the other way."""
    present = resources.traces.trace_ids()
    with resources.database.transaction() as tx:
        explained = {ids.trace_id(artifact) for artifact in outbox.expected(tx)} | outbox.doomed(tx)
    strays = sorted(present - explained)
    # A deletion may have finished between the two looks; what it removed is not there when asked for by name.
    for trace_id in sorted(resources.traces.count(strays)) if strays else []:
        yield Disagreement("stray-trace", str(trace_id), "trace rows of nothing that is here; --repair removes them")


def missing(resources: Resources, artifact_ids: Sequence[UUID]) -> list[Expected]:
    """What these artifacts should have in the traces and has no row there, nor one that is still to be written."""
    with resources.database.transaction() as tx:
        wanted = outbox.expected_of(tx, list(artifact_ids))
    present = resources.traces.moments([ids.trace_id(artifact) for artifact in artifact_ids])
    absent = [item for item in wanted if (ids.trace_id(item.artifact_id), item.event, item.at) not in present]
    if not absent:
        return []
    with resources.database.transaction() as tx:
        still = set(outbox.expected_of(tx, sorted({item.artifact_id for item in absent})))
    return [item for item in absent if item in still]
