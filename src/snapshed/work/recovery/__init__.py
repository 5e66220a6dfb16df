"""The database is lost: it is made anew from what the store tells about itself, bringing back nothing whose deletion was
journaled.

Every step may be repeated. Until the last one nobody else can open the database, so that a rebuild that died half-way is
simply begun again, in one more epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from snapshed.db import installation
from snapshed.db.pool import Tx
from snapshed.domain import ids, recovery
from snapshed.domain.names import Names
from snapshed.domain.recovery import LeftOut, Plan, ToldManifest
from snapshed.logs import logger
from snapshed.resources import Resources
from snapshed.work.recovery.adopting import adopt_unnamed, reopen
from snapshed.work.recovery.bringing_back import bring_artifacts_back, bring_comparisons_back
from snapshed.work.recovery.replaying import bring_deletions_back, bring_projects_back
from snapshed.work.recovery.survey import Survey, Tell, survey
from snapshed.work.recovery.taking_over import lost, take_over

__all__ = ["Foreseen", "Recovered", "foresee", "lost", "rebuild"]

_LOCK = 5
"""The advisory lock of whoever recovers: one at a time."""

_log = logger("recovery")


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a rebuild would do, as the store is now."""

    plan: Plan
    told: Survey


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a rebuild did. `removed` are objects and bytes by kind that nothing named; `unreadable` says by key what is
    wrong with it; `made_up` are projects whose names were lost."""

    epoch: int
    snapshots: int
    builds: int
    comparisons: int
    left_out: tuple[LeftOut, ...]
    unconfirmed: tuple[ToldManifest, ...]
    reopened: tuple[UUID, ...]
    removed: dict[str, tuple[int, int]]
    unreadable: dict[str, str]
    foreign: tuple[str, ...]
    made_up: tuple[Names, ...]


def foresee(resources: Resources, tell: Tell) -> Foreseen:
    """What a rebuild would bring back and leave out. Writes nothing; a life before that is not over may still change it."""
    told = survey(resources, tell)
    return Foreseen(_plan(resources, told, resources.installation.epoch + 1), told)


def rebuild(resources: Resources, wait: Callable[[timedelta], None], tell: Tell) -> Recovered:
    """Make the database anew from the store. `wait` is called once, after the new epoch has begun, and returns when no
    request of the life before can land any more.

    The resources are those of `opened(..., matched=lost)`. Raises Busy while another one recovers, Conflict and Broken as
    `lost` does, and Unavailable, after all of which it may be begun again.
    """
    with resources.database.alone(_LOCK):
        lost(resources.database, resources.store)  # asked again, now that nobody else can be at it
        mine = take_over(resources)
        mine.failpoints.reach("rebuild.begun")
        _log.info("rebuild begun", epoch=mine.installation.epoch)
        wait(mine.settings.put_limit)
        return _rebuild(mine, tell)


def _plan(resources: Resources, told: Survey, epoch: int) -> Plan:
    return recovery.plan(
        told.manifests, told.reports, told.journaled, told.withdrawn.keys(), told.shelf, ids.first_number(epoch)
    )


def _rebuild(resources: Resources, tell: Tell) -> Recovered:
    told = survey(resources, tell)
    plan = _plan(resources, told, resources.installation.epoch)
    made_up = bring_projects_back(resources, told)
    bring_deletions_back(resources, told, plan)
    bring_artifacts_back(resources, told, plan, tell)
    comparisons = bring_comparisons_back(resources, told, plan, tell)
    removed = adopt_unnamed(resources, told, plan, tell)
    open_again = reopen(resources, told, plan)
    for name in told.halves:
        resources.store.remove_half(name)
    resources.database.run(_open)
    _log.info("rebuild ended", epoch=resources.installation.epoch, snapshots=len(plan.chosen))
    return Recovered(
        epoch=resources.installation.epoch,
        snapshots=sum(one.kind == "snapshot" for one in plan.chosen),
        builds=sum(one.kind == "build" for one in plan.chosen),
        comparisons=comparisons,
        left_out=plan.left_out,
        unconfirmed=plan.unconfirmed,
        reopened=tuple(open_again),
        removed=removed,
        unreadable=told.unreadable,
        foreign=tuple(told.foreign),
        made_up=tuple(made_up),
    )


def _open(tx: Tx) -> None:
    installation.recovered(tx)
