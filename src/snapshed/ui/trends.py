"""How snapshots went over the last days, as small charts that are drawn here: no script, and a table beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from snapshed.auth import Reader, Res, projects_of
from snapshed.domain.trends import Day
from snapshed.ui.rendering import page
from snapshed.work import trends

_DAYS = 30
_HEIGHT = 100
"""Units of a chart's own; a bar is ten wide."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Bar:
    """One day in a chart: where it is drawn, and what it says."""

    x: int
    y: float
    height: float
    day: str
    value: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One number a day. `most` is the highest, in words; `summary` says the whole in a sentence."""

    title: str
    summary: str
    most: str
    bars: tuple[Bar, ...]


@router.get("/trends")
def show(request: Request, resources: Res, reader: Reader, project: str = "") -> Response:
    """Charts of the last days, of one project or of all."""
    projects = projects_of(resources, reader.actor)
    reach = [one.id for one in projects if project in ("", one.slug)]
    days = trends.days(resources, reach, _DAYS)
    return page(
        request,
        "trends.html",
        browser=reader,
        charts=charts(days),
        is_empty=not any(day.snapshots or day.compared for day in days),
        projects=[one.slug for one in projects],
        project=project,
        days=_DAYS,
    )


def charts(days: Sequence[Day]) -> list[Chart]:
    """What is worth looking at, each drawn on its own scale."""
    shares = [100 * day.changed / day.compared if day.compared else None for day in days]
    return [
        _chart("Snapshots a day", days, [day.snapshots for day in days], ""),
        _chart("Images uploaded a day", days, [day.images for day in days], ""),
        _chart("Images that changed", days, [day.changed for day in days], ""),
        _chart("Share of compared images that changed", days, shares, " %"),
        _chart("Seconds a comparison takes (median)", days, [day.seconds for day in days], " s"),
    ]


def _chart(title: str, days: Sequence[Day], values: Sequence[float | None], unit: str) -> Chart:
    most = max((value for value in values if value is not None), default=0)
    known = [value for value in values if value is not None]
    bars = tuple(
        Bar(
            x=place * 10,
            # What is not nothing is never drawn as nothing.
            y=_HEIGHT - (height := 0 if not value or not most else max(_HEIGHT * value / most, 1)),
            height=height,
            day=f"{day.day.day} {day.day:%b}",
            value="none" if value is None else _told(value, unit),
        )
        for place, (day, value) in enumerate(zip(days, values, strict=True))
    )
    summary = f"{title}: at most {_told(most, unit)}, lately {_told(known[-1], unit) if known else 'none'}."
    return Chart(title, summary, _told(most, unit), bars)


def _told(value: float, unit: str) -> str:
    """A number with at most two digits behind the point.

    >>> _told(1200, ""), _told(0.5, " s"), _told(0.001, " %")
    ('1,200', '0.5 s', 'under 0.01 %')
    """
    if 0 < value < 0.01:
        return f"under 0.01{unit}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") + unit
