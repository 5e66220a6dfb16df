"""Rows about comparisons of a head with a base.

A comparison is worked on under a claim that ends by itself; a worker that lost its claim can commit nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.ancestry import PassedOver
from snapshed.domain.report import Box, Explanation, Result

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Comparison:
    id: UUID
    head_id: UUID
    base_id: UUID
    base_number: int
    state: State
    counts: dict[str, int] | None
    algorithm: str | None
    error: str | None
    report_id: UUID | None
    created_at: datetime
    finished_at: datetime | None
    passed_over: list[dict[str, Any]]
    ancestors: list[int]


def add(
    tx: Tx, comparison_id: UUID, head_id: UUID, base_id: UUID, passed_over: Sequence[PassedOver], now: datetime
) -> UUID | None:
    """Add a waiting comparison, or wake a failed one of the same pair; its id, or None if there is nothing to do."""
    return rows.value(
        tx,
        UUID,
        """
        INSERT INTO comparison (id, head_id, base_id, passed_over, created_at)
        VALUES (%(id)s, %(head)s, %(base)s, %(passed)s, %(now)s)
            ON CONFLICT ON CONSTRAINT comparison_pair_is_unique
            DO UPDATE SET state = 'waiting', error = NULL, attempts = 0, passed_over = EXCLUDED.passed_over
                    WHERE comparison.state = 'failed'
        RETURNING id
        """,
        {
            "id": comparison_id,
            "head": head_id,
            "base": base_id,
            "passed": Jsonb([{"number": one.number, "reason": one.reason} for one in passed_over]),
            "now": now,
        },
    )


def restart(tx: Tx, comparison_id: UUID, now: datetime) -> None:
    """Forget what a comparison found and let it wait to be made again; whoever works on it loses it. The caller holds
    the locks of both artifacts; triggers enqueue its report and masks."""
    values = {"id": comparison_id, "now": now}
    rows.run(tx, "SELECT FROM comparison WHERE id = %(id)s FOR UPDATE", values)
    rows.run(tx, "DELETE FROM comparison_image WHERE comparison_id = %(id)s", values)
    rows.run(
        tx,
        """
        UPDATE comparison
           SET state = 'waiting', report_id = NULL, counts = NULL, algorithm = NULL, error = NULL, attempts = 0,
               claim = NULL, claimed_until = NULL, finished_at = NULL, created_at = %(now)s, ancestors = '{}'
         WHERE id = %(id)s
        """,
        values,
    )


def postpone(tx: Tx, comparison_id: UUID, claim_id: UUID, until: datetime) -> None:
    """Let nobody take it before then; the attempt does not count."""
    rows.run(
        tx,
        """
        UPDATE comparison SET state = 'waiting', claim = NULL, claimed_until = %(until)s, attempts = attempts - 1
         WHERE id = %(id)s AND claim = %(claim)s AND state = 'running'
        """,
        {"id": comparison_id, "claim": claim_id, "until": until},
    )


def claim(tx: Tx, comparison_id: UUID, claim_id: UUID, now: datetime, until: datetime) -> Comparison | None:
    """Take a comparison nobody else works on; None if it is finished, claimed, gone, or a side is marked."""
    return rows.one(
        tx,
        Comparison,
        """
        UPDATE comparison c
           SET state = 'running', claim = %(claim)s, claimed_until = %(until)s, attempts = attempts + 1
          FROM artifact h, artifact b
         WHERE c.id = %(id)s AND c.state IN ('waiting', 'running')
           AND (c.claimed_until IS NULL OR c.claimed_until < %(now)s)
           AND h.id = c.head_id AND b.id = c.base_id AND h.deletion_id IS NULL AND b.deletion_id IS NULL
        RETURNING c.id, c.head_id, c.base_id, b.number AS base_number, c.state, c.counts, c.algorithm, c.error,
                  c.report_id, c.created_at, c.finished_at, c.passed_over, c.ancestors
        """,
        {"id": comparison_id, "claim": claim_id, "now": now, "until": until},
    )


def lock_claimed(tx: Tx, comparison_id: UUID, claim_id: UUID) -> bool:
    """Lock a comparison; False if it is gone or somebody else's by now."""
    return bool(
        rows.value(
            tx,
            bool,
            "SELECT true FROM comparison WHERE id = %(id)s AND claim = %(claim)s AND state = 'running' FOR UPDATE",
            {"id": comparison_id, "claim": claim_id},
        )
    )


