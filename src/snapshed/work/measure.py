"""How the installation is doing, in numbers for an operator. Reads only, and names nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from snapshed.db import installation, inventory, retention, sessions
from snapshed.db.inventory import Outcome, Queues
from snapshed.db.retention import Totals
from snapshed.resources import Resources

CLASSES = ("unavailable", "throttled", "refused")
"""Every class of failure is told, those that never happened too: an alarm can then be set on each."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, a sentence of help, and its values by label, or the one it has under the label `""`. A
    counter only grows."""

    name: str
    help: str
    kind: Literal["gauge", "counter"]
    values: Mapping[str, float]
    label: str = ""


def measure(resources: Resources) -> list[Family]:
    """Everything in one transaction, so that the numbers belong together."""
    now = resources.now()
    with resources.database.transaction() as tx:
        queues = inventory.queues(tx, now)
        open_sessions = sessions.open_count(tx)
        stock = inventory.stock(tx)
        condemned = inventory.condemned(tx)
        failing = {item.error_class: item.tombstones for item in inventory.failing(tx)}
        outcomes = {item.outcome: item for item in inventory.outcomes(tx)}
        latencies = inventory.latencies(tx, now)
        rules = retention.totals(tx, now)
        is_paused = installation.retention_is_paused(tx)
    return [
        *_queues(queues, open_sessions, sum(failing.values())),
        _by_kind("objects", "Live objects by kind.", {item.kind: item.objects for item in stock}),
        _by_kind("bytes", "Bytes of live objects by kind.", {item.kind: item.bytes for item in stock}),
        _by_kind(
            "tombstone_bytes",
            "Bytes of condemned objects by kind: disk that is still to come free.",
            {item.kind: item.bytes for item in condemned},
        ),
        *_removals(failing, outcomes),
        Family(
            "deletion_seconds",
            "From the request to a complete receipt, over deletions completed within the last hour.",
            "gauge",
            latencies,
            "quantile",
        ),
        *_rules(rules, is_paused=is_paused),
    ]


def _gauge(name: str, help_text: str, value: float) -> Family:
    return Family(name, help_text, "gauge", {"": value})


def _counter(name: str, help_text: str, value: float) -> Family:
    return Family(name, help_text, "counter", {"": value})


def _by_kind(name: str, help_text: str, values: Mapping[str, float]) -> Family:
    return Family(name, help_text, "gauge", values, "kind")


def _queues(queues: Queues, open_sessions: int, failing: int) -> Sequence[Family]:
    return (
        _gauge("candidates", "Blobs waiting to be looked at.", queues.candidates),
        _gauge(
            "oldest_candidate_seconds",
            "Age of the oldest of these: how far workers are behind.",
            queues.oldest_candidate,
        ),
        _gauge(
            "tombstones",
            "Condemned objects whose removal is not confirmed.",
            queues.tombstones_due + queues.tombstones_waiting,
        ),
        _gauge("tombstones_due", "Of these, how many may be removed now.", queues.tombstones_due),
        _gauge("tombstones_waiting", "Of these, how many wait for their time.", queues.tombstones_waiting),
        _gauge("tombstones_failing", "Of these, how many the store has not granted at least once.", failing),
        _gauge("oldest_tombstone_seconds", "Age of the oldest of these.", queues.oldest_tombstone),
        _gauge("pending_objects", "Objects announced and not yet confirmed.", queues.pending),
        _gauge(
            "lost_objects", "Objects that the store is known to have lost, and no upload has healed yet.", queues.lost
        ),
        _gauge("open_sessions", "Upload sessions in progress.", open_sessions),
        _gauge("open_deletions", "Deletions that are not complete.", queues.deletions_open),
        _gauge("oldest_deletion_seconds", "Age of the oldest of these.", queues.oldest_deletion),
        _gauge(
            "unjournaled_deletions",
            "Of these, how many the store's journal does not have yet: nothing of them is removed before.",
            queues.deletions_unjournaled,
        ),
        _gauge("oldest_unjournaled_seconds", "Age of the oldest of these.", queues.oldest_unjournaled),
        _gauge("comparisons_waiting", "Comparisons that are not finished.", queues.comparisons),
        _gauge("oldest_comparison_seconds", "Age of the oldest of these.", queues.oldest_comparison),
        _gauge("traces_due", "Trace rows still to be written.", queues.traces_due),
        _gauge("trace_removals", "Trace ids whose rows must still go.", queues.trace_removals),
        _gauge("notes_due", "Rules and holds of branches that the store was not told of yet.", queues.notes_due),
        _gauge("snapshots", "Snapshots that nobody has deleted.", queues.snapshots),
    )


def _removals(failing: Mapping[str, int], outcomes: Mapping[str, Outcome]) -> Sequence[Family]:
    removed = outcomes.get("removed", Outcome("removed", 0, 0, 0.0))
    return (
        Family(
            "tombstones_failing_by_class",
            "Condemned objects the store does not remove, by class.",
            "gauge",
            {name: failing.get(name, 0) for name in CLASSES},
            "class",
        ),
        Family(
            "removal_failures",
            "Removals the store did not grant, by class.",
            "counter",
            {name: outcomes[name].objects if name in outcomes else 0 for name in CLASSES},
            "class",
        ),
        _counter("removals", "Objects removed and confirmed.", removed.objects),
        _counter("removed_bytes", "Bytes of these.", removed.bytes),
        _counter(
            "removal_seconds",
            "How long these were condemned, in all: divided by their number, what a removal takes.",
            removed.seconds,
        ),
    )


def _rules(totals: Totals, *, is_paused: bool) -> Sequence[Family]:
    return (
        _gauge("retention_paused", "1 while no rule deletes anything until somebody confirms it.", is_paused),
        _gauge(
            "retention_oldest_run_seconds",
            "How long ago the project was looked at that was looked at longest ago.",
            totals.oldest_run,
        ),
        _gauge("retention_left", "Snapshots that the last runs had no room for.", totals.left_over),
        _gauge("retention_failing", "Snapshots that the last runs could not delete.", totals.failing),
        _counter("retention_deleted", "Snapshots deleted by rules.", totals.deleted),
        _counter("retention_failures", "Times that a rule could not delete a snapshot.", totals.failures),
    )
