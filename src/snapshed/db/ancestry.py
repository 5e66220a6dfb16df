"""Rows about who could be whose base. Reads only; marked snapshots are seen here, to say that they are passed over."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from snapshed.db import rows
from snapshed.db.pool import Tx
from snapshed.db.snapshots import Snapshot
from snapshed.domain import ancestry
from snapshed.domain.ancestry import Candidate, Choice

_MOST = 50


def base_of(tx: Tx, snapshot: Snapshot) -> Choice:
    """The base of a snapshot as things stand, and whoever is passed over."""
    repo = snapshot.base_repo_name or snapshot.head_repo_name
    return choice(tx, snapshot.project_id, snapshot.artifact_id, snapshot.app_id, snapshot.base_sha, repo)


def choice(
    tx: Tx, project_id: int, head_id: UUID | None, app_id: str, base_sha: str | None, repo_name: str | None
) -> Choice:
    """The base of a head that builds on that commit, and whoever is passed over."""
    found = _candidates(tx, project_id, base_sha) if base_sha else []
    return ancestry.choose(head_id, app_id, repo_name, found)


def _candidates(tx: Tx, project_id: int, commit_sha: str) -> list[Candidate]:
    """The newest snapshots of a commit in a project, marked ones too, newest first."""
    return rows.many(
        tx,
        Candidate,
        """
        SELECT a.id AS artifact_id, a.number, a.app_id, s.head_repo_name AS repo_name,
               a.deletion_id IS NOT NULL AS is_marked
          FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
         WHERE a.project_id = %(project)s AND s.head_sha = %(sha)s
         ORDER BY a.created_at DESC, a.number DESC LIMIT %(most)s
        """,
        {"project": project_id, "sha": commit_sha, "most": _MOST},
    )


@dataclass(frozen=True, slots=True)
class Sibling:
    """A snapshot of the same pull request that a person approved, and its newest finished comparison."""

    number: int
    comparison_id: UUID


def approved_sibling(
    tx: Tx, head_id: UUID, project_id: int, app_id: str, repo_name: str, pr_number: int
) -> Sibling | None:
    """The newest other snapshot of the same pull request whose newest decision is a person's approval."""
    return rows.one(
        tx,
        Sibling,
        """
        SELECT a.number, c.id AS comparison_id
          FROM artifact a JOIN snapshot s ON s.artifact_id = a.id
          JOIN LATERAL (SELECT p.decision, p.actor FROM approval p
                         WHERE p.artifact_id = a.id AND p.undone_at IS NULL ORDER BY p.id DESC LIMIT 1) d ON true
          JOIN LATERAL (SELECT x.id FROM comparison x JOIN artifact b ON b.id = x.base_id
                         WHERE x.head_id = a.id AND x.state = 'done' AND b.deletion_id IS NULL
                         ORDER BY x.created_at DESC, x.id DESC LIMIT 1) c ON true
         WHERE a.project_id = %(project)s AND a.app_id = %(app)s AND a.deletion_id IS NULL AND a.id <> %(head)s
           AND s.pr_number = %(pr)s AND s.head_repo_name = %(repo)s
           AND d.decision = 'approved' AND d.actor NOT LIKE 'auto:%%'
         ORDER BY a.created_at DESC, a.number DESC LIMIT 1
        """,
        {"head": head_id, "project": project_id, "app": app_id, "repo": repo_name, "pr": pr_number},
    )