def extend_claim(tx: Tx, comparison_id: UUID, claim_id: UUID, until: datetime) -> bool:
    """Keep a claim alive; False if it is lost."""
    return (
        rows.run(
            tx,
            """
            UPDATE comparison SET claimed_until = %(until)s
             WHERE id = %(id)s AND claim = %(claim)s AND state = 'running'
            """,
            {"id": comparison_id, "claim": claim_id, "until": until},
        )
        == 1
    )


def give_back(tx: Tx, comparison_id: UUID, claim_id: UUID, *, blameless: bool) -> None:
    """Let somebody else take it at once. `blameless`: the attempt does not count against the comparison."""
    rows.run(
        tx,
        """
        UPDATE comparison SET state = 'waiting', claim = NULL, claimed_until = NULL,
                              attempts = CASE WHEN %(blameless)s THEN attempts - 1 ELSE attempts END
         WHERE id = %(id)s AND claim = %(claim)s AND state = 'running'
        """,
        {"id": comparison_id, "claim": claim_id, "blameless": blameless},
    )


def living_claims(tx: Tx, claims: list[UUID], now: datetime) -> set[UUID]:
    """Those claims under which somebody still works."""
    return set(
        rows.column(
            tx,
            UUID,
            "SELECT claim FROM comparison WHERE claim = ANY(%(claims)s) AND claimed_until >= %(now)s",
            {"claims": claims, "now": now},
        )
    )


def finish(
    tx: Tx,
    comparison_id: UUID,
    report_id: UUID,
    counts: dict[str, int],
    algorithm: str,
    ancestors: Sequence[int],
    now: datetime,
) -> None:
    rows.run(
        tx,
        """
        UPDATE comparison
           SET state = 'done', report_id = %(report)s, counts = %(counts)s, algorithm = %(algorithm)s, error = NULL,
               claim = NULL, claimed_until = NULL, finished_at = %(now)s, ancestors = %(ancestors)s
         WHERE id = %(id)s
        """,
        {
            "id": comparison_id,
            "report": report_id,
            "counts": Jsonb(counts),
            "algorithm": algorithm,
            "ancestors": list(ancestors),
            "now": now,
        },
    )


def fail(tx: Tx, comparison_id: UUID, claim_id: UUID, error: str, now: datetime) -> None:
    rows.run(
        tx,
        """
        UPDATE comparison
           SET state = 'failed', error = %(error)s, claim = NULL, claimed_until = NULL, finished_at = %(now)s
         WHERE id = %(id)s AND claim = %(claim)s AND state = 'running'
        """,
        {"id": comparison_id, "claim": claim_id, "error": error, "now": now},
    )


def attempts(tx: Tx, comparison_id: UUID) -> int:
    return rows.value(tx, int, "SELECT attempts FROM comparison WHERE id = %(id)s", {"id": comparison_id}) or 0


def add_results(tx: Tx, comparison_id: UUID, results: list[Result]) -> None:
    with (
        tx.cursor() as cursor,
        cursor.copy(
            """
            COPY comparison_image (comparison_id, name, category, head_digest, base_digest, previous_name,
                                   changed_pixels, total_pixels, threshold, head_width, head_height, base_width,
                                   base_height, reason, detail, mask_id, threshold_from, regions, fingerprint,
                                   explanation, moved_by) FROM STDIN
            """
        ) as copy,
    ):
        for result in results:
            copy.write_row(
                (
                    comparison_id,
                    result.name,
                    result.category,
                    result.head_digest,
                    result.base_digest,
                    result.previous_name,
                    result.changed_pixels,
                    result.total_pixels,
                    result.threshold,
                    result.head_width,
                    result.head_height,
                    result.base_width,
                    result.base_height,
                    result.reason,
                    result.detail,
                    result.mask_id,
                    result.threshold_from,
                    None if result.regions is None else [list(box) for box in result.regions],
                    result.fingerprint,
                    result.explanation,
                    result.moved_by,
                )
            )


def newest(tx: Tx, head_id: UUID) -> Comparison | None:
    """The newest comparison of a head whose base is not marked."""
    return rows.one(
        tx,
        Comparison,
        """
        SELECT c.id, c.head_id, c.base_id, b.number AS base_number, c.state, c.counts, c.algorithm, c.error,
               c.report_id, c.created_at, c.finished_at, c.passed_over, c.ancestors
          FROM comparison c JOIN artifact b ON b.id = c.base_id
         WHERE c.head_id = %(head)s AND b.deletion_id IS NULL
         ORDER BY c.created_at DESC, c.id DESC LIMIT 1
        """,
        {"head": head_id},
    )


