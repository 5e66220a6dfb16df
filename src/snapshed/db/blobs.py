"""Rows about stored bytes: announced, live, condemned, removed.

A row moves, it does not change meaning: condemning deletes it from `blob` and inserts it into `tombstone` in one
statement, so that a plain foreign key is a complete guard. Nothing here talks to the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx

Kind = Literal["image", "manifest", "comparison", "mask", "thumbnail", "archive", "file"]
KINDS: tuple[Kind, ...] = ("image", "manifest", "comparison", "mask", "thumbnail", "archive", "file")


@dataclass(frozen=True, slots=True)
class NewBlob:
    """An object about to be stored; `size` in bytes."""

    id: UUID
    kind: Kind
    digest: str
    size: int
    storage_key: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A live object, as its readers need it."""

    id: UUID
    digest: str
    size: int
    storage_key: str
    announced_at: datetime


@dataclass(frozen=True, slots=True)
class Digested:
    id: UUID
    digest: str


@dataclass(frozen=True, slots=True)
class Candidate:
    seq: int
    blob_id: UUID


@dataclass(frozen=True, slots=True)
class Claimed:
    """A tombstone claimed for removal."""

    storage_key: str
    blob_id: UUID
    not_final_before: datetime
    attempts: int


# --- T1: what may be promised ------------------------------------------------------------------------------


def promise(tx: Tx, project_id: int, session_id: UUID, digests: list[str]) -> list[Stored]:
    """Those images that a live snapshot names or this session stored, share-locked in id order and pinned (`told`)."""
    return rows.many(
        tx,
        Stored,
        """
        WITH promised AS (
            SELECT b.id, b.digest, b.size, b.storage_key, b.announced_at
              FROM blob b
             WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live'
               AND b.digest = ANY(%(digests)s)
               AND (EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
                    OR EXISTS (SELECT FROM pin p
                                WHERE p.blob_id = b.id AND p.session_id = %(session)s AND p.how = 'stored'))
             ORDER BY b.id FOR KEY SHARE OF b
        ), pinned AS (
            INSERT INTO pin (session_id, blob_id, how)
            SELECT %(session)s, id, 'told' FROM promised ORDER BY id
                ON CONFLICT (session_id, blob_id) DO NOTHING
        )
        SELECT id, digest, size, storage_key, announced_at FROM promised
        """,
        {"project": project_id, "session": session_id, "digests": digests},
    )


def readable(tx: Tx, project_id: int, digest: str, session_id: UUID | None) -> Stored | None:
    """An image that a live snapshot of the project names, or that the caller's own open session stored."""
    return rows.one(
        tx,
        Stored,
        """
        SELECT b.id, b.digest, b.size, b.storage_key, b.announced_at
          FROM blob b
         WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.digest = %(digest)s
           AND (EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
                OR EXISTS (SELECT FROM pin p JOIN session s ON s.id = p.session_id
                            WHERE p.blob_id = b.id AND p.how = 'stored' AND s.id = %(session)s AND s.state = 'open'))
        """,
        {"project": project_id, "digest": digest, "session": session_id},
    )


def readable_by_id(tx: Tx, project_id: int, blob_id: UUID) -> Stored | None:
    """Any object of the project that something live names: a mask, a report, a manifest, an image."""
    return rows.one(
        tx,
        Stored,
        """
        SELECT b.id, b.digest, b.size, b.storage_key, b.announced_at
          FROM blob b
         WHERE b.id = %(id)s AND b.project_id = %(project)s AND b.state = 'live'
           AND EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
        """,
        {"id": blob_id, "project": project_id},
    )


# --- T2, T3: announced, then live ----------------------------------------------------------------------------


def announce(
    tx: Tx,
    project_id: int,
    blobs: list[NewBlob],
    deadline: datetime,
    now: datetime,
    *,
    session_id: UUID | None = None,
    comparison_id: UUID | None = None,
    made_of: list[UUID] | None = None,
) -> None:
    """Write objects down before their first byte. The caller holds the owner's lock."""
    rows.run(
        tx,
        """
        INSERT INTO blob (id, project_id, kind, digest, size, storage_key, state, put_deadline, session_id,
                          comparison_id, made_of, announced_at)
        SELECT n.id, %(project)s, n.kind, n.digest, n.size, n.storage_key, 'pending', %(deadline)s, %(session)s,
               %(comparison)s, %(made_of)s, %(now)s
          FROM unnest(%(ids)s::uuid[], %(kinds)s::text[], %(digests)s::text[], %(sizes)s::bigint[], %(keys)s::text[])
               AS n (id, kind, digest, size, storage_key)
         ORDER BY n.id
        """,
        {
            "project": project_id,
            "deadline": deadline,
            "session": session_id,
            "comparison": comparison_id,
            "made_of": made_of or [],
            "now": now,
            "ids": [blob.id for blob in blobs],
            "kinds": [blob.kind for blob in blobs],
            "digests": [blob.digest for blob in blobs],
            "sizes": [blob.size for blob in blobs],
            "keys": [blob.storage_key for blob in blobs],
        },
    )


def lock_images(tx: Tx, project_id: int) -> None:
    """Let one finalise at a time into a project: overlapping uploaders would deadlock on the unique image index."""
    rows.run(tx, "SELECT pg_advisory_xact_lock(1, %(project)s::int)", {"project": project_id})


