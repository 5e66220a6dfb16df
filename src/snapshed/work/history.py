"""One image over time, as people ask for it."""

from __future__ import annotations

from dataclasses import dataclass

from snapshed.db import history, snapshots
from snapshed.db.history import Appearance, Kept
from snapshed.errors import NotFound
from snapshed.resources import Resources


@dataclass(frozen=True, slots=True)
class Past:
    """Where the image of a snapshot appeared lately, newest first, and what its bytes cost."""

    appearances: list[Appearance]
    kept: list[Kept]


def past(resources: Resources, project_ids: list[int], number: int, name: str, digests: list[str], limit: int) -> Past:
    """What is known about one name of a snapshot, and about the bytes under these digests. Raises NotFound."""
    with resources.database.transaction() as tx:
        snapshot = snapshots.find(tx, number) if number < 2**63 else None
        if snapshot is None or snapshot.project_id not in project_ids:
            raise NotFound("Snapshot not found")
        if "\0" in name:
            return Past([], [])
        return Past(
            history.appearances(tx, snapshot.project_id, snapshot.app_id, name, None, limit),
            history.kept(tx, snapshot.project_id, digests),
        )


def appearances(
    resources: Resources, project_id: int, app_id: str, name: str, before: int | None, limit: int
) -> list[Appearance]:
    """A page of the snapshots of an app that show this name, newest first."""
    if "\0" in app_id + name:
        return []
    with resources.database.transaction() as tx:
        return history.appearances(tx, project_id, app_id, name, before, limit)
