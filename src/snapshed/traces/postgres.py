"""Trace rows in the main database, the default engine.

Writing is repeatable: a row has an id of its own, so a second attempt after a crash adds nothing. Living beside the
outbox, this engine can also refuse a writer that wakes up too late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from snapshed.db import rows
from snapshed.db.pool import Database


@dataclass(frozen=True, slots=True)
class Trace:
    """One event about an artifact; `facts` are counts, pixels, durations and git facts."""

    id: UUID
    trace_id: UUID
    event: str
    at: datetime
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Count:
    trace_id: UUID
    rows: int


@dataclass(frozen=True, slots=True)
class _Moment:
    trace_id: UUID
    event: str
    at: datetime


class PostgresTraces:
    """The `trace` table. Thread-safe; raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, traces: Sequence[Trace]) -> None:
        """Add rows that are still announced for an artifact no deletion has marked; those that are there already are
        left alone. Share-locks the artifacts, so that a deletion either waits for these rows and removes them, or has
        marked its artifact and keeps them out, however long this writer was asleep."""
        with self._database.transaction() as tx:
            rows.run(
                tx,
                """
                INSERT INTO trace (id, trace_id, event, at, facts)
                SELECT n.id, n.trace_id, n.event, n.at, n.facts
                  FROM unnest(%(ids)s::uuid[], %(traces)s::uuid[], %(events)s::text[], %(times)s::timestamptz[],
                              %(facts)s::jsonb[]) AS n (id, trace_id, event, at, facts)
                  JOIN trace_due d ON d.id = n.id
                  JOIN artifact a ON a.id = d.artifact_id
                 WHERE a.deletion_id IS NULL
                   FOR SHARE OF a
                    ON CONFLICT (id) DO NOTHING
                """,
                {
                    "ids": [trace.id for trace in traces],
                    "traces": [trace.trace_id for trace in traces],
                    "events": [trace.event for trace in traces],
                    "times": [trace.at for trace in traces],
                    "facts": [Jsonb(trace.facts) for trace in traces],
                },
            )

    def remove(self, trace_ids: Sequence[UUID]) -> None:
        """Remove every row of these trace ids."""
        with self._database.transaction() as tx:
            rows.run(tx, "DELETE FROM trace WHERE trace_id = ANY(%(ids)s)", {"ids": list(trace_ids)})

    def count(self, trace_ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many rows each of these trace ids has; those without any are absent."""
        with self._database.transaction() as tx:
            counts = rows.many(
                tx,
                _Count,
                "SELECT trace_id, count(*) AS rows FROM trace WHERE trace_id = ANY(%(ids)s) GROUP BY trace_id",
                {"ids": list(trace_ids)},
            )
        return {count.trace_id: count.rows for count in counts}

    def moments(self, trace_ids: Sequence[UUID]) -> set[tuple[UUID, str, datetime]]:
        """What the rows of these trace ids tell about: trace id, event and time of each."""
        with self._database.transaction() as tx:
            found = rows.many(
                tx,
                _Moment,
                "SELECT DISTINCT trace_id, event, at FROM trace WHERE trace_id = ANY(%(ids)s)",
                {"ids": list(trace_ids)},
            )
        return {(moment.trace_id, moment.event, moment.at) for moment in found}

    def read(self, trace_ids: Sequence[UUID]) -> list[Trace]:
        """Every row of these trace ids, the oldest first."""
        with self._database.transaction() as tx:
            return rows.many(
                tx,
                Trace,
                "SELECT id, trace_id, event, at, facts FROM trace WHERE trace_id = ANY(%(ids)s) ORDER BY at, id",
                {"ids": list(trace_ids)},
            )

    def trace_ids(self) -> set[UUID]:
        """Every trace id that has a row."""
        with self._database.transaction() as tx:
            return set(rows.column(tx, UUID, "SELECT DISTINCT trace_id FROM trace"))
