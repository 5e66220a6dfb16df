"""Rows about objects of the general blob API: a caller's key and the blob it names now.

Whoever replaces or removes a row lets go of its blob; a trigger enqueues it. An expired row is no row for any reader.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.metadata import Described, Expiration, Policy
from snapshed.domain.namespaces import Place


@dataclass(frozen=True, slots=True)
class Named:
    """An object about to be named: its key, its stored blob, and what was said about it."""

    key: str
    blob_id: UUID
    described: Described


@dataclass(frozen=True, slots=True)
class Object:
    """An object as its readers need it; `size` in bytes, as stored."""

    key: str
    blob_id: UUID
    storage_key: str
    size: int
    metadata: dict[str, str]
    policy: Policy | None
    lifetime: timedelta | None
    created_at: datetime
    expires_at: datetime | None

    @property
    def described(self) -> Described:
        """What was said about it when it was stored."""
        if self.policy is None or self.lifetime is None:
            return Described(self.metadata, None)
        return Described(self.metadata, Expiration(self.policy, self.lifetime))


def place(tx: Tx, where: Place, objects: list[Named], now: datetime) -> None:
    """Let keys, each once, name these live blobs from now on; what they named before is let go of. Rows are written in
    the order of their keys, so that overlapping batches wait and do not deadlock."""
    rows.run(
        tx,
        """
        INSERT INTO object (use_case, scopes, key, blob_id, metadata, policy, lifetime, created_at, expires_at)
        SELECT %(use_case)s, %(scopes)s, n.key, n.blob_id, n.metadata::jsonb, n.policy, n.lifetime, %(now)s,
               %(now)s + n.lifetime
          FROM unnest(%(keys)s::text[], %(blobs)s::uuid[], %(metadata)s::text[], %(policies)s::text[],
                      %(lifetimes)s::interval[]) AS n (key, blob_id, metadata, policy, lifetime)
         ORDER BY n.key
            ON CONFLICT ON CONSTRAINT object_pkey DO UPDATE
               SET blob_id = excluded.blob_id, metadata = excluded.metadata, policy = excluded.policy,
                   lifetime = excluded.lifetime, created_at = excluded.created_at, expires_at = excluded.expires_at
        """,
        {
            "use_case": where.use_case,
            "scopes": where.scopes,
            "now": now,
            "keys": [item.key for item in objects],
            "blobs": [item.blob_id for item in objects],
            "metadata": [json.dumps(item.described.headers) for item in objects],
            "policies": [item.described.expiration and item.described.expiration.policy for item in objects],
            "lifetimes": [item.described.expiration and item.described.expiration.lifetime for item in objects],
        },
    )


def find(tx: Tx, where: Place, keys: list[str], now: datetime) -> list[Object]:
    """The objects of these keys that are there whole and have not expired."""
    return rows.many(
        tx,
        Object,
        """
        SELECT o.key, o.blob_id, b.storage_key, b.size, o.metadata, o.policy, o.lifetime, o.created_at, o.expires_at
          FROM object o JOIN blob b ON b.id = o.blob_id
         WHERE o.use_case = %(use_case)s AND o.scopes = %(scopes)s AND o.key = ANY(%(keys)s)
           AND (o.expires_at IS NULL OR o.expires_at > %(now)s)
           AND b.lost_at IS NULL
        """,
        {"use_case": where.use_case, "scopes": where.scopes, "keys": keys, "now": now},
    )


def push(tx: Tx, where: Place, seen: list[Object], now: datetime) -> None:
    """Push the end of these `tti` objects to a lifetime from now, each only if it still ends when it was seen to: of
    many readers at once one writes."""
    rows.run(
        tx,
        """
        WITH due AS (
            SELECT o.use_case, o.scopes, o.key
              FROM object o
              JOIN unnest(%(keys)s::text[], %(ends)s::timestamptz[]) AS s (key, expires_at)
                ON s.key = o.key AND s.expires_at = o.expires_at
             WHERE o.use_case = %(use_case)s AND o.scopes = %(scopes)s AND o.policy = 'tti'
             ORDER BY o.key FOR UPDATE OF o SKIP LOCKED
        )
        UPDATE object o SET expires_at = %(now)s + o.lifetime
          FROM due d WHERE o.use_case = d.use_case AND o.scopes = d.scopes AND o.key = d.key
        """,
        {
            "use_case": where.use_case,
            "scopes": where.scopes,
            "keys": [item.key for item in seen],
            "ends": [item.expires_at for item in seen],
            "now": now,
        },
    )


def lock(tx: Tx, where: Place, key: str, now: datetime) -> Object | None:
    """An object that has not expired, its row locked."""
    return rows.one(
        tx,
        Object,
        """
        SELECT o.key, o.blob_id, b.storage_key, b.size, o.metadata, o.policy, o.lifetime, o.created_at, o.expires_at
          FROM object o JOIN blob b ON b.id = o.blob_id
         WHERE o.use_case = %(use_case)s AND o.scopes = %(scopes)s AND o.key = %(key)s
           AND (o.expires_at IS NULL OR o.expires_at > %(now)s)
           FOR UPDATE OF o
        """,
        {"use_case": where.use_case, "scopes": where.scopes, "key": key, "now": now},
    )


def extend(tx: Tx, where: Place, key: str, expires_at: datetime, lifetime: timedelta) -> None:
    """Move the end of an object. The caller holds its lock."""
    rows.run(
        tx,
        """
        UPDATE object SET expires_at = %(expires_at)s, lifetime = %(lifetime)s
         WHERE use_case = %(use_case)s AND scopes = %(scopes)s AND key = %(key)s
        """,
        {
            "use_case": where.use_case,
            "scopes": where.scopes,
            "key": key,
            "expires_at": expires_at,
            "lifetime": lifetime,
        },
    )


def remove(tx: Tx, where: Place, keys: list[str]) -> int:
    """Take these objects away, in the order of their keys. Returns how many there were."""
    return rows.run(
        tx,
        """
        DELETE FROM object
         WHERE use_case = %(use_case)s AND scopes = %(scopes)s
           AND key IN (SELECT key FROM object
                        WHERE use_case = %(use_case)s AND scopes = %(scopes)s AND key = ANY(%(keys)s)
                        ORDER BY key FOR UPDATE)
        """,
        {"use_case": where.use_case, "scopes": where.scopes, "keys": keys},
    )


def expire(tx: Tx, now: datetime, limit: int) -> int:
    """Take away objects whose time is over, oldest first; those somebody works on are passed over. Returns how many."""
    return rows.run(
        tx,
        """
        DELETE FROM object
         WHERE (use_case, scopes, key) IN (SELECT use_case, scopes, key FROM object
                                            WHERE expires_at <= %(now)s
                                            ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
           AND expires_at <= %(now)s
        """,
        {"now": now, "limit": limit},
    )