def results(tx: Tx, comparison_id: UUID) -> list[Result]:
    return rows.many(
        tx,
        Result,
        """
        SELECT name, category, head_digest, base_digest, previous_name, changed_pixels, total_pixels, threshold,
               head_width, head_height, base_width, base_height, reason, detail, mask_id, threshold_from, regions,
               fingerprint, explanation, moved_by
          FROM comparison_image WHERE comparison_id = %(id)s ORDER BY name
        """,
        {"id": comparison_id},
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What a comparison found out about a pair of images, whatever its threshold made of it."""

    head_digest: str
    base_digest: str
    changed_pixels: int
    total_pixels: int
    head_width: int
    head_height: int
    base_width: int
    base_height: int
    regions: Sequence[Box] | None
    fingerprint: str | None
    explanation: Explanation | None
    moved_by: int | None
    mask_id: UUID | None

    @property
    def head_size(self) -> tuple[int, int]:
        return self.head_width, self.head_height

    @property
    def base_size(self) -> tuple[int, int]:
        return self.base_width, self.base_height


def known(tx: Tx, project_id: int, algorithm: str, pairs: Sequence[tuple[str, str]]) -> list[Known]:
    """Those pairs, head's digest first, that an unmarked comparison of the project decoded with the same algorithm.

    A pair whose mask was withdrawn is not known: its numbers are, but nobody could see what they mean.
    """
    return rows.many(
        tx,
        Known,
        """
        SELECT k.head_digest, k.base_digest, k.changed_pixels, k.total_pixels, k.head_width, k.head_height,
               k.base_width, k.base_height, k.regions, k.fingerprint, k.explanation, k.moved_by, k.mask_id
          FROM unnest(%(heads)s::text[], %(bases)s::text[]) AS wanted (head, base),
               -- One is enough, of however many snapshots that show the same two images.
               LATERAL (
                    SELECT i.* FROM comparison_image i
                      JOIN comparison c ON c.id = i.comparison_id
                      JOIN artifact h ON h.id = c.head_id JOIN artifact b ON b.id = c.base_id
                     WHERE i.head_digest = wanted.head AND i.base_digest = wanted.base
                       AND i.total_pixels IS NOT NULL AND (i.changed_pixels = 0 OR i.mask_id IS NOT NULL)
                       AND c.state = 'done' AND c.algorithm = %(algorithm)s
                       AND h.project_id = %(project)s AND h.deletion_id IS NULL AND b.deletion_id IS NULL
                     LIMIT 1) k
        """,
        {
            "heads": [head for head, _ in pairs],
            "bases": [base for _, base in pairs],
            "algorithm": algorithm,
            "project": project_id,
        },
    )


def result_about(tx: Tx, comparison_id: UUID, identifier: str) -> Result | None:
    """What a comparison found about one name, or about a removed or skipped image of this digest."""
    return rows.one(
        tx,
        Result,
        """
        SELECT name, category, head_digest, base_digest, previous_name, changed_pixels, total_pixels, threshold,
               head_width, head_height, base_width, base_height, reason, detail, mask_id
          FROM comparison_image
         WHERE comparison_id = %(id)s
           AND (name = %(identifier)s OR (base_digest = %(identifier)s AND category IN ('removed', 'skipped')))
         ORDER BY (name = %(identifier)s) DESC, name LIMIT 1
        """,
        {"id": comparison_id, "identifier": identifier},
    )


def unclaimed(tx: Tx, now: datetime, limit: int) -> list[UUID]:
    """Comparisons that somebody should take: waiting, or left running by a worker that is gone."""
    return rows.column(
        tx,
        UUID,
        """
        SELECT c.id FROM comparison c
          JOIN artifact h ON h.id = c.head_id JOIN artifact b ON b.id = c.base_id
         WHERE c.state IN ('waiting', 'running') AND (c.claimed_until IS NULL OR c.claimed_until < %(now)s)
           AND h.deletion_id IS NULL AND b.deletion_id IS NULL
         ORDER BY c.created_at LIMIT %(limit)s
        """,
        {"now": now, "limit": limit},
    )
