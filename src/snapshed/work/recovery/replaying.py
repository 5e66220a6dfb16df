"""The journal is replayed: every deletion it names has a row again, finished with its receipt or open, to be finished."""

from __future__ import annotations

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


def bring_deletions_back(resources: Resources, told: Survey, plan: Plan) -> None:
    """Give every deletion of the journal that has no row one. Those whose receipt is not there are open again."""
    with resources.database.transaction() as tx:
        known = recoveries.deletions(tx)
        projects = access.list_projects(tx, None)
    if not projects:
        return  # nothing was ever stored, and nothing deleted
    missing = sorted((told.entries.keys() | told.receipts.keys()) - known)
    homes = _Homes(told, plan, projects)
    for start in range(0, len(missing), _AT_ONCE):
        some = missing[start : start + _AT_ONCE]
        resources.database.run(lambda tx, some=some: _add(resources, tx, some, told, homes))


class _Homes:
    """Which project each deletion is about."""

    def __init__(self, told: Survey, plan: Plan, projects: list[Project]) -> None:
        self.projects = {project.id: project for project in projects}
        self._first = projects[0]
        self._of_artifact = {one.artifact_id: one.stored.project_id for one in told.manifests}
        self.numbers = {**{one.artifact_id: one.number for one in plan.journaled if one.number}, **plan.numbers}

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


def _add(resources: Resources, tx: Tx, some: list[UUID], told: Survey, homes: _Homes) -> None:
    now = resources.now()
    for deletion_id in some:
        receipt = told.receipts.get(deletion_id)
        entry = told.entries.get(deletion_id) or _of_receipt(deletion_id, receipt or {})
        deletion = _finished(entry, receipt, homes) if receipt else _reopened(tx, entry, homes)
        recoveries.add_deletion(tx, deletion, now if receipt else None)
        if receipt is None:
            doomed = {artifact: ids.trace_id(artifact) for artifact in entry.artifacts}
            deletions.doom_traces(tx, deletion_id, doomed, now)


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
