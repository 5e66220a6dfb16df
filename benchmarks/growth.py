"""Many small deletions: do the tables that only hold work in progress level off?

What receipts are made of stays for good, by design: deletion, release, trace_removal.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import figures
import psycopg
from obstore.store import LocalStore
from planting import Field
from processes import running, service

from snapshed.resources import Resources, opened
from snapshed.settings import Settings
from snapshed.work import access, deletion

TABLES = ("candidate", "tombstone", "blob", "artifact", "snapshot", "snapshot_image", "pin", "session", "trace_due",
          "deletion", "release", "trace_removal")  # fmt: skip
SHARED = 3
SAMPLES = 40
BEHIND = 100
"""Deletions that may be open at once; whoever asks then waits."""


def measure(deletions: int, root: Path) -> dict[str, Any]:
    data = root / "data"
    with opened(Settings(data=data)) as resources:
        access.first_start(resources, "http://127.0.0.1")
        project = access.list_projects(resources)[0]
        field = Field(resources, LocalStore(data / "objects"), project)
        shared = field.images(SHARED)
        field.snapshot(shared)
        samples: list[dict[str, Any]] = []
        with running(service("worker", data), None, root / "log"):
            done = 0
            begun_at = began = time.monotonic()
            while done < deletions:
                count = max(1, min(deletions // SAMPLES, deletions - done))
                _delete(resources, field, shared, count)
                done += count
                rate = count / (time.monotonic() - began)
                began = time.monotonic()
                samples.append({"deletions": done, "per_second": round(rate, 1), "tables": _sizes(resources)})
                if len(samples) % 4 == 0:
                    said = {
                        name: f"{one['bytes'] // 1024}k/{one['dead']}" for name, one in samples[-1]["tables"].items()
                    }
                    print(f"{done} deletions, {rate:.0f}/s: {said}", flush=True)
            _wait_until_fewer(resources, 1)
            samples.append({"deletions": done, "per_second": 0, "tables": _sizes(resources)})
    return {"deletions": deletions, "seconds": round(time.monotonic() - begun_at, 1), "samples": samples}


def _delete(resources: Resources, field: Field, shared: list[Any], count: int) -> None:
    """Plant so many small snapshots and delete each by an order of its own, two at a time."""
    numbers = [field.snapshot([*shared, image]) for image in field.images(count)]
    lock = threading.Lock()
    failed: list[Exception] = []

    def work() -> None:
        while True:
            with lock:
                if not numbers or failed:
                    return
                number = numbers.pop()
            try:
                order = deletion.Order(field.project.org_id, [field.project], "benchmark", snapshots=[number])
                deletion.request(resources, order)
                _wait_until_fewer(resources, BEHIND)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _wait_until_fewer(resources: Resources, most: int) -> None:
    while True:
        with resources.database.transaction() as tx:
            row = tx.execute("SELECT count(*) FROM deletion WHERE state = 'removing'").fetchone()
        if row and row[0] < most:
            return
        time.sleep(0.05)


def _sizes(resources: Resources) -> dict[str, dict[str, int]]:
    with psycopg.connect(resources.database.dsn) as tx:
        found = tx.execute(
            """
            SELECT relname, pg_total_relation_size(relid), n_live_tup, n_dead_tup, autovacuum_count
              FROM pg_stat_user_tables WHERE relname = ANY(%s)
            """,
            [list(TABLES)],
        ).fetchall()
    return {
        name: {"bytes": size, "live": live, "dead": dead, "vacuums": vacuums}
        for name, size, live, dead, vacuums in found
    }


def table(document: dict[str, Any]) -> str:
    """Sizes and dead rows as the deletions go by: tables of work in progress must level off."""
    samples = document["samples"]
    shown = sorted({0, len(samples) // 4, len(samples) // 2, len(samples) * 3 // 4, len(samples) - 1})
    title = ("KiB / dead rows after", *(f"{samples[index]['deletions']:,}" for index in shown))
    lines = [
        (
            name,
            *(f"{one['bytes'] // 1024:,} / {one['dead']:,}" for one in (samples[at]["tables"][name] for at in shown)),
        )
        for name in TABLES
    ]
    return figures.table(title, lines)
