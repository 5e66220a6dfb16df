"""Writes the reference pages that are made from the code: settings and the schema.

Run `python docs/reference.py`; a test compares what it would write with what is there.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

from snapshed.settings import Settings

HERE = Path(__file__).parent


def settings() -> str:
    """The table of settings as Markdown."""
    lines = [
        "# Settings",
        "",
        "Read from the environment once, at start; all problems are told together. An unknown `SNAPSHED_…` variable is a problem.",
        "Lengths of time are written like `300s`, `5m`, `1h`; sizes like `256 MiB`.",
        "",
        "| variable | default | what it is |",
        "|---|---|---|",
    ]
    for item in fields(Settings):
        variable, text = item.metadata["variable"], item.metadata["help"]
        lines.append(f"| `{variable}` | {_default(item.default)} | {text} |")
    lines += [
        "",
        "Client commands also read `SNAPSHED_TOKEN`, and `SNAPSHED_URL` as the address of the server.",
        "",
    ]
    return "\n".join(lines)


def _default(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        return f"`{seconds // 3600}h`" if seconds % 3600 == 0 else f"`{seconds}s`"
    if isinstance(value, int):
        return f"`{value // 2**20} MiB`"
    return f"`{value}`"


PAGES = {"settings.md": settings}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (HERE / name).write_text(write(), "utf-8")
