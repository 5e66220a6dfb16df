"""Rules of projects and holds of branches come back from the notes the store was given of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import psycopg

from snapshed.db import recoveries
from snapshed.db.branch_holds import BranchHold
from snapshed.db.pool import Tx
from snapshed.db.retention import StoredRule
from snapshed.domain import keys
from snapshed.resources import Resources
from snapshed.work.recovery.survey import Survey


def bring_notes_back(resources: Resources, told: Survey) -> None:
    """Each project's newest rule, and every hold of a branch, released or not. What cannot be read is told among the
    unreadable."""
    for key, text in sorted(told.notes.items()):
        try:
            fields = cast("dict[str, Any]", json.loads(text))
            write = _rule(fields) if key.startswith(keys.RULES) else _hold(fields)
            resources.database.run(write)
        except (ValueError, KeyError, TypeError, psycopg.IntegrityError, psycopg.DataError):
            what = "rule" if key.startswith(keys.RULES) else "hold of a branch"
            told.unreadable[key] = f"this note of a {what} cannot be read, and is not in force"


def _rule(fields: dict[str, Any]) -> Callable[[Tx], None]:
    set_at = datetime.fromisoformat(fields["set_at"])
    stored = StoredRule(
        project_id=int(fields["project_id"]),
        version=int(fields["version"]),
        superseded_days=fields["superseded_days"],
        quiet_days=fields["quiet_days"],
        default_days=fields["default_days"],
        default_branches=[str(branch) for branch in fields["default_branches"]],
        set_by=str(fields["set_by"]),
        set_at=set_at,
        noted_at=set_at,
    )
    return lambda tx: recoveries.bring_rule_back(tx, stored)


def _hold(fields: dict[str, Any]) -> Callable[[Tx], None]:
    hold = BranchHold(
        id=UUID(fields["id"]),
        project_id=int(fields["project_id"]),
        org_slug=str(fields["org"]),
        project_slug=str(fields["project"]),
        branch=str(fields["branch"]),
        reason=str(fields["reason"]),
        placed_by=str(fields["placed_by"]),
        placed_at=datetime.fromisoformat(fields["placed_at"]),
        ends_at=_moment(fields["ends_at"]),
        released_by=fields["released_by"],
        released_at=_moment(fields["released_at"]),
    )
    return lambda tx: recoveries.bring_branch_hold_back(tx, hold)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
