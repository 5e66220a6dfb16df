"""How snapshots went lately, from the trace rows of those that are still there."""

from __future__ import annotations

from datetime import timedelta

from snapshed.db import history
from snapshed.domain import ids, trends
from snapshed.domain.trends import Day
from snapshed.resources import Resources

_MOST = 5000
"""Snapshots whose traces are read; more than these in the days asked for leave the oldest days short."""


def days(resources: Resources, project_ids: list[int], count: int) -> list[Day]:
    """The last so many days of these projects, the oldest first. What was deleted left no trace."""
    now = resources.now()
    with resources.database.transaction() as tx:
        artifacts = history.artifacts_since(tx, project_ids, now - timedelta(days=count), _MOST)
    found = resources.traces.read([ids.trace_id(artifact_id) for artifact_id in artifacts])
    return trends.by_day([(trace.event, trace.at, trace.facts) for trace in found], now, count)
