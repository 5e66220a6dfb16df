"""One worker process: comparisons from the queue, and the tidying loop that finishes every deletion.

The loop is woken by NOTIFY and polls anyway; whatever is killed half-way is found again in the tables.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import psycopg
import structlog

from snapshed import queue
from snapshed.engine import Engine
from snapshed.errors import Unavailable
from snapshed.logs import logger
from snapshed.resources import Resources, opened, raise_mark
from snapshed.settings import Settings
from snapshed.work import (
    access,
    branch_holds,
    compare,
    condemn,
    deletion,
    expire,
    objects,
    probe,
    receipts,
    remove,
    retention,
    traces,
    webhooks,
)

POLL_SECONDS = 1.0
"""How long a lost notification can delay a deletion."""

_SWEEP_SECONDS = 5.0
_PROBE_SECONDS = 3600.0
_LAST_PAIR_SECONDS = 2.0
_LAST_SECONDS = 5.0
"""After so long a stop is over, whatever still hangs: `serve` kills after six, and must itself be gone within ten."""

_log = logger("worker")


def run(settings: Settings, *, stop_with_parent: bool) -> None:
    """Work until SIGTERM or SIGINT, or with `stop_with_parent` until standard input ends: then the process that
    started us is gone."""
    stopping = threading.Event()

    # From the first moment on: a signal while we still open things must end in an orderly stop as well.
    def stop(*_: object) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    ended = threading.Event()
    with opened(settings) as resources, Engine.on_this_machine() as engine:
        if stop_with_parent:  # who stops the database too; a worker by itself must, and takes its time
            threading.Thread(target=_leave_late, name="leave", args=[stopping, ended, engine], daemon=True).start()
        Worker(resources, engine, stopping).serve(stop_with_parent=stop_with_parent)
    ended.set()


def _leave_late(stopping: threading.Event, ended: threading.Event, engine: Engine) -> None:
    """Leave although a thread or a child does not end, as after a kill; say which, so that it can be mended."""
    stopping.wait()
    if not ended.wait(_LAST_SECONDS):
        _log.warning("worker leaves late", threads=sorted(thread.name for thread in threading.enumerate()))
        engine.abandon()
        os._exit(0)


class Worker:
    """Everything one process works on: the queue's event loop in the main thread, tidying in others."""

    def __init__(self, resources: Resources, engine: Engine, stopping: threading.Event) -> None:
        self._resources = resources
        self._engine = engine
        self._stopping = stopping

    def serve(self, *, stop_with_parent: bool) -> None:
        """Run until asked to stop; running jobs are then given back."""
        if stop_with_parent:
            threading.Thread(target=self._watch_parent, name="parent", daemon=True).start()
        threading.Thread(target=self._abort_late_pairs, name="abort", daemon=True).start()
        tidying = [threading.Thread(target=self._tidy, name=names[0], args=[names]) for names in _THREADS]
        for thread in tidying:
            thread.start()
        try:
            while not self._stopping.is_set():
                try:
                    queue.run_worker(
                        self._resources.database.dsn, {"compare": self._compare}, self._stopping, concurrency=1
                    )
                except psycopg.Error as lost:
                    _log.warning("queue lost its database", error_class=type(lost).__name__)
                    self._stopping.wait(POLL_SECONDS)
        finally:
            self._stopping.set()
            for thread in tidying:
                thread.join()

    def _abort_late_pairs(self) -> None:
        """A pair may take a minute, a stop may not: what is not compared soon after is compared by the next worker."""
        self._stopping.wait()
        threading.Event().wait(_LAST_PAIR_SECONDS)
        self._engine.close()

    def _watch_parent(self) -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    def _compare(self, comparison_id: str) -> None:
        structlog.contextvars.bind_contextvars(comparison=comparison_id)
        try:
            compare.compare(self._resources, self._engine, UUID(comparison_id), self._stopping.is_set)
        except compare.Stopping:
            _log.info("comparison given back")
        except Unavailable as error:
            # Given back; the sweep below defers it again when the part answers.
            _log.warning("comparison put off", error_class=error.code)
        finally:
            structlog.contextvars.unbind_contextvars("comparison")

    # --- Tidying ----------------------------------------------------------------------------------------------

    def _tidy(self, names: tuple[str, ...]) -> None:
        """Run the steps of one thread until told to stop, again at once while one of them finds something to do."""
        steps = tuple((name, step) for name, step in _STEPS if name in names)
        listener: psycopg.Connection[object] | None = None
        swept_at = 0.0
        probed_at: float | None = None
        while not self._stopping.is_set():
            worked = self._pass_over(steps)
            if names is _THREADS[0] and time.monotonic() - swept_at > _SWEEP_SECONDS:
                swept_at = time.monotonic()
                self._attempt("sweep", self._sweep_comparisons)
                self._attempt("scratch", lambda: compare.sweep_scratch(self._resources))
                if probed_at is None or time.monotonic() - probed_at > _PROBE_SECONDS:
                    is_first = probed_at is None
                    if self._attempt("probe", lambda is_first=is_first: self._probe(tell=is_first)):
                        probed_at = time.monotonic()
            if worked:
                continue
            listener = self._wait(listener)
        if listener is not None:
            listener.close()

    def _pass_over(self, steps: tuple[tuple[str, Callable[[Resources], int]], ...]) -> int:
        """Run every step once. A step that fails is logged and stops none of the others."""
        return sum(self._attempt(name, lambda step=step: step(self._resources)) for name, step in steps)

    def _attempt(self, name: str, step: Callable[[], int]) -> int:
        if self._stopping.is_set():
            return 0
        try:
            return step()
        except Unavailable as error:
            _log.warning("step put off", step=name, error_class=error.code)
        except Exception:  # noqa: BLE001
            # Whatever it is: the other steps go on, and so does this one next time.
            _log.exception("step failed", step=name)
        return 0

    def _probe(self, *, tell: bool) -> int:
        """Ask what the store keeps of removed objects. 1 once it has answered."""
        probe.probe(self._resources, tell=tell)
        return 1

    def _sweep_comparisons(self) -> int:
        """Defer what no living worker has: its job may be lost, the comparison is not. A second job does nothing."""
        found = compare.unclaimed(self._resources, 100)
        for comparison_id in found:
            self._resources.database.run(
                lambda tx, comparison_id=comparison_id: self._resources.queue.defer_once(
                    tx, "compare", {"comparison_id": str(comparison_id)}
                )
            )
        return 0

    def _wait(self, listener: psycopg.Connection[object] | None) -> psycopg.Connection[object] | None:
        """Wait for a notification, at most POLL_SECONDS. Returns the connection to listen on next time."""
        try:
            listener = listener or self._resources.database.listen(queue.CHANNEL)
            for _ in listener.notifies(timeout=POLL_SECONDS, stop_after=1):
                pass
        except psycopg.Error:
            with suppress(psycopg.Error):
                if listener is not None:
                    listener.close()
            self._stopping.wait(POLL_SECONDS)
            return None
        return listener


