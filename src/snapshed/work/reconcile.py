"""Compares rows, stored objects and trace rows, both ways. The one judge of whether the promises hold.

Reads only. Work under way is not a disagreement: what a listing shows is looked up afterwards, and what rows or a
listing claim is asked for again by name before it is believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from snapshed.blobs import Found
from snapshed.db import inventory, outbox
from snapshed.db.inventory import Known
from snapshed.domain import ids, keys
from snapshed.resources import Resources

Level = Literal[0, 1, 2]

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One thing that is not as it should be: its kind, the key it is about, and what to do."""

    kind: str
    key: str
    advice: str


def disagreements(resources: Resources, level: Level) -> Iterator[Disagreement]:
    """Everything that does not agree. Level 0 asks the database only, 1 also lists the store, 2 also reads and hashes
    every object. Raises Unavailable rather than believe a listing that ended early."""
    yield from _rows(resources)
    yield from _traces(resources)
    if level >= 1:
        listed = {found.key: found.size for found in resources.store.listing()}
        yield from _unexplained(resources, listed)
        yield from _absent(resources, listed)
    if level >= 2:
        yield from _altered(resources)


def _rows(resources: Resources) -> Iterator[Disagreement]:
    with resources.database.transaction() as tx:
        unowned = inventory.unowned(tx)
        named_early = inventory.referenced_pending(tx)
    for row in unowned:
        yield Disagreement(
            "unowned-row", row.storage_key, "nothing names this object and nothing is queued to remove it; report it"
        )
    for row in named_early:
        yield Disagreement("named-before-stored", row.storage_key, "a row names an object that was never confirmed")


def _traces(resources: Resources) -> Iterator[Disagreement]:
    """Traces first, rows afterwards: a row that appears in between explains what was found, never the other way."""
    present = resources.traces.trace_ids()
    with resources.database.transaction() as tx:
        expected = {ids.trace_id(artifact): artifact for artifact in outbox.expected(tx)}
        due = outbox.due_traces(tx)
        doomed = outbox.doomed(tx)
    strays = sorted(present - expected.keys() - doomed)
    # A deletion may have finished between the two looks; what it removed is not there when asked for by name.
    for trace_id in sorted(resources.traces.count(strays)) if strays else []:
        yield Disagreement("stray-trace", str(trace_id), "trace rows of something that is deleted; remove them")
    missing = sorted(expected.keys() - present - due)
    if missing:
        counted = resources.traces.count(missing)
        for trace_id in missing:
            if not counted.get(trace_id):
                yield Disagreement(
                    "missing-trace", str(trace_id), f"artifact {expected[trace_id]} has no trace rows; they are lost"
                )


def _unexplained(resources: Resources, listed: dict[str, int]) -> Iterator[Disagreement]:
    content = sorted(key for key in listed if not key.startswith(keys.SYSTEM))
    for page in _pages(content):
        with resources.database.transaction() as tx:
            explained = {row.storage_key for row in inventory.known(tx, [key.split("#", 1)[0] for key in page])}
        unknown = [key for key in page if key.split("#", 1)[0] not in explained]
        for key in unknown:
            if "#" in key:
                yield Disagreement("half-written", key, "left by a store process that died; remove the file")
            elif resources.store.head(key):
                yield Disagreement("orphan", key, "no row explains this object; it is safe to remove it")


def _absent(resources: Resources, listed: dict[str, int]) -> Iterator[Disagreement]:
    for page in _live_rows(resources):
        suspects = [row for row in page if listed.get(row.storage_key) != row.size]
        for row in _still_live(resources, suspects):
            found: Found | None = resources.store.head(row.storage_key)
            if found is None:
                yield Disagreement("lost", row.storage_key, f"the {row.kind}'s bytes are gone; upload it again")
            elif found.size != row.size:
                yield Disagreement(
                    "wrong-size", row.storage_key, f"the {row.kind} has {found.size} bytes, not {row.size}"
                )


def _altered(resources: Resources) -> Iterator[Disagreement]:
    for page in _live_rows(resources):
        for row in page:
            pieces = resources.store.stream(row.storage_key)
            if pieces is None:
                continue  # reported as lost, or removed meanwhile
            digest = hashlib.sha256()
            for piece in pieces:
                digest.update(piece)
            if digest.hexdigest() != row.digest and _still_live(resources, [row]):
                yield Disagreement("altered", row.storage_key, f"the {row.kind}'s bytes are not what was stored")


def _live_rows(resources: Resources) -> Iterator[list[Known]]:
    after = ""
    while True:
        with resources.database.transaction() as tx:
            page = inventory.live_after(tx, after, _PAGE)
        if not page:
            return
        yield page
        after = page[-1].storage_key


def _still_live(resources: Resources, suspects: Sequence[Known]) -> list[Known]:
    if not suspects:
        return []
    with resources.database.transaction() as tx:
        live = {
            row.storage_key for row in inventory.known(tx, [row.storage_key for row in suspects]) if row.state == "live"
        }
    return [row for row in suspects if row.storage_key in live]


def _pages(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _PAGE):
        yield items[start : start + _PAGE]
