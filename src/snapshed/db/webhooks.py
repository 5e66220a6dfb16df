"""Rows about webhooks and what is still to be told to them. What is announced here commits with what it tells about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Json

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.webhooks import Event


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as it is listed: without its secret."""

    id: UUID
    org_slug: str
    project_slug: str
    url: str
    events: list[str]
    created_at: datetime
    revoked_at: datetime | None
    waiting: int
    """How many deliveries it has not taken yet."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing to be told, to whom, and how often it was tried."""

    id: UUID
    webhook_id: UUID
    url: str
    secret: str
    event: str
    body: str
    created_at: datetime
    attempts: int


def add(tx: Tx, webhook_id: UUID, project_id: int, url: str, secret: str, events: Sequence[str], now: datetime) -> None:
    rows.run(
        tx,
        """
        INSERT INTO webhook (id, project_id, url, secret, events, created_at)
        VALUES (%(id)s, %(project)s, %(url)s, %(secret)s, %(events)s, %(now)s)
        """,
        {"id": webhook_id, "project": project_id, "url": url, "secret": secret, "events": list(events), "now": now},
    )


def listing(tx: Tx) -> list[Webhook]:
    return rows.many(
        tx,
        Webhook,
        """
        SELECT w.id, o.slug AS org_slug, p.slug AS project_slug, w.url, w.events, w.created_at, w.revoked_at,
               (SELECT count(*) FROM webhook_delivery d WHERE d.webhook_id = w.id) AS waiting
          FROM webhook w JOIN project p ON p.id = w.project_id JOIN org o ON o.id = p.org_id
         ORDER BY w.created_at, w.id
        """,
    )


def revoke(tx: Tx, webhook_id: UUID, now: datetime) -> bool:
    """Revoke a webhook and forget what it was still to be told; False if there is none that is not revoked."""
    rows.run(tx, "DELETE FROM webhook_delivery WHERE webhook_id = %(id)s", {"id": webhook_id})
    return (
        rows.run(
            tx,
            "UPDATE webhook SET revoked_at = %(now)s WHERE id = %(id)s AND revoked_at IS NULL",
            {"id": webhook_id, "now": now},
        )
        == 1
    )


def announce(tx: Tx, project_ids: Sequence[int], event: Event, facts: Mapping[str, Any], now: datetime) -> None:
    """Have every webhook of these projects that wants such events told of one; in the transaction it happens in."""
    rows.run(
        tx,
        """
        INSERT INTO webhook_delivery (webhook_id, event, body, created_at, next_at)
        SELECT id, %(event)s, %(facts)s::json::text, %(now)s, %(now)s FROM webhook
         WHERE project_id = ANY(%(projects)s) AND revoked_at IS NULL AND %(event)s = ANY(events)
        """,
        {"event": event, "facts": Json({"event": event, **facts}), "now": now, "projects": list(project_ids)},
    )


def projects_released_by(tx: Tx, deletion_id: UUID) -> list[int]:
    """The projects a deletion let go of objects in: their numbers stand third in every storage key of ours. A foreign
    file that a repair removes may be called anything."""
    return rows.column(
        tx,
        int,
        """
        SELECT DISTINCT CASE WHEN split_part(storage_key, '/', 3) ~ '^[0-9]{1,18}$'
                             THEN split_part(storage_key, '/', 3)::bigint ELSE 0 END
          FROM release WHERE deletion_id = %(deletion)s
        """,
        {"deletion": deletion_id},
    )


def claim(tx: Tx, claim_id: UUID, now: datetime, until: datetime, limit: int) -> list[Delivery]:
    """Claim what is due, one delivery of each webhook: however much one of them is behind, all have their turn."""
    return rows.many(
        tx,
        Delivery,
        """
        UPDATE webhook_delivery d
           SET claim = %(claim)s, claimed_until = %(until)s, attempts = d.attempts + 1
          FROM webhook w
         WHERE w.id = d.webhook_id AND d.id = ANY(ARRAY(
            SELECT first.id FROM webhook each, LATERAL (
                   SELECT o.id, o.claimed_until FROM webhook_delivery o
                    WHERE o.webhook_id = each.id ORDER BY o.next_at, o.id LIMIT 1) first
              JOIN webhook_delivery due ON due.id = first.id
             WHERE due.next_at <= %(now)s AND (due.claimed_until IS NULL OR due.claimed_until < %(now)s)
             ORDER BY due.next_at LIMIT %(limit)s FOR UPDATE OF due SKIP LOCKED))
        RETURNING d.id, d.webhook_id, w.url, w.secret, d.event, d.body, d.created_at, d.attempts
        """,
        {"claim": claim_id, "now": now, "until": until, "limit": limit},
    )


def taken(tx: Tx, delivery_id: UUID) -> None:
    """Forget a delivery: the receiver has it, or it is given up."""
    rows.run(tx, "DELETE FROM webhook_delivery WHERE id = %(id)s", {"id": delivery_id})


def postpone(tx: Tx, delivery: Delivery, wait: timedelta, now: datetime) -> None:
    """Try a delivery again after a while, and with it whatever else its receiver waits for."""
    rows.run(
        tx,
        """
        UPDATE webhook_delivery SET next_at = greatest(next_at, %(at)s), claim = NULL, claimed_until = NULL
         WHERE webhook_id = %(webhook)s AND (id = %(id)s OR claim IS NULL)
        """,
        {"at": now + wait, "webhook": delivery.webhook_id, "id": delivery.id},
    )