def live_images(tx: Tx, project_id: int, digests: list[str]) -> list[Digested]:
    """The live images of these digests, whoever names them, locked in id order against being condemned."""
    return rows.many(
        tx,
        Digested,
        """
        SELECT id, digest FROM blob
         WHERE project_id = %(project)s AND kind = 'image' AND state = 'live' AND digest = ANY(%(digests)s)
         ORDER BY id FOR KEY SHARE
        """,
        {"project": project_id, "digests": digests},
    )


def make_live(tx: Tx, blob_ids: list[UUID]) -> list[UUID]:
    """Turn announced rows live, their one PUT answered; the ids of those that were still announced."""
    return rows.column(
        tx,
        UUID,
        """
        UPDATE blob SET state = 'live', put_deadline = NULL, session_id = NULL, comparison_id = NULL
         WHERE id = ANY(%(ids)s) AND state = 'pending'
        RETURNING id
        """,
        {"ids": blob_ids},
    )


# --- T4: what may be named -----------------------------------------------------------------------------------


def nameable(tx: Tx, project_id: int, session_id: UUID, digests: list[str]) -> list[Digested]:
    """Those images that this session pinned or a live snapshot names, locked in id order. Nobody who never had the
    bytes can bring an image back that is only waiting to go."""
    return rows.many(
        tx,
        Digested,
        """
        SELECT b.id, b.digest FROM blob b
         WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live' AND b.digest = ANY(%(digests)s)
           AND (EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id AND p.session_id = %(session)s)
                OR EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0))
         ORDER BY b.id FOR KEY SHARE OF b
        """,
        {"project": project_id, "session": session_id, "digests": digests},
    )


# --- Condemning ------------------------------------------------------------------------------------------------


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
    """The oldest candidates nobody else works on, locked until this transaction ends."""
    return rows.many(
        tx,
        Candidate,
        "SELECT seq, blob_id FROM candidate ORDER BY seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED",
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


# --- T7: removing ------------------------------------------------------------------------------------------------


def claim_tombstones(tx: Tx, claim: UUID, now: datetime, until: datetime, limit: int) -> list[Claimed]:
    """Claim due tombstones until `until`. None whose releasing deletions are not all in the journal: nothing is
    destroyed that a rebuilt database could not be told about."""
    return rows.many(
        tx,
        Claimed,
        """
        UPDATE tombstone SET claim = %(claim)s, claimed_until = %(until)s
         WHERE storage_key IN (
            SELECT t.storage_key FROM tombstone t
             WHERE t.next_at <= %(now)s AND (t.claimed_until IS NULL OR t.claimed_until < %(now)s)
               AND NOT EXISTS (SELECT FROM release r JOIN deletion d ON d.id = r.deletion_id
                                WHERE r.blob_id = t.blob_id AND d.journaled_at IS NULL)
             ORDER BY t.next_at LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED)
        RETURNING storage_key, blob_id, not_final_before, attempts
        """,
        {"claim": claim, "now": now, "until": until, "limit": limit},
    )


def close_tombstones(tx: Tx, keys: list[str], sent_at: datetime, now: datetime) -> int:
    """The store has confirmed: close what was sent late enough to be final, note it on every release of the blob,
    and schedule the second removal of the rest. Returns how many closed.

    Whose claim it is does not matter: the store's answer stays true when the claim has ended.
    """
    rows.run(
        tx,
        """
        UPDATE release r SET removed_at = %(now)s
          FROM tombstone t
         WHERE t.storage_key = ANY(%(keys)s) AND t.not_final_before <= %(sent_at)s
           AND r.blob_id = t.blob_id AND r.removed_at IS NULL
        """,
        {"keys": keys, "sent_at": sent_at, "now": now},
    )
    closed = rows.run(
        tx,
        "DELETE FROM tombstone WHERE storage_key = ANY(%(keys)s) AND not_final_before <= %(sent_at)s",
        {"keys": keys, "sent_at": sent_at},
    )
    rows.run(
        tx,
        """
        UPDATE tombstone SET next_at = greatest(next_at, not_final_before), claim = NULL, claimed_until = NULL
         WHERE storage_key = ANY(%(keys)s)
        """,
        {"keys": keys},
    )
    return closed


def postpone_tombstone(tx: Tx, claim: UUID, key: str, next_at: datetime, error_class: str, last_error: str) -> None:
    """The store refused or failed: wait longer each time, for ever."""
    rows.run(
        tx,
        """
        UPDATE tombstone
           SET attempts = attempts + 1, next_at = %(next_at)s, claim = NULL, claimed_until = NULL,
               error_class = %(class)s, last_error = %(error)s
         WHERE storage_key = %(key)s AND claim = %(claim)s
        """,
        {"key": key, "claim": claim, "next_at": next_at, "class": error_class, "error": last_error},
    )


def releasing(tx: Tx, blob_id: UUID) -> list[UUID]:
    """The deletions that released this blob."""
    return rows.column(tx, UUID, "SELECT deletion_id FROM release WHERE blob_id = %(id)s", {"id": blob_id})


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


# --- For reconcile and metrics ---------------------------------------------------------------------------------


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
