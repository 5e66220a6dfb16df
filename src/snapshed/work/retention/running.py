"""Carrying a rule out: what would go now, and deleting it, bounded by number and time.

What a run has planned is planned again in the transaction that marks it, under the project's lock, so that a base that
somebody has come to need meanwhile stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from snapshed.db import access, retention
from snapshed.db.access import Project
from snapshed.db.pool import Tx
from snapshed.domain.retention import Decision, Kind, Rule, plan
from snapshed.errors import Conflict, StoreUnavailable, Unavailable
from snapshed.logs import logger
from snapshed.resources import Resources
from snapshed.work.retention import rules

REQUESTED_BY = "rule:retention"

PERIOD = timedelta(hours=1)
"""How often a project's rule is carried out when nobody changes it."""

MOST_SNAPSHOTS = 200
MOST_SECONDS = 10.0
"""How much one run deletes. Then other projects, and whoever waits for a deletion, get their turn; the rest follows."""

_AT_ONCE = 50
"""Snapshots of one deletion: small enough to be marked and let go of in one short transaction."""

_CLAIM = timedelta(minutes=10)
"""How long a run that died keeps others from the project."""

_SOON = timedelta(minutes=1)
"""When a run is tried again that found the store or the database away."""

_REASONS: dict[Kind, str] = {
    "pull_request": "The retention rule for pull requests.",
    "branch": "The retention rule for branches.",
    "default_branch": "The retention rule for default branches.",
}

_log = logger("retention")


class Deleter(Protocol):
    """Deletes what `choose` returns inside the marking transaction; returns those numbers, none if there is nothing."""

    def __call__(
        self,
        resources: Resources,
        project: Project,
        requested_by: str,
        reason: str,
        choose: Callable[[Tx], Sequence[int]],
    ) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class Previewed:
    """What a run would do now, snapshot by snapshot, and why no rule deletes anything, if so."""

    rule: Rule
    decisions: list[Decision]
    paused_for: str | None


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did; `left_over` is what it had no room for, `failed` what could not be deleted."""

    deleted: int
    failed: int
    kept: int
    left_over: int


def preview(resources: Resources, project: Project) -> Previewed:
    """What a run would delete now and why each kept snapshot is kept. Changes nothing."""
    shown = rules.show(resources, project)
    with resources.database.transaction() as tx:
        return Previewed(shown.rule, _plan(resources, tx, project), shown.paused_for)


def run_due(resources: Resources, delete: Deleter) -> int:
    """Carry out the rule of the project that has been due longest. Returns how many snapshots it deleted. Does nothing
    while no rule works. Raises StoreUnavailable while the store does not answer, and asks again soon: a rule's deletion
    can wait until it can be journaled."""
    now = resources.now()

    def claim(tx: Tx) -> Project | None:
        project_id = retention.claim_due(tx, now, now + _CLAIM)
        return None if project_id is None else access.project_by_id(tx, project_id)

    project = resources.database.run(claim)
    return 0 if project is None else _run_claimed(resources, project, delete, now + _CLAIM).deleted


def run(resources: Resources, project: Project, delete: Deleter) -> Ran:
    """Carry out a project's rule now, whether it is due or not. Raises Conflict while no rule works, and
    StoreUnavailable."""
    paused_for = rules.show(resources, project).paused_for
    if paused_for is not None:
        raise Conflict(f"No rule deletes anything. {paused_for} Look at the preview, then confirm.")
    now = resources.now()
    resources.database.run(lambda tx: retention.start(tx, project.id, now, now + _CLAIM))
    return _run_claimed(resources, project, delete, now + _CLAIM)


def _run_claimed(resources: Resources, project: Project, delete: Deleter, claimed_until: datetime) -> Ran:
    try:
        ran = _carry_out(resources, project, delete)
    except Unavailable:
        soon = resources.now() + _SOON
        resources.database.run(lambda tx: retention.make_due(tx, project.id, soon))
        raise
    now = resources.now()
    due_at = now if ran.left_over else now + PERIOD
    resources.database.run(
        lambda tx: retention.finish(
            tx,
            project.id,
            claimed_until,
            due_at,
            now,
            deleted=ran.deleted,
            failed=ran.failed,
            kept=ran.kept,
            left_over=ran.left_over,
        )
    )
    if ran.deleted or ran.failed:
        told = {"deleted": ran.deleted, "failed": ran.failed, "left": ran.left_over}
        _log.info("rule carried out", org=project.org_slug, project=project.slug, **told)
    return ran


def _carry_out(resources: Resources, project: Project, delete: Deleter) -> Ran:
    if not resources.store.answers():
        raise StoreUnavailable("The store does not answer; rules delete nothing until it does.")
    with resources.database.transaction() as tx:
        decisions = _plan(resources, tx, project)
    going = [decision for decision in decisions if decision.deletes]
    begun = time.monotonic()
    deleted = failed = handled = 0
    for kind, numbers in _portions(going):
        if deleted >= MOST_SNAPSHOTS or time.monotonic() - begun > MOST_SECONDS:
            break
        gone, lost = _delete(resources, project, delete, kind, numbers)
        deleted, failed, handled = deleted + gone, failed + lost, handled + len(numbers)
    return Ran(deleted, failed, kept=len(decisions) - deleted, left_over=len(going) - handled)


def _portions(going: Sequence[Decision]) -> Iterator[tuple[Kind, list[int]]]:
    """What goes, a few at a time, of one class each: what is missed least comes first, and of that the oldest."""
    for kind in _REASONS:
        numbers = [decision.number for decision in going if decision.kind == kind]
        for start in range(0, len(numbers), _AT_ONCE):
            yield kind, numbers[start : start + _AT_ONCE]


def _delete(resources: Resources, project: Project, delete: Deleter, kind: Kind, numbers: list[int]) -> tuple[int, int]:
    """Delete these together; if that cannot be, each by itself, so that a bad one stops none of the others. Returns how
    many went and how many could not."""
    try:
        return len(_delete_together(resources, project, delete, kind, numbers)), 0
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is, it is one snapshot's trouble and not the others'
        _log.warning("snapshots not deleted together", project=project.slug, error_class=type(error).__name__)
    deleted = failed = 0
    for number in numbers:
        try:
            deleted += len(_delete_together(resources, project, delete, kind, [number]))
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001
            failed += 1
            _log.error("snapshot not deleted", project=project.slug, snapshot=number, error_class=type(error).__name__)
    return deleted, failed


def _delete_together(
    resources: Resources, project: Project, delete: Deleter, kind: Kind, numbers: list[int]
) -> Sequence[int]:
    def choose(tx: Tx) -> list[int]:
        # Again, now that nobody can commit a snapshot beside us: whoever came to need one of them keeps it.
        decided = {decision.number: decision.deletes for decision in _plan(resources, tx, project)}
        return [number for number in numbers if decided.get(number)]

    return delete(resources, project, REQUESTED_BY, _REASONS[kind], choose)


def _plan(resources: Resources, tx: Tx, project: Project) -> list[Decision]:
    stored = retention.find(tx, project.id)
    return plan(retention.facts(tx, project.id), stored.rule if stored else Rule(), resources.now())
