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
    """How much work waits; `oldest_tombstone` in seconds. A tombstone is due, or it waits for its time."""

    candidates: int
    tombstones_due: int
    tombstones_waiting: int
    oldest_tombstone: float
    pending: int
    deletions_open: int
    deletions_unjournaled: int
    traces_due: int
    trace_removals: int


def queues(tx: Tx, now: datetime) -> Queues:
    found = rows.one(
        tx,
        Queues,
        """
        SELECT (SELECT count(*) FROM candidate) AS candidates,
               (SELECT count(*) FROM tombstone WHERE next_at <= %(now)s) AS tombstones_due,
               (SELECT count(*) FROM tombstone WHERE next_at > %(now)s) AS tombstones_waiting,
               coalesce((SELECT extract(epoch FROM %(now)s - min(condemned_at)) FROM tombstone), 0)::float8
                   AS oldest_tombstone,
               (SELECT count(*) FROM blob WHERE state = 'pending') AS pending,
               (SELECT count(*) FROM deletion WHERE state = 'removing') AS deletions_open,
               (SELECT count(*) FROM deletion WHERE state = 'removing' AND journaled_at IS NULL)
                   AS deletions_unjournaled,
               (SELECT count(*) FROM trace_due) AS traces_due,
               (SELECT count(*) FROM trace_removal WHERE removed_at IS NULL) AS trace_removals
        """,
        {"now": now},
    )
    assert found is not None  # noqa: S101  a SELECT without FROM has one row
    return found


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
    """Removals since the beginning that the store answered alike; `bytes` of those removed."""

    outcome: str
    objects: int
    bytes: int


def outcomes(tx: Tx) -> list[Outcome]:
    return rows.many(tx, Outcome, "SELECT outcome, objects, bytes FROM removal_count")


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
