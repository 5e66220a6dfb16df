"""Rows about upload sessions and what each was promised.

A session is open until one transaction, holding its row lock, says otherwise; no clock is compared anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx

State = Literal["open", "committed", "expired", "cancelled"]


@dataclass(frozen=True, slots=True)
class Session:
    id: UUID
    project_id: int
    principal: str
    artifact_id: UUID
    state: State
    opened_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Remembered:
    """A create that was committed; `present` says whether its snapshot is still there and unmarked."""

    number: int
    present: bool


def add(tx: Tx, session: Session) -> None:
    rows.run(
        tx,
        """
        INSERT INTO session (id, project_id, principal, artifact_id, state, opened_at, ends_at)
        VALUES (%(id)s, %(project)s, %(principal)s, %(artifact)s, 'open', %(opened_at)s, %(ends_at)s)
        """,
        {
            "id": session.id,
            "project": session.project_id,
            "principal": session.principal,
            "artifact": session.artifact_id,
            "opened_at": session.opened_at,
            "ends_at": session.ends_at,
        },
    )


def extend(tx: Tx, session_id: UUID, ends_at: datetime) -> None:
    """Push the end of an open session to `ends_at`; never pulls it nearer."""
    rows.run(
        tx,
        "UPDATE session SET ends_at = %(ends_at)s WHERE id = %(id)s AND state = 'open' AND ends_at < %(ends_at)s",
        {"id": session_id, "ends_at": ends_at},
    )


def find(tx: Tx, session_id: UUID) -> Session | None:
    return rows.one(
        tx,
        Session,
        "SELECT id, project_id, principal, artifact_id, state, opened_at, ends_at FROM session WHERE id = %(id)s",
        {"id": session_id},
    )


def lock_shared(tx: Tx, session_id: UUID) -> Session | None:
    """The session, share-locked: it cannot end before this transaction does."""
    return rows.one(
        tx,
        Session,
        """
        SELECT id, project_id, principal, artifact_id, state, opened_at, ends_at
          FROM session WHERE id = %(id)s FOR SHARE
        """,
        {"id": session_id},
    )


def lock(tx: Tx, session_id: UUID) -> Session | None:
    """The session, locked: nothing is stored or promised in it until this transaction ends."""
    return rows.one(
        tx,
        Session,
        """
        SELECT id, project_id, principal, artifact_id, state, opened_at, ends_at
          FROM session WHERE id = %(id)s FOR UPDATE
        """,
        {"id": session_id},
    )


def pin(tx: Tx, session_id: UUID, blob_ids: list[UUID], how: Literal["told", "stored"]) -> None:
    """Promise blobs to a session. A blob it stored stays `stored`, whatever it is told later."""
    rows.run(
        tx,
        """
        INSERT INTO pin (session_id, blob_id, how)
        SELECT %(session)s, id, %(how)s FROM unnest(%(blobs)s::uuid[]) AS id ORDER BY id
            ON CONFLICT (session_id, blob_id) DO UPDATE SET how = 'stored'
         WHERE excluded.how = 'stored' AND pin.how <> 'stored'
        """,
        {"session": session_id, "blobs": blob_ids, "how": how},
    )


def remembered(tx: Tx, project_id: int, request_hash: str, since: datetime) -> Remembered | None:
    """The newest create with this request hash that was committed after `since`."""
    return rows.one(
        tx,
        Remembered,
        """
        SELECT s.number,
               EXISTS (SELECT FROM artifact a WHERE a.id = s.artifact_id AND a.deletion_id IS NULL) AS present
          FROM session s
         WHERE s.project_id = %(project)s AND s.request_hash = %(hash)s
           AND s.state = 'committed' AND s.committed_at > %(since)s
         ORDER BY s.committed_at DESC LIMIT 1
        """,
        {"project": project_id, "hash": request_hash, "since": since},
    )


def remembered_of(tx: Tx, session_id: UUID, request_hash: str) -> Remembered | None:
    """What this very session made of this very request, if it is committed."""
    return rows.one(
        tx,
        Remembered,
        """
        SELECT s.number,
               EXISTS (SELECT FROM artifact a WHERE a.id = s.artifact_id AND a.deletion_id IS NULL) AS present
          FROM session s
         WHERE s.id = %(session)s AND s.request_hash = %(hash)s AND s.state = 'committed'
        """,
        {"session": session_id, "hash": request_hash},
    )


def matching(tx: Tx, project_id: int, digests: list[str]) -> UUID | None:
    """The open session a manifest with these digests belongs to, or None. A group's is nobody's alone.

    A session whose pinned digests are exactly these comes first. Else, only when the manifest names images that no
    live snapshot names, the session that holds them all, with as little besides as possible.
    """
    return rows.value(
        tx,
        UUID,
        """
        WITH wanted AS (
            SELECT d AS digest FROM unnest(%(digests)s::text[]) AS d
        ), unnamed AS (
            -- What only a pin can vouch for: no live snapshot names it.
            SELECT w.digest FROM wanted w
             WHERE NOT EXISTS (SELECT FROM blob b
                                WHERE b.project_id = %(project)s AND b.kind = 'image' AND b.state = 'live'
                                  AND b.digest = w.digest AND b.lost_at IS NULL
                                  AND EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0))
        ), held AS (
            SELECT s.id, s.opened_at,
                   count(DISTINCT b.digest) AS pinned,
                   count(DISTINCT b.digest) FILTER (WHERE w.digest IS NOT NULL) AS inside,
                   count(DISTINCT b.digest) FILTER (WHERE u.digest IS NOT NULL) AS vouched
              FROM session s
              JOIN pin p ON p.session_id = s.id
              JOIN blob b ON b.id = p.blob_id
              LEFT JOIN wanted w ON w.digest = b.digest
              LEFT JOIN unnamed u ON u.digest = b.digest
             WHERE s.project_id = %(project)s AND s.state = 'open' AND s.group_key IS NULL
             GROUP BY s.id, s.opened_at
        ), counted AS (
            SELECT h.*, (SELECT count(*) FROM wanted) AS wanted, (SELECT count(*) FROM unnamed) AS unnamed FROM held h
        )
        SELECT id FROM counted
         WHERE (pinned = wanted AND inside = wanted) OR (unnamed > 0 AND vouched = unnamed)
         ORDER BY (pinned = wanted AND inside = wanted) DESC, pinned - inside, inside DESC, opened_at DESC
         LIMIT 1
        """,
        {"project": project_id, "digests": digests},
    )


def closest(tx: Tx, project_id: int, digests: list[str]) -> UUID | None:
    """The open session that pins most of these images, or None: what it lacks is what its client has to upload."""
    return rows.value(
        tx,
        UUID,
        """
        SELECT s.id
          FROM session s JOIN pin p ON p.session_id = s.id JOIN blob b ON b.id = p.blob_id
         WHERE s.project_id = %(project)s AND s.state = 'open' AND s.group_key IS NULL AND b.digest = ANY(%(digests)s)
         GROUP BY s.id, s.opened_at
         ORDER BY count(DISTINCT b.digest) DESC, s.opened_at DESC LIMIT 1
        """,
        {"project": project_id, "digests": digests},
    )


def commit(tx: Tx, session_id: UUID, request_hash: str, number: int, now: datetime) -> None:
    """Close a session with the snapshot it made. The caller ends its pins."""
    rows.run(
        tx,
        """
        UPDATE session SET state = 'committed', request_hash = %(hash)s, number = %(number)s, committed_at = %(now)s
         WHERE id = %(id)s
        """,
        {"id": session_id, "hash": request_hash, "number": number, "now": now},
    )


def cancel(tx: Tx, session_id: UUID) -> None:
    """Close a session without a result. The caller holds its lock and ends its pins."""
    rows.run(tx, "UPDATE session SET state = 'cancelled' WHERE id = %(id)s AND state = 'open'", {"id": session_id})


def forget(tx: Tx, session_id: UUID) -> None:
    """Remove a session that made no artifact, so that nobody will ask for it again. The caller holds its lock and has
    ended its pins and what it had announced."""
    rows.run(tx, "DELETE FROM session WHERE id = %(id)s", {"id": session_id})


def unpin(tx: Tx, session_ids: list[UUID]) -> None:
    """End every pin of these sessions; a trigger enqueues what they held."""
    rows.run(tx, "DELETE FROM pin WHERE session_id = ANY(%(ids)s)", {"ids": session_ids})


def unpin_digest(tx: Tx, session_id: UUID, digest: str) -> None:
    """End a session's pin on one image."""
    rows.run(
        tx,
        """
        DELETE FROM pin p USING blob b
         WHERE p.session_id = %(session)s AND b.id = p.blob_id AND b.kind = 'image' AND b.digest = %(digest)s
        """,
        {"session": session_id, "digest": digest},
    )


