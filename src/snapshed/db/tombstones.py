"""Rows about letting go of bytes: candidates, the move from `blob` to `tombstone`, and the tombstones until they close.

A row moves, it does not change meaning: condemning deletes it from `blob` and inserts it into `tombstone` in one
statement, so that a plain foreign key is a complete guard. Nothing here talks to the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import rows
from snapshed.db.blobs import Kind, NewBlob
from snapshed.db.pool import Tx


@dataclass(frozen=True, slots=True)
class Candidate:
    seq: int
    blob_id: UUID


@dataclass(frozen=True, slots=True)
class Claimed:
    """A tombstone claimed for removal."""

    storage_key: str
    blob_id: UUID
    kind: Kind
    attempts: int


@dataclass(frozen=True, slots=True)
class Postponed:
    """A removal the store did not grant, and when it is tried again."""

    storage_key: str
    next_at: datetime
    error_class: str
    last_error: str


@dataclass(frozen=True, slots=True)
class Concerned:
    """Whom a condemned object concerns, for the log: its organization and project and the deletions that released it."""

    storage_key: str
    org: str | None
    project: str | None
    deletions: list[UUID]


def pending_of_sessions(tx: Tx, session_ids: list[UUID]) -> list[UUID]:
    return rows.column(
        tx,
        UUID,
        "SELECT id FROM blob WHERE session_id = ANY(%(ids)s) AND state = 'pending' ORDER BY id FOR UPDATE",
        {"ids": session_ids},
    )


def pending_of_comparison(tx: Tx, comparison_id: UUID) -> list[UUID]:
    return rows.column(
        tx,
        UUID,
        "SELECT id FROM blob WHERE comparison_id = %(id)s AND state = 'pending' ORDER BY id FOR UPDATE",
        {"id": comparison_id},
    )


def overdue_of_artifacts(tx: Tx, now: datetime, limit: int) -> list[UUID]:
    """Objects announced for an artifact that nobody confirmed within their put deadline, locked: their maker died."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT id FROM blob
         WHERE artifact_id IS NOT NULL AND state = 'pending' AND put_deadline < %(now)s
         ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        """,
        {"now": now, "limit": limit},
    )


def condemn_pending(tx: Tx, blob_ids: list[UUID], now: datetime, *, settled: bool) -> int:
    """Give up announced objects. `settled` says that no attempt to store them can still land."""
    return rows.run(
        tx,
        """
        WITH gone AS (
            DELETE FROM blob WHERE id = ANY(%(ids)s) AND state = 'pending'
            RETURNING storage_key, id, project_id, kind, digest, size, made_of, put_deadline
        )
        INSERT INTO tombstone (storage_key, blob_id, project_id, kind, digest, bytes, made_of, condemned_at,
                               not_final_before, next_at)
        SELECT storage_key, id, project_id, kind, digest, size, made_of, %(now)s,
               CASE WHEN %(settled)s THEN %(now)s ELSE greatest(put_deadline, %(now)s) END, %(now)s
          FROM gone
        """,
        {"ids": blob_ids, "now": now, "settled": settled},
    )


def take_candidates(tx: Tx, limit: int) -> list[Candidate]:
    """The oldest candidates nobody else works on, locked until this transaction ends: an equal share of each project."""
    return rows.many(
        tx,
        Candidate,
        """
        WITH RECURSIVE turn AS (
            -- One index look-up a project, however many candidates each has.
            (SELECT project_id FROM candidate ORDER BY project_id LIMIT 1)
            UNION ALL
            SELECT (SELECT c.project_id FROM candidate c WHERE c.project_id > t.project_id ORDER BY c.project_id LIMIT 1)
              FROM turn t WHERE t.project_id IS NOT NULL
        ), projects AS (
            SELECT project_id, greatest(1, %(limit)s / count(*) OVER ()) AS share FROM turn WHERE project_id IS NOT NULL
        )
        SELECT c.seq, c.blob_id
          FROM projects p,
               LATERAL (SELECT seq, blob_id FROM candidate
                         WHERE project_id = p.project_id ORDER BY seq LIMIT p.share FOR UPDATE SKIP LOCKED) c
         LIMIT %(limit)s
        """,
        {"limit": limit},
    )


def unreferenced(tx: Tx, blob_ids: list[UUID]) -> list[UUID]:
    """T6 statement A, reading only: the live blobs that visibly have neither a reference nor a pin."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT b.id FROM blob b
         WHERE b.id = ANY(%(ids)s) AND b.state = 'live'
           AND NOT EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
           AND NOT EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id)
        """,
        {"ids": blob_ids},
    )


def lock_unclaimed(tx: Tx, blob_ids: list[UUID]) -> list[UUID]:
    """T6 statement B: lock these rows in id order, passing over whatever somebody is about to name."""
    return rows.column(
        tx,
        UUID,
        "SELECT id FROM blob WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED",
        {"ids": blob_ids},
    )


def condemn(tx: Tx, blob_ids: list[UUID], now: datetime) -> int:
    """T6 statement C, seeing what was committed before the locks: move those still free. Returns how many."""
    return rows.run(
        tx,
        """
        WITH gone AS (
            DELETE FROM blob b
             WHERE b.id = ANY(%(ids)s) AND b.state = 'live'
               AND NOT EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)
               AND NOT EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id)
            RETURNING storage_key, id, project_id, kind, digest, size, made_of, put_deadline
        )
        INSERT INTO tombstone (storage_key, blob_id, project_id, kind, digest, bytes, made_of, condemned_at,
                               not_final_before, next_at)
        SELECT storage_key, id, project_id, kind, digest, size, made_of, %(now)s,
               greatest(coalesce(put_deadline, %(now)s), %(now)s), %(now)s
          FROM gone
        """,
        {"ids": blob_ids, "now": now},
    )


def drop_candidates(tx: Tx, sequence_numbers: list[int]) -> None:
    rows.run(tx, "DELETE FROM candidate WHERE seq = ANY(%(seqs)s)", {"seqs": sequence_numbers})


def claim_tombstones(tx: Tx, claim: UUID, now: datetime, until: datetime, limit: int, *, again: bool) -> list[Claimed]:
    """Claim due tombstones until `until`: those that have failed before, or the others. The two never share a request,
    so that what cannot be removed delays nothing else. None whose releasing deletions are not all in the journal:
    nothing is destroyed that a rebuilt database could not be told about."""
    return rows.many(
        tx,
        Claimed,
        """
        -- An array is asked for once. With IN (...) the planner may ask again for every row: quadratic, and over the limit.
        UPDATE tombstone SET claim = %(claim)s, claimed_until = %(until)s
         WHERE storage_key = ANY(ARRAY(
            SELECT t.storage_key FROM tombstone t
             WHERE t.next_at <= %(now)s AND (t.claimed_until IS NULL OR t.claimed_until < %(now)s)
               AND (t.attempts > 0) = %(again)s
               AND NOT EXISTS (SELECT FROM release r JOIN deletion d ON d.id = r.deletion_id
                                WHERE r.blob_id = t.blob_id AND d.journaled_at IS NULL)
             ORDER BY t.next_at LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED))
        RETURNING storage_key, blob_id, kind, attempts
        """,
        {"claim": claim, "now": now, "until": until, "limit": limit, "again": again},
    )


@dataclass(frozen=True, slots=True)
class _Closed:
    blob_id: UUID
    bytes: int
    condemned_at: datetime


def close_tombstones(tx: Tx, keys: list[str], sent_at: datetime, now: datetime) -> int:
    """The store has confirmed: close what was sent late enough to be final, note it on every release of the blob,
    and schedule the second removal of the rest. Returns how many closed.

    Whose claim it is does not matter: the store's answer stays true when the claim has ended.
    """
    closed = rows.many(
        tx,
        _Closed,
        """
        DELETE FROM tombstone WHERE storage_key = ANY(%(keys)s) AND not_final_before <= %(sent_at)s
        RETURNING blob_id, bytes, condemned_at
        """,
        {"keys": keys, "sent_at": sent_at},
    )
    rows.run(
        tx,
        "UPDATE release SET removed_at = %(now)s WHERE blob_id = ANY(%(blobs)s) AND removed_at IS NULL",
        {"blobs": [one.blob_id for one in closed], "now": now},
    )
    if len(closed) < len(keys):
        rows.run(
            tx,
            """
            UPDATE tombstone
               SET next_at = greatest(next_at, not_final_before), claim = NULL, claimed_until = NULL,
                   attempts = 0, error_class = NULL, last_error = NULL
             WHERE storage_key = ANY(%(keys)s)
            """,
            {"keys": keys},
        )
    if closed:
        waited = sum((now - one.condemned_at).total_seconds() for one in closed)
        count(tx, "removed", len(closed), sum(one.bytes for one in closed), waited)
    return len(closed)


def postpone_tombstones(tx: Tx, claim: UUID, postponed: list[Postponed]) -> None:
    """The store refused or failed: each waits until its own time. Whoever has taken over meanwhile decides alone."""
    rows.run(
        tx,
        """
        UPDATE tombstone t
           SET attempts = t.attempts + 1, next_at = n.next_at, claim = NULL, claimed_until = NULL,
               error_class = n.error_class, last_error = n.last_error
          FROM unnest(%(keys)s::text[], %(times)s::timestamptz[], %(classes)s::text[], %(errors)s::text[])
               AS n (storage_key, next_at, error_class, last_error)
         WHERE t.storage_key = n.storage_key AND t.claim = %(claim)s
        """,
        {
            "claim": claim,
            "keys": [item.storage_key for item in postponed],
            "times": [item.next_at for item in postponed],
            "classes": [item.error_class for item in postponed],
            "errors": [item.last_error for item in postponed],
        },
    )
    for error_class in ("refused", "throttled", "unavailable"):
        if number := sum(item.error_class == error_class for item in postponed):
            count(tx, error_class, number, 0)


def count(tx: Tx, outcome: str, objects: int, size: int, seconds: float = 0.0) -> None:
    """Add to the removals since the beginning; `seconds` that the objects had been condemned, in all. Called last in a transaction and in the order of the outcomes' names, so
    that two workers never wait for each other in a circle."""
    rows.run(
        tx,
        """
        INSERT INTO removal_count AS c (outcome, objects, bytes, seconds)
        VALUES (%(outcome)s, %(objects)s, %(bytes)s, %(seconds)s)
            ON CONFLICT (outcome) DO UPDATE
               SET objects = c.objects + excluded.objects, bytes = c.bytes + excluded.bytes,
                   seconds = c.seconds + excluded.seconds
        """,
        {"outcome": outcome, "objects": objects, "bytes": size, "seconds": max(0.0, seconds)},
    )


def concerned(tx: Tx, keys: list[str]) -> list[Concerned]:
    """Whom these tombstones concern. Reads only."""
    return rows.many(
        tx,
        Concerned,
        """
        SELECT t.storage_key, o.slug AS org, p.slug AS project,
               ARRAY(SELECT r.deletion_id FROM release r WHERE r.blob_id = t.blob_id ORDER BY r.deletion_id) AS deletions
          FROM tombstone t
          LEFT JOIN project p ON p.id = t.project_id LEFT JOIN org o ON o.id = p.org_id
         WHERE t.storage_key = ANY(%(keys)s)
        """,
        {"keys": keys},
    )


def returned(tx: Tx, blob_ids: list[UUID]) -> dict[UUID, int]:
    """Note that the store has these again although it had said that they are gone: no deletion has them removed any
    more. Returns how often that has happened to each."""
    found = rows.many(
        tx,
        _Returned,
        """
        WITH noted AS (
            UPDATE release SET returned = returned + 1, removed_at = NULL WHERE blob_id = ANY(%(ids)s)
            RETURNING blob_id, returned
        )
        SELECT blob_id, max(returned) AS times FROM noted GROUP BY blob_id
        """,
        {"ids": blob_ids},
    )
    return {item.blob_id: item.times for item in found}


@dataclass(frozen=True, slots=True)
class _Returned:
    blob_id: UUID
    times: int


def condemn_again(tx: Tx, blob: NewBlob, project_id: int, attempts: int, now: datetime, failed: Postponed) -> None:
    """A tombstone for what the store has again, tried when `failed` says so and counted as failed `attempts` times."""
    rows.run(
        tx,
        """
        INSERT INTO tombstone (storage_key, blob_id, project_id, kind, digest, bytes, made_of, condemned_at,
                               not_final_before, next_at, attempts, error_class, last_error)
        VALUES (%(key)s, %(id)s, %(project)s, %(kind)s, %(digest)s, %(bytes)s, '{}', %(now)s, %(now)s, %(next_at)s,
                %(attempts)s, %(class)s, %(error)s)
            ON CONFLICT DO NOTHING
        """,
        {
            "key": blob.storage_key,
            "id": blob.id,
            "project": project_id,
            "kind": blob.kind,
            "digest": blob.digest,
            "bytes": blob.size,
            "now": now,
            "next_at": failed.next_at,
            "attempts": attempts,
            "class": failed.error_class,
            "error": failed.last_error,
        },
    )


def adopt(tx: Tx, blobs: list[NewBlob], project_id: int, now: datetime) -> None:
    """Take objects that no row explains as tombstones, so that they are removed with an outcome like any other."""
    rows.run(
        tx,
        """
        INSERT INTO tombstone (storage_key, blob_id, project_id, kind, digest, bytes, made_of, condemned_at,
                               not_final_before, next_at)
        SELECT n.storage_key, n.id, %(project)s, n.kind, n.digest, n.size, '{}', %(now)s, %(now)s, %(now)s
          FROM unnest(%(ids)s::uuid[], %(kinds)s::text[], %(digests)s::text[], %(sizes)s::bigint[], %(keys)s::text[])
               AS n (id, kind, digest, size, storage_key)
            ON CONFLICT DO NOTHING
        """,
        {
            "project": project_id,
            "now": now,
            "ids": [blob.id for blob in blobs],
            "kinds": [blob.kind for blob in blobs],
            "digests": [blob.digest for blob in blobs],
            "sizes": [blob.size for blob in blobs],
            "keys": [blob.storage_key for blob in blobs],
        },
    )
