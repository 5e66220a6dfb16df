"""What must always be true of the rows alone, stated once: for `reconcile`, for the tests and for every crash run.

Each function returns what breaks one statement, the first so many of it. None takes work under way for a breach: whatever
a worker is about to do is queued in a row, and is only named when nobody has looked at it for long. Reads only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx

_MOST = 1000
"""Breaches told of one statement at a time; who mends them sees the next."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A row that breaks a statement: what it is called outside, its id, and what more is to be said."""

    key: str
    about: UUID
    detail: str


def unowned(tx: Tx) -> list[Breach]:
    """Every live object is referenced, pinned, or about to be looked at."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT b.storage_key AS key, b.id AS about, b.kind AS detail FROM blob b
         WHERE b.state = 'live'
           AND NOT EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
           AND NOT EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id)
           AND NOT EXISTS (SELECT FROM candidate c WHERE c.blob_id = b.id)
         LIMIT %(most)s
        """,
        {"most": _MOST},
    )


def referenced_pending(tx: Tx) -> list[Breach]:
    """No row names an object whose bytes were never confirmed."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT b.storage_key AS key, b.id AS about, b.kind AS detail FROM blob b
         WHERE b.state = 'pending' AND EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
         LIMIT %(most)s
        """,
        {"most": _MOST},
    )


def stuck(tx: Tx, idle_since: datetime) -> list[Breach]:
    """What was announced is confirmed or given up: nothing waits for an owner that has ended."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT b.storage_key AS key, b.id AS about, b.kind AS detail
          FROM blob b LEFT JOIN session s ON s.id = b.session_id LEFT JOIN comparison c ON c.id = b.comparison_id
         WHERE b.state = 'pending' AND b.put_deadline < %(since)s
           AND (s.state <> 'open' OR c.state IN ('done', 'failed') OR b.artifact_id IS NOT NULL)
         LIMIT %(most)s
        """,
        {"since": idle_since, "most": _MOST},
    )


def stale_pins(tx: Tx) -> list[Breach]:
    """A session that has ended holds nothing."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT DISTINCT s.id::text AS key, s.id AS about, s.state AS detail
          FROM session s JOIN pin p ON p.session_id = s.id WHERE s.state <> 'open' LIMIT %(most)s
        """,
        {"most": _MOST},
    )


def idle_candidates(tx: Tx, idle_since: datetime) -> list[Breach]:
    """Somebody looks at every candidate."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT DISTINCT ON (c.blob_id) coalesce(b.storage_key, c.blob_id::text) AS key, c.blob_id AS about,
               'a look at whether anything still names it' AS detail
          FROM candidate c LEFT JOIN blob b ON b.id = c.blob_id
         WHERE c.queued_at < %(since)s ORDER BY c.blob_id LIMIT %(most)s
        """,
        {"since": idle_since, "most": _MOST},
    )


def idle_tombstones(tx: Tx, idle_since: datetime) -> list[Breach]:
    """Somebody tries to remove every condemned object that may be removed. What the store refuses is tried again for
    ever, and is no breach."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT t.storage_key AS key, t.blob_id AS about, 'its removal' AS detail FROM tombstone t
         WHERE t.next_at < %(since)s AND (t.claimed_until IS NULL OR t.claimed_until < %(since)s)
           AND NOT EXISTS (SELECT FROM release r JOIN deletion d ON d.id = r.deletion_id
                            WHERE r.blob_id = t.blob_id AND d.journaled_at IS NULL)
         ORDER BY t.next_at LIMIT %(most)s
        """,
        {"since": idle_since, "most": _MOST},
    )


def idle_sessions(tx: Tx, idle_since: datetime) -> list[Breach]:
    """Somebody ends the sessions whose time is over."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT id::text AS key, id AS about, 'its end' AS detail FROM session
         WHERE state = 'open' AND ends_at < %(since)s ORDER BY ends_at LIMIT %(most)s
        """,
        {"since": idle_since, "most": _MOST},
    )


