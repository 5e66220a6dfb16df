"""Rows about trace rows that are still to be written or removed.

The traces themselves may live in another engine; this outbox is ours, so that a crash forgets neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from snapshed.db import rows
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Due:
    """A trace row to be written."""

    id: UUID
    trace_id: UUID
    event: str
    at: datetime
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Removal:
    deletion_id: UUID
    trace_id: UUID
    not_final_before: datetime


def announce(tx: Tx, artifact_id: UUID, due: Due) -> None:
    rows.run(
        tx,
        """
        INSERT INTO trace_due (id, artifact_id, trace_id, event, at, facts)
        VALUES (%(id)s, %(artifact)s, %(trace)s, %(event)s, %(at)s, %(facts)s)
        """,
        {
            "id": due.id,
            "artifact": artifact_id,
            "trace": due.trace_id,
            "event": due.event,
            "at": due.at,
            "facts": Jsonb(due.facts),
        },
    )


def claim(tx: Tx, claim_id: UUID, now: datetime, until: datetime, limit: int) -> list[Due]:
    """Claim trace rows of unmarked artifacts. The artifact is share-locked, so a deletion sees the claim or stops it."""
    return rows.many(
        tx,
        Due,
        """
        UPDATE trace_due SET claim = %(claim)s, claimed_until = %(until)s
         WHERE id = ANY(ARRAY(  -- asked for once, where IN (...) may be asked again for every row
            SELECT d.id FROM trace_due d JOIN artifact a ON a.id = d.artifact_id
             WHERE a.deletion_id IS NULL AND (d.claimed_until IS NULL OR d.claimed_until < %(now)s)
             ORDER BY d.at LIMIT %(limit)s FOR SHARE OF a SKIP LOCKED))
        RETURNING id, trace_id, event, at, facts
        """,
        {"claim": claim_id, "now": now, "until": until, "limit": limit},
    )


def written(tx: Tx, claim_id: UUID) -> None:
    rows.run(tx, "DELETE FROM trace_due WHERE claim = %(claim)s", {"claim": claim_id})


def due_traces(tx: Tx) -> set[UUID]:
    """Trace ids with a row still to be written."""
    return set(rows.column(tx, UUID, "SELECT DISTINCT trace_id FROM trace_due"))


def removals(tx: Tx, limit: int) -> list[Removal]:
    """Trace ids whose rows must go, the most urgent first."""
    return rows.many(
        tx,
        Removal,
        """
        SELECT deletion_id, trace_id, not_final_before FROM trace_removal
         WHERE removed_at IS NULL ORDER BY not_final_before LIMIT %(limit)s
        """,
        {"limit": limit},
    )


def removed(tx: Tx, trace_ids: list[UUID], sent_at: datetime, now: datetime) -> int:
    """The engine counts zero rows of these; final only for what no writer can still add to. Returns how many are."""
    return rows.run(
        tx,
        """
        UPDATE trace_removal SET removed_at = %(now)s
         WHERE trace_id = ANY(%(ids)s) AND removed_at IS NULL AND not_final_before <= %(sent_at)s
        """,
        {"ids": trace_ids, "sent_at": sent_at, "now": now},
    )


def expected(tx: Tx) -> list[UUID]:
    """The artifacts that should have trace rows: every unmarked one."""
    return rows.column(tx, UUID, "SELECT id FROM artifact WHERE deletion_id IS NULL")


@dataclass(frozen=True, slots=True)
class Expected:
    """A trace row there should be: what happened to which artifact, and when."""

    artifact_id: UUID
    event: str
    at: datetime


def expected_of(tx: Tx, artifact_ids: list[UUID]) -> list[Expected]:
    """Every trace row that these artifacts should have by now: their making, and their comparisons as heads. Those still
    to be written are left out, and so are artifacts that a deletion has marked."""
    return rows.many(
        tx,
        Expected,
        """
        SELECT a.id AS artifact_id, e.event, e.at
          FROM artifact a
          CROSS JOIN LATERAL (
               SELECT a.kind AS event, a.created_at AS at
               UNION ALL
               SELECT 'comparison', c.finished_at FROM comparison c WHERE c.head_id = a.id AND c.state = 'done') e
         WHERE a.id = ANY(%(ids)s) AND a.deletion_id IS NULL
           AND NOT EXISTS (SELECT FROM trace_due d WHERE d.artifact_id = a.id AND d.event = e.event AND d.at = e.at)
        """,
        {"ids": artifact_ids},
    )


def doomed(tx: Tx) -> set[UUID]:
    """Trace ids whose removal is under way."""
    return set(rows.column(tx, UUID, "SELECT trace_id FROM trace_removal WHERE removed_at IS NULL"))
