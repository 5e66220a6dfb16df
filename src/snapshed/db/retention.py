"""Rows about retention: each project's rule, when it is due, and the facts it decides by.

Nothing is deleted here; that is a deletion's to do, like every other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.domain.retention import Fact, Rule

# --- Rules -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredRule:
    """What somebody has set for a project, in which version, and since when the store has it too."""

    project_id: int
    version: int
    superseded_days: int | None
    quiet_days: int | None
    default_days: int | None
    default_branches: list[str]
    set_by: str
    set_at: datetime
    noted_at: datetime | None

    @property
    def rule(self) -> Rule:
        return Rule(self.superseded_days, self.quiet_days, self.default_days, tuple(self.default_branches))


def find(tx: Tx, project_id: int) -> StoredRule | None:
    """What was set for a project; None where the defaults hold."""
    return rows.one(
        tx,
        StoredRule,
        """
        SELECT project_id, version, superseded_days, quiet_days, default_days, default_branches, set_by, set_at,
               noted_at
          FROM retention_rule WHERE project_id = %(project)s
        """,
        {"project": project_id},
    )


def put(tx: Tx, project_id: int, rule: Rule, set_by: str, now: datetime) -> StoredRule:
    """Set a project's rule, in its next version, and let it be carried out at once."""
    stored = rows.one(
        tx,
        StoredRule,
        """
        INSERT INTO retention_rule AS r (project_id, version, superseded_days, quiet_days, default_days,
                                         default_branches, set_by, set_at)
        VALUES (%(project)s, 1, %(superseded)s, %(quiet)s, %(default)s, %(branches)s, %(by)s, %(now)s)
            ON CONFLICT (project_id) DO UPDATE
               SET version = r.version + 1, superseded_days = excluded.superseded_days,
                   quiet_days = excluded.quiet_days, default_days = excluded.default_days,
                   default_branches = excluded.default_branches, set_by = excluded.set_by, set_at = excluded.set_at,
                   noted_at = NULL
        RETURNING project_id, version, superseded_days, quiet_days, default_days, default_branches, set_by, set_at,
                  noted_at
        """,
        {
            "project": project_id,
            "superseded": rule.superseded_days,
            "quiet": rule.quiet_days,
            "default": rule.default_days,
            "branches": list(rule.default_branches),
            "by": set_by,
            "now": now,
        },
    )
    assert stored is not None  # noqa: S101  RETURNING of one row
    make_due(tx, project_id, now)
    return stored


def unnoted(tx: Tx, limit: int) -> list[StoredRule]:
    """Rules whose newest version the store does not have yet."""
    return rows.many(
        tx,
        StoredRule,
        """
        SELECT project_id, version, superseded_days, quiet_days, default_days, default_branches, set_by, set_at,
               noted_at
          FROM retention_rule WHERE noted_at IS NULL ORDER BY set_at LIMIT %(limit)s
        """,
        {"limit": limit},
    )


def noted(tx: Tx, project_id: int, version: int, now: datetime) -> None:
    """The store has this version. A newer one, set meanwhile, is still to be noted."""
    rows.run(
        tx,
        """
        UPDATE retention_rule SET noted_at = %(now)s
         WHERE project_id = %(project)s AND version = %(version)s AND noted_at IS NULL
        """,
        {"project": project_id, "version": version, "now": now},
    )


# --- Facts -----------------------------------------------------------------------------------------------------------


def facts(tx: Tx, project_id: int) -> list[Fact]:
    """What a rule has to know about every unmarked snapshot of a project. Whole is one that is not selective, names
    images of which none is withdrawn or lost, and whose comparisons have not all failed. Holds that have ended are told
    too: only the plan knows the time."""
    return rows.many(
        tx,
        Fact,
        """
        WITH damaged AS MATERIALIZED (
            SELECT i.artifact_id FROM snapshot_image i WHERE i.withdrawn_by IS NOT NULL
             UNION
            SELECT i.artifact_id FROM blob b JOIN snapshot_image i ON i.image_id = b.id WHERE b.lost_at IS NOT NULL
        )
        SELECT a.number, a.app_id, a.created_at, s.head_ref AS branch, s.head_repo_name AS repo_name, s.pr_number,
               s.head_sha, s.base_sha, coalesce(s.base_repo_name, s.head_repo_name) AS base_repo_name, s.selective,
               NOT s.selective AND s.image_count > 0 AND d.artifact_id IS NULL AND NOT c.only_failed AS is_complete,
               s.base_sha IS NOT NULL AND NOT c.is_compared AS awaits_base,
               h.held_for, h.ends_at AS held_until, c.unfinished_bases,
               CASE WHEN EXISTS (SELECT FROM approval p WHERE p.artifact_id = a.id AND p.undone_at IS NULL) THEN '{}' ELSE c.done_bases END
                   AS undecided_bases
          FROM artifact a
          JOIN snapshot s ON s.artifact_id = a.id
          LEFT JOIN damaged d ON d.artifact_id = a.id
         CROSS JOIN LATERAL (
               SELECT coalesce(bool_or(c.state = 'done'), false) AS is_compared,
                      coalesce(bool_and(c.state = 'failed'), false) AS only_failed,
                      coalesce(array_agg(b.number ORDER BY b.number) FILTER (WHERE c.state IN ('waiting', 'running')),
                               '{}') AS unfinished_bases,
                      coalesce(array_agg(b.number ORDER BY b.number) FILTER (WHERE c.state = 'done'), '{}')
                          AS done_bases
                 FROM comparison c JOIN artifact b ON b.id = c.base_id AND b.deletion_id IS NULL
                WHERE c.head_id = a.id) c
          LEFT JOIN LATERAL (
               -- Whichever stands longest.
               SELECT x.held_for, x.ends_at
                 FROM (SELECT 'held: ' || o.reason AS held_for, o.ends_at FROM hold o WHERE o.artifact_id = a.id
                       UNION ALL
                       SELECT 'branch ' || r.branch || ' is held: ' || r.reason, r.ends_at
                         FROM branch_hold r
                        WHERE r.project_id = a.project_id AND r.branch = s.head_ref AND r.released_at IS NULL) x
                ORDER BY x.ends_at DESC NULLS FIRST, x.held_for LIMIT 1) h ON true
         WHERE a.project_id = %(project)s AND a.deletion_id IS NULL
        """,
        {"project": project_id},
    )


