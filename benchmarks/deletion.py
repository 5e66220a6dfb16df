"""How long a deletion takes until its answer, until the bytes are gone and until its receipt is complete.

Snapshots are planted and then deleted through the product: by an HTTP DELETE to a real `serve` with its worker, and for
the parts of it by the same verbs in this process. Beside it, in the same store and the same round: bare bulk removal
(the limit), one removal per key on 8 threads, and the deletion this project started from.

    .venv/bin/python benchmarks/deletion.py [--quick] [--store disk|s3] [--table]
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import figures
import httpx
import obstore
import psycopg
import structlog
from obstore.store import LocalStore, ObjectStore
from planting import Field, put
from processes import READY, S3, bucket, cpu_seconds, seaweedfs, service, started

from snapshed import worker
from snapshed.resources import Resources, opened
from snapshed.settings import Settings
from snapshed.work import access, deletion, receipts

THREADS = 8
"""Of the deletion this project started from."""


@dataclass(frozen=True)
class Sizes:
    images: int
    shares: tuple[int, ...]
    """Of a hundred images, how many no other snapshot names."""
    rounds: int
    small: int
    times: int
    siblings: tuple[int, ...]
    sibling_images: int


WHOLE = Sizes(10_000, (0, 10, 50, 100), 3, 1000, 50, (10, 3000), 1000)
QUICK = Sizes(1000, (0, 10, 100), 1, 200, 10, (10, 300), 200)
TINY = Sizes(40, (0, 100), 1, 20, 2, (2, 4), 10)


@dataclass
class Place:
    """One installation on one kind of store, and a part of the same store beside it for what it is compared with."""

    name: str
    data: Path
    environ: dict[str, str]
    resources: Resources
    field: Field
    beside: ObjectStore
    folder: Path | None
    store_mark: str | None

    def store_cpu(self) -> float:
        return cpu_seconds(self.store_mark) if self.store_mark else 0.0


@contextmanager
def place(kind: str, root: Path) -> Generator[Place]:
    with ExitStack() as stack:
        data = root / f"data-{kind}"
        s3: S3 | None = stack.enter_context(seaweedfs()) if kind == "s3" else None
        environ = s3.settings("ours") if s3 else {}
        settings = Settings.from_env({**environ, "SNAPSHED_DATA": str(data)})
        resources = stack.enter_context(opened(settings))
        access.first_start(resources, "http://127.0.0.1")
        project = access.list_projects(resources)[0]
        folder = None
        if s3:
            ours, beside = bucket(s3.endpoint, "ours"), bucket(s3.endpoint, "beside")
        else:
            folder = root / "beside"
            folder.mkdir()
            ours, beside = LocalStore(data / "objects"), LocalStore(folder)
        field = Field(resources, ours, project)
        yield Place(kind, data, environ, resources, field, beside, folder, s3.mark if s3 else None)


# --- Through the service -------------------------------------------------------------------------------------------------


@contextmanager
def served(here: Place, log: Path) -> Generator[httpx.Client]:
    """`snapshed serve` with its worker, as anybody starts it, and a client with the admin's token."""
    with started(service("serve", here.data, "--port", "0"), READY, log, here.environ) as address:
        token = (here.data / "admin-token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address, headers=headers, timeout=120, trust_env=False) as client:
            # The worker starts after the server is ready. Once it has finished something, it is at work.
            delete_over_http(here, client, here.field.snapshot(here.field.images(1)), 1)
            yield client


def delete_over_http(here: Place, client: httpx.Client, number: int, unshared: int) -> dict[str, float]:
    """One DELETE, and how long it takes until its answer, until the last byte is gone and until it is complete."""
    cpu, store_cpu = cpu_seconds(str(here.data)), here.store_cpu()
    asked_at, began = here.resources.now(), time.monotonic()
    answer = client.delete(f"/api/0/organizations/main/preprodartifacts/snapshots/{number}/")
    answered = time.monotonic() - began
    if answer.status_code != 204:
        raise SystemExit(f"The deletion was not answered as it should be: {answer.status_code} {answer.text}")
    deletion_id = UUID(answer.headers["location"].rstrip("/").rsplit("/", 1)[-1])
    completed_at = _completed(here, deletion_id)
    with here.resources.database.transaction() as tx:
        row = tx.execute(
            "SELECT max(removed_at), count(removed_at) FROM release WHERE deletion_id = %s", [deletion_id]
        ).fetchone()
    assert row is not None
    if row[1] != unshared + 1:
        raise SystemExit(f"{row[1]} objects were removed, not {unshared} images and a manifest.")
    return {
        "answer": answered,
        "gone": (row[0] - asked_at).total_seconds(),
        "complete": (completed_at - asked_at).total_seconds(),
        "cpu": cpu_seconds(str(here.data)) - cpu,
        "store_cpu": here.store_cpu() - store_cpu,
    }


def _completed(here: Place, deletion_id: UUID) -> Any:
    with psycopg.connect(here.resources.database.dsn, autocommit=True) as looking:
        for _ in range(60_000):
            row = looking.execute("SELECT completed_at FROM deletion WHERE id = %s", [deletion_id]).fetchone()
            if row and row[0]:
                return row[0]
            time.sleep(0.01)
    raise SystemExit("A deletion was not complete after ten minutes.")


# --- What it is compared with ----------------------------------------------------------------------------------------------


def bare(here: Place, keys: Sequence[str]) -> None:
    """The limit: nothing but the store's own removal, in bulk where it has that."""
    if here.folder:
        for key in keys:
            (here.folder / key).unlink()
    else:
        obstore.delete(here.beside, list(keys))


def singles(here: Place, keys: Sequence[str]) -> None:
    """One removal per key by the same library, on 8 threads."""
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(lambda key: obstore.delete(here.beside, key), keys):
            pass


def as_it_was(here: Place, manifest: str, requests: Sequence[str]) -> None:
    """The deletion this project started from, without its rows: the manifest is read from the store to learn the keys,
    then one DELETE per key on 8 threads. `requests` are those DELETEs, signed beforehand at nobody's expense."""
    named = json.loads(bytes(obstore.get(here.beside, manifest).bytes()))["keys"]
    assert len(named) == len(requests)
    if here.folder:
        folder = here.folder
        with ThreadPoolExecutor(THREADS) as threads:
            for _ in threads.map(lambda key: (folder / key).unlink(), named):
                pass
        return
    connections = threading.local()

    def send(url: str) -> None:
        parts = urlsplit(url)
        if not hasattr(connections, "to_store"):
            connections.to_store = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connections.to_store.request("DELETE", f"{parts.path}?{parts.query}")
        answer = connections.to_store.getresponse()
        answer.read()
        if answer.status != 204:
            raise SystemExit(f"A DELETE was answered with {answer.status}.")

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(send, requests):
            pass


def compared(here: Place, count: int) -> dict[str, dict[str, float]]:
    """How long each of the others takes for so many objects of its own."""
    took: dict[str, dict[str, float]] = {}
    for name in ("bare", "singles", "as_it_was"):
        keys = [f"1/1/1/{index:064x}.{here.resources.new_id()}" for index in range(count)]
        put(here.beside, keys, os.urandom(1024))
        manifest = "manifest.json"
        obstore.put(here.beside, manifest, json.dumps({"keys": keys}).encode())
        requests = keys
        if not here.folder:
            requests = obstore.sign(here.beside, "DELETE", keys, timedelta(hours=1))
        work: dict[str, Callable[[], None]] = {
            "bare": lambda keys=keys: bare(here, keys),
            "singles": lambda keys=keys: singles(here, keys),
            "as_it_was": lambda manifest=manifest, requests=requests: as_it_was(here, manifest, requests),
        }
        cpu, store_cpu, began = time.process_time(), here.store_cpu(), time.monotonic()
        work[name]()
        took[name] = {
            "wall": time.monotonic() - began,
            "cpu": time.process_time() - cpu,
            "store_cpu": here.store_cpu() - store_cpu,
        }
    return took


def rates(here: Place, client: httpx.Client, sizes: Sizes) -> list[dict[str, Any]]:
    """Large deletions, some of whose images another snapshot names too, beside the others' time for as many objects."""
    common = here.field.images(sizes.images)
    here.field.snapshot(common)
    here.field.analyse()
    measured: list[dict[str, Any]] = []
    for number in range(sizes.rounds):
        for share in sizes.shares:
            unshared = sizes.images * share // 100
            target = here.field.snapshot([*common[unshared:], *here.field.images(unshared)])
            took = delete_over_http(here, client, target, unshared)
            others = compared(here, unshared) if unshared else {}
            measured.append(
                {"round": number + 1, "images": sizes.images, "unshared": unshared, "ours": took, "others": others}
            )
            beside = ", ".join(f"{name} {one['wall']:.2f}" for name, one in others.items())
            print(f"{here.name}, {unshared} of {sizes.images} unshared: {_say(took)}; {beside}", flush=True)
    return measured


def latency(here: Place, client: httpx.Client, sizes: Sizes) -> list[dict[str, float]]:
    """Small deletions one after the other."""
    targets = [here.field.snapshot(here.field.images(sizes.small)) for _ in range(sizes.times)]
    here.field.analyse()
    took = [delete_over_http(here, client, target, sizes.small) for target in targets]
    for phase in ("answer", "gone", "complete"):
        values = [one[phase] for one in took]
        print(
            f"{here.name}, {sizes.times} x {sizes.small} images, {phase}: p50 {statistics.median(values):.3f} s, "
            f"p99 {figures.percentile(values, 0.99):.3f} s",
            flush=True,
        )
    return took


def _say(took: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in took.items())


# --- Through the verbs, to see the parts --------------------------------------------------------------------------------


class Watched:
    """What one process spends in transactions and in the store while it works, and which requests the store gets."""

    def __init__(self, resources: Resources) -> None:
        self.in_database = 0.0
        self.in_store = 0.0
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        transaction = resources.database.transaction
        watched = self

        @contextmanager
        def timed() -> Generator[Any]:
            began = time.monotonic()
            try:
                with transaction() as tx:
                    yield tx
            finally:
                watched.in_database += time.monotonic() - began

        class Timed:
            """The store, with a clock beside it."""

            def __getattr__(self, name: str) -> Any:
                found = getattr(resources.store, name)
                return watched.timed(found) if callable(found) else found

        self._transaction, self._timed_transaction = transaction, timed
        self._database = resources.database
        self.resources = dataclasses.replace(resources, store=Timed())  # pyright: ignore

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def through(*given: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                found = call(*given, **named)
                return list(found) if isinstance(found, Generator) else found
            finally:
                self.in_store += time.monotonic() - began

        return through

    @contextmanager
    def on(self) -> Generator[None]:
        """Watch while this block runs."""
        kept = {name: getattr(obstore, name) for name in ("put", "get", "head", "delete", "list")}
        self._database.transaction = self._timed_transaction  # pyright: ignore
        for name, call in kept.items():
            setattr(obstore, name, self._counted(name, call))
        try:
            yield
        finally:
            self._database.transaction = self._transaction  # pyright: ignore
            for name, call in kept.items():
                setattr(obstore, name, call)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def through(store: Any, *given: Any, **named: Any) -> Any:
            many = len(given[0]) if name == "delete" and not isinstance(given[0], str) else 1
            # A bucket takes a thousand keys a request; a folder takes one.
            requests = many if isinstance(store, LocalStore) else math.ceil(many / 1000)
            with self._lock:
                self.requests[name] += requests
            return call(store, *given, **named)

        return through


def delete_here(here: Place, number: int) -> dict[str, Any]:
    """One deletion through the verbs of the service and the steps of its worker, with what each step took."""
    watched = Watched(here.resources)
    resources = watched.resources
    mark = str(here.data / "postgres")
    order = deletion.Order(here.field.project.org_id, [here.field.project], "benchmark", snapshots=[number])
    steps: dict[str, dict[str, float]] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        before = time.monotonic(), watched.in_database, watched.in_store
        result = work()
        after = time.monotonic(), watched.in_database, watched.in_store
        one = steps.setdefault(name, {"wall": 0.0, "database": 0.0, "store": 0.0, "times": 0})
        for field, earlier, later in zip(("wall", "database", "store"), before, after, strict=True):
            one[field] += later - earlier
        one["times"] += 1
        return result

    step("preview", lambda: deletion.preview(resources, order))
    postgres, own, began = cpu_seconds(mark), time.process_time(), time.monotonic()
    watched.in_database = watched.in_store = 0.0
    with watched.on():
        deletion_id = step("request", lambda: deletion.request(resources, order))
        while sum([step(name, lambda run=run: run(resources)) for name, run in worker._STEPS]):
            pass
    wall = time.monotonic() - began
    if receipts.find_receipt(here.resources, order.org_id, deletion_id)["state"] != "complete":
        raise SystemExit("The deletion came to rest without being complete.")
    return {
        "wall": wall,
        "database": watched.in_database,
        "store": watched.in_store,
        "postgres_cpu": cpu_seconds(mark) - postgres,
        "own_cpu": time.process_time() - own,
        "requests": dict(watched.requests),
        "steps": steps,
    }


def parts(here: Place, sizes: Sizes) -> list[dict[str, Any]]:
    """Where the time of one large deletion goes, nothing and everything of it unshared."""
    common = here.field.images(sizes.images)
    here.field.snapshot(common)
    measured: list[dict[str, Any]] = []
    for number in range(sizes.rounds):
        for share in sizes.shares:
            unshared = sizes.images * share // 100
            target = here.field.snapshot([*common[unshared:], *here.field.images(unshared)])
            here.field.analyse()
            took = delete_here(here, target)
            measured.append({"round": number + 1, "images": sizes.images, "unshared": unshared, **took})
            print(
                f"{here.name}, in this process, {unshared} of {sizes.images} unshared: wall {took['wall']:.2f} s, "
                f"transactions {took['database']:.2f}, store {took['store']:.2f}, postgres cpu "
                f"{took['postgres_cpu']:.2f}, requests {took['requests']}",
                flush=True,
            )
            for name, one in took["steps"].items():
                if one["wall"] > 0.02:
                    print(f"    {name:14} {_say(one)}", flush=True)
    return measured


def siblings(here: Place, sizes: Sizes) -> list[dict[str, Any]]:
    """The same deletion beside few and beside many snapshots that name nine of ten of its images too."""
    shared = sizes.sibling_images * 9 // 10
    common = here.field.images(shared)
    first = here.field.snapshot(common)
    planted = 1
    measured: list[dict[str, Any]] = []
    for count in sizes.siblings:
        here.field.siblings(first, count - planted, shared)
        planted = count
        for number in range(sizes.rounds * 3):
            target = here.field.snapshot([*common, *here.field.images(sizes.sibling_images - shared)])
            took = delete_here(here, target)
            if number == 0:
                continue  # pages that were never read before are in memory afterwards
            measured.append({"siblings": count, "images": sizes.sibling_images, "shared": shared, **took})
            preview = took["steps"]["preview"]["wall"]
            print(
                f"{here.name}, beside {count} siblings: preview {preview:.3f} s, wall {took['wall']:.3f}, transactions "
                f"{took['database']:.3f}, postgres cpu {took['postgres_cpu']:.2f}",
                flush=True,
            )
            for name, one in took["steps"].items():
                if one["wall"] > 0.02:
                    print(f"    {name:14} {_say(one)}", flush=True)
    return measured


# --- All of it --------------------------------------------------------------------------------------------------------------


PARTS = ("parts", "rates", "latency", "siblings")


def measure(kinds: Sequence[str], wanted: Sequence[str], sizes: Sizes, root: Path) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for kind in kinds:
        with place(kind, root) as here:
            found: dict[str, Any] = {}
            if "parts" in wanted:
                found["parts"] = parts(here, sizes)
            if {"rates", "latency"} & set(wanted):
                with served(here, root / f"{kind}.log") as client:
                    if "rates" in wanted:
                        found["rates"] = rates(here, client, sizes)
                    if "latency" in wanted:
                        found["latency"] = latency(here, client, sizes)
            if "siblings" in wanted and kind == kinds[0]:
                found["siblings"] = siblings(here, sizes)
            measured[kind] = found
    return measured


def tables(document: dict[str, Any]) -> str:
    """What the last whole run said, min, median and max, ready for the README."""
    said: list[str] = []
    for kind in ("disk", "s3"):
        if kind not in document:
            continue
        found = document[kind]
        most = max(entry["unshared"] for entry in found["rates"])
        whole = [entry for entry in found["rates"] if entry["unshared"] == most]
        lines: list[tuple[str | float, ...]] = []

        def line(words: str, values: Sequence[float], lines: list[tuple[str | float, ...]] = lines) -> None:
            lines.append((words, *figures.spread(values)))

        for share in sorted({entry["unshared"] for entry in found["rates"]}):
            here = [entry["ours"] for entry in found["rates"] if entry["unshared"] == share]
            line(f"{share} unshared: answered, s", [one["answer"] for one in here])
            line(f"{share} unshared: bytes gone, s", [one["gone"] for one in here])
            line(f"{share} unshared: complete, s", [one["complete"] for one in here])
        line(f"{most} unshared: objects gone/s", [most / entry["ours"]["gone"] for entry in whole])
        for name, words in (("bare", "bare removal"), ("singles", "singles on 8 threads"), ("as_it_was", "as it was")):
            line(
                f"speed until gone / {words}",
                [entry["others"][name]["wall"] / entry["ours"]["gone"] for entry in whole],
            )
        parts_of = [entry for entry in found["parts"] if entry["unshared"] in (0, most)]
        for share in (0, most):
            here = [entry for entry in parts_of if entry["unshared"] == share]
            line(f"{share} unshared: transactions, s", [entry["database"] for entry in here])
            line(f"{share} unshared: PostgreSQL cpu, s", [entry["postgres_cpu"] for entry in here])
            line(f"{share} unshared: store requests", [sum(entry["requests"].values()) for entry in here])
        said.append(figures.table((f"{kind}: {whole[0]['images']} images", "min", "median", "max"), lines))
        small = document["sizes"]["small"]
        lines = [
            (
                f"{phase}, s",
                statistics.median([one[phase] for one in found["latency"]]),
                figures.percentile([one[phase] for one in found["latency"]], 0.99),
            )
            for phase in ("answer", "gone", "complete")
        ]
        said.append(figures.table((f"{kind}: {small} images, all unshared", "p50", "p99"), lines))
        if "siblings" in found:
            lines = [
                (
                    f"{count} siblings",
                    *(
                        statistics.median([one[field] for one in found["siblings"] if one["siblings"] == count])
                        for field in ("database", "postgres_cpu")
                    ),
                )
                for count in sorted({one["siblings"] for one in found["siblings"]})
            ]
            title = (
                f"{kind}: {document['sizes']['sibling_images']} images beside",
                "transactions, s",
                "PostgreSQL cpu, s",
            )
            said.append(figures.table(title, lines))
    return "\n\n".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time deletions beside what they are compared with.")
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute; nothing is kept")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--store", choices=["disk", "s3"], action="append")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; nothing is kept")
    parser.add_argument("--table", action="store_true", help="measure nothing; show what the last whole run kept")
    parser.add_argument("--rounds", type=int, default=WHOLE.rounds, help="of the whole sizes")
    chosen = parser.parse_args()
    if chosen.table:
        print(tables(figures.kept("deletion")))
        return
    sizes = TINY if chosen.tiny else QUICK if chosen.quick else dataclasses.replace(WHOLE, rounds=chosen.rounds)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    document = figures.document(sizes=dataclasses.asdict(sizes))
    # Where the embedded database's own user may reach it.
    with tempfile.TemporaryDirectory(prefix="snapshed-benchmark-") as folder:
        Path(folder).chmod(0o755)
        document |= measure(chosen.store or ["disk", "s3"], chosen.only or PARTS, sizes, Path(folder))
    if sizes.images == WHOLE.images and not chosen.only and not chosen.store:
        figures.keep("deletion", document)
        print(tables(document))


if __name__ == "__main__":
    main()
