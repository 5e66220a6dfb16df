"""Compares rows, stored objects and trace rows, both ways. The one judge of whether the promises hold.

Reads only. Work under way is not a disagreement: what a listing shows is looked up afterwards, and what rows or a
listing claim is asked for again by name before it is believed. Mending is `repair`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from snapshed.domain.disagreement import Disagreement, Level
from snapshed.resources import Resources
from snapshed.work.reconcile import contents, objects, rows, tracing

__all__ = ["Disagreement", "Level", "disagreements"]

Tell = Callable[[str, int], None]
"""Is told what is being looked at, and how many of it have been."""


def disagreements(resources: Resources, level: Level, tell: Tell = lambda _what, _done: None) -> Iterator[Disagreement]:
    """Everything that does not agree. Level 0 asks the database only, 1 also lists the store and the traces, 2 also
    reads every object. Memory grows with the number of objects by eight bytes each.

    Raises Unavailable rather than believe a listing that ended early, and Broken when the store is not the one this
    database belongs to.
    """
    yield from rows.breaches(resources)
    yield from rows.lost_objects(resources, look=level >= 1)
    if level >= 1:
        yield from tracing.differences(resources)
        yield from objects.differences(resources, tell)
    if level >= 2:
        yield from contents.altered(resources, tell)
        yield from contents.contradictions(resources, tell)
