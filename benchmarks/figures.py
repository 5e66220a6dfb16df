"""How figures are kept and shown: raw in a JSON document, and as min, median and max in a table."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snapshed import __version__

RESULTS = Path(__file__).parent / "results"


def document(**facts: Any) -> dict[str, Any]:
    """When, where and of what these figures are, followed by the figures themselves."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "snapshed": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        **facts,
    }


def keep(name: str, figures: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def kept(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def table(title: Sequence[str], lines: Sequence[Sequence[str | float]]) -> str:
    """A table for people and for Markdown alike: the first column text, the others numbers."""
    cells = [[cell if isinstance(cell, str) else _number(cell) for cell in line] for line in lines]
    widths = [max(len(row[column]) for row in [list(title), *cells]) for column in range(len(title))]

    def row(texts: Sequence[str]) -> str:
        first, *others = zip(texts, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]) + " |"

    ruler = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([row(title), ruler, *map(row, cells)])


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
