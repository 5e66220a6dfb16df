"""Rows about what people decided: about a whole snapshot, and about one difference of it.

Decisions are only added or taken back, so that it stays known who decided what, when and how. They belong to their
snapshot and go with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.report import Result
from snapshed.domain.verdict import Decided

Door = Literal["page", "api", "rule"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about a whole snapshot. `door` is None for one of an earlier release."""

    id: int
    actor: str
    decided_at: datetime
    decision: Decided
    door: Door | None
    by_images: bool


@dataclass(frozen=True, slots=True)
class ImageDecision:
    """The newest decision about one difference that was not taken back; `since` is the decision about the whole that
    stood when it was taken."""

    name: str
    category: str
    head_digest: str | None
    base_digest: str | None
    decision: Decided
    actor: str
    door: Door
    since: int | None
    decided_at: datetime


def lock(tx: Tx, artifact_id: UUID) -> None:
    """Let one decision at a time be taken about a snapshot. The caller holds the artifact's lock."""
    rows.run(tx, "SELECT FROM snapshot WHERE artifact_id = %(id)s FOR NO KEY UPDATE", {"id": artifact_id})


def decisions(tx: Tx, artifact_id: UUID) -> list[Decision]:
    """Every decision about a whole snapshot that was not taken back, newest first."""
    return rows.many(
        tx,
        Decision,
        """
        SELECT id, actor, decided_at, decision, door, by_images FROM approval
         WHERE artifact_id = %(id)s AND undone_at IS NULL ORDER BY id DESC
        """,
        {"id": artifact_id},
    )


def was_decided(tx: Tx, artifact_id: UUID) -> bool:
    """Whether anybody ever decided about a snapshot, or about any image of it, even if it was taken back."""
    return bool(
        rows.value(
            tx,
            bool,
            """
            SELECT EXISTS (SELECT FROM approval WHERE artifact_id = %(id)s)
                OR EXISTS (SELECT FROM image_decision WHERE artifact_id = %(id)s)
            """,
            {"id": artifact_id},
        )
    )


def decide(
    tx: Tx, artifact_id: UUID, decision: str, actor: str, door: Door, now: datetime, *, by_images: bool = False
) -> None:
    rows.run(
        tx,
        """
        INSERT INTO approval (artifact_id, decision, actor, door, by_images, decided_at)
        VALUES (%(artifact)s, %(decision)s, %(actor)s, %(door)s, %(by_images)s, %(now)s)
        """,
        {
            "artifact": artifact_id,
            "decision": decision,
            "actor": actor,
            "door": door,
            "by_images": by_images,
            "now": now,
        },
    )


def undo(tx: Tx, decision_ids: Sequence[int], actor: str, now: datetime) -> None:
    """Take decisions about a whole snapshot back."""
    rows.run(
        tx,
        "UPDATE approval SET undone_at = %(now)s, undone_by = %(actor)s WHERE id = ANY(%(ids)s) AND undone_at IS NULL",
        {"ids": list(decision_ids), "actor": actor, "now": now},
    )


# --- One difference ------------------------------------------------------------------------------------------------


def image_decisions(tx: Tx, artifact_id: UUID) -> list[ImageDecision]:
    """The newest decision about every difference of a snapshot, those left out that were taken back."""
    return rows.many(
        tx,
        ImageDecision,
        """
        SELECT DISTINCT ON (name)
               name, category, head_digest, base_digest, decision, actor, door, since, decided_at
          FROM image_decision WHERE artifact_id = %(id)s AND undone_at IS NULL
         ORDER BY name, id DESC
        """,
        {"id": artifact_id},
    )


def decide_images(
    tx: Tx,
    artifact_id: UUID,
    batch: UUID,
    results: Sequence[Result],
    decision: str,
    actor: str,
    door: Door,
    since: int | None,
    now: datetime,
) -> None:
    """Remember one decision about these differences, in one statement however many they are."""
    rows.run(
        tx,
        """
        INSERT INTO image_decision (artifact_id, batch, name, category, head_digest, base_digest, decision, actor, door,
                                    since, decided_at)
        SELECT %(artifact)s, %(batch)s, n.name, n.category, n.head_digest, n.base_digest, %(decision)s, %(actor)s,
               %(door)s, %(since)s, %(now)s
          FROM unnest(%(names)s::text[], %(categories)s::text[], %(heads)s::text[], %(bases)s::text[])
               AS n (name, category, head_digest, base_digest)
        """,
        {
            "artifact": artifact_id,
            "batch": batch,
            "names": [result.name for result in results],
            "categories": [result.category for result in results],
            "heads": [result.head_digest for result in results],
            "bases": [result.base_digest for result in results],
            "decision": decision,
            "actor": actor,
            "door": door,
            "since": since,
            "now": now,
        },
    )


def undo_images(tx: Tx, artifact_id: UUID, names: Sequence[str], actor: str, now: datetime) -> int:
    """Take the newest decision about each of these differences back; what was decided before stands again. Returns how
    many."""
    return rows.run(
        tx,
        """
        UPDATE image_decision SET undone_at = %(now)s, undone_by = %(actor)s
         WHERE id = ANY(ARRAY(
            SELECT DISTINCT ON (name) id FROM image_decision
             WHERE artifact_id = %(artifact)s AND name = ANY(%(names)s) AND undone_at IS NULL
             ORDER BY name, id DESC))
        """,
        {"artifact": artifact_id, "names": list(names), "actor": actor, "now": now},
    )


def undo_batch(tx: Tx, artifact_id: UUID, batch: UUID, actor: str, now: datetime) -> int:
    """Take back what was decided together; what was decided before stands again. Returns how many."""
    return rows.run(
        tx,
        """
        UPDATE image_decision SET undone_at = %(now)s, undone_by = %(actor)s
         WHERE artifact_id = %(artifact)s AND batch = %(batch)s AND undone_at IS NULL
        """,
        {"artifact": artifact_id, "batch": batch, "actor": actor, "now": now},
    )