# --- Runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What the last run of a project did: how many snapshots it deleted, could not delete, kept, and had to leave to
    the next run. `due_at` is when that is."""

    project_id: int
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deleted: int
    failed: int
    kept: int
    left_over: int


def make_due(tx: Tx, project_id: int, now: datetime) -> None:
    """Let the next worker carry a project's rule out, whenever it was last carried out."""
    rows.run(
        tx,
        """
        INSERT INTO retention_run (project_id, due_at) VALUES (%(project)s, %(now)s)
            ON CONFLICT (project_id) DO UPDATE SET due_at = excluded.due_at
        """,
        {"project": project_id, "now": now},
    )


def make_all_due(tx: Tx, now: datetime) -> None:
    """Let every project's rule be carried out now."""
    rows.run(tx, "UPDATE retention_run SET due_at = %(now)s", {"now": now})


def claim_due(tx: Tx, now: datetime, until: datetime) -> int | None:
    """Take the project whose rule has been due longest, so that nobody else does before `until`; None if none is due,
    or no rule works."""
    rows.run(
        tx,
        """
        INSERT INTO retention_run (project_id, due_at)
        SELECT p.id, %(now)s FROM project p
         WHERE p.id > 0 AND NOT EXISTS (SELECT FROM retention_run r WHERE r.project_id = p.id)
            ON CONFLICT (project_id) DO NOTHING
        """,
        {"now": now},
    )
    return rows.value(
        tx,
        int,
        """
        UPDATE retention_run SET due_at = %(until)s, started_at = %(now)s
         WHERE project_id = (
            SELECT r.project_id FROM retention_run r JOIN project p ON p.id = r.project_id AND p.state = 'active'
             WHERE r.due_at <= %(now)s AND (SELECT i.retention_paused_for IS NULL FROM installation i)
             ORDER BY r.due_at, r.project_id LIMIT 1 FOR UPDATE OF r SKIP LOCKED)
        RETURNING project_id
        """,
        {"now": now, "until": until},
    )


def start(tx: Tx, project_id: int, now: datetime, until: datetime) -> None:
    """Take a project's run whether it is due or not."""
    make_due(tx, project_id, until)
    rows.run(
        tx, "UPDATE retention_run SET started_at = %(now)s WHERE project_id = %(id)s", {"id": project_id, "now": now}
    )


def finish(
    tx: Tx,
    project_id: int,
    claimed_until: datetime,
    due_at: datetime,
    now: datetime,
    *,
    deleted: int,
    failed: int,
    kept: int,
    left_over: int,
) -> None:
    """Write down what a run did and when the next is due; at once if somebody has made it due meanwhile."""
    rows.run(
        tx,
        """
        UPDATE retention_run
           SET due_at = CASE WHEN due_at = %(claimed_until)s THEN %(due)s ELSE least(due_at, %(due)s) END,
               finished_at = %(now)s, deleted = %(deleted)s, failed = %(failed)s, kept = %(kept)s,
               left_over = %(left)s, deleted_in_all = deleted_in_all + %(deleted)s,
               failed_in_all = failed_in_all + %(failed)s
         WHERE project_id = %(project)s
        """,
        {
            "project": project_id,
            "claimed_until": claimed_until,
            "due": due_at,
            "now": now,
            "deleted": deleted,
            "failed": failed,
            "kept": kept,
            "left": left_over,
        },
    )


def last_run(tx: Tx, project_id: int) -> Run | None:
    return rows.one(
        tx,
        Run,
        """
        SELECT project_id, due_at, started_at, finished_at, deleted, failed, kept, left_over
          FROM retention_run WHERE project_id = %(project)s
        """,
        {"project": project_id},
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """What rules have done, over all projects: since the beginning, and in the last runs. `oldest_run` in seconds."""

    deleted: int
    failures: int
    failing: int
    left_over: int
    oldest_run: float


def totals(tx: Tx, now: datetime) -> Totals:
    found = rows.one(
        tx,
        Totals,
        """
        SELECT coalesce(sum(r.deleted_in_all), 0)::bigint AS deleted,
               coalesce(sum(r.failed_in_all), 0)::bigint AS failures,
               coalesce(sum(r.failed), 0)::bigint AS failing, coalesce(sum(r.left_over), 0)::bigint AS left_over,
               greatest(0, coalesce(extract(epoch FROM %(now)s - min(coalesce(r.finished_at, r.due_at))), 0))::float8
                   AS oldest_run
          FROM retention_run r JOIN project p ON p.id = r.project_id AND p.state = 'active'
        """,
        {"now": now},
    )
    assert found is not None  # noqa: S101  an aggregate has one row
    return found
