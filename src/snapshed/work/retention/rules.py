"""Rules of projects: what is set, by whom, and the note of it in the store, from which a lost database gets them back.

Setting one deletes nothing by itself; a worker carries it out at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from snapshed.db import access, installation, retention
from snapshed.db.access import Project
from snapshed.db.pool import Tx
from snapshed.db.retention import Run, StoredRule
from snapshed.domain import keys
from snapshed.domain.receipt import moment
from snapshed.domain.retention import LONGEST_DAYS, MOST_BRANCHES, Rule
from snapshed.errors import Invalid, StoreUnavailable
from snapshed.logs import logger
from snapshed.resources import Resources

_DAYS = ("superseded_days", "quiet_days", "default_days")
_FIELDS = (*_DAYS, "default_branches")
_MOST_NAME = 255

_log = logger("retention")


@dataclass(frozen=True, slots=True)
class Shown:
    """A project's rule as it holds. `set_by` and `set_at` are None where it is the default; `paused_for` says why no
    rule deletes anything now, None if rules work."""

    rule: Rule
    set_by: str | None
    set_at: datetime | None
    paused_for: str | None
    last_run: Run | None

    def document(self) -> dict[str, Any]:
        """As JSON, with the fields that `put_rule` takes first."""
        last = self.last_run
        ran = None
        if last is not None and last.finished_at is not None:
            ran = {
                "finished_at": moment(last.finished_at),
                "deleted": last.deleted,
                "failed": last.failed,
                "kept": last.kept,
                "left_over": last.left_over,
            }
        return {
            "superseded_days": self.rule.superseded_days,
            "quiet_days": self.rule.quiet_days,
            "default_days": self.rule.default_days,
            "default_branches": list(self.rule.default_branches),
            "set_by": self.set_by,
            "set_at": moment(self.set_at),
            "paused_for": self.paused_for,
            "last_run": ran,
            "due_at": None if last is None else moment(last.due_at),
        }


def show(resources: Resources, project: Project) -> Shown:
    """A project's rule, its last run, and whether rules work at all."""
    with resources.database.transaction() as tx:
        stored = retention.find(tx, project.id)
        return Shown(
            rule=stored.rule if stored else Rule(),
            set_by=stored.set_by if stored else None,
            set_at=stored.set_at if stored else None,
            paused_for=installation.retention_paused_for(tx),
            last_run=retention.last_run(tx, project.id),
        )


def put_rule(resources: Resources, project: Project, fields: Mapping[str, Any], set_by: str) -> None:
    """Change the fields given and leave the others as they are; a worker carries the rule out at once. Raises Invalid
    for fields that cannot be. The store is told later if it does not answer now."""

    def put(tx: Tx) -> StoredRule:
        access.lock_project(tx, project.id)  # so that of two changes at once neither undoes the other
        before = retention.find(tx, project.id)
        rule = read_rule(before.rule if before else Rule(), fields)
        resources.queue.wake(tx)
        return retention.put(tx, project.id, rule, set_by, resources.now())

    stored = resources.database.run(put)
    _log.info("rule set", project=project.slug, version=stored.version)
    note_waiting(resources)


def read_rule(before: Rule, fields: Mapping[str, Any]) -> Rule:
    """The rule with the fields given in place of those before. Raises Invalid."""
    if unknown := sorted(set(fields) - set(_FIELDS)):
        raise Invalid(f"Unknown field {unknown[0][:80]!r}; a retention rule may have {', '.join(_FIELDS)}.")
    days = {field: _read_days(field, fields[field]) for field in _DAYS if field in fields}
    branches = _read_branches(fields["default_branches"]) if "default_branches" in fields else before.default_branches
    return Rule(
        superseded_days=days.get("superseded_days", before.superseded_days),
        quiet_days=days.get("quiet_days", before.quiet_days),
        default_days=days.get("default_days", before.default_days),
        default_branches=branches,
    )


def _read_days(field: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LONGEST_DAYS:
        raise Invalid(f"The field {field} must be a whole number of days from 1 to {LONGEST_DAYS}, or null: for ever.")
    return value


def _read_branches(value: object) -> tuple[str, ...]:
    names = cast("list[Any]", value) if isinstance(value, list | tuple) else []
    if not 1 <= len(names) <= MOST_BRANCHES or not all(_is_name(name) for name in names):
        raise Invalid(f"The field default_branches must list 1 to {MOST_BRANCHES} names of branches.")
    return tuple(sorted(set(cast("list[str]", names))))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MOST_NAME and value.isprintable()


# --- Whether rules work ----------------------------------------------------------------------------------------------


def pause(resources: Resources, reason: str) -> None:
    """Let no rule delete anything until somebody confirms it. What rules have deleted stays deleted."""
    resources.database.run(lambda tx: installation.pause_retention(tx, reason))
    _log.info("rules paused")


def confirm(resources: Resources) -> bool:
    """Let rules work; every project's is carried out at once. False if they did work."""

    def change(tx: Tx) -> bool:
        was_paused = installation.confirm_retention(tx)
        if was_paused:
            retention.make_all_due(tx, resources.now())
            resources.queue.wake(tx)
        return was_paused

    return resources.database.run(change)


# --- Notes in the store ----------------------------------------------------------------------------------------------


def note_waiting(resources: Resources, limit: int = 100) -> int:
    """Tell the store about rules that it does not have yet. Returns how many. Every version is an object of its own, so
    a late writer covers nothing, and writing one again changes nothing."""
    with resources.database.transaction() as tx:
        waiting = [(stored, access.project_by_id(tx, stored.project_id)) for stored in retention.unnoted(tx, limit)]
    written = 0
    for stored, project in waiting:
        assert project is not None  # noqa: S101  a foreign key
        try:
            resources.store.note(keys.retention_note(project.id, stored.version), _note(stored, project))
        except StoreUnavailable as failed:
            _log.warning("rule not noted yet", project=project.slug, error_class=failed.code)
            break  # a store that does not answer is asked again next time
        resources.database.run(
            lambda tx, stored=stored: retention.noted(tx, stored.project_id, stored.version, resources.now())
        )
        written += 1
    return written


def _note(stored: StoredRule, project: Project) -> bytes:
    document = {
        "org": project.org_slug,
        "project": project.slug,
        "project_id": project.id,
        "version": stored.version,
        "superseded_days": stored.superseded_days,
        "quiet_days": stored.quiet_days,
        "default_days": stored.default_days,
        "default_branches": stored.default_branches,
        "set_by": stored.set_by,
        "set_at": moment(stored.set_at),
    }
    return json.dumps(document, indent=2).encode()