def idle_objects(tx: Tx, idle_since: datetime) -> list[Breach]:
    """Somebody takes away the objects of the general blob API that have expired."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT b.storage_key AS key, b.id AS about, 'its removal, as it has expired,' AS detail
          FROM object o JOIN blob b ON b.id = o.blob_id
         WHERE o.expires_at < %(since)s ORDER BY o.expires_at LIMIT %(most)s
        """,
        {"since": idle_since, "most": _MOST},
    )


def unjournaled(tx: Tx, idle_since: datetime) -> list[Breach]:
    """Every deletion is in the store's journal: one that is not removes nothing and is forgotten with the database."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT id::text AS key, id AS about, requested_by AS detail FROM deletion
         WHERE journaled_at IS NULL AND requested_at < %(since)s ORDER BY requested_at LIMIT %(most)s
        """,
        {"since": idle_since, "most": _MOST},
    )


def unbalanced(tx: Tx) -> list[Breach]:
    """A receipt counts every object its deletion released, each in one class."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT DISTINCT d.id::text AS key, d.id AS about, k.kind AS detail
          FROM deletion d
          CROSS JOIN LATERAL (
               SELECT e.key AS kind, (e.value ->> 'released')::bigint AS released,
                      (e.value ->> 'removed')::bigint + (e.value ->> 'kept_shared')::bigint AS settled,
                      (e.value ->> 'waiting')::bigint + (e.value ->> 'kept_pinned')::bigint AS open
                 FROM json_each(d.receipt -> 'objects') e) k
         WHERE d.state = 'complete'
           AND (k.open <> 0 OR k.released <> k.settled
                -- What a deletion taken from the journal had let go of is known to its receipt only.
                OR NOT d.recovered AND k.released <> (SELECT count(*) FROM release r WHERE r.deletion_id = d.id AND r.kind = k.kind))
         LIMIT %(most)s
        """,
        {"most": _MOST},
    )


def broken_receipts(tx: Tx) -> list[Breach]:
    """Once a deletion is complete, nothing it marked or released stands, but what a snapshot names, or another deletion
    that is still open answers for. A lost image that was replaced is answered for by its replacement."""
    return rows.many(
        tx,
        Breach,
        """
        SELECT d.id::text AS key, d.id AS about, 'an object' AS detail
          FROM deletion d
         WHERE d.state = 'complete'
           AND EXISTS (
               SELECT FROM release r
                 LEFT JOIN blob b ON b.id = r.blob_id LEFT JOIN tombstone t ON t.blob_id = r.blob_id
                WHERE r.deletion_id = d.id AND (b.id IS NOT NULL OR t.blob_id IS NOT NULL)
                  -- What only a marked snapshot names is released by the deletion that marked it.
                  AND NOT EXISTS (SELECT FROM blob_reference f WHERE f.blob_id = r.blob_id OFFSET 0)
                  AND NOT EXISTS (SELECT FROM release o JOIN deletion p ON p.id = o.deletion_id
                                   WHERE o.blob_id = r.blob_id AND p.state = 'removing')
                  AND NOT EXISTS (SELECT FROM tombstone h JOIN blob n ON n.project_id = h.project_id
                                     AND n.digest = h.digest AND n.kind = 'image' AND n.state = 'live'
                                   WHERE h.blob_id = r.blob_id AND h.kind = 'image'
                                     AND EXISTS (SELECT FROM live_reference l WHERE l.blob_id = n.id OFFSET 0)))
        UNION ALL
        SELECT d.id::text, d.id, 'a snapshot' FROM deletion d JOIN artifact a ON a.deletion_id = d.id
         WHERE d.state = 'complete'
        UNION ALL
        SELECT d.id::text, d.id, 'trace rows' FROM deletion d JOIN trace_removal t ON t.deletion_id = d.id
         WHERE d.state = 'complete' AND t.removed_at IS NULL
         LIMIT %(most)s
        """,
        {"most": _MOST},
    )
