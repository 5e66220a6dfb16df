"""The one door to native image code: pairs of files in, counts and masks out, worked on by child processes.

No image is decoded in the calling process, and no file, however broken, raises an exception here.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pebble import ProcessExpired, ProcessPool

from snapshed.engine import children, exchange
from snapshed.engine.tasks import DiffResult, DiffTask, Limits, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pebble import ProcessFuture

__all__ = ["DiffResult", "DiffTask", "Engine", "Reason"]

MOST_PIXELS = 40_000_000
"""The largest canvas that is compared; an image is refused above it before it is decoded."""
SECONDS_PER_PAIR = 60.0
MEMORY_PER_CHILD = 2 * 2**30
PAIRS_WORTH_A_CHILD = 10

# How many pairs wait with each child: enough to keep it busy, few enough that a caller may produce them one by one.
_AHEAD = 2
# How often a pair may meet a pool that breaks around it before we believe that the pair breaks the pool.
_ATTEMPTS = 3


class Engine:
    """Compares pairs in `workers` child processes, each pair within `seconds_per_pair` and `memory_bytes`.

    Children are started by the first pair and replaced when they die. May be shared by threads.
    """

    # Two results are comparable only if this string is the same: library and version, anti-aliasing, colour threshold,
    # and our own revision of what is handed over and what is told about a change.
    ALGORITHM = f"blazediff-{importlib.metadata.version('blazediff')}/aa/0.01/2"

    def __init__(self, *, workers: int, seconds_per_pair: float, memory_bytes: int, max_pixels: int) -> None:
        self._workers = workers
        self._seconds = seconds_per_pair
        self._limits = Limits(max_pixels=max_pixels, memory_bytes=memory_bytes)
        self._lock = threading.Lock()
        self._crew: _Crew | None = None
        self._closed = False

    @classmethod
    def on_this_machine(cls, pairs: int | None = None) -> Self:
        """An engine with a child a core, and the limits that hold on servers and on developers' machines alike. Who knows
        that there are few `pairs` gets fewer children: starting one costs as much as comparing some twenty."""
        children = max(1, os.cpu_count() or 1)
        return cls(
            workers=children if pairs is None else max(1, min(children, pairs // PAIRS_WORTH_A_CHILD)),
            seconds_per_pair=SECONDS_PER_PAIR,
            memory_bytes=MEMORY_PER_CHILD,
            max_pixels=MOST_PIXELS,
        )

    def diff(self, tasks: Iterable[DiffTask]) -> Iterator[DiffResult]:
        """One result for each task, in order of completion. Tasks are taken from the iterable only as they are needed.

        A consumer that stops early cancels what it has not yet received.
        """
        source = iter(tasks)
        flying: dict[ProcessFuture[DiffResult], _Flight] = {}
        try:
            while True:
                while len(flying) < self._workers * _AHEAD and (task := next(source, None)) is not None:
                    self._launch(task, 1, flying)
                if not flying:
                    return
                # The time limit is for pools that stop without telling their futures.
                wait(flying, timeout=1.0, return_when=FIRST_COMPLETED)
                landed = [future for future in flying if future.done()]
                for future in landed or [future for future, flight in flying.items() if self._is_lost(flight.crew)]:
                    flight = flying.pop(future)
                    if (result := _outcome(future, flight)) is not None:
                        flight.crew.progress()
                        yield result
                    else:
                        self._launch(flight.task, flight.attempt + 1, flying)
        finally:
            for future in flying:
                future.cancel()

    def close(self) -> None:
        """End all children. Pairs being compared are given up; repeating it changes nothing."""
        with self._lock:
            self._closed = True
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.dismiss()

    def abandon(self) -> None:
        """Take the folder of links away although a close hangs. Only for a process that exits at once: the kernel then
        ends its children."""
        for folder in list(_folders):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _launch(self, task: DiffTask, attempt: int, flying: dict[ProcessFuture[DiffResult], _Flight]) -> None:
        while True:
            crew = self._ready_crew()
            try:
                future = crew.pool.schedule(children.run, args=(task,), timeout=self._seconds)
            except RuntimeError:  # it broke, or was dismissed, since we looked
                self._replace(crew)
            else:
                flying[future] = _Flight(task, crew, attempt)
                return

    def _ready_crew(self) -> _Crew:
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if self._crew is None:
                self._crew = _Crew(self._workers, self._limits)
            return self._crew

    def _is_lost(self, crew: _Crew) -> bool:
        """Whether a crew will never answer again; if so, the next pair finds a new one."""
        # Each child must finish or be stopped within the limit; what comes on top is for stopping one and starting one.
        stalled = crew.seconds_since_progress() > 2 * self._seconds + 30
        if crew is not self._crew or stalled or not crew.pool.active:
            self._replace(crew)
            return True
        return False

    def _replace(self, crew: _Crew) -> None:
        with self._lock:
            if self._crew is crew:
                self._crew = None
        crew.dismiss()


_folders: set[Path] = set()
"""Folders of links that this process has not removed yet."""


class _Crew:
    """One pool of children, its folder of links, and the thread that started them.

    The kernel ends a child when the thread that started it ends, so a thread of our own has to stay for as long as the
    children do: the caller's may be a short-lived one. Of a parent that is killed only the folder remains, with three
    links that lead nowhere.
    """

    def __init__(self, workers: int, limits: Limits) -> None:
        self._links = Path(tempfile.mkdtemp(prefix="snapshed-engine-"))
        _folders.add(self._links)
        exchange.link(self._links)
        self.pool = ProcessPool(
            max_workers=workers,
            initializer=children.begin,
            initargs=(os.getpid(), self._links, limits),
            context=children.Spawn(),  # pyright: ignore[reportArgumentType]: the stub's Pipe is Windows' own
        )
        self._started = threading.Event()
        self._over = threading.Event()
        self._progressed_at = time.monotonic()
        self._keeper = threading.Thread(target=self._keep, name="snapshed-engine", daemon=True)
        self._keeper.start()
        self._started.wait()

    def progress(self) -> None:
        self._progressed_at = time.monotonic()

    def seconds_since_progress(self) -> float:
        return time.monotonic() - self._progressed_at

    def dismiss(self) -> None:
        """End the children and wait until they have ended; repeating it changes nothing."""
        self._over.set()
        self._keeper.join()

    def _keep(self) -> None:
        try:
            _ = self.pool.active  # asking starts it, in this thread
        finally:
            self._started.set()
        self._over.wait()
        self.pool.stop()
        self.pool.join()
        shutil.rmtree(self._links, ignore_errors=True)
        _folders.discard(self._links)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A task on its way: with whom, and for the how-manieth time."""

    task: DiffTask
    crew: _Crew
    attempt: int