def expire(tx: Tx, now: datetime, limit: int) -> list[UUID]:
    """T8: close open sessions whose time is over, each under its row lock; those somebody uses now are skipped."""
    return rows.column(
        tx,
        UUID,
        """
        UPDATE session SET state = 'expired'
         WHERE id = ANY(ARRAY(SELECT id FROM session  -- asked for once, where IN (...) may be asked again for every row
                               WHERE state = 'open' AND ends_at < %(now)s
                               ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
           AND state = 'open' AND ends_at < %(now)s
        RETURNING id
        """,
        {"now": now, "limit": limit},
    )


def cancel_for_urgent(tx: Tx, blob_ids: list[UUID]) -> list[UUID]:
    """Cancel the open sessions whose pin is all that keeps one of these blobs from an urgent deletion."""
    return rows.column(
        tx,
        UUID,
        """
        WITH met AS (
            SELECT s.id, d.id AS deletion_id FROM session s
              JOIN pin p ON p.session_id = s.id
              JOIN release r ON r.blob_id = p.blob_id
              JOIN deletion d ON d.id = r.deletion_id AND d.urgent AND d.state = 'removing'
             WHERE p.blob_id = ANY(%(blobs)s) AND s.state = 'open'
               AND NOT EXISTS (SELECT FROM blob_reference f WHERE f.blob_id = p.blob_id OFFSET 0)
             ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
        )
        UPDATE session s SET state = 'cancelled', cancelled_by = m.deletion_id
          FROM (SELECT DISTINCT ON (id) id, deletion_id FROM met ORDER BY id, deletion_id) m
         WHERE s.id = m.id AND s.state = 'open'
        RETURNING s.id
        """,
        {"blobs": blob_ids},
    )


