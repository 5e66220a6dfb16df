"""What is stored, for whom, and what is on its way out."""

from __future__ import annotations

from dataclasses import dataclass

from snapshed.db import storage
from snapshed.db.storage import Leaving, OfKind, Part
from snapshed.resources import Resources


@dataclass(frozen=True, slots=True)
class Stock:
    """Everything the page of the storage shows, read in one transaction. Sizes in bytes."""

    kinds: list[OfKind]
    projects: list[Part]
    branches: list[Part]
    leaving: Leaving

    @property
    def stored(self) -> int:
        """What the store holds for live rows."""
        return sum(kind.stored for kind in self.kinds)

    @property
    def logical(self) -> int:
        """What it would hold if every snapshot kept its own copies."""
        return sum(kind.logical for kind in self.kinds)

    @property
    def ratio(self) -> float:
        """How many times each stored byte is used."""
        return self.logical / self.stored if self.stored else 1.0


def stock(resources: Resources, org_id: int, project_ids: list[int], branches: int) -> Stock:
    """What these projects of an organization have in the store; `branches` is how many of them are told."""
    with resources.database.transaction() as tx:
        return Stock(
            storage.by_kind(tx, project_ids),
            storage.by_project(tx, project_ids),
            storage.by_branch(tx, project_ids, branches),
            storage.leaving(tx, org_id, project_ids),
        )
