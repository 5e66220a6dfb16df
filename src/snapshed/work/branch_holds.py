"""Holds of branches: no snapshot or build of a held branch can be deleted by anyone or any rule, also none yet to come.

A branch has no manifest, so the hold is told to the store in a note of its own, from which a lost database gets it back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from snapshed.db import access, branch_holds
from snapshed.db.access import Project
from snapshed.db.branch_holds import BranchHold
from snapshed.db.pool import Tx
from snapshed.domain import keys
from snapshed.domain.receipt import moment
from snapshed.errors import Invalid, NotFound, StoreUnavailable
from snapshed.logs import logger
from snapshed.resources import Resources

MOST_REASON = 1000
MOST_NAME = 255

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_log = logger("holds")


def place(
    resources: Resources, project: Project, branch: str, reason: str, placed_by: str, ends_at: datetime | None
) -> BranchHold:
    """Hold a branch, until `ends_at` if that is given, whether or not it has any snapshot yet. Holds add up. It holds
    when this returns; the store is told later if it does not answer now. Raises Invalid."""
    now = resources.now()
    if not 0 < len(branch) <= MOST_NAME or not branch.isprintable():
        raise Invalid(f"The field branch must be a branch's name of 1 to {MOST_NAME} characters.")
    if not 0 < len(reason.strip()) <= MOST_REASON or _UNSTORABLE.search(reason):
        raise Invalid(f"The field reason must be text of 1 to {MOST_REASON} characters that says why it is held.")
    if ends_at is not None and ends_at <= now:
        raise Invalid("The field ends_at lies in the past; a hold must end in the future, or not at all.")
    hold = BranchHold(
        id=resources.new_id(),
        project_id=project.id,
        org_slug=project.org_slug,
        project_slug=project.slug,
        branch=branch,
        reason=reason.strip(),
        placed_by=placed_by,
        placed_at=now,
        ends_at=ends_at,
        released_by=None,
        released_at=None,
    )

    def add(tx: Tx) -> None:
        access.lock_project(tx, project.id)
        branch_holds.lock_branch(tx, project.id, branch)
        branch_holds.add(tx, hold)
        resources.queue.wake(tx)

    resources.database.run(add)
    _log.info("branch held", project=project.slug, hold=str(hold.id))
    note_waiting(resources)
    return hold


def release(resources: Resources, project_ids: Sequence[int], hold_id: UUID, released_by: str) -> str:
    """Release a hold of a branch and return the branch's name. Raises NotFound."""

    def change(tx: Tx) -> str | None:
        resources.queue.wake(tx)
        return branch_holds.release(tx, list(project_ids), hold_id, released_by, resources.now())

    branch = resources.database.run(change)
    if branch is None:
        raise NotFound("Hold not found")
    _log.info("branch released", hold=str(hold_id))
    note_waiting(resources)
    return branch


def list_holds(resources: Resources, project_ids: Sequence[int]) -> list[BranchHold]:
    """Every hold of a branch that stands in these projects, the oldest first."""
    with resources.database.transaction() as tx:
        return branch_holds.listed(tx, list(project_ids), resources.now())


def note_waiting(resources: Resources, limit: int = 100) -> int:
    """Tell the store about holds placed and released that it was not told of yet. Returns how many. Either is an object
    of its own, so a late writer covers nothing, and writing one again changes nothing."""
    with resources.database.transaction() as tx:
        waiting = branch_holds.unnoted(tx, limit)
    written = 0
    for hold in waiting:
        key = keys.branch_hold_note(hold.id, is_released=hold.released_at is not None)
        try:
            resources.store.note(key, _note(hold))
        except StoreUnavailable as failed:
            _log.warning("hold not noted yet", hold=str(hold.id), error_class=failed.code)
            break  # a store that does not answer is asked again next time
        resources.database.run(lambda tx, hold=hold: branch_holds.noted(tx, hold, resources.now()))
        written += 1
    return written


def _note(hold: BranchHold) -> bytes:
    document = {
        "id": str(hold.id),
        "org": hold.org_slug,
        "project": hold.project_slug,
        "project_id": hold.project_id,
        "branch": hold.branch,
        "reason": hold.reason,
        "placed_by": hold.placed_by,
        "placed_at": moment(hold.placed_at),
        "ends_at": moment(hold.ends_at),
        "released_by": hold.released_by,
        "released_at": moment(hold.released_at),
    }
    return json.dumps(document, indent=2).encode()
