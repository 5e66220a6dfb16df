"""What somebody forgot: rows that nothing names, announcements and pins of owners that have ended, half-written files."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from snapshed.db import inventory, repairs, sessions, tombstones
from snapshed.db.pool import Tx
from snapshed.domain.disagreement import Disagreement, Mended
from snapshed.resources import Resources


def _abouts(found: Sequence[Disagreement]) -> list[UUID]:
    return sorted(item.about for item in found if item.about is not None)


def enqueue(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Have the collector look at rows that nothing names: it judges under its locks, as always."""

    def write(tx: Tx) -> None:
        repairs.enqueue(tx, _abouts(found))
        resources.queue.wake(tx)

    if found:
        resources.database.run(write)
    return [Mended(item.kind, item.key, "queued to be condemned unless something names it") for item in found]


def give_up(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Condemn announcements whose maker has ended long after their put deadline."""

    def write(tx: Tx) -> None:
        tombstones.condemn_pending(tx, _abouts(found), resources.now(), settled=False)
        resources.queue.wake(tx)

    if found:
        resources.database.run(write)
    return [Mended(item.kind, item.key, "condemned; its bytes are removed if there are any") for item in found]


def unpin(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """End the pins of sessions that have ended."""

    def write(tx: Tx) -> list[UUID]:
        over = [about for about in _abouts(found) if (held := sessions.lock(tx, about)) and held.state != "open"]
        sessions.unpin(tx, over)
        resources.queue.wake(tx)
        return over

    over = resources.database.run(write) if found else []
    return [Mended(item.kind, item.key, "its pins are ended") for item in found if item.about in over]


def remove_halves(resources: Resources, found: Sequence[Disagreement]) -> list[Mended]:
    """Remove files that a put left half-written, unless a row speaks of a put that may be under way."""
    bases = {item.key: resources.store.half_of(item.key) or item.key for item in found}
    with resources.database.transaction() as tx:
        rows = {row.storage_key: row for row in inventory.known(tx, list(bases.values()))}
    mended: list[Mended] = []
    for item in found:
        row = rows.get(bases[item.key])
        if row is None or row.state == "live":
            resources.store.remove_half(item.key)
            mended.append(Mended(item.kind, item.key, "the file is removed"))
    return mended
