"""What is stored and what waits, for reconcile and the metrics. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from snapshed.db import rows
from snapshed.db.blobs import Kind
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Known:
    """What the rows say about a key; `size` in bytes."""

    id: UUID
    project_id: int
    storage_key: str
    state: Literal["pending", "live", "tombstone"]
    kind: Kind
    digest: str
    size: int
    announced_at: datetime
    is_lost: bool


def known(tx: Tx, keys: list[str]) -> list[Known]:
    """The rows, announced, live or condemned, that explain these keys."""
    return rows.many(
        tx,
        Known,
        """
        SELECT id, project_id, storage_key, state, kind, digest, size, announced_at, lost_at IS NOT NULL AS is_lost
          FROM blob WHERE storage_key = ANY(%(keys)s)
        UNION ALL
        SELECT blob_id, project_id, storage_key, 'tombstone', kind, digest, bytes, condemned_at, false
          FROM tombstone WHERE storage_key = ANY(%(keys)s)
        """,
        {"keys": keys},
    )


@dataclass(frozen=True, slots=True)
class Unfit:
    """A listed key that no row explains, or whose row says another size; then `row_id` is that row's."""

    storage_key: str
    row_id: UUID | None


def unfit(tx: Tx, keys: list[str], sizes: list[int]) -> list[Unfit]:
    """Of listed objects those that do not fit the rows: everything as it should be costs no record here."""
    return rows.many(
        tx,
        Unfit,
        """
        SELECT n.storage_key, b.id AS row_id
          FROM unnest(%(keys)s::text[], %(sizes)s::bigint[]) AS n (storage_key, size)
          LEFT JOIN blob b ON b.storage_key = n.storage_key
         WHERE CASE WHEN b.id IS NULL
                    THEN NOT EXISTS (SELECT FROM tombstone t WHERE t.storage_key = n.storage_key)
                    ELSE b.state = 'live' AND b.lost_at IS NULL AND b.size <> n.size END
        """,
        {"keys": keys, "sizes": sizes},
    )


def live_keys_after(tx: Tx, after: UUID, limit: int) -> list[tuple[UUID, str]]:
    """Ids and keys of a page of live rows, those marked as lost left out, in the order of their ids."""
    return tx.execute(
        """
        SELECT id, storage_key FROM blob
         WHERE state = 'live' AND lost_at IS NULL AND id > %(after)s ORDER BY id LIMIT %(limit)s
        """,
        {"after": after, "limit": limit},
    ).fetchall()


def live_after(tx: Tx, after: UUID, limit: int) -> list[Known]:
    """A page of live rows, those marked as lost left out, in the order of their ids."""
    return rows.many(
        tx,
        Known,
        """
        SELECT id, project_id, storage_key, state, kind, digest, size, announced_at, false AS is_lost FROM blob
         WHERE state = 'live' AND lost_at IS NULL AND id > %(after)s ORDER BY id LIMIT %(limit)s
        """,
        {"after": after, "limit": limit},
    )


def still_relied_on(tx: Tx, blob_ids: list[UUID]) -> set[UUID]:
    """Those that are live, not marked as lost, and that something names or was promised: their bytes must be there."""
    return set(
        rows.column(
            tx,
            UUID,
            """
            SELECT b.id FROM blob b
             WHERE b.id = ANY(%(ids)s) AND b.state = 'live' AND b.lost_at IS NULL
               AND (EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
                    OR EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id))
            """,
            {"ids": blob_ids},
        )
    )


def live_count(tx: Tx) -> int:
    """How many objects should be in the store."""
    return rows.value(tx, int, "SELECT count(*) FROM blob WHERE state = 'live' AND lost_at IS NULL") or 0


@dataclass(frozen=True, slots=True)
class Queues:
    """How much work waits, and how long the oldest of each kind has, in seconds. A tombstone is due, or it waits for its
    time."""

    candidates: int
    oldest_candidate: float
    tombstones_due: int
    tombstones_waiting: int
    oldest_tombstone: float
    pending: int
    lost: int
    deletions_open: int
    oldest_deletion: float
    deletions_unjournaled: int
    oldest_unjournaled: float
    comparisons: int
    oldest_comparison: float
    traces_due: int
    trace_removals: int
    notes_due: int
    snapshots: int


