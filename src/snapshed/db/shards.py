"""Rows about groups of shards: sessions that several jobs share, and the parts of a manifest they have handed in.

Nothing is promised or pinned here; the session does that for all its shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.db.sessions import Session, State


@dataclass(frozen=True, slots=True)
class Group:
    """A session with a key; `number` is the snapshot it made, and `present` whether that is there and unmarked."""

    session_id: UUID
    key: str
    shards: int
    state: State
    ends_at: datetime
    number: int | None
    present: bool


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    body: bytes


def open_group(tx: Tx, session: Session, key: str, shards: int) -> None:
    """Open a session for a group, unless the same principal has one open under this key."""
    rows.run(
        tx,
        """
        INSERT INTO session (id, project_id, principal, artifact_id, state, opened_at, ends_at, group_key, shards)
        VALUES (%(id)s, %(project)s, %(principal)s, %(artifact)s, 'open', %(opened_at)s, %(ends_at)s, %(key)s, %(shards)s)
            ON CONFLICT (project_id, principal, group_key) WHERE state = 'open' AND group_key IS NOT NULL DO NOTHING
        """,
        {
            "id": session.id,
            "project": session.project_id,
            "principal": session.principal,
            "artifact": session.artifact_id,
            "opened_at": session.opened_at,
            "ends_at": session.ends_at,
            "key": key,
            "shards": shards,
        },
    )


def find_open(tx: Tx, project_id: int, principal: str, key: str) -> Group | None:
    """The open group of this principal and key."""
    return rows.one(
        tx,
        Group,
        """
        SELECT id AS session_id, group_key AS key, shards, state, ends_at, number, false AS present
          FROM session
         WHERE project_id = %(project)s AND principal = %(principal)s AND group_key = %(key)s AND state = 'open'
        """,
        {"project": project_id, "principal": principal, "key": key},
    )


def find(tx: Tx, session_id: UUID) -> Group | None:
    """The group whose session this is; None for a session of one client alone."""
    return rows.one(
        tx,
        Group,
        """
        SELECT s.id AS session_id, s.group_key AS key, s.shards, s.state, s.ends_at, s.number,
               EXISTS (SELECT FROM artifact a WHERE a.id = s.artifact_id AND a.deletion_id IS NULL) AS present
          FROM session s WHERE s.id = %(id)s AND s.group_key IS NOT NULL
        """,
        {"id": session_id},
    )


def newest(tx: Tx, project_ids: list[int], key: str) -> Group | None:
    """The newest group of this key, whatever has become of it."""
    return rows.one(
        tx,
        Group,
        """
        SELECT s.id AS session_id, s.group_key AS key, s.shards, s.state, s.ends_at, s.number,
               EXISTS (SELECT FROM artifact a WHERE a.id = s.artifact_id AND a.deletion_id IS NULL) AS present
          FROM session s WHERE s.project_id = ANY(%(projects)s) AND s.group_key = %(key)s
         ORDER BY s.opened_at DESC, s.id DESC LIMIT 1
        """,
        {"projects": project_ids, "key": key},
    )


def keep(tx: Tx, session_id: UUID, number: int, request_hash: str, body: bytes, now: datetime) -> None:
    """Keep a part, in the place of an earlier one of the same number. The caller holds the session's lock."""
    rows.run(
        tx,
        """
        INSERT INTO shard (session_id, number, request_hash, body, arrived_at)
        VALUES (%(session)s, %(number)s, %(hash)s, %(body)s, %(now)s)
            ON CONFLICT (session_id, number)
            DO UPDATE SET request_hash = excluded.request_hash, body = excluded.body, arrived_at = excluded.arrived_at
        """,
        {"session": session_id, "number": number, "hash": request_hash, "body": body, "now": now},
    )


def parts(tx: Tx, session_id: UUID) -> list[Part]:
    """The parts that have arrived, by number; none once the session has ended."""
    return rows.many(
        tx,
        Part,
        "SELECT number, body FROM shard WHERE session_id = %(session)s AND body IS NOT NULL ORDER BY number",
        {"session": session_id},
    )


def arrived(tx: Tx, session_id: UUID) -> list[int]:
    """The numbers of the parts that have arrived, also after the session's end."""
    return rows.column(
        tx, int, "SELECT number FROM shard WHERE session_id = %(session)s ORDER BY number", {"session": session_id}
    )


def is_known(tx: Tx, session_id: UUID, number: int, request_hash: str) -> bool:
    """Whether this very part has arrived."""
    return bool(
        rows.value(
            tx,
            bool,
            """
            SELECT true FROM shard
             WHERE session_id = %(session)s AND number = %(number)s AND request_hash = %(hash)s
            """,
            {"session": session_id, "number": number, "hash": request_hash},
        )
    )


def forget_bodies(tx: Tx, session_ids: list[UUID]) -> None:
    """Drop what parts said; that they arrived stays known."""
    rows.run(
        tx,
        "UPDATE shard SET body = NULL WHERE session_id = ANY(%(ids)s) AND body IS NOT NULL",
        {"ids": session_ids},
    )
