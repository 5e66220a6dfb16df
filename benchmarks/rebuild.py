"""How long a rebuild takes: a store is planted, then its database is lost and made anew.

    .venv/bin/python benchmarks/rebuild.py [--images 20000] [--each 2000] [--folder DIR]

Plants snapshots of `--each` images, half of them shared with the snapshot before, beside one that is deleted and not yet
removed, and prints the seconds and CPU seconds of the rebuild on an embedded database and objects on disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from snapshed.resources import opened
from snapshed.settings import Settings
from snapshed.work import access, deletion, recovery, snapshots, uploads


def plant(data: Path, images: int, each: int) -> int:
    """Fill a new installation; returns how many objects the store has."""
    with opened(Settings(data=data)) as resources:
        access.first_start(resources, "http://127.0.0.1:8400")
        (project,) = access.list_projects(resources)
        made, numbers = 0, []
        while made < images:
            begun = uploads.begin(resources, project.org_id, project.id, "benchmark")
            session = uploads.keep_open(resources, access.grant(resources, begun.token))
            first = max(0, made - each // 2) if numbers else 0
            names = range(first, first + each)
            new = [number for number in names if number >= made]
            for start in range(0, len(new), 1000):
                uploads.keep(resources, session, [_upload(number) for number in new[start : start + 1000]])
            uploads.ask(resources, session, [_digest(number) for number in names])
            entries = {f"{number}.png": {"content_hash": _digest(number), "width": 8, "height": 8} for number in names}
            body = json.dumps({"app_id": "web", "images": entries}).encode()
            numbers.append(snapshots.create(resources, project, "benchmark", body, session.session_id).number)
            made = first + each
        deletion.request(resources, deletion.Order(project.org_id, [project], "benchmark", snapshots=(numbers[-1],)))
        return sum(1 for _ in resources.store.listing())


def _bytes(number: int) -> bytes:
    return f"image {number}".encode() * 8


def _digest(number: int) -> str:
    return hashlib.sha256(_bytes(number)).hexdigest()


def _upload(number: int) -> uploads.Upload:
    return uploads.Upload(_digest(number), _bytes(number))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--each", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="snapshed-rebuild-", dir=chosen.folder))
    data.chmod(0o755)
    try:
        objects = plant(data, chosen.images, chosen.each)
        shutil.rmtree(data / "postgres")
        with opened(Settings(data=data), matched=recovery.lost) as resources:
            wall, cpu = time.perf_counter(), time.process_time()
            done = recovery.rebuild(resources, lambda _: None, lambda _what, _done: None, deletion.withdraw)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        figures = {
            "objects": objects,
            "snapshots": done.snapshots,
            "adopted": sum(count for count, _ in done.removed.values()),
            "seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
            "objects_a_second": round(objects / wall),
        }
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    finally:
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
