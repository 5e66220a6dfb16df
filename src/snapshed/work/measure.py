"""How the installation is doing, in numbers. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from snapshed.db import inventory, sessions
from snapshed.db.inventory import Queues, Stock
from snapshed.resources import Resources

CLASSES = ("unavailable", "throttled", "refused")
"""Every class of failure is told, those that never happened too: an alarm can then be set on each."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Gauges by name with a sentence of help each, what is stored by kind, what fails now by class, and what the store
    has answered to removals since the beginning."""

    gauges: dict[str, tuple[str, float]]
    stock: list[Stock]
    failing: dict[str, int]
    removed: int
    bytes_removed: int
    failures: dict[str, int]


def measure(resources: Resources) -> Numbers:
    """Everything in one transaction, so that the numbers belong together."""
    with resources.database.transaction() as tx:
        queues = inventory.queues(tx, resources.now())
        open_sessions = sessions.open_count(tx)
        stock = inventory.stock(tx)
        failing = {item.error_class: item.tombstones for item in inventory.failing(tx)}
        outcomes = {item.outcome: item for item in inventory.outcomes(tx)}
    removed = outcomes.get("removed")
    return Numbers(
        gauges=_gauges(queues, open_sessions, sum(failing.values())),
        stock=stock,
        failing={name: failing.get(name, 0) for name in CLASSES},
        removed=removed.objects if removed else 0,
        bytes_removed=removed.bytes if removed else 0,
        failures={name: outcomes[name].objects if name in outcomes else 0 for name in CLASSES},
    )


def _gauges(queues: Queues, open_sessions: int, failing: int) -> dict[str, tuple[str, float]]:
    return {
        "candidates": ("Blobs waiting to be looked at.", queues.candidates),
        "tombstones": (
            "Condemned objects whose removal is not confirmed.",
            queues.tombstones_due + queues.tombstones_waiting,
        ),
        "tombstones_due": ("Of these, how many may be removed now.", queues.tombstones_due),
        "tombstones_waiting": ("Of these, how many wait for their time.", queues.tombstones_waiting),
        "tombstones_failing": ("Of these, how many the store has not granted at least once.", failing),
        "oldest_tombstone_seconds": ("Age of the oldest of these.", queues.oldest_tombstone),
        "pending_objects": ("Objects announced and not yet confirmed.", queues.pending),
        "open_sessions": ("Upload sessions in progress.", open_sessions),
        "open_deletions": ("Deletions that are not complete.", queues.deletions_open),
        "unjournaled_deletions": (
            "Of these, how many the store's journal does not have yet: nothing of them is removed before.",
            queues.deletions_unjournaled,
        ),
        "traces_due": ("Trace rows still to be written.", queues.traces_due),
        "trace_removals": ("Trace ids whose rows must still go.", queues.trace_removals),
    }
