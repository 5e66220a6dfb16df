"""The database is lost, or older than the store: it is made anew, or catches up, from what the store tells about itself,
bringing back nothing whose deletion was journaled.

Every step may be repeated. Until the last one nobody else can open the database, so that a rebuild that died half-way is
simply begun again, in one more epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from snapshed.db import installation, recoveries
from snapshed.domain import ids, recovery
from snapshed.domain.names import Names
from snapshed.domain.recovery import LeftOut, Plan, ToldManifest
from snapshed.logs import logger
from snapshed.resources import Resources
from snapshed.work.recovery.adopting import adopt_unnamed, reopen
from snapshed.work.recovery.bringing_back import bring_artifacts_back, bring_comparisons_back
from snapshed.work.recovery.catching_up import (
    Damage,
    Withdraw,
    end_every_session,
    find_damages,
    take_newer_manifests,
)
from snapshed.work.recovery.noted import bring_notes_back
from snapshed.work.recovery.replaying import bring_deletions_back, bring_projects_back
from snapshed.work.recovery.survey import Survey, Tell, survey
from snapshed.work.recovery.taking_over import behind, lost, take_over

__all__ = ["Damage", "Foreseen", "Recovered", "behind", "catch_up", "foresee", "lost", "rebuild"]

_LOST = "The database was rebuilt from the store; look at what came back first."
_OLDER = "The database was older than the store and has caught up; look at what came back first."

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
    """What a rebuild or a catching up did. `deleted_again` are deletions of what an older database still showed, `damages`
    what it names and the store has no more. `removed` are objects and bytes by kind that nothing named; `unreadable` says by key what is
    wrong with it; `made_up` are projects whose names were lost."""

    epoch: int
    snapshots: int
    builds: int
    comparisons: int
    left_out: tuple[LeftOut, ...]
    unconfirmed: tuple[ToldManifest, ...]
    reopened: tuple[UUID, ...]
    deleted_again: tuple[UUID, ...]
    damages: tuple[Damage, ...]
    ended_sessions: int
    removed: dict[str, tuple[int, int]]
    unreadable: dict[str, str]
    foreign: tuple[str, ...]
    made_up: tuple[Names, ...]


def foresee(resources: Resources, tell: Tell) -> Foreseen:
    """What a rebuild would bring back and leave out. Writes nothing; a life before that is not over may still change it."""
    told = survey(resources, tell)
    return Foreseen(_plan(resources, told, (), resources.installation.epoch + 1), told)


def rebuild(resources: Resources, wait: Callable[[timedelta], None], tell: Tell, withdraw: Withdraw) -> Recovered:
    """Make the database anew from the store. `wait` is called once, after the new epoch has begun, and returns when no
    request of the life before can land any more.

    The resources are those of `opened(..., matched=lost)`. Raises Busy while another one recovers, Conflict and Broken as
    `lost` does, and Unavailable, after all of which it may be begun again.
    """
    with resources.database.alone(_LOCK):
        lost(resources.database, resources.store)  # asked again, now that nobody else can be at it
        mine = take_over(resources, _LOST)
        mine.failpoints.reach("rebuild.begun")
        _log.info("rebuild begun", epoch=mine.installation.epoch)
        wait(mine.settings.put_limit)
        return _recover(mine, tell, withdraw)


def catch_up(resources: Resources, tell: Tell, withdraw: Withdraw) -> Recovered:
    """Let a database that is older than its store catch up: what was deleted since is deleted again, what was made since
    comes back, what is gone is named, in a new epoch.

    The resources are those of `opened(..., matched=behind)`. Nothing is waited for: a request of the life before that
    lands later may leave an object that nobody names, which `reconcile` finds. Raises like `rebuild`.
    """
    with resources.database.alone(_LOCK):
        behind(resources.database, resources.store)
        mine = take_over(resources, _OLDER)
        mine.failpoints.reach("rebuild.begun")
        _log.warning("the database is older than the store and catches up", epoch=mine.installation.epoch)
        return _recover(mine, tell, withdraw)


def _plan(resources: Resources, told: Survey, known: Collection[UUID], epoch: int) -> Plan:
    return recovery.plan(
        told.manifests,
        told.reports,
        told.journaled,
        told.withdrawn.keys(),
        known,
        told.shelf,
        ids.first_number(epoch),
    )


def _recover(resources: Resources, tell: Tell, withdraw: Withdraw) -> Recovered:
    told = survey(resources, tell)
    with resources.database.transaction() as tx:
        known = {one.id: one.manifest_id for one in recoveries.artifacts(tx)}
    plan = _plan(resources, told, known.keys(), resources.installation.epoch)
    made_up = bring_projects_back(resources, told)
    bring_notes_back(resources, told)
    again = bring_deletions_back(resources, told, plan, withdraw)
    bring_artifacts_back(resources, told, plan, tell)
    take_newer_manifests(resources, told, {one: named for one, named in known.items() if named is not None})
    comparisons = bring_comparisons_back(resources, told, tell)
    damages = find_damages(resources, told)
    ended = end_every_session(resources)
    removed = adopt_unnamed(resources, told, plan, tell)
    open_again = reopen(resources, told, plan)
    for name in told.halves:
        resources.store.remove_half(name)
    resources.database.run(installation.recovered)
    _log.info("recovered", epoch=resources.installation.epoch, snapshots=len(plan.chosen), deleted_again=len(again))
    return Recovered(
        epoch=resources.installation.epoch,
        snapshots=sum(one.kind == "snapshot" for one in plan.chosen),
        builds=sum(one.kind == "build" for one in plan.chosen),
        comparisons=comparisons,
        left_out=plan.left_out,
        unconfirmed=plan.unconfirmed,
        reopened=tuple(open_again),
        deleted_again=tuple(again),
        damages=tuple(damages),
        ended_sessions=ended,
        removed=removed,
        unreadable=told.unreadable,
        foreign=tuple(told.foreign),
        made_up=tuple(made_up),
    )
