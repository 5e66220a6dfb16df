"""What is stored and what waits, for reconcile and the metrics. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from snapshed.db import rows
from snapshed.db.blobs import Kind
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Known:
    """What the rows say about a key."""

    storage_key: str
    state: Literal["pending", "live", "tombstone"]
    kind: Kind
    digest: str
    size: int


def known(tx: Tx, keys: list[str]) -> list[Known]:
    """The rows, live or condemned, that explain these keys."""
    return rows.many(
        tx,
        Known,
        """
        SELECT storage_key, state, kind, digest, size FROM blob WHERE storage_key = ANY(%(keys)s)
        UNION ALL
        SELECT storage_key, 'tombstone', kind, digest, bytes FROM tombstone WHERE storage_key = ANY(%(keys)s)
        """,
        {"keys": keys},
    )


def live_after(tx: Tx, after: str, limit: int) -> list[Known]:
    """A page of live rows in the order of their keys."""
    return rows.many(
        tx,
        Known,
        """
        SELECT storage_key, state, kind, digest, size FROM blob
         WHERE state = 'live' AND storage_key > %(after)s ORDER BY storage_key LIMIT %(limit)s
        """,
        {"after": after, "limit": limit},
    )


def unowned(tx: Tx) -> list[Known]:
    """Live rows that nothing references, pins or is about to look at: at rest there is none."""
    return rows.many(
        tx,
        Known,
        """
        SELECT b.storage_key, b.state, b.kind, b.digest, b.size FROM blob b
         WHERE b.state = 'live'
           AND NOT EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
           AND NOT EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id)
           AND NOT EXISTS (SELECT FROM candidate c WHERE c.blob_id = b.id)
        """,
    )


def referenced_pending(tx: Tx) -> list[Known]:
    """Announced rows that something names already: a promise broken, if there is ever one."""
    return rows.many(
        tx,
        Known,
        """
        SELECT b.storage_key, b.state, b.kind, b.digest, b.size FROM blob b
         WHERE b.state = 'pending' AND EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
        """,
    )


@dataclass(frozen=True, slots=True)
class Queues:
    """How much work waits; `oldest_tombstone` in seconds."""

    candidates: int
    tombstones: int
    failing: int
    oldest_tombstone: float
    pending: int


def queues(tx: Tx, now: datetime) -> Queues:
    found = rows.one(
        tx,
        Queues,
        """
        SELECT (SELECT count(*) FROM candidate) AS candidates,
               (SELECT count(*) FROM tombstone) AS tombstones,
               (SELECT count(*) FROM tombstone WHERE attempts > 0) AS failing,
               coalesce((SELECT extract(epoch FROM %(now)s - min(condemned_at)) FROM tombstone), 0)::float8
                   AS oldest_tombstone,
               (SELECT count(*) FROM blob WHERE state = 'pending') AS pending
        """,
        {"now": now},
    )
    assert found is not None  # noqa: S101  a SELECT without FROM has one row
    return found


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
