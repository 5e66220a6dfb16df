"""Uploads of overlapping images, comparisons and deletions of every kind, without pause, for as long as one likes.

A real `serve` and a real `worker`, a few clients that overlap on purpose, and a checker in a process of its own, which
compares what clients were told with the API, the rows and the store at the end. In between, uploads and deletions at a
steady pace with the worker running and without: what does the collector cost those who upload?

    .venv/bin/python benchmarks/soak.py --minutes 30
    .venv/bin/python benchmarks/soak.py --deletions 100000    # many small ones: do the tables level off?
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import figures
import growth
import httpx
import structlog
from checking import Client, at_rest
from fixtures.pictures import Picture, manifest, picture
from fixtures.wire import Session, TryLater, deletion_of, expect
from processes import READY, cpu_seconds, running, seaweedfs, service

PROJECTS = ("main", "urgent", "swept")
"""Ordinary deletions and withdrawals; urgent ones, which end uploads; filters and everything."""

POOL = 400
"""Different images of a project: few enough that uploads overlap all the time."""

MOST_LIVING = 40
"""Snapshots of a project; above, deletions come more often."""


class History:
    """Everything clients were told, in order, in a file for the checker; and how long they waited."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w")
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.waits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.phase = "mixed"
        self.problems: list[str] = []

    def note(self, what: str, project: str, **facts: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({"what": what, "project": project, **facts}) + "\n")
            self._file.flush()

    def count(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.counts[what] += times

    def timed(self, what: str, call: Callable[[], Any]) -> Any:
        phase, began = self.phase, time.monotonic()
        result = call()
        took = time.monotonic() - began
        with self._lock:
            self.counts[what] += 1
            self.waits[phase][what].append(took)
        return result


class Job:
    """One client: it uploads, looks and deletes in one project, again and again."""

    def __init__(self, number: int, address: str, token: str, history: History, living: dict[str, list[str]]) -> None:
        self._dice = random.Random(number)
        self._address, self._token = address, token
        self._history = history
        self._living = living
        self._head = httpx.Client(timeout=60, trust_env=False)
        self._clients = {name: Client(address, token, project=name) for name in PROJECTS}
        self._last_sha: dict[str, str] = {}
        self._project = ""
        self.pace = 0.0
        self.compares = True

    def close(self) -> None:
        self._head.close()
        for client in self._clients.values():
            client.close()

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            due = time.monotonic() + self.pace
            try:
                self._step()
            except TryLater:
                self._history.count("asked to try later")
            except Exception as error:
                if "upload session is cancelled" in str(error) and self._project == "urgent":
                    self._history.count("uploads ended by urgent deletions")
                    continue
                self._history.problems.append(f"{type(error).__name__}: {str(error)[:500]}")
            stopping.wait(max(0.0, due - time.monotonic()))

    def _step(self) -> None:
        project = self._project = self._dice.choice(PROJECTS)
        crowded = len(self._living[project]) > MOST_LIVING
        if self._dice.random() < (0.6 if crowded else 0.25):
            self._delete(project)
        elif self._dice.random() < 0.1:
            self._abandon(project)
        else:
            self._upload(project)

    def _pictures(self) -> dict[str, Picture]:
        count = self._dice.randrange(5, 40)
        chosen = self._dice.sample(range(POOL), count)
        return {f"screen-{number:03}.png": picture(f"soak {number}", 24, 16) for number in chosen}

    # --- Uploading ---

    def _begin(self, project: str, pictures: dict[str, Picture]) -> tuple[Session, set[str]]:
        """A session, and the digests that are promised or stored in it."""
        client, history = self._clients[project], self._history
        session = history.timed("options", client.upload_options)
        wanted = {image.digest: image for image in pictures.values()}
        one = next(iter(wanted))
        place = f"{session.address}/v1/objects/{session.use_case}/{session.place}/{session.key(one)}"
        answer = history.timed("head", lambda: self._head.head(place, headers=session.headers))
        told = set(history.timed("batch of heads", lambda: client.promised(session, list(wanted))))
        history.count("heads in batches", len(wanted))
        if answer.status_code in (200, 204):
            # Deleted since, it may be denied when it is asked for again; it was promised all the same.
            told.add(one)
        missing = [image for digest, image in wanted.items() if digest not in told]
        parts = history.timed("batch of images", lambda: client.insert(session, missing)) if missing else []
        history.count("images sent", len(missing))
        kept = {image.digest for image, part in zip(missing, parts, strict=True) if part.status == 201}
        return session, told | kept

    def _upload(self, project: str) -> None:
        pictures = self._pictures()
        _, promised = self._begin(project, pictures)
        sha = f"{self._dice.getrandbits(160):040x}"
        base = self._last_sha.get(project) if self.compares and self._dice.random() < 0.7 else None
        body = manifest(self._dice.choice(("web", "app")), pictures, sha, base)
        sent = time.time()
        answer = self._history.timed("create", lambda: self._clients[project].create(body, zstd=True))
        if answer.status_code == 200:
            number = str(answer.json()["artifactId"])
            images = {name: image.digest for name, image in pictures.items()}
            self._history.note("created", project, snapshot=number, images=images, sent=sent, answered=time.time())
            self._living[project].append(number)
            self._last_sha[project] = sha
        elif answer.status_code == 503:
            raise TryLater(answer.text)
        elif project == "urgent":
            # An urgent deletion may have ended this upload: that is what it is for.
            self._history.count("uploads ended by urgent deletions")
        elif {image.digest for image in pictures.values()} <= promised:
            self._history.note("refused a promised commit", project, status=answer.status_code, text=answer.text[:500])
        else:
            self._history.problems.append(f"create: {answer.status_code} {answer.text[:300]}")

    def _abandon(self, project: str) -> None:
        """A client that dies before it creates; its session ends by itself."""
        self._begin(project, self._pictures())
        self._history.count("abandoned uploads")

    # --- Deleting ---

    def _delete(self, project: str) -> None:
        client, living = self._clients[project], self._living[project]
        kind = self._dice.choice(
            {"main": ("one", "one", "several", "image"), "urgent": ("urgent",), "swept": ("one", "filter", "all")}[
                project
            ]
        )
        sent = time.time()
        taken: list[str] = []
        for _ in range(1 if kind in ("one", "urgent") else 3):
            if kind in ("one", "several", "urgent") and living:
                # Another client may take it as well: then this order is refused whole.
                taken.append(living.pop(self._dice.randrange(len(living))))
        if kind == "one" and taken:
            answer = self._history.timed("delete one", lambda: client.delete(taken[0]))
            if answer.status_code == 404:
                return self._history.count("deletions that came second")
            deletion = deletion_of(answer)
        else:
            order: dict[str, Any] = {"snapshots": taken, "urgent": kind == "urgent"}
            if kind == "image":
                order = {"project": project, "image": picture(f"soak {self._dice.randrange(POOL)}", 24, 16).digest}
            elif kind == "filter":
                order = {"project": project, "filter": {"app_id": self._dice.choice(("web", "app"))}}
            elif kind == "all":
                order = {"project": project, "everything": True}
            elif not taken:
                return None
            answer = self._history.timed(f"delete {kind}", lambda: client.order(**order))
            if answer.status_code in (404, 409):
                return self._history.count("deletions that came second")
            receipt = expect(answer, 202)
            deletion = receipt["id"]
            if kind == "image":
                return self._history.note(
                    "withdrawn", project, deletion=deletion, image=order["image"], sent=sent, answered=time.time()
                )
            taken = receipt["snapshots"]
        self._history.note("deleted", project, deletion=deletion)
        for number in taken[:5]:
            if client.details(number).status_code != 404:
                self._history.note("readable after its deletion was answered", project, snapshot=number)
        return None


# --- Phases --------------------------------------------------------------------------------------------------------------


class Soak:
    def __init__(self, data: Path, log: Path, environ: dict[str, str], address: str, history: History) -> None:
        self.data, self._log, self._environ, self.address = data, log, environ, address
        self.history = history
        token = (data / "admin-token").read_text().strip()
        living: dict[str, list[str]] = {name: [] for name in PROJECTS}
        self._jobs = [Job(number, address, token, history, living) for number in range(4)]
        self._client = Client(address, token)

    @contextmanager
    def worker(self) -> Generator[None]:
        with running(service("worker", self.data), None, self._log, self._environ):
            yield

    def load(self, phase: str, seconds: float, *, pace: float, compares: bool) -> dict[str, Any]:
        """Let the clients work for so long."""
        self.history.phase = phase
        before, cpu = Counter(self.history.counts), cpu_seconds(str(self.data))
        stopping = threading.Event()
        for job in self._jobs:
            job.pace, job.compares = pace, compares
        threads = [threading.Thread(target=job.run, args=[stopping]) for job in self._jobs]
        for thread in threads:
            thread.start()
        stopping.wait(seconds)
        stopping.set()
        for thread in threads:
            thread.join()
        counts = self.history.counts - before
        waits = {what: _waits(values) for what, values in self.history.waits.pop(phase, {}).items()}
        took = cpu_seconds(str(self.data)) - cpu
        print(f"{phase}: {sum(counts.values())} events in {seconds:.0f} s, service cpu {took:.1f} s", flush=True)
        for what in ("head", "create"):
            if what in waits:
                print(f"    {what:8} {waits[what]}", flush=True)
        return {"phase": phase, "seconds": seconds, "cpu": took, "counts": dict(counts), "waits": waits}

    def settle(self) -> None:
        if left := at_rest(self._client):
            self.history.problems += left

    def close(self) -> None:
        self._client.close()
        for job in self._jobs:
            job.close()


def _waits(values: list[float]) -> dict[str, float]:
    return {
        "times": len(values),
        "p50": round(figures.percentile(values, 0.5), 5),
        "p99": round(figures.percentile(values, 0.99), 5),
        "most": round(max(values), 5),
    }


PACE = 0.5
"""Seconds from one step of a client to its next where waits are compared: about half of what two cores can do."""


def soak(minutes: float, kind: str, root: Path) -> dict[str, Any]:
    data, log = root / "data", root / "log"
    with ExitStack() as stack:
        s3 = stack.enter_context(seaweedfs()) if kind == "s3" else None
        environ = {"SNAPSHED_SESSION_TTL": "10s", "SNAPSHED_PUT_LIMIT": "5s", **(s3.settings("ours") if s3 else {})}
        for project in PROJECTS[1:]:
            command = service("project", data)
            subprocess.run(
                [*command[:4], "add", f"main/{project}", *command[4:]], env=_environment(environ), check=True,
                capture_output=True,
            )  # fmt: skip
        command = service("serve", data, "--port", "0", "--no-worker")
        _, address = stack.enter_context(running(command, READY, log, environ))
        history = History(root / "history")
        one = Soak(data, log, environ, address, history)
        stack.callback(one.close)
        seconds = minutes * 60
        phases: list[dict[str, Any]] = []
        with one.worker():
            phases.append(one.load("mixed", seconds / 2, pace=0, compares=True))
            one.settle()
        for turn in range(2):
            phases.append(one.load(f"collector off {turn + 1}", seconds / 8, pace=PACE, compares=False))
            with one.worker():
                one.settle()
                phases.append(one.load(f"collector on {turn + 1}", seconds / 8, pace=PACE, compares=False))
                one.settle()
        with one.worker():
            done = subprocess.run(
                [sys.executable, str(Path(__file__).with_name("checking.py")), str(root / "history"), "--data",
                 str(data), "--address", address],
                env=_environment(environ), capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode not in (0, 1) or not done.stdout.strip():
            raise SystemExit(f"The checker failed:\n{done.stderr[-4000:]}")
        checked = json.loads(done.stdout.strip().splitlines()[-1])
        warned = [line for line in log.read_text().splitlines() if '"level": "error"' in line]
        return {
            "store": kind,
            "minutes": minutes,
            "phases": phases,
            "counts": dict(history.counts),
            "events": sum(history.counts.values()),
            "problems": history.problems,
            "errors_logged": warned[:20],
            "checked": checked,
        }


def _environment(extra: dict[str, str]) -> dict[str, str]:
    import os  # noqa: PLC0415

    return {name: value for name, value in os.environ.items() if not name.startswith("SNAPSHED_")} | extra


def tables(document: dict[str, Any]) -> str:
    """What a kept run said, ready for the README."""
    if "samples" in document:
        return growth.table(document)
    lines: list[tuple[str | float, ...]] = []
    for phase in document["phases"]:
        for what in ("head", "create"):
            if what in phase["waits"]:
                waits = phase["waits"][what]
                lines.append((f"{phase['phase']}: {what}", waits["times"], waits["p50"], waits["p99"], waits["most"]))
    seconds = sum(phase["seconds"] for phase in document["phases"])
    checked = document["checked"]
    return (
        figures.table(("seconds", "times", "p50", "p99", "most"), lines)
        + f"\n\n{document['events']:,} events in {seconds / 60:.0f} minutes, {document['events'] / seconds:.0f} a second; "
        f"{len(checked['breaches'])} breaches; looked at afterwards: {checked['looked_at']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Uploads, comparisons and deletions without pause, and a checker.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--store", choices=["disk", "s3"], default="disk")
    parser.add_argument("--deletions", type=int, help="instead: so many small deletions, and the sizes of the tables")
    parser.add_argument("--keep", action="store_true", help="keep the figures under results/")
    parser.add_argument("--table", choices=["soak", "growth"], help="measure nothing; show what was kept")
    chosen = parser.parse_args()
    if chosen.table:
        print(tables(figures.kept(chosen.table)))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    name = "soak" if chosen.deletions is None else "growth"
    document = figures.document()
    with tempfile.TemporaryDirectory(prefix="snapshed-soak-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        if chosen.deletions is None:
            document |= soak(chosen.minutes, chosen.store, root)
        else:
            document |= growth.measure(chosen.deletions, root)
    if chosen.keep:
        figures.keep(name, document)
    print(tables(document))
    if name == "soak":
        print(
            json.dumps(
                {key: document[key] for key in ("events", "counts", "problems", "errors_logged", "checked")}, indent=1
            )
        )
        if document["problems"] or document["checked"]["breaches"]:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
