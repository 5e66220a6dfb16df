"""The soak's checker: what clients were told, against the API, the rows and the store, once all is at rest.

It is a process of its own and knows the history file alone, one acknowledged event a line: nothing it judges by comes
from the service.

    .venv/bin/python benchmarks/checking.py HISTORY --data DIR --address URL
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from processes import service

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fixtures.wire import Client

from snapshed.domain import keys
from snapshed.resources import Resources, opened
from snapshed.settings import Settings

WORKING = ("open_sessions", "open_deletions", "candidates", "tombstones", "pending_objects")
SETTLE_SECONDS = 300.0


@dataclass
class Project:
    """What clients know of one project."""

    snapshots: dict[str, dict[str, str]] = field(default_factory=dict)
    """Every snapshot they were told exists: its images' digests by name."""
    created_at: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When its create was sent and when it was answered."""
    deletions: list[str] = field(default_factory=list)
    withdrawals: list[dict[str, Any]] = field(default_factory=list)


def read(history: Path) -> tuple[dict[str, Project], list[dict[str, Any]]]:
    """The projects as their clients know them, and whatever a client saw that must never be seen."""
    projects: dict[str, Project] = defaultdict(Project)
    breaches: list[dict[str, Any]] = []
    for line in history.read_text().splitlines():
        event = json.loads(line)
        project = projects[event["project"]]
        match event["what"]:
            case "created":
                project.snapshots[event["snapshot"]] = event["images"]
                project.created_at[event["snapshot"]] = (event["sent"], event["answered"])
            case "deleted":
                project.deletions.append(event["deletion"])
            case "withdrawn":
                project.deletions.append(event["deletion"])
                project.withdrawals.append(event)
            case _:
                breaches.append(event)
    return projects, breaches


def at_rest(client: Client) -> list[str]:
    """Wait until nothing is under way any more."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        gauges = client.gauges()
        left = {name: gauges[name] for name in WORKING if gauges[name]}
        if not left:
            return []
        if time.monotonic() > deadline:
            return [f"not at rest after {SETTLE_SECONDS:.0f} s: {left}"]
        time.sleep(0.2)


def check(history: Path, data: Path, address: str) -> tuple[list[str], dict[str, int]]:
    """Everything that is not as clients were told, in sentences, and how much was looked at."""
    token = (data / "admin-token").read_text().strip()
    projects, seen = read(history)
    wrong = [f"a client saw: {json.dumps(event)}" for event in seen]
    counts: dict[str, int] = defaultdict(int)
    settings = Settings.from_env({**os.environ, "SNAPSHED_DATA": str(data)})
    with opened(settings) as resources:
        for name, project in projects.items():
            with Client(address, token, project=name) as client:
                wrong += at_rest(client)
                wrong += _project(resources, client, name, project, counts)
    done = subprocess.run([*service("reconcile", data, "--level", "2", "--json")], capture_output=True, check=False)
    if done.returncode != 0:
        wrong.append(f"reconcile disagrees: {done.stdout.decode()[:2000]} {done.stderr.decode()[-500:]}")
    return wrong, dict(counts)


def _project(
    resources: Resources, client: Client, name: str, project: Project, counts: dict[str, int]
) -> Iterator[str]:
    deleted: set[str] = set()
    for deletion in project.deletions:
        counts["deletions"] += 1
        receipt = client.receipt(deletion)
        if receipt["state"] != "complete":
            yield f"deletion {deletion} is {receipt['state']}"
        if "image" not in receipt["target"]:
            deleted |= set(receipt["snapshots"])
        verified = client.verification(deletion)
        if not verified["signed"] or verified["standing"]:
            yield f"deletion {deletion} does not verify: {verified}"
    for number in deleted:
        if client.details(number).status_code != 404:
            yield f"snapshot {number} was deleted and can be read"
    rows = _rows(resources, name)
    living = set(project.snapshots) - deleted
    for number in living:
        counts["snapshots"] += 1
        if client.details(number).status_code != 200:
            yield f"snapshot {number} was created, never deleted, and cannot be read"
        yield from _snapshot(number, project, rows.get(number, {}))
    # A create whose answer was lost may stand without a client that knows of it; nothing here loses answers.
    if strange := set(rows) - living:
        yield f"rows of snapshots that clients know as deleted, or not at all: {sorted(strange)[:10]}"
    named = {digest for number in living for digest, withdrawn in rows.get(number, {}).values() if not withdrawn}
    yield from _stored(resources, name, named)
    session = client.upload_options()
    for digest in named:
        counts["images"] += 1
        answer = client.image(session, digest)
        if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != digest:
            yield f"image {digest} of {name} is named by a snapshot and answers {answer.status_code}"


def _snapshot(number: str, project: Project, rows: dict[str, tuple[str, bool]]) -> Iterator[str]:
    told = project.snapshots[number]
    if {image: digest for image, (digest, _) in rows.items()} != told:
        yield f"snapshot {number} has other rows than its client sent"
    sent, answered = project.created_at[number]
    for digest, withdrawn in rows.values():
        taken = [event for event in project.withdrawals if event["image"] == digest]
        # Created before and withdrawn after: gone. Created after: there. Where the two overlapped, either.
        must = any(answered < event["sent"] for event in taken)
        may = any(sent < event["answered"] for event in taken)
        if (must and not withdrawn) or (withdrawn and not may):
            yield f"image {digest} of snapshot {number} is {'' if withdrawn else 'not '}withdrawn"


def _rows(resources: Resources, project: str) -> dict[str, dict[str, tuple[str, bool]]]:
    found: dict[str, dict[str, tuple[str, bool]]] = defaultdict(dict)
    with psycopg.connect(resources.database.dsn) as tx:
        rows = tx.execute(
            """
            SELECT a.number, i.name, i.digest, i.image_id IS NULL
              FROM artifact a JOIN snapshot_image i ON i.artifact_id = a.id JOIN project p ON p.id = a.project_id
             WHERE p.slug = %s
            """,
            [project],
        )
        for number, image, digest, withdrawn in rows:
            found[str(number)][image] = (digest, withdrawn)
    return found


def _stored(resources: Resources, project: str, named: set[str]) -> Iterator[str]:
    """The images in the store must be exactly those that living snapshots name."""
    with psycopg.connect(resources.database.dsn) as tx:
        row = tx.execute("SELECT id FROM project WHERE slug = %s", [project]).fetchone()
        others = tx.execute("SELECT storage_key FROM blob WHERE kind <> 'image'").fetchall()
    assert row is not None
    known = {key for (key,) in others}
    stored = [
        found.key
        for found in resources.store.listing()
        if keys.project_of(found.key) == row[0] and found.key not in known
    ]
    digests = [keys.digest_of(key) for key in stored]
    if len(digests) != len(set(digests)):
        yield f"images of {project} stand in the store twice"
    if missing := named - set(digests):
        yield f"images of {project} that snapshots name are not in the store: {sorted(missing)[:5]}"
    if left := set(digests) - named:
        yield f"images of {project} that no snapshot names are in the store: {len(left)}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Check a soak's history.")
    parser.add_argument("history", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--address", required=True)
    chosen = parser.parse_args()
    wrong, counts = check(chosen.history, chosen.data, chosen.address)
    print(json.dumps({"breaches": wrong, "looked_at": counts}))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