def _outcome(future: ProcessFuture[DiffResult], flight: _Flight) -> DiffResult | None:
    """What became of a task; None when it has to be tried again.

    | the future has                  | the pair is                                                            |
    | a result                        | compared, or refused with a reason by the child                        |
    | TimeoutError                    | timed out; its child has been ended                                    |
    | ProcessExpired                  | the last thing a child did: crashed                                    |
    | a broken, stopped or lost pool  | innocent: tried again, then crashed                                    |
    | any other error                 | what the child could not foresee: no memory, no disk, a library's whim |

    Whatever is not a result leaves no mask: half of one may have been written.
    """
    error = future.exception() if future.done() and not future.cancelled() else BrokenProcessPool()
    if error is None:
        return future.result()
    name = flight.task.name
    flight.task.mask.unlink(missing_ok=True)
    match error:
        case BrokenProcessPool() if flight.attempt < _ATTEMPTS:
            future.cancel()
            return None
        case BrokenProcessPool() | ProcessExpired():
            return DiffResult(name, reason="crashed", detail="the process that compared the images ended unexpectedly")
        case TimeoutError():
            return DiffResult(name, reason="timed_out", detail="comparing the images took too long")
        case MemoryError():
            detail = "comparing the images needs more memory than is allowed"
        case OSError():
            detail = "a file could not be read or written"
        case _:
            detail = f"the images could not be compared ({type(error).__name__})"
    return DiffResult(name, reason="image_processing_failed", detail=detail)
