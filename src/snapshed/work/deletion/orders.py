"""What an order to delete means, and what carrying it out would do: the preview, and the plan that confirms it.

Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from snapshed.db import deletions, holds, installation, releases, sessions, withdrawals
from snapshed.db.access import Project
from snapshed.db.deletions import Target
from snapshed.db.pool import Tx
from snapshed.db.releases import PreviewedBlob
from snapshed.domain import receipt
from snapshed.errors import Held, Invalid, NotFound, PlanChanged
from snapshed.resources import Resources


@dataclass(frozen=True, slots=True)
class Order:
    """One deletion as it was asked for. Exactly one of the targets is given; `projects` are those it may reach, and
    `is_for_all_projects` says that whoever asks reaches the whole organization."""

    org_id: int
    projects: Sequence[Project]
    requested_by: str
    snapshots: Sequence[int] = ()
    filter: Filter | None = None
    everything: bool = False
    image: str | None = None
    reason: str | None = None
    urgent: bool = False
    request_id: str | None = None
    plan: str | None = None
    is_for_all_projects: bool = False

    @property
    def target(self) -> dict[str, Any]:
        """The target in the words of the API, as it is kept and shown."""
        if self.snapshots:
            return {"snapshots": [str(number) for number in self.snapshots]}
        if self.filter is not None:
            return {"project": self.projects[0].slug, "filter": self.filter.as_asked()}
        if self.image is not None:
            return {"project": self.projects[0].slug, "image": self.image}
        return {"project": self.projects[0].slug, "everything": True}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which snapshots of a project; every condition given must fit, and one at least is given."""

    app_id: str | None = None
    branch: str | None = None
    older_than: datetime | None = None
    older_than_asked: str | None = None

    def as_asked(self) -> dict[str, str]:
        """The conditions in the words they were asked with: `30d` stays `30d`, whenever it is asked again."""
        older = self.older_than_asked or receipt.moment(self.older_than)
        said = {"app_id": self.app_id, "branch": self.branch, "older_than": older}
        return {field: value for field, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Meant:
    """What an order means now: artifacts that go; or, with `image`, artifacts that stay without that one image."""

    artifacts: list[Target]
    image: UUID | None

    @property
    def artifact_ids(self) -> list[UUID]:
        return [target.artifact_id for target in self.artifacts]

    @property
    def numbers(self) -> list[int]:
        """The public numbers, in order."""
        return sorted(target.number for target in self.artifacts)


def meant_by(tx: Tx, order: Order) -> Meant:
    """The unmarked artifacts an order means. Raises NotFound for any id that is not there, and Invalid for an order
    without a target: nothing is deleted then."""
    if order.snapshots:
        return Meant(_numbered(tx, order), None)
    (project,) = order.projects
    if order.image is not None:
        image_id = withdrawals.image_of(tx, project.id, order.image)
        if image_id is None:
            raise NotFound("Image not found")
        return Meant(withdrawals.naming(tx, image_id), image_id)
    if order.filter is not None:
        chosen = order.filter
        if chosen.app_id is None and chosen.branch is None and chosen.older_than is None:
            raise Invalid("The filter is empty; give app_id, branch or older_than, or ask for everything.")
        return Meant(deletions.targets_by_filter(tx, project.id, chosen.app_id, chosen.branch, chosen.older_than), None)
    if not order.everything:
        raise Invalid("The deletion names no target; give snapshots, a filter, an image, or everything.")
    return Meant(deletions.targets_by_filter(tx, project.id, None, None, None), None)


def present(resources: Resources, project_ids: list[int], numbers: Sequence[int]) -> list[int]:
    """Those of the numbers that are unmarked artifacts of these projects, in order."""
    with resources.database.transaction() as tx:
        found = deletions.targets_by_number(tx, project_ids, sorted(set(numbers)))
    return sorted(target.number for target in found)


def _numbered(tx: Tx, order: Order) -> list[Target]:
    wanted = sorted(set(order.snapshots))
    found = deletions.targets_by_number(tx, [project.id for project in order.projects], wanted)
    if absent := sorted(set(wanted) - {target.number for target in found}):
        raise NotFound(f"Snapshot not found: {', '.join(str(number) for number in absent[:20])}")
    return found


def count_rows(tx: Tx, meant: Meant) -> dict[str, int]:
    """How many rows of each public kind go. A withdrawal takes none but the bytes out of some images' rows."""
    if meant.image is None:
        return deletions.count_rows(tx, meant.artifact_ids)
    names = withdrawals.names(tx, meant.image, meant.artifact_ids)
    return {"snapshots": 0, "snapshot_images": names, "comparisons": 0, "approvals": 0}


# --- Looking ---------------------------------------------------------------------------------------------------------


def preview(resources: Resources, order: Order) -> dict[str, Any]:
    """What this order would do if it were carried out now, as a receipt in the state `preview`. Changes nothing.

    `waiting` counts what would go. Raises NotFound, Invalid or Held as carrying it out would.
    """
    now = resources.now()
    with resources.database.transaction() as tx:
        meant = meant_by(tx, order)
        if held := holds.barring(tx, meant.artifact_ids, now):
            raise Held(held[0].number, held[0].reason)
        found = _released_by(tx, meant)
        row_counts = count_rows(tx, meant)
        pinned = [blob.blob_id for blob in found if blob.outcome == "kept_pinned"]
        refused = sessions.pinning(tx, pinned) if order.urgent else []
        keeps = installation.store_keeps(tx)
    counts, sums = receipt.objects(_tallied(found))
    numbers = [str(number) for number in meant.numbers]
    traces = len(meant.artifacts) if meant.image is None else 0
    return {
        "id": None,
        "state": "preview",
        "plan": _plan(meant, found),
        "target": order.target,
        "requested_at": receipt.moment(now),
        "requested_by": order.requested_by,
        "reason": order.reason,
        "urgent": order.urgent,
        "journaled_at": None,
        "completed_at": None,
        "verified_at": None,
        "pins_end_at": None,
        "refused_uploads": [
            {"requested_by": upload.principal, "opened_at": receipt.moment(upload.opened_at)} for upload in refused
        ],
        "snapshots": numbers if meant.image is None else [],
        "withdrawn_from": [] if meant.image is None else numbers,
        "rows": row_counts,
        "objects": counts,
        "bytes": sums,
        "traces": {"released": traces, "removed": 0, "waiting": traces},
        "failures": [],
        "scope": receipt.scope(keeps),
        "signature": None,
    }


@dataclass(frozen=True, slots=True)
class _Previewed:
    kind: str
    outcome: str
    objects: int
    bytes: int


def _released_by(tx: Tx, meant: Meant) -> list[PreviewedBlob]:
    if meant.image is None:
        return releases.preview(tx, meant.artifact_ids)
    return withdrawals.preview(tx, meant.image)


def _tallied(found: Sequence[PreviewedBlob]) -> list[_Previewed]:
    return [_Previewed(blob.kind, blob.outcome, 1, blob.bytes) for blob in found]


def _plan(meant: Meant, found: Sequence[PreviewedBlob]) -> str:
    going = [blob.blob_id for blob in found if blob.outcome == "waiting"]
    return receipt.plan(meant.artifact_ids, going)


def check_plan(tx: Tx, plan: str, meant: Meant) -> None:
    """Raise PlanChanged, with what would go now, unless that is exactly what the preview with this plan showed."""
    found = _released_by(tx, meant)
    actual = _plan(meant, found)
    if actual != plan:
        counts, _ = receipt.objects(_tallied(found))
        raise PlanChanged(
            actual,
            {
                "snapshots": [str(number) for number in meant.numbers],
                "objects": [f"{kind}: {count['waiting']} would go" for kind, count in counts.items()],
            },
        )