def queues(tx: Tx, now: datetime) -> Queues:
    found = rows.one(
        tx,
        Queues,
        """
        WITH age (of_what, since) AS (
            SELECT 'candidate', min(queued_at) FROM candidate
            UNION ALL SELECT 'tombstone', min(condemned_at) FROM tombstone
            UNION ALL SELECT 'deletion', min(requested_at) FROM deletion WHERE state = 'removing'
            UNION ALL
            SELECT 'unjournaled', min(requested_at) FROM deletion WHERE state = 'removing' AND journaled_at IS NULL
            UNION ALL SELECT 'comparison', min(created_at) FROM comparison WHERE state IN ('waiting', 'running')
        ), seconds (of_what, old) AS (
            SELECT of_what, greatest(0, coalesce(extract(epoch FROM %(now)s - since), 0))::float8 FROM age
        )
        SELECT (SELECT count(*) FROM candidate) AS candidates,
               (SELECT old FROM seconds WHERE of_what = 'candidate') AS oldest_candidate,
               (SELECT count(*) FROM tombstone WHERE next_at <= %(now)s) AS tombstones_due,
               (SELECT count(*) FROM tombstone WHERE next_at > %(now)s) AS tombstones_waiting,
               (SELECT old FROM seconds WHERE of_what = 'tombstone') AS oldest_tombstone,
               (SELECT count(*) FROM blob WHERE state = 'pending') AS pending,
               (SELECT count(*) FROM blob WHERE lost_at IS NOT NULL) AS lost,
               (SELECT count(*) FROM deletion WHERE state = 'removing') AS deletions_open,
               (SELECT old FROM seconds WHERE of_what = 'deletion') AS oldest_deletion,
               (SELECT count(*) FROM deletion WHERE state = 'removing' AND journaled_at IS NULL)
                   AS deletions_unjournaled,
               (SELECT old FROM seconds WHERE of_what = 'unjournaled') AS oldest_unjournaled,
               (SELECT count(*) FROM comparison WHERE state IN ('waiting', 'running')) AS comparisons,
               (SELECT old FROM seconds WHERE of_what = 'comparison') AS oldest_comparison,
               (SELECT count(*) FROM trace_due) AS traces_due,
               (SELECT count(*) FROM trace_removal WHERE removed_at IS NULL) AS trace_removals,
               (SELECT count(*) FROM retention_rule WHERE noted_at IS NULL)
                   + (SELECT count(*) FROM branch_hold WHERE noted_at IS NULL) AS notes_due,
               (SELECT count(*) FROM artifact WHERE kind = 'snapshot' AND deletion_id IS NULL) AS snapshots
        """,
        {"now": now},
    )
    assert found is not None  # noqa: S101  a SELECT without FROM has one row
    return found


def latencies(tx: Tx, now: datetime) -> dict[str, float]:
    """Seconds from request to complete receipt, by quantile, of what was completed in the hour before `now`; nothing if
    nothing was."""
    found = tx.execute(
        """
        SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY d.took), percentile_disc(0.99) WITHIN GROUP (ORDER BY d.took)
          FROM (SELECT extract(epoch FROM completed_at - requested_at)::float8 AS took
                  FROM deletion WHERE completed_at > %(now)s - interval '1 hour') d
        """,
        {"now": now},
    ).fetchone()
    assert found is not None  # noqa: S101  an aggregate has one row
    middle, most = found
    return {} if middle is None else {"0.5": middle, "0.99": most}


@dataclass(frozen=True, slots=True)
class Failing:
    """Tombstones whose last removal failed, by the class of the failure."""

    error_class: str
    tombstones: int


def failing(tx: Tx) -> list[Failing]:
    return rows.many(
        tx,
        Failing,
        """
        SELECT error_class, count(*) AS tombstones FROM tombstone WHERE error_class IS NOT NULL GROUP BY error_class
        """,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Removals since the beginning that the store answered alike; `bytes` of those removed, and `seconds` that they had
    been condemned."""

    outcome: str
    objects: int
    bytes: int
    seconds: float


def outcomes(tx: Tx) -> list[Outcome]:
    return rows.many(tx, Outcome, "SELECT outcome, objects, bytes, seconds FROM removal_count")


@dataclass(frozen=True, slots=True)
class Stock:
    kind: Kind
    objects: int
    bytes: int


def stock(tx: Tx) -> list[Stock]:
    """Live objects and bytes by kind."""
    return rows.many(
        tx,
        Stock,
        "SELECT kind, count(*) AS objects, sum(size)::bigint AS bytes FROM blob WHERE state = 'live' GROUP BY kind",
    )


def condemned(tx: Tx) -> list[Stock]:
    """Condemned objects and bytes by kind."""
    return rows.many(
        tx, Stock, "SELECT kind, count(*) AS objects, sum(bytes)::bigint AS bytes FROM tombstone GROUP BY kind"
    )
