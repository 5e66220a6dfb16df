"""Mends what reconcile found, wherever nothing can be lost by it. What is to go becomes a tombstone of a deletion with a
receipt; nothing is removed on the word of a listing, and everything is asked about again before it is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

from snapshed.db import inventory
from snapshed.domain.disagreement import DAMAGES, Disagreement, Kind, Mended, most_unasked
from snapshed.errors import Conflict
from snapshed.resources import Resources, refuse_other_store
from snapshed.work.repair import damages, documents, leftovers, orphans, traces

__all__ = ["mend"]


def mend(resources: Resources, found: Sequence[Disagreement], *, confirmed: bool) -> list[Mended]:
    """Mend what can be, and say what was done. What is left is seen by comparing again.

    Raises Conflict, with nothing changed, when so much is found that a person should look first and `confirmed` is not
    given; Broken when the store is not this installation's; Unavailable when a part does not answer, with what was
    mended before that mended.
    """
    refuse_other_store(resources)
    if not confirmed:
        _refuse_too_many(resources, found)
    by_kind: dict[Kind, list[Disagreement]] = {}
    for item in found:
        by_kind.setdefault(item.kind, []).append(item)

    def of(*kinds: Kind) -> list[Disagreement]:
        return [item for kind in kinds for item in by_kind.get(kind, [])]

    return [
        *leftovers.enqueue(resources, of("unowned-row")),
        *leftovers.give_up(resources, of("stuck-announcement")),
        *leftovers.unpin(resources, of("stale-pin")),
        *leftovers.remove_halves(resources, of("half-written")),
        *orphans.adopt(resources, of("orphan", "foreign") if confirmed else of("orphan")),
        *damages.take_marks_away(resources, of("found-again")),
        *damages.mark(resources, of(*DAMAGES)),
        *documents.rewrite_manifests(resources, of(*DAMAGES)),
        *documents.compare_again(resources, of(*DAMAGES)),
        *traces.remove_strays(resources, of("stray-trace")),
        *traces.write_again(resources, of("missing-trace")),
    ]


def _refuse_too_many(resources: Resources, found: Sequence[Disagreement]) -> None:
    with resources.database.transaction() as tx:
        stored = inventory.live_count(tx)
    most = most_unasked(stored)
    groups: tuple[tuple[tuple[Kind, ...], str], ...] = (
        (("orphan", "foreign"), "objects that no row explains"),
        (DAMAGES, "lost or damaged objects"),
    )
    for kinds, what in groups:
        count = sum(item.kind in kinds for item in found)
        if count > most:
            raise Conflict(
                f"Stopped: {count:,} {what} beside {stored:,} whole ones; more than {most:,} are not mended without a "
                "word from a person. Nothing was changed. Make sure that this is the right database and the right "
                "store, then run it again with --yes."
            )