@dataclass(frozen=True, slots=True)
class Refused:
    """An upload that an urgent deletion ends: its create will be refused."""

    principal: str
    opened_at: datetime


def cancelled_by(tx: Tx, deletion_id: UUID) -> list[Refused]:
    """The uploads this deletion has ended."""
    return rows.many(
        tx,
        Refused,
        "SELECT principal, opened_at FROM session WHERE cancelled_by = %(deletion)s ORDER BY opened_at, id",
        {"deletion": deletion_id},
    )


def pinning(tx: Tx, blob_ids: list[UUID]) -> list[Refused]:
    """The open uploads that were promised one of these blobs, or stored it."""
    return rows.many(
        tx,
        Refused,
        """
        SELECT principal, opened_at FROM session
         WHERE state = 'open' AND id IN (SELECT session_id FROM pin WHERE blob_id = ANY(%(blobs)s))
         ORDER BY opened_at, id
        """,
        {"blobs": blob_ids},
    )


def urgently_wanted(tx: Tx, blob_ids: list[UUID]) -> set[UUID]:
    """Those blobs that an open urgent deletion released and that only a pin keeps: its session could not be cancelled
    yet, or came after the look."""
    return set(
        rows.column(
            tx,
            UUID,
            """
            SELECT DISTINCT p.blob_id FROM pin p
              JOIN release r ON r.blob_id = p.blob_id
              JOIN deletion d ON d.id = r.deletion_id AND d.urgent AND d.state = 'removing'
             WHERE p.blob_id = ANY(%(blobs)s)
               AND NOT EXISTS (SELECT FROM blob_reference f WHERE f.blob_id = p.blob_id OFFSET 0)
            """,
            {"blobs": blob_ids},
        )
    )


def open_count(tx: Tx) -> int:
    return rows.value(tx, int, "SELECT count(*) FROM session WHERE state = 'open'") or 0