_STEPS: tuple[tuple[str, Callable[[Resources], int]], ...] = (
    # People wait for deletions, so what ends them comes first.
    ("journal", deletion.journal_waiting),
    ("release", deletion.release_waiting),
    ("condemn", condemn.condemn),
    ("remove", remove.remove),
    ("remove traces", traces.remove_traces),
    ("close", receipts.close_finished),
    ("expire", expire.expire),
    ("expire objects", objects.expire),
    ("write traces", traces.write_traces),
    ("note rules", retention.note_waiting),
    ("note holds", branch_holds.note_waiting),
    ("retention", lambda resources: retention.run_due(resources, deletion.by_rule)),
    ("note names", access.note_names),
    ("mark", raise_mark),
    ("webhooks", webhooks.deliver),
)

_THREADS: tuple[tuple[str, ...], ...] = (
    (
        "journal",
        "release",
        "condemn",
        "remove",
        "remove traces",
        "expire",
        "expire objects",
        "write traces",
        "note names",
        "mark",
    ),
    # Apart: however long the store is asked about one deletion's objects, those of all others leave it meanwhile.
    ("close",),
    # Apart: nobody waits for a rule, and nobody should wait because of one.
    ("note rules", "note holds", "retention"),
    # Apart: whoever is told may be slow to answer.
    ("webhooks",),
)
