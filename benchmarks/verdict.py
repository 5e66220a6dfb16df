"""From the answer to a create until the verdict, for builds of many images of which few changed.

A base and a head are uploaded by `snapshed upload` to a real `serve` with its worker; then the very same head again, as
another build of the same commit would be: no pair of it is decoded a second time. reg-cli compares the same two folders.

    .venv/bin/python benchmarks/verdict.py [--images 5000 50000] [--changed 500] [--keep]
    .venv/bin/python benchmarks/verdict.py --table
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import figures
import httpx
import rivals
import screens
from processes import READY, cpu_seconds, peak_bytes, service, started

ORG = "main"


class Site:
    """A running service and what is asked of it here."""

    def __init__(self, address: str, data: Path) -> None:
        token = (data / "admin-token").read_text().strip()
        self._environ = os.environ | {"SNAPSHED_TOKEN": token, "SNAPSHED_URL": address}
        self._http = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=120)

    def upload(self, folder: Path, commit: str, base: str | None) -> str:
        words = ["upload", str(folder), "--app-id", "bench", "--head-sha", commit, "--head-repo-name", "bench/app"]
        words += ["--base-sha", base, "--base-repo-name", "bench/app"] if base else []
        done = subprocess.run(
            [sys.executable, "-m", "snapshed", *words, "--provider", "github", "--no-git-metadata", "--json"],
            capture_output=True, text=True, env=self._environ, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"The upload failed:\n{done.stderr[-2000:]}")
        return str(json.loads(done.stdout)["snapshot"])

    def wait(self, snapshot: str) -> dict[str, Any]:
        """Ask until the comparison is done, and return its counts."""
        while True:
            answer = self._http.get(f"/api/0/organizations/{ORG}/preprodartifacts/snapshots/{snapshot}/?compact=1")
            details = answer.raise_for_status().json()
            if details["comparison_state"] in ("success", "failed"):
                return details
            time.sleep(0.05)


def measure(images: int, changed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        place, data = Path(temporary), Path(temporary) / "data"
        base, head = screens.folders(place / "images", images, changed, box=screens.CARD)
        with started(service("serve", data, "--port", "0"), READY, place / "log") as address:
            site = Site(address, data)
            uploads: list[dict[str, float]] = []
            for number, (folder, against) in enumerate(((base, None), (head, "a" * 40), (head, "a" * 40))):
                began = time.perf_counter()
                snapshot = site.upload(folder, "abc"[number] * 40, against)
                answered, before = time.perf_counter(), cpu_seconds(str(data))
                details = site.wait(snapshot) if against else {}
                uploads.append(
                    {
                        "upload_s": answered - began,
                        "verdict_s": time.perf_counter() - answered if against else 0,
                        "server_cpu_s": cpu_seconds(str(data)) - before,
                        "changed": len(details.get("changed", ())),
                    }
                )
            peaks = peak_bytes(str(data))
        out = place / "out"
        out.mkdir()
        began = time.perf_counter()
        subprocess.run(rivals.by_reg_cli(base, head, out), capture_output=True, check=True)
        return {
            "images": images,
            "changed": changed,
            "base": uploads[0],
            "head": uploads[1],
            "again": uploads[2],
            "reg_cli_s": time.perf_counter() - began,
            "peak_bytes": peaks,
        }


def show(kept: dict[str, Any]) -> str:
    rows: list[list[str | float]] = []
    for run in kept["runs"]:
        first, again = run["head"], run["again"]
        rows.append(
            [
                f"{run['images']:,} images, {run['changed']} changed", first["verdict_s"], first["server_cpu_s"],
                again["verdict_s"], again["server_cpu_s"], run["reg_cli_s"], run["reg_cli_s"] / first["verdict_s"],
                max(run["peak_bytes"].values()) / 2**20,
            ]
        )  # fmt: skip
    title = ["create to verdict", "s", "cpu s", "again, s", "again, cpu s", "reg-cli, s", "reg-cli / ours", "peak MiB"]
    return figures.table(title, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 50_000])
    parser.add_argument("--changed", type=int, default=500)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--table", action="store_true", help="only show what was kept")
    chosen = parser.parse_args()
    if chosen.table:
        found = figures.kept("verdict")
    else:
        rivals.installed()
        found = figures.document(runs=[measure(images, chosen.changed) for images in chosen.images])
    if chosen.keep and not chosen.table:
        figures.keep("verdict", found)
    print(show(found))


if __name__ == "__main__":
    main()
