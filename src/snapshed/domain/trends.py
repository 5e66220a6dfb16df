"""How snapshots and their changes went over the last days, from trace rows. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Day:
    """One day, in UTC. `seconds` is the median length of its comparisons, None without any."""

    day: date
    snapshots: int
    images: int
    compared: int
    changed: int
    seconds: float | None


@dataclass(slots=True)
class _Sum:
    snapshots: int = 0
    images: int = 0
    compared: int = 0
    changed: int = 0
    seconds: list[float] = field(default_factory=list[float])


def by_day(events: Iterable[tuple[str, datetime, Mapping[str, Any]]], now: datetime, days: int) -> list[Day]:
    """The last so many days until now, the oldest first, those without any event too. An event is its name, time and
    facts; what is older, or of another name, is passed over."""
    sums: defaultdict[date, _Sum] = defaultdict(_Sum)
    for event, at, facts in events:
        day = sums[at.astimezone(UTC).date()]
        if event == "snapshot":
            day.snapshots += 1
            day.images += _count(facts, "images")
        elif event == "comparison":
            day.compared += _count(facts, "total")
            day.changed += _count(facts, "changed")
            seconds = facts.get("seconds")
            if isinstance(seconds, int | float):
                day.seconds.append(float(seconds))
    today = now.astimezone(UTC).date()
    wanted = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    return [_day(day, sums.get(day, _Sum())) for day in wanted]


def _day(day: date, found: _Sum) -> Day:
    return Day(
        day=day,
        snapshots=found.snapshots,
        images=found.images,
        compared=found.compared,
        changed=found.changed,
        seconds=median(found.seconds) if found.seconds else None,
    )


def _count(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0
