"""Writes the reference pages that are made from the code: the settings, and the schema as the migrations leave it.

Run `python docs/reference.py`; a test compares what it would write with what is there.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

from snapshed.db.cluster import binaries
from snapshed.db.embedded import Embedded
from snapshed.db.migrate import migrate
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


def schema() -> str:
    """Our tables, views and triggers as PostgreSQL tells them after the last migration; the queue's own are left out."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = Embedded.open(Path(folder))
        try:
            migrate(embedded.dsn)
            dumped = subprocess.run(
                [
                    binaries() / "pg_dump", "--schema-only", "--no-owner", "--no-privileges",
                    "--exclude-table=procrastinate*", f"--dbname={embedded.dsn}",
                ],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        finally:
            embedded.close()
    parts = re.split(r"\n(?=--\n-- Name: )", dumped)[1:]
    ours = [re.sub(r"^--\n-- .*\n--\n+", "", part).strip() for part in parts if "procrastinate" not in part]
    ours = [re.sub(r"\n+--\n-- PostgreSQL database dump complete\n--[\s\S]*", "", part) for part in ours]
    head = "-- What the migrations leave, for reading. Why it is so stands in src/snapshed/db/migrations.\n"
    return "\n\n".join([head.strip(), *(part for part in ours if part)]) + "\n"


PAGES = {"settings.md": settings, "schema.sql": schema}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (HERE / name).write_text(write(), "utf-8")
