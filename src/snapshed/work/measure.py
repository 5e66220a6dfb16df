"""How the installation is doing, in numbers. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from snapshed.db import deletions, inventory, sessions
from snapshed.db.inventory import Stock
from snapshed.resources import Resources


@dataclass(frozen=True, slots=True)
class Numbers:
    """Gauges by name with a sentence of help each, and what is stored by kind."""

    gauges: dict[str, tuple[str, float]]
    stock: list[Stock]


def measure(resources: Resources) -> Numbers:
    """Everything in one transaction, so that the numbers belong together."""
    with resources.database.transaction() as tx:
        queues = inventory.queues(tx, resources.now())
        gauges = {
            "candidates": ("Blobs waiting to be looked at.", float(queues.candidates)),
            "tombstones": ("Condemned objects whose removal is not confirmed.", float(queues.tombstones)),
            "tombstones_failing": ("Of these, how many the store has refused at least once.", float(queues.failing)),
            "oldest_tombstone_seconds": ("Age of the oldest of these.", queues.oldest_tombstone),
            "pending_objects": ("Objects announced and not yet confirmed.", float(queues.pending)),
            "open_sessions": ("Upload sessions in progress.", float(sessions.open_count(tx))),
            "open_deletions": ("Deletions that are not complete.", float(deletions.open_count(tx))),
        }
        return Numbers(gauges, inventory.stock(tx))
