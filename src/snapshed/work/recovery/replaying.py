"""The journal is replayed: every deletion it names has a row again, finished with its receipt or open, to be finished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from snapshed.db import access, deletions, recoveries
from snapshed.db.access import Project
from snapshed.db.deletions import Deletion
from snapshed.db.pool import Tx
from snapshed.domain import ids, names
from snapshed.domain.journal import UNKNOWN, Entry
from snapshed.domain.names import Names
from snapshed.domain.recovery import Plan
from snapshed.resources import Resources
from snapshed.work.recovery.catching_up import Withdraw, delete_again
from snapshed.work.recovery.survey import Survey

_AT_ONCE = 500


def bring_projects_back(resources: Resources, told: Survey) -> list[Names]:
    """Give every project that the store speaks of its row, under the number it had. Returns those whose names had to be
    made up."""
    wanted = dict(told.names)
    made_up: list[Names] = []
    spoken_of = {(one.place.org_id, one.place.project_id) for one in told.shelf.by_id.values()}
    spoken_of |= {
        (entry.org_id, entry.project_id) for entry in told.entries.values() if entry.org_id and entry.project_id
    }
    for org_id, project_id in sorted(spoken_of):
        if project_id and project_id not in wanted:
            known = next((one.org_slug for one in wanted.values() if one.org_id == org_id), None)
            name = names.made_up(org_id, project_id)
            wanted[project_id] = Names(org_id, known or name.org_slug, project_id, name.slug)
            made_up.append(wanted[project_id])

    def write(tx: Tx) -> None:
        for name in wanted.values():
            project = Project(name.project_id, name.org_id, name.org_slug, name.slug, "active")
            access.bring_back(tx, project, resources.now())

    resources.database.run(write)
    return [name for name in made_up if (name.org_id, name.project_id) != (1, 1)]


def bring_deletions_back(resources: Resources, told: Survey, plan: Plan, withdraw: Withdraw) -> list[UUID]:
    """Give every deletion of the journal that has no row one. Those whose receipt is not there are open again, and so are
    those of what this database still shows, which is deleted again; these are returned."""
    with resources.database.transaction() as tx:
        known = {one.id: one.is_journaled for one in recoveries.deletions(tx)}
        projects = access.list_projects(tx, None)
        artifacts = recoveries.artifacts(tx)
    if not projects:
        return []  # nothing was ever stored, and nothing deleted
    for deletion_id in told.entries.keys() & {one for one, is_journaled in known.items() if not is_journaled}:
        resources.database.run(
            lambda tx, deletion_id=deletion_id: deletions.journaled(tx, deletion_id, resources.now())
        )
    missing = sorted((told.entries.keys() | told.receipts.keys()) - known.keys())
    replay = _Replay(resources, told, _Homes(told, plan, projects, artifacts), withdraw)
    again: list[UUID] = []
    for start in range(0, len(missing), _AT_ONCE):
        some = missing[start : start + _AT_ONCE]
        again += resources.database.run(lambda tx, some=some: [one for one in some if replay.add(tx, one)])
    return again


class _Homes:
    """Which project each deletion is about."""

    def __init__(
        self, told: Survey, plan: Plan, projects: list[Project], artifacts: list[recoveries.KnownArtifact]
    ) -> None:
        self.projects = {project.id: project for project in projects}
        self._first = projects[0]
        self._of_artifact = {
            **{one.artifact_id: one.stored.project_id for one in told.manifests},
            **{one.id: one.project_id for one in artifacts},
        }
        self.numbers = {
            **{one.artifact_id: one.number for one in plan.journaled if one.number},
            **plan.numbers,
            **{one.id: one.number for one in artifacts},
        }
        self.shown = {one.id for one in artifacts if not one.is_marked}

    def org_of(self, entry: Entry) -> int:
        project = self.project_of(entry)
        return entry.org_id or (self._first.org_id if project is None else project.org_id)

    def project_of(self, entry: Entry) -> Project | None:
        if entry.org_id is not None:
            return self.projects.get(entry.project_id or 0)
        # An entry of an earlier release, or a damaged one: the manifests that still stand may know.
        named = [*entry.artifacts, *(artifact for artifact, _ in entry.images)]
        found = {self._of_artifact[artifact] for artifact in named if artifact in self._of_artifact}
        return self.projects.get(found.pop()) if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class _Replay:
    """Adds deletions of the journal."""

    resources: Resources
    told: Survey
    homes: _Homes
    withdraw: Withdraw

    def add(self, tx: Tx, deletion_id: UUID) -> bool:
        """True if the deletion had to be carried out again."""
        receipt = self.told.receipts.get(deletion_id)
        entry = self.told.entries.get(deletion_id) or _of_receipt(deletion_id, receipt or {})
        now = self.resources.now()
        if receipt is not None and not self._is_shown(tx, entry):
            recoveries.add_deletion(tx, _finished(entry, receipt, self.homes), now)
            return False
        deletion = _reopened(tx, entry, self.homes)
        recoveries.add_deletion(tx, deletion, None)
        doomed = {artifact: ids.trace_id(artifact) for artifact in entry.artifacts}
        deletions.doom_traces(tx, deletion_id, doomed, now)
        return delete_again(self.resources, tx, deletion, self.withdraw)

    def _is_shown(self, tx: Tx, entry: Entry) -> bool:
        """Whether this database, older than the deletion, still shows something of what it took."""
        if entry.images:
            return bool(recoveries.images_of(tx, sorted(_artifacts(entry)), entry.images[0][1]))
        return not self.homes.shown.isdisjoint(entry.artifacts)


def _of_receipt(deletion_id: UUID, receipt: dict[str, Any]) -> Entry:
    """What a receipt alone tells, where the entry beside it is gone."""
    requested_at = _moment(receipt, "requested_at") or ids.minted_at(deletion_id)
    return Entry(deletion_id, (), (), requested_at, str(receipt.get("requested_by", UNKNOWN)), None, None, None)


def _finished(entry: Entry, receipt: dict[str, Any], homes: _Homes) -> Deletion:
    project = homes.project_of(entry)
    numbers = cast("list[str]", receipt.get("snapshots") or receipt.get("withdrawn_from") or [])
    return Deletion(
        id=entry.deletion_id,
        org_id=homes.org_of(entry),
        project_id=None if project is None else project.id,
        target=receipt.get("target") or {},
        requested_by=entry.requested_by,
        reason=receipt.get("reason"),
        urgent=bool(receipt.get("urgent")),
        request_id=None,
        state="complete",
        snapshots=[int(number) for number in numbers],
        artifacts=_artifacts(entry),
        rows=receipt.get("rows") or {},
        requested_at=entry.requested_at,
        journaled_at=_moment(receipt, "journaled_at") or entry.requested_at,
        completed_at=_moment(receipt, "completed_at"),
        verified_at=_moment(receipt, "verified_at"),
        receipt=receipt,
    )


def _reopened(tx: Tx, entry: Entry, homes: _Homes) -> Deletion:
    project = homes.project_of(entry)
    digest = entry.images[0][1] if entry.images else None
    numbers = sorted({homes.numbers[artifact] for artifact in _artifacts(entry) if artifact in homes.numbers})
    slug = None if project is None else project.slug
    return Deletion(
        id=entry.deletion_id,
        org_id=homes.org_of(entry),
        project_id=None if project is None else project.id,
        target={"snapshots": [str(number) for number in numbers]}
        if digest is None
        else {"project": slug, "image": digest},
        requested_by=entry.requested_by,
        reason=entry.reason,
        urgent=False,
        request_id=None,
        state="removing",
        snapshots=numbers,
        artifacts=_artifacts(entry),
        rows=deletions.count_rows(tx, []),
        requested_at=entry.requested_at,
        journaled_at=entry.requested_at,
        completed_at=None,
        verified_at=None,
        receipt=None,
    )


def _artifacts(entry: Entry) -> list[UUID]:
    return [*entry.artifacts, *dict.fromkeys(artifact for artifact, _ in entry.images)]


def _moment(receipt: dict[str, Any], name: str) -> datetime | None:
    text = receipt.get(name)
    return datetime.fromisoformat(text) if isinstance(text, str) else None
