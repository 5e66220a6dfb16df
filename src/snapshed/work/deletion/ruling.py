"""Deletions that a rule asks for: what goes is chosen inside the transaction that marks it, and people come first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from snapshed.db import access
from snapshed.db.access import Project
from snapshed.db.pool import Tx
from snapshed.resources import Resources
from snapshed.work.deletion.marking import Marked, finish, mark
from snapshed.work.deletion.orders import Order


def by_rule(
    resources: Resources, project: Project, requested_by: str, reason: str, choose: Callable[[Tx], Sequence[int]]
) -> Sequence[int]:
    """Delete the snapshots that `choose` returns while no snapshot can commit in the project. Returns their numbers;
    none, with nothing done, if it chooses none.

    `requested_by` begins with `rule:`, so that the deletions of people are let go of before it. Raises what a request
    raises, with nothing deleted.
    """

    def mark_chosen(tx: Tx) -> tuple[Marked, Sequence[int]] | None:
        access.lock_project(tx, project.id)
        numbers = choose(tx)
        if not numbers:
            return None
        order = Order(project.org_id, [project], requested_by, snapshots=numbers, reason=reason)
        return mark(resources, tx, order), numbers

    done = resources.database.run(mark_chosen)
    if done is None:
        return ()
    marked, numbers = done
    finish(resources, marked)
    return numbers
